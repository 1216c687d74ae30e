/* Replay buffers as a C program sees them: every operation, verdict and refusal, on every store.
   usage: replay cases STORE | away STORE PROCESS | absent | bad | bounds | threads
   STORE: memory, sqlite:PATH, redis://... */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include "tap.h"

#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <reconnect.h>
#include <stdatomic.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KEPT = 256 };

typedef struct {
    reconnect_replay_t replay;
    uint64_t last_tag;
    /* Events that were taken and not asked for yet; their batches are given back at the end. */
    reconnect_replay_event_t kept[KEPT];
    size_t count;
    uint64_t batches[4096];
    size_t batch_count;
} host_t;

static reconnect_replay_config_t defaults(void) {
    reconnect_replay_config_t config;
    memset(&config, 0, sizeof config);
    config.struct_size = sizeof config;
    config.store_timeout_ms = 10000; /* no test depends on how fast a store is */
    return config;
}

static int start(host_t *host, const reconnect_replay_config_t *config) {
    char detail[256] = "";
    memset(host, 0, sizeof *host);
    reconnect_status_t status = reconnect_replay_create(config, &host->replay, detail, sizeof detail);
    return check(status == RECONNECT_OK, "a replay buffer: %s %s", reconnect_status_name(status), detail);
}

static void stop(host_t *host) {
    for (size_t index = 0; index < host->batch_count; index++) {
        reconnect_replay_release(host->replay, host->batches[index]);
    }
    check(reconnect_replay_destroy(host->replay) == RECONNECT_OK, "its end");
}

static reconnect_replay_operation_t operation(uint32_t type, const char *room, const char *user) {
    reconnect_replay_operation_t given;
    memset(&given, 0, sizeof given);
    given.type = type;
    given.room = room;
    given.room_size = room == NULL ? 0 : strlen(room);
    given.user = user;
    given.user_size = user == NULL ? 0 : strlen(user);
    return given;
}

/* Takes events until one of this type (and tag, if it is not zero) comes. */
static reconnect_replay_event_t expect(host_t *host, uint32_t type, uint64_t tag) {
    reconnect_replay_event_t none;
    for (int turn = 0; turn < 600; turn++) {
        for (size_t index = 0; index < host->count; index++) {
            reconnect_replay_event_t event = host->kept[index];
            if (event.type == type && (tag == 0 || event.tag == tag)) {
                memmove(&host->kept[index], &host->kept[index + 1], (host->count - index - 1) * sizeof event);
                host->count--;
                return event;
            }
        }
        size_t count = 0;
        reconnect_status_t status = reconnect_replay_poll(host->replay, host->kept + host->count, sizeof *host->kept,
                                                          KEPT - host->count, 50, &count);
        if (status != RECONNECT_OK) {
            printf("# reconnect_replay_poll: %s\n", reconnect_status_name(status));
            break;
        }
        if (count > 0) {
            host->batches[host->batch_count++] = host->kept[host->count].batch;
            host->count += count;
        }
    }
    memset(&none, 0, sizeof none);
    none.status = RECONNECT_INTERNAL;
    check(0, "an event of type %u with tag %llu", (unsigned)type, (unsigned long long)tag);
    return none;
}

/* Hands one operation in and waits for its outcome. */
static reconnect_replay_event_t done(host_t *host, reconnect_replay_operation_t given) {
    char detail[256] = "";
    size_t taken = 9;
    given.tag = ++host->last_tag;
    reconnect_status_t status =
        reconnect_replay_submit(host->replay, &given, sizeof given, 1, &taken, detail, sizeof detail);
    if (status != RECONNECT_OK || taken != 1) {
        reconnect_replay_event_t none;
        memset(&none, 0, sizeof none);
        none.status = status;
        check(0, "operation %u is taken: %s %s", (unsigned)given.type, reconnect_status_name(status), detail);
        return none;
    }
    return expect(host, given.type, given.tag);
}

static reconnect_replay_event_t join(host_t *host, const char *room, const char *user) {
    return done(host, operation(RECONNECT_REPLAY_JOIN, room, user));
}

static reconnect_replay_event_t rejoin(host_t *host, const char *room, const char *user, const char *position,
                                       size_t position_size, reconnect_replay_event_t token) {
    reconnect_replay_operation_t given = operation(RECONNECT_REPLAY_JOIN, room, user);
    given.flags = RECONNECT_REPLAY_RESUME;
    given.position = position;
    given.position_size = position_size;
    given.token = token.token;
    given.token_size = token.token_size;
    return done(host, given);
}

static reconnect_replay_event_t say(host_t *host, const char *room, const char *user, const char *to, const char *text) {
    reconnect_replay_operation_t given = operation(RECONNECT_REPLAY_PUBLISH, room, user);
    given.to = to;
    given.to_size = to == NULL ? 0 : strlen(to);
    given.data = text;
    given.size = strlen(text);
    return done(host, given);
}

static reconnect_replay_event_t with(host_t *host, uint32_t type, const char *room, const char *user,
                                     uint64_t generation) {
    reconnect_replay_operation_t given = operation(type, room, user);
    given.generation = generation;
    return done(host, given);
}

