/* A host process for tests of several processes and of killed ones. What it prints is for the test that runs it.

   usage: replay_host publish STORE ROOM USER COUNT SEED
              joins and subscribes, waits for a line, publishes "USER NUMBER" COUNT times in batches of a random size,
              and prints every outcome ("stored NUMBER SEQUENCE"); prints every live message ("live SEQUENCE TEXT"),
              until it has as many as the line said
          replay_host durable STORE ROOM USER SEED FIRST
              joins, and publishes without end ("stored NUMBER SEQUENCE", "acknowledged SEQUENCE"), with a key for each
              number, from FIRST
          replay_host read STORE ROOM USER POSITION TOKEN [OTHER]
              joins, at a position if it is not empty; prints the connection ("joined VERDICT POSITION TOKEN SEQUENCE"),
              what it missed ("missed SEQUENCE TEXT"), and of another user "state LAST-SEQUENCE CONNECTIONS"

   With RELAXED in the environment SQLite is not waited for. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <reconnect.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64, EVENTS = 256, PATIENCE_MS = 20000 };

static reconnect_replay_t replay;
static const char *room, *user;
static uint64_t generation, seed;
static unsigned long stored, live;
static char position[64]; /* after the last message whose outcome was taken */
static size_t position_size;
static uint64_t last;

_Noreturn static void fail(const char *what, reconnect_status_t status, const char *detail) {
    printf("failed %s: %s: %s\n", what, reconnect_status_name(status), detail);
    fflush(stdout);
    exit(1);
}