static int is(const reconnect_replay_message_t *message, const char *text) {
    return message->size == strlen(text) && memcmp(message->data, text, message->size) == 0;
}

static int named(const char *bytes, size_t size, const char *text) {
    return size == strlen(text) && memcmp(bytes, text, size) == 0;
}

/* ------------------------------------------------------------------ cases */

static void run_cases(const char *store) {
    static host_t host;
    reconnect_replay_config_t config = defaults();
    reconnect_replay_event_t event, ann, bob, again;
    char text[64];
    config.store = strcmp(store, "memory") == 0 ? NULL : store;
    config.window = 8;
    config.max_batch = 6;
    config.max_message_size = 1000;
    if (!start(&host, &config)) {
        return;
    }
    event = done(&host, operation(RECONNECT_REPLAY_SUBSCRIBE, "lobby", NULL));
    check(event.status == RECONNECT_OK, "subscribed before anybody is there");
    check(say(&host, "lobby", NULL, NULL, "x").status == RECONNECT_UNKNOWN_ROOM, "nobody is there: UNKNOWN_ROOM");
    ann = join(&host, "lobby", "ann");
    check(ann.status == RECONNECT_OK && ann.verdict == RECONNECT_FRESH && ann.sequence == 0, "the first is fresh");
    check(ann.position_size == 32 && ann.token_size == 22 && ann.generation != 0 && ann.flags == 0,
          "it has position, token and generation");
    check(ann.messages != NULL && ann.data != NULL && ann.room != NULL && ann.to != NULL, "texts are never NULL");
    bob = join(&host, "lobby", "bob");
    check(say(&host, "lobby", "eve", NULL, "x").status == RECONNECT_UNKNOWN_USER, "a stranger: UNKNOWN_USER");
    check(say(&host, "lobby", "ann", "eve", "x").status == RECONNECT_UNKNOWN_RECIPIENT,
          "to a stranger: UNKNOWN_RECIPIENT");
    {
        reconnect_replay_operation_t given = operation(RECONNECT_REPLAY_PUBLISH, "lobby", "ann");
        static char large[1001];
        given.data = large;
        given.size = sizeof large;
        check(done(&host, given).status == RECONNECT_TOO_LARGE, "a large message: TOO_LARGE");
    }
    event = say(&host, "lobby", "ann", NULL, "one");
    check(event.status == RECONNECT_OK && event.sequence == 1 && event.position_size == 32, "number 1");
    event = expect(&host, RECONNECT_REPLAY_EVENT_MESSAGE, 0);
    check(event.sequence == 1 && named(event.room, event.room_size, "lobby") &&
              named(event.user, event.user_size, "ann") && event.to_size == 0 &&
              named(event.data, event.size, "one") && event.format == RECONNECT_TEXT && event.position_size == 32,
          "it comes live");

    event = with(&host, RECONNECT_REPLAY_DROP, "lobby", "bob", bob.generation);
    check(event.status == RECONNECT_OK, "the connection ends");
    event = done(&host, operation(RECONNECT_REPLAY_STATE, "lobby", "bob"));
    check(event.status == RECONNECT_OK && event.state != NULL && event.state->connected == 0 &&
              event.state->connections == 1 && event.state->last_seen_ms > INT64_C(1500000000000),
          "its state");
    say(&host, "lobby", "ann", "bob", "two");
    {
        reconnect_replay_operation_t given = operation(RECONNECT_REPLAY_PUBLISH, "lobby", "ann");
        given.data = "\xff\x00";
        given.size = 2;
        given.format = RECONNECT_BINARY;
        given.kind = RECONNECT_REPLAY_OFFER;
        given.negotiation = 7;
        given.key = "k1";
        given.key_size = 2;
        event = done(&host, given);
        check(event.sequence == 3 && event.flags == 0, "number 3, with a key");
        event = done(&host, given);
        check(event.sequence == 3 && event.flags == RECONNECT_REPLAY_DUPLICATE, "the same key again: DUPLICATE");
    }
    again = rejoin(&host, "lobby", "bob", bob.position, bob.position_size, bob);
    check(again.status == RECONNECT_OK && again.verdict == RECONNECT_RECOVERED && again.message_count == 3 &&
              again.flags == RECONNECT_REPLAY_RECONNECTION && again.disconnect_ms >= 0 && again.replaced == 0 &&
              again.sequence == 3,
          "back: recovered with three messages");
    if (again.message_count == 3) {
        check(is(&again.messages[0], "one") && again.messages[0].sequence == 1, "the first");
        check(is(&again.messages[1], "two") && again.messages[1].format == RECONNECT_TEXT, "the one for it alone");
        check(again.messages[2].size == 2 && again.messages[2].format == RECONNECT_BINARY &&
                  again.messages[2].kind == RECONNECT_REPLAY_OFFER && again.messages[2].negotiation == 7,
              "the binary one");
    }
    check(with(&host, RECONNECT_REPLAY_DROP, "lobby", "bob", bob.generation).status == RECONNECT_STALE,
          "the old connection's end changes nothing: STALE");
    {
        reconnect_replay_operation_t given = operation(RECONNECT_REPLAY_RECOVER, "lobby", "bob");
        given.generation = again.generation;
        given.position = again.position;
        given.position_size = again.position_size;
        event = done(&host, given);
        check(event.verdict == RECONNECT_RECOVERED_EMPTY && event.message_count == 0, "nothing missed: recovered empty");
        given.type = RECONNECT_REPLAY_ACKNOWLEDGE;
        check(done(&host, given).status == RECONNECT_OK, "acknowledged");
        given.position = "nonsense";
        given.position_size = 8;
        check(done(&host, given).status == RECONNECT_INVALID_ARGUMENT, "no position: INVALID_ARGUMENT");
        given.type = RECONNECT_REPLAY_RECOVER;
        event = done(&host, given);
        check(event.verdict == RECONNECT_LOST && event.reason == RECONNECT_LOST_EPOCH &&
                  event.problem == RECONNECT_MALFORMED_POSITION,
              "a malformed position");
        given.position = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        given.position_size = 32;
        event = done(&host, given);
        check(event.verdict == RECONNECT_LOST && event.problem == RECONNECT_FORGED_POSITION, "a forged position");
        given.user = "eve";
        given.user_size = 3;
        check(done(&host, given).status == RECONNECT_UNKNOWN_USER, "a stranger's: UNKNOWN_USER");
        given.room = "nowhere";
        given.room_size = 7;
        check(done(&host, given).status == RECONNECT_UNKNOWN_ROOM, "of no room: UNKNOWN_ROOM");
    }
    ann = rejoin(&host, "lobby", "ann", ann.position, ann.position_size, ann);
    check(ann.replaced != 0, "back before the end was noticed: the old connection is named");
    event = rejoin(&host, "lobby", "bob", again.position, again.position_size, ann);
    check(event.verdict == RECONNECT_LOST && event.problem == RECONNECT_WRONG_TOKEN, "another's token");
    bob = event;
    for (int index = 0; index < 7; index++) {
        snprintf(text, sizeof text, "m%d", index);
        say(&host, "lobby", "ann", NULL, text);
    }
    event = rejoin(&host, "lobby", "bob", bob.position, bob.position_size, bob);
    check(event.verdict == RECONNECT_LOST && event.reason == RECONNECT_LOST_LIMIT, "more than max_batch: LIMIT");
    for (int index = 0; index < 9; index++) {
        say(&host, "lobby", "ann", NULL, "more");
    }
    event = rejoin(&host, "lobby", "bob", bob.position, bob.position_size, event);
    check(event.verdict == RECONNECT_LOST && event.reason == RECONNECT_LOST_TRIMMED, "more than the window: TRIMMED");
    {
        reconnect_replay_event_t other = join(&host, "elsewhere", "bob");
        event = rejoin(&host, "elsewhere", "bob", event.position, event.position_size, other);
        check(event.verdict == RECONNECT_LOST && event.problem == RECONNECT_FOREIGN_POSITION, "another room's position");
        check(with(&host, RECONNECT_REPLAY_LEAVE, "elsewhere", "bob", event.generation).status == RECONNECT_OK, "left");
        check(done(&host, operation(RECONNECT_REPLAY_STATE, "elsewhere", "bob")).status == RECONNECT_UNKNOWN_ROOM,
              "the last one took the room along");
    }
    {
        reconnect_replay_operation_t given = operation(RECONNECT_REPLAY_QUALITY, "lobby", "ann");
        given.latency_ms = 500;
        given.loss_percent = given.jitter_ms = given.bandwidth_kbps = -1;
        event = done(&host, given);
        check(event.status == RECONNECT_OK && event.quality == RECONNECT_QUALITY_POOR && event.size > 20, "poor: %.*s",
              (int)event.size, (const char *)event.data);
        given.latency_ms = NAN;
        check(done(&host, given).status == RECONNECT_INVALID_ARGUMENT, "what cannot be: INVALID_ARGUMENT");
        event = done(&host, operation(RECONNECT_REPLAY_STATE, "lobby", "ann"));
        check(event.state != NULL && event.state->quality == RECONNECT_QUALITY_POOR && event.state->connected == 1,
              "the state has it");
    }
    check(done(&host, operation(RECONNECT_REPLAY_UNSUBSCRIBE, "lobby", NULL)).status == RECONNECT_OK, "unsubscribed");
    check(done(&host, operation(RECONNECT_REPLAY_UNSUBSCRIBE, "lobby", NULL)).status == RECONNECT_WRONG_STATE,
          "twice: WRONG_STATE");
    {
        reconnect_replay_statistics_t statistics;
        char *metrics;
        size_t length = 0;
        memset(&statistics, 0, sizeof statistics);
        statistics.struct_size = sizeof statistics;
        check(reconnect_replay_statistics(host.replay, &statistics) == RECONNECT_OK &&
                  statistics.store == RECONNECT_STORE_PRESENT && statistics.published == 19 &&
                  statistics.duplicates == 1 && statistics.recovered == 1 &&
                  statistics.lost[RECONNECT_LOST_TRIMMED] == 1 && statistics.gaps == 0,
              "statistics: %llu published", (unsigned long long)statistics.published);
        check(statistics.messages_live >= 19, "%llu live", (unsigned long long)statistics.messages_live);
        check(reconnect_replay_metrics(host.replay, NULL, 0, &length) == RECONNECT_TOO_SMALL, "metrics: their length");
        metrics = malloc(length);
        check(reconnect_replay_metrics(host.replay, metrics, length, &length) == RECONNECT_OK &&
                  strstr(metrics, "reconnect_replay_published_total 19\n") != NULL &&
                  strstr(metrics, "reconnect_replay_recoveries_total{verdict=\"lost\",reason=\"trimmed\"} 1\n") != NULL,
              "metrics");
        free(metrics);
    }
    event = done(&host, operation(RECONNECT_REPLAY_JOIN, "lobby", "bob"));
    char position[32], token[22];
    memcpy(position, event.position, sizeof position);
    memcpy(token, event.token, sizeof token);
    stop(&host);
    if (config.store == NULL) {
        return;
    }

    /* What is in a store stays there, and so does the secret. */
    if (!start(&host, &config)) {
        return;
    }
    bob.token = token;
    event = rejoin(&host, "lobby", "bob", position, sizeof position, bob);
    check(event.flags & RECONNECT_REPLAY_RECONNECTION && event.verdict == RECONNECT_RECOVERED_EMPTY,
          "another process knows the user, and the position");
    join(&host, "lobby", "ann");
    event = say(&host, "lobby", "ann", NULL, "after all");
    check(event.sequence == 20, "its numbers go on: %llu", (unsigned long long)event.sequence);
    stop(&host);
}