static uint64_t next(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void handle(const reconnect_replay_event_t *event) {
    static const char *const verdicts[] = {"none", "fresh", "recovered", "recovered-empty", "lost"};
    size_t index;
    switch (event->type) {
    case RECONNECT_REPLAY_JOIN:
        if (event->status != RECONNECT_OK) {
            fail("join", event->status, "");
        }
        generation = event->generation;
        printf("joined %s %.*s %.*s %llu\n", verdicts[event->verdict % 5], (int)event->position_size, event->position,
               (int)event->token_size, event->token, (unsigned long long)event->sequence);
        for (index = 0; index < event->message_count; index++) {
            printf("missed %llu %.*s\n", (unsigned long long)event->messages[index].sequence,
                   (int)event->messages[index].size, (const char *)event->messages[index].data);
        }
        break;
    case RECONNECT_REPLAY_PUBLISH:
        if (event->status != RECONNECT_OK) {
            fail("publish", event->status, "");
        }
        if (event->flags & RECONNECT_REPLAY_DEGRADED) {
            fail("publish", event->status, "it was done without the store");
        }
        stored++;
        printf("stored %llu %llu%s\n", (unsigned long long)event->tag, (unsigned long long)event->sequence,
               event->flags & RECONNECT_REPLAY_DUPLICATE ? " again" : "");
        if (event->position_size <= sizeof position) {
            memcpy(position, event->position, event->position_size);
            position_size = event->position_size;
            last = event->sequence;
        }
        break;
    case RECONNECT_REPLAY_ACKNOWLEDGE:
        if (event->status != RECONNECT_OK) {
            fail("acknowledge", event->status, "");
        }
        printf("acknowledged %llu\n", (unsigned long long)event->tag);
        break;
    case RECONNECT_REPLAY_STATE:
        if (event->status != RECONNECT_OK || event->state == NULL) {
            fail("state", event->status, "");
        }
        printf("state %llu %u\n", (unsigned long long)event->state->last_sequence, (unsigned)event->state->connections);
        break;
    case RECONNECT_REPLAY_SUBSCRIBE:
        if (event->status != RECONNECT_OK) {
            fail("subscribe", event->status, "");
        }
        break;
    case RECONNECT_REPLAY_EVENT_MESSAGE:
        live++;
        printf("live %llu %.*s\n", (unsigned long long)event->sequence, (int)event->size, (const char *)event->data);
        break;
    case RECONNECT_REPLAY_EVENT_GAP: printf("gap %u\n", (unsigned)event->reason); break;
    default: break;
    }
}

/* Takes the events that are there, or the first that come in time, and tells each at once. Returns how many they were,
 * and adds the outcomes among them to `outcomes`. */
static size_t take_events(int timeout_ms, size_t *outcomes) {
    static reconnect_replay_event_t events[EVENTS];
    size_t count = 0, index;
    reconnect_status_t status = reconnect_replay_poll(replay, events, sizeof *events, EVENTS, timeout_ms, &count);
    if (status != RECONNECT_OK) {
        fail("poll", status, "");
    }
    for (index = 0; index < count; index++) {
        handle(&events[index]);
        *outcomes += events[index].type < RECONNECT_REPLAY_EVENT_MESSAGE;
    }
    if (count > 0) {
        fflush(stdout); /* from here on the outcome counts as taken */
        reconnect_replay_release(replay, events[0].batch);
    }
    return count;
}

/* Takes events up to the first outcome. */
static void take(void) {
    size_t outcomes = 0;
    while (outcomes == 0) {
        if (take_events(PATIENCE_MS, &outcomes) == 0) {
            fail("poll", RECONNECT_OK, "nothing came");
        }
    }
}

static reconnect_replay_operation_t operation_of(uint32_t type) {
    reconnect_replay_operation_t operation;
    memset(&operation, 0, sizeof operation);
    operation.type = type;
    operation.room = room;
    operation.room_size = strlen(room);
    operation.user = user;
    operation.user_size = strlen(user);
    operation.generation = generation;
    return operation;
}

/* Hands in all of them, whatever the library takes at once. */
static void submit(const reconnect_replay_operation_t *operations, size_t count) {
    char detail[256] = "";
    while (count > 0) {
        size_t taken = 0;
        reconnect_status_t status =
            reconnect_replay_submit(replay, operations, sizeof *operations, count, &taken, detail, sizeof detail);
        if (status != RECONNECT_OK && status != RECONNECT_WOULD_BLOCK) {
            fail("submit", status, detail);
        }
        operations += taken;
        count -= taken;
        if (count > 0) {
            take();
        }
    }
}

static void join(const char *at, const char *with) {
    reconnect_replay_operation_t operation = operation_of(RECONNECT_REPLAY_JOIN);
    if (at != NULL && at[0] != 0) {
        operation.flags = RECONNECT_REPLAY_RESUME;
        operation.position = at;
        operation.position_size = strlen(at);
        operation.token = with;
        operation.token_size = strlen(with);
    }
    submit(&operation, 1);
    take();
}

/* Publishes `count` numbered messages, from `first`, with one call. */
static void publish(unsigned long first, size_t count, int with_keys) {
    static char texts[MOST][300];
    reconnect_replay_operation_t operations[MOST];
    size_t index;
    for (index = 0; index < count; index++) {
        int length = snprintf(texts[index], sizeof texts[index], "%.100s %lu", user, first + index);
        operations[index] = operation_of(RECONNECT_REPLAY_PUBLISH);
        operations[index].tag = first + index;
        operations[index].data = texts[index];
        operations[index].size = (size_t)length;
        if (with_keys) {
            operations[index].key = texts[index];
            operations[index].key_size = (size_t)length;
        }
    }
    submit(operations, count);
}

static void run_publish(unsigned long count) {
    char line[64];
    unsigned long sent = 0;
    const unsigned ahead = 1 + (unsigned)(next() % 500);
    reconnect_replay_operation_t operation = operation_of(RECONNECT_REPLAY_SUBSCRIBE);
    submit(&operation, 1);
    take();
    join(NULL, NULL);
    if (fgets(line, sizeof line, stdin) == NULL) { /* all others are there too */
        return;
    }
    while (stored < count) {
        size_t batch = 1 + (size_t)(next() % MOST);
        if (batch > count - sent) {
            batch = count - sent;
        }
        if (batch > 0 && sent - stored < ahead) {
            publish(sent, batch, 0);
            sent += batch;
        } else {
            take();
        }
    }
    /* Live messages of the others may still be on their way. */
    while (live < strtoul(line, NULL, 10)) {
        size_t outcomes = 0;
        if (take_events(PATIENCE_MS, &outcomes) == 0) {
            fail("poll", RECONNECT_OK, "no live message came");
        }
    }
}

_Noreturn static void run_durable(unsigned long first) {
    unsigned long sent = 0;
    for (;;) {
        const size_t batch = 1 + (size_t)(next() % 16);
        publish(first + sent, batch, 1);
        sent += batch;
        while (stored < sent && (next() % 4 != 0 || stored + 64 < sent)) {
            take();
        }
        if (position_size > 0 && next() % 4 == 0) {
            reconnect_replay_operation_t operation = operation_of(RECONNECT_REPLAY_ACKNOWLEDGE);
            operation.position = position;
            operation.position_size = position_size;
            operation.tag = last;
            submit(&operation, 1);
        }
    }
}

int main(int count, char **arguments) {
    static char buffer[1 << 16];
    reconnect_replay_config_t config;
    char detail[256] = "";
    reconnect_status_t status;
    const char *what = count > 1 ? arguments[1] : "";
    if (count < 7) {
        fputs("see the beginning of replay_host.c\n", stderr);
        return 2;
    }
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    memset(&config, 0, sizeof config);
    config.struct_size = sizeof config;
    config.store = arguments[2];
    config.durability = getenv("RELAXED") != NULL ? RECONNECT_REPLAY_RELAXED : RECONNECT_REPLAY_DURABLE;
    config.window = 65536;
    config.max_room_bytes = 64 << 20;
    config.max_batch = 1 << 20;
    config.max_batch_bytes = 16 << 20;
    config.max_keys = 1000;
    config.store_timeout_ms = 20000; /* slow is not away */
    room = arguments[3];
    user = arguments[4];
    status = reconnect_replay_create(&config, &replay, detail, sizeof detail);
    if (status != RECONNECT_OK) {
        fail("create", status, detail);
    }
    if (strcmp(what, "publish") == 0) {
        seed = strtoull(arguments[6], NULL, 10) * 2654435761u + 1;
        run_publish(strtoul(arguments[5], NULL, 10));
    } else if (strcmp(what, "durable") == 0) {
        seed = strtoull(arguments[5], NULL, 10) * 2654435761u + 1;
        join(NULL, NULL);
        run_durable(strtoul(arguments[6], NULL, 10));
    } else if (strcmp(what, "read") == 0) {
        join(arguments[5], arguments[6]);
        if (count > 7) {
            reconnect_replay_operation_t operation;
            user = arguments[7];
            operation = operation_of(RECONNECT_REPLAY_STATE);
            submit(&operation, 1);
            take();
        }
    }
    fflush(stdout);
    status = reconnect_replay_destroy(replay);
    return status == RECONNECT_OK ? 0 : 1;
}