/* The store goes away and comes back: `store` is stopped and continued by its process number. */
static void run_away(const char *store, pid_t server) {
    static host_t host;
    reconnect_replay_config_t config = defaults();
    reconnect_replay_event_t event, ann;
    config.store = store;
    config.store_timeout_ms = 100;
    config.breaker_operations = 3;
    config.breaker_open_ms = 50;
    if (!start(&host, &config)) {
        return;
    }
    check(done(&host, operation(RECONNECT_REPLAY_SUBSCRIBE, "away", NULL)).status == RECONNECT_OK, "subscribed");
    ann = join(&host, "away", "ann");
    check(say(&host, "away", "ann", NULL, "stored").flags == 0, "a message in the store");
    kill(server, SIGSTOP);
    for (int index = 0; index < 4; index++) {
        event = say(&host, "away", "ann", NULL, "meanwhile");
        check(event.status == RECONNECT_OK && event.flags & RECONNECT_REPLAY_DEGRADED, "the server hangs: DEGRADED");
    }
    join(&host, "away", "bob");
    kill(server, SIGCONT);
    event = expect(&host, RECONNECT_REPLAY_EVENT_GAP, 0);
    check(named(event.room, event.room_size, "away") && event.reason != 0, "a gap, reason %u", (unsigned)event.reason);
    event = expect(&host, RECONNECT_REPLAY_EVENT_RETURNED, 0);
    check(named(event.user, event.user_size, "bob") && event.replaced != 0, "the connection of meanwhile is taken over");
    do {
        event = rejoin(&host, "away", "ann", ann.position, ann.position_size, ann);
    } while (event.status == RECONNECT_OK && event.flags & RECONNECT_REPLAY_DEGRADED);
    check(event.verdict == RECONNECT_LOST, "who was there before has lost: reason %u", (unsigned)event.reason);
    check(say(&host, "away", "ann", NULL, "stored again").flags == 0, "a message in the store");
    stop(&host);
}

/* Whether an event is of a breaker's change is not certain for a slow machine; a server that was never there is. */
static void run_absent(void) {
    static host_t host;
    reconnect_replay_config_t config = defaults();
    reconnect_replay_event_t event;
    config.store = "redis://127.0.0.1:1";
    config.store_timeout_ms = 20;
    config.breaker_operations = 2;
    config.breaker_open_ms = 60000;
    if (!start(&host, &config)) {
        return;
    }
    event = join(&host, "room", "ann");
    check(event.status == RECONNECT_OK && event.flags & RECONNECT_REPLAY_DEGRADED, "without a server: DEGRADED");
    join(&host, "other", "ann");
    join(&host, "third", "ann");
    event = expect(&host, RECONNECT_REPLAY_EVENT_STORE, 0);
    check(event.number == RECONNECT_STORE_AWAY && event.size > 10, "the store is away: %.*s", (int)event.size,
          (const char *)event.data);
    event = expect(&host, RECONNECT_REPLAY_EVENT_LOG, 0);
    check(event.number == RECONNECT_LOG_WARNING && strncmp(event.data, "[REPLAY] Store=away", 19) == 0, "%.*s",
          (int)event.size, (const char *)event.data);
    event = done(&host, operation(RECONNECT_REPLAY_SUBSCRIBE, "room", NULL));
    check(event.status == RECONNECT_OK && event.flags & RECONNECT_REPLAY_DEGRADED, "subscribed without a server");
    say(&host, "room", "ann", NULL, "hello");
    event = expect(&host, RECONNECT_REPLAY_EVENT_MESSAGE, 0);
    check(event.sequence == 1 && event.flags & RECONNECT_REPLAY_DEGRADED, "live all the same");
    stop(&host);
}

/* -------------------------------------------------------------- bad input */

static host_t bad_host;

static void refuses(reconnect_replay_operation_t given, size_t size, const char *word, const char *what) {
    char detail[256];
    size_t taken = 9;
    memset(detail, 0x7f, sizeof detail);
    reconnect_status_t status =
        reconnect_replay_submit(bad_host.replay, &given, size, 1, &taken, detail, sizeof detail);
    check(status == RECONNECT_INVALID_ARGUMENT && taken == 0 && memchr(detail, 0, sizeof detail) != NULL &&
              strstr(detail, word) != NULL,
          "%s: %s: %.200s", what, reconnect_status_name(status), detail);
}

static void refuses_config(reconnect_replay_config_t config, reconnect_status_t expected, const char *word,
                           const char *what) {
    char detail[256] = "";
    reconnect_replay_t replay = {42};
    reconnect_status_t status = reconnect_replay_create(&config, &replay, detail, sizeof detail);
    check(status == expected && replay.id == 42 && strstr(detail, word) != NULL, "%s: %s: %s", what,
          reconnect_status_name(status), detail);
}

static void run_compression(void) {
    static host_t host;
    static char text[601];
    reconnect_replay_config_t config = defaults();
    reconnect_replay_event_t bob, event;
    reconnect_replay_operation_t given = operation(RECONNECT_REPLAY_RECOVER, "room", "bob");
    memset(text, 'x', sizeof text - 1);
    config.compression = 1;
    if (!start(&host, &config)) {
        return;
    }
    done(&host, operation(RECONNECT_REPLAY_SUBSCRIBE, "room", NULL));
    join(&host, "room", "ann");
    bob = join(&host, "room", "bob");
    say(&host, "room", "ann", NULL, text);
    event = expect(&host, RECONNECT_REPLAY_EVENT_MESSAGE, 0);
    check(named(event.data, event.size, text), "compressed, it comes live as it was");
    given.generation = bob.generation;
    given.position = bob.position;
    given.position_size = bob.position_size;
    event = done(&host, given);
    check(event.verdict == RECONNECT_RECOVERED && event.message_count == 1 && is(&event.messages[0], text),
          "and is replayed as it was");
    stop(&host);
}

static void run_bad_configurations(void) {
    reconnect_replay_config_t config = defaults();
    reconnect_replay_t replay;
    check(reconnect_replay_create(NULL, NULL, NULL, 0) == RECONNECT_INVALID_ARGUMENT, "no place for the handle");
#define WRONG(set, status, word)                       \
    do {                                               \
        config = defaults();                           \
        config.set;                                    \
        refuses_config(config, status, word, #set);    \
    } while (0)
    WRONG(struct_size = 0, RECONNECT_INVALID_ARGUMENT, "struct_size");
    WRONG(window = 65537, RECONNECT_INVALID_ARGUMENT, "window");
    WRONG(max_window = 65537, RECONNECT_INVALID_ARGUMENT, "max_window");
    WRONG(max_message_size = 16777217, RECONNECT_INVALID_ARGUMENT, "max_message_size");
    WRONG(max_batch_bytes = UINT32_MAX, RECONNECT_INVALID_ARGUMENT, "max_batch_bytes");
    WRONG(max_bytes = UINT64_MAX, RECONNECT_INVALID_ARGUMENT, "max_bytes");
    WRONG(breaker_percent = 101, RECONNECT_INVALID_ARGUMENT, "breaker_percent");
    WRONG(durability = 2, RECONNECT_INVALID_ARGUMENT, "durability");
    WRONG(secret_size = 16, RECONNECT_INVALID_ARGUMENT, "secret");
    WRONG(latency_ms[0] = NAN, RECONNECT_INVALID_ARGUMENT, "latency_ms");
    WRONG(bandwidth_kbps[1] = -1, RECONNECT_INVALID_ARGUMENT, "bandwidth_kbps");
    WRONG(hysteresis = INFINITY, RECONNECT_INVALID_ARGUMENT, "hysteresis");
    WRONG(store = "", RECONNECT_INVALID_ARGUMENT, "store");
    WRONG(store = "mysql://x", RECONNECT_INVALID_ARGUMENT, "store");
    WRONG(store = "sqlite:", RECONNECT_INVALID_ARGUMENT, "store");
    WRONG(store = "\xff\xfe", RECONNECT_INVALID_ARGUMENT, "store");
    WRONG(store = "sqlite:/nowhere/at/all", RECONNECT_STORAGE, "store");
    config = defaults();
    config.secret = "too short";
    config.secret_size = 9;
    refuses_config(config, RECONNECT_INVALID_ARGUMENT, "secret", "a short secret");
    config = defaults();
    config.store = "redis://127.0.0.1:1";
    config.prefix = "a{b";
    refuses_config(config, RECONNECT_INVALID_ARGUMENT, "prefix", "a brace in the prefix");
    check(reconnect_replay_create_from_env(NULL, &replay, NULL, 0) == RECONNECT_OK &&
              reconnect_replay_destroy(replay) == RECONNECT_OK,
          "from the environment");
    setenv("REDIS_URL", "nonsense", 1);
    check(reconnect_replay_create_from_env(NULL, &replay, NULL, 0) == RECONNECT_INVALID_ARGUMENT, "REDIS_URL is nonsense");
    unsetenv("REDIS_URL");
}

static void run_bad(void) {
    static char huge[1 << 21];
    reconnect_replay_config_t config = defaults();
    reconnect_replay_operation_t given, good;
    size_t taken = 9, count = 9;
    const size_t size = sizeof given;
    run_bad_configurations();
    run_compression();
    if (!start(&bad_host, &config)) {
        return;
    }
    join(&bad_host, "room", "ann");
    good = operation(RECONNECT_REPLAY_PUBLISH, "room", "ann");
#define BAD(set, word)                     \
    do {                                   \
        given = good;                      \
        given.set;                         \
        refuses(given, size, word, #set);  \
    } while (0)
    BAD(type = 0, "type");
    BAD(type = 11, "type");
    BAD(type = 32, "type");
    BAD(type = UINT32_MAX, "type");
    BAD(flags = 4, "flags");
    BAD(flags = UINT32_MAX, "flags");
    BAD(format = 3, "format");
    BAD(kind = 4, "kind");
    BAD(kind = 256, "kind");
    BAD(room = NULL, "room");
    BAD(room_size = 0, "room");
    BAD(room_size = SIZE_MAX, "room");
    BAD(user_size = SIZE_MAX, "user");
    BAD(size = 1, "data is NULL");
    given = good;
    given.data = "\xff\xfe";
    given.size = 2;
    refuses(given, size, "UTF-8", "a text that is not UTF-8");
    given.size = SIZE_MAX;
    refuses(given, size, "data", "a size that cannot be");
    memset(huge, 'x', sizeof huge);
    given = good;
    given.key = huge;
    given.key_size = 1025;
    refuses(given, size, "key", "a long key");
    for (int kind = 1; kind <= 10; kind++) {
        given = operation((uint32_t)kind, "ro{om", "ann");
        given.position = "x";
        given.position_size = 1;
        refuses(given, size, "room", "a brace");
        given.room = "ro\nom";
        refuses(given, size, "room", "a control character");
        given.room = "\xff\xfe\xfd\xfc";
        given.room_size = 4;
        refuses(given, size, "room", "not UTF-8");
        given.room = huge;
        given.room_size = sizeof huge;
        refuses(given, size, "room", "two megabytes");
        if (kind == 9 || kind == 10) {
            continue;
        }
        given = operation((uint32_t)kind, "room", "a\x7f");
        given.position = "x";
        given.position_size = 1;
        refuses(given, size, "user", "a user with a control character");
        if (kind > 1) {
            given.user_size = 0;
            refuses(given, size, "user", "no user");
        }
    }
    given = good;
    given.to = "a\x1b";
    given.to_size = 2;
    refuses(given, size, "to ", "a recipient with a control character");
    refuses(operation(RECONNECT_REPLAY_ACKNOWLEDGE, "room", "ann"), size, "position", "no position");
    given = operation(RECONNECT_REPLAY_JOIN, "room", "ann");
    given.flags = RECONNECT_REPLAY_PRIORITY;
    refuses(given, size, "flags", "another operation's flag");
    refuses(good, 0, "operation_size", "no size");
    refuses(good, 15, "operation_size", "a small size");
    refuses(good, SIZE_MAX, "operation_size", "a size that cannot be");
    {
        /* A later version's operations: what is beyond must be zero. */
        struct { reconnect_replay_operation_t known; uint64_t more; } later[2];
        memset(later, 0, sizeof later);
        later[0].known = good;
        later[1].known = good;
        later[1].more = 1;
        check(reconnect_replay_submit(bad_host.replay, &later[0].known, sizeof later[0], 2, &taken, NULL, 0) ==
                      RECONNECT_INVALID_ARGUMENT &&
                  taken == 1,
              "larger operations: the first has nothing that is not known");
    }
    check(reconnect_replay_submit(bad_host.replay, NULL, size, 1, &taken, NULL, 0) == RECONNECT_INVALID_ARGUMENT &&
              taken == 0,
          "no operations");
    check(reconnect_replay_submit(bad_host.replay, NULL, size, 0, NULL, NULL, 0) == RECONNECT_OK, "nothing to do");
    check(reconnect_replay_submit(bad_host.replay, &good, size, SIZE_MAX, &taken, NULL, 0) == RECONNECT_INVALID_ARGUMENT,
          "more than there can be");
    {
        reconnect_replay_event_t event;
        check(reconnect_replay_poll(bad_host.replay, NULL, sizeof event, 1, 0, &count) == RECONNECT_INVALID_ARGUMENT &&
                  reconnect_replay_poll(bad_host.replay, &event, sizeof event, 0, 0, &count) ==
                      RECONNECT_INVALID_ARGUMENT &&
                  reconnect_replay_poll(bad_host.replay, &event, 8, 1, 0, &count) == RECONNECT_INVALID_ARGUMENT &&
                  reconnect_replay_poll(bad_host.replay, &event, sizeof event, 1, 0, NULL) == RECONNECT_INVALID_ARGUMENT &&
                  count == 9,
              "bad polls");
        check(reconnect_replay_release(bad_host.replay, 12345) == RECONNECT_INVALID_ARGUMENT, "no such batch");
    }
    fflush(stdout);
    {
        pid_t child = fork();
        int code = 1;
        if (child == 0) {
            _exit(reconnect_replay_submit(bad_host.replay, &good, size, 1, NULL, NULL, 0) == RECONNECT_FORKED ? 0 : 1);
        }
        check(waitpid(child, &code, 0) == child && code == 0, "in a child: FORKED");
    }
    reconnect_replay_t replay = bad_host.replay;
    stop(&bad_host);
    check(reconnect_replay_submit(replay, &good, size, 1, NULL, NULL, 0) == RECONNECT_INVALID_HANDLE &&
              reconnect_replay_destroy(replay) == RECONNECT_INVALID_HANDLE &&
              reconnect_replay_release(replay, 1) == RECONNECT_INVALID_HANDLE,
          "a stale handle");
}

/* ----------------------------------------------------------------- bounds */

static void run_bounds(void) {
    static host_t host;
    reconnect_replay_config_t config = defaults();
    reconnect_replay_operation_t given[8];
    reconnect_replay_event_t events[8];
    char detail[256] = "";
    size_t taken = 0, count = 0;
    config.max_pending = 5;
    config.max_bytes = 1 << 20;
    if (!start(&host, &config)) {
        return;
    }
    for (int index = 0; index < 8; index++) {
        given[index] = operation(RECONNECT_REPLAY_JOIN, "room", "ann");
        given[index].tag = (uint64_t)index;
    }
    check(reconnect_replay_submit(host.replay, given, sizeof *given, 8, &taken, detail, sizeof detail) ==
                  RECONNECT_WOULD_BLOCK &&
              taken == 5,
          "max_pending: %zu were taken: %s", taken, detail);
    struct pollfd readable = {0, POLLIN, 0};
    check(reconnect_replay_event_fd(host.replay, &readable.fd) == RECONNECT_OK && poll(&readable, 1, 0) == 1,
          "the descriptor is readable");
    check(reconnect_replay_poll(host.replay, events, sizeof *events, 2, 0, &count) == RECONNECT_OK && count == 2 &&
              events[0].tag == 0 && events[1].tag == 1,
          "two of them");
    check(poll(&readable, 1, 0) == 1, "still readable");
    check(reconnect_replay_release(host.replay, events[0].batch) == RECONNECT_OK, "given back");
    check(reconnect_replay_release(host.replay, events[0].batch) == RECONNECT_INVALID_ARGUMENT, "only once");
    check(reconnect_replay_submit(host.replay, given, sizeof *given, 8, &taken, NULL, 0) == RECONNECT_WOULD_BLOCK &&
              taken == 2,
          "two more");
    while (reconnect_replay_poll(host.replay, events, sizeof *events, 8, 0, &count) == RECONNECT_OK && count > 0) {
        reconnect_replay_release(host.replay, events[0].batch);
    }
    check(poll(&readable, 1, 0) == 0, "nothing waits, and it is not readable");
    check(reconnect_replay_poll(host.replay, events, sizeof *events, 8, 0, &count) == RECONNECT_OK && count == 0,
          "nothing");

    /* Batches that nobody gives back. */
    static char text[60000];
    memset(text, 'x', sizeof text);
    reconnect_replay_operation_t listen = operation(RECONNECT_REPLAY_SUBSCRIBE, "room", NULL);
    reconnect_replay_submit(host.replay, &listen, sizeof listen, 1, NULL, NULL, 0);
    reconnect_status_t status = RECONNECT_OK;
    int turns = 0;
    uint64_t batches[200];
    size_t kept = 0;
    for (; turns < 100 && status == RECONNECT_OK; turns++) {
        given[0] = operation(RECONNECT_REPLAY_PUBLISH, "room", "ann");
        given[0].data = text;
        given[0].size = sizeof text;
        status = reconnect_replay_submit(host.replay, given, sizeof *given, 1, &taken, detail, sizeof detail);
        while (reconnect_replay_poll(host.replay, events, sizeof *events, 1, 0, &count) == RECONNECT_OK && count > 0) {
            batches[kept++] = events[0].batch;
        }
    }
    check(status == RECONNECT_WOULD_BLOCK && turns > 10 && turns < 30, "max_bytes of batches: %d turns: %s", turns, detail);
    for (size_t index = 0; index < kept; index++) {
        reconnect_replay_release(host.replay, batches[index]);
    }
    check(reconnect_replay_submit(host.replay, given, sizeof *given, 1, &taken, NULL, 0) == RECONNECT_OK,
          "given back: it goes on");

    /* The ends of structs: a host of an earlier version has shorter events. */
    unsigned char shorter[2][40];
    memset(shorter, 0xA5, sizeof shorter);
    check(reconnect_replay_poll(host.replay, (reconnect_replay_event_t *)shorter, 32, 1, 0, &count) == RECONNECT_OK &&
              count == 1 && shorter[0][32] == 0xA5,
          "no more than event_size is written");
    stop(&host);
}

/* ---------------------------------------------------------------- threads */

enum { THREADS = 4, TURNS = 2000 };
static reconnect_replay_t shared;
static atomic_ulong handed_in, came_out;
static atomic_int all_in;

static void *submitting(void *context) {
    char user[16];
    snprintf(user, sizeof user, "user-%d", (int)(size_t)context);
    for (int turn = 0; turn < TURNS; turn++) {
        reconnect_replay_operation_t given[4];
        size_t taken = 0;
        given[0] = operation(RECONNECT_REPLAY_JOIN, "room", user);
        given[1] = operation(RECONNECT_REPLAY_PUBLISH, "room", user);
        given[1].data = "hello";
        given[1].size = 5;
        given[2] = operation(RECONNECT_REPLAY_STATE, "room", user);
        given[3] = operation(RECONNECT_REPLAY_DROP, "room", user);
        reconnect_replay_submit(shared, given, sizeof *given, 4, &taken, NULL, 0);
        atomic_fetch_add(&handed_in, taken);
    }
    return NULL;
}

static void *polling(void *context) {
    (void)context;
    for (;;) {
        reconnect_replay_event_t events[64];
        size_t count = 0;
        int last = atomic_load(&all_in);
        reconnect_status_t status = reconnect_replay_poll(shared, events, sizeof *events, 64, last ? 0 : 20, &count);
        if (status != RECONNECT_OK || (count == 0 && last)) {
            return NULL;
        }
        for (size_t index = 0; index < count; index++) {
            if (events[index].type < 32) {
                atomic_fetch_add(&came_out, 1);
            }
        }
        if (count > 0) {
            reconnect_replay_release(shared, events[0].batch);
        }
    }
}

static void *waiting(void *context) {
    reconnect_replay_event_t event;
    size_t count;
    do {
        *(reconnect_status_t *)context = reconnect_replay_poll(shared, &event, sizeof event, 1, -1, &count);
    } while (*(reconnect_status_t *)context == RECONNECT_OK);
    return NULL;
}

static void run_threads(void) {
    pthread_t submitters[THREADS], pollers[2];
    reconnect_replay_config_t config = defaults();
    check(reconnect_replay_create(&config, &shared, NULL, 0) == RECONNECT_OK, "a replay buffer");
    for (size_t index = 0; index < THREADS; index++) {
        pthread_create(&submitters[index], NULL, submitting, (void *)index);
    }
    for (size_t index = 0; index < 2; index++) {
        pthread_create(&pollers[index], NULL, polling, NULL);
    }
    for (size_t index = 0; index < THREADS; index++) {
        pthread_join(submitters[index], NULL);
    }
    atomic_store(&all_in, 1);
    for (size_t index = 0; index < 2; index++) {
        pthread_join(pollers[index], NULL);
    }
    check(atomic_load(&handed_in) == atomic_load(&came_out) && atomic_load(&handed_in) > 0,
          "each of %lu operations has one outcome", atomic_load(&handed_in));

    reconnect_status_t statuses[THREADS];
    for (size_t index = 0; index < THREADS; index++) {
        pthread_create(&submitters[index], NULL, waiting, &statuses[index]);
    }
    check(reconnect_replay_destroy(shared) == RECONNECT_OK, "destroyed while four threads wait");
    int told = 0;
    for (size_t index = 0; index < THREADS; index++) {
        pthread_join(submitters[index], NULL);
        told += statuses[index] == RECONNECT_INVALID_HANDLE;
    }
    check(told == THREADS, "all are told");
    for (int turn = 0; turn < 300; turn++) {
        pthread_t thread;
        if (reconnect_replay_create(NULL, &shared, NULL, 0) != RECONNECT_OK) {
            check(0, "turn %d", turn);
            break;
        }
        pthread_create(&thread, NULL, waiting, &statuses[0]);
        reconnect_replay_destroy(shared);
        pthread_join(thread, NULL);
    }
    check(1, "buffers come and go");
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    alarm(120);
    check(sizeof(void *) != 8 || (sizeof(reconnect_replay_operation_t) == 256 && sizeof(reconnect_replay_event_t) == 256 &&
                                  sizeof(reconnect_replay_message_t) == 80),
          "the structs have their sizes");
    if (strcmp(what, "cases") == 0 && count > 2) {
        run_cases(words[2]);
    } else if (strcmp(what, "away") == 0 && count > 3) {
        run_away(words[2], (pid_t)atol(words[3]));
    } else if (strcmp(what, "absent") == 0) {
        run_absent();
    } else if (strcmp(what, "bad") == 0) {
        run_bad();
    } else if (strcmp(what, "bounds") == 0) {
        run_bounds();
    } else if (strcmp(what, "threads") == 0) {
        run_threads();
    } else {
        fprintf(stderr, "usage: replay cases STORE | away STORE PROCESS | absent | bad | bounds | threads\n");
        return 2;
    }
    return finish();
}
