/* Replay buffers through the C ABI: rooms in memory and in Redis. Every command prints lines of JSON and ends by itself.

   replay memory BYTES ROOMS SECONDS       publishing, recovering 20 messages, bytes held
   replay store STORE BYTES COUNT DEPTH ROUNDS
                                           the same in a store, DEPTH operations under way; before and after each measurement
                                           and at the start says "ready" and waits for a line
   replay order STORE PROCESSES COUNT      that many publish into one room, one listens
   replay storm STORE USERS ROOMS TIMEOUT_MS PER_SECOND
                                           users come back at once; before it, says "ready" and waits for a line */
#define _GNU_SOURCE
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CROSSING = 256, MISSED = 20, WINDOW = 50, TEXT = 32, TOKEN = 64 };

static double thread_seconds(void) {
    struct timespec time;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0) fail("clock_gettime", "failed");
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static reconnect_replay_t make_buffer(const char *store, uint32_t timeout_ms, uint32_t per_second) {
    reconnect_replay_config_t config = {.struct_size = sizeof config, .window = WINDOW, .store = store};
    config.store_timeout_ms = timeout_ms;
    config.recoveries_per_second = per_second;
    reconnect_replay_t replay;
    char detail[256] = "";
    if (reconnect_replay_create(&config, &replay, detail, sizeof detail) != RECONNECT_OK)
        fail("reconnect_replay_create", detail);
    return replay;
}

static char (*room_names)[32];

static void name_rooms(size_t count) {
    room_names = calloc(count, sizeof *room_names);
    if (!room_names) fail("rooms", "no memory");
    for (size_t i = 0; i < count; i++) snprintf(room_names[i], sizeof *room_names, "bench-%012zu", i);
}

static reconnect_replay_operation_t operation(uint32_t type, size_t room, const char *user, uint64_t tag) {
    reconnect_replay_operation_t it = {.type = type, .tag = tag, .room = room_names[room]};
    it.room_size = strlen(it.room);
    it.user = user;
    it.user_size = user ? strlen(user) : 0;
    return it;
}

static size_t submit(reconnect_replay_t replay, const reconnect_replay_operation_t *operations, size_t count) {
    size_t taken = 0;
    char detail[256] = "";
    reconnect_status_t status =
        reconnect_replay_submit(replay, operations, sizeof *operations, count, &taken, detail, sizeof detail);
    if (status != RECONNECT_OK && status != RECONNECT_WOULD_BLOCK) fail("reconnect_replay_submit", detail);
    return taken;
}

static size_t take(reconnect_replay_t replay, reconnect_replay_event_t *events, size_t max, int32_t timeout_ms) {
    size_t count = 0;
    check(reconnect_replay_poll(replay, events, sizeof *events, max, timeout_ms, &count), "reconnect_replay_poll");
    return count;
}

static void give_back(reconnect_replay_t replay, const reconnect_replay_event_t *events) {
    check(reconnect_replay_release(replay, events[0].batch), "reconnect_replay_release");
}

/* Hands in operations made by `make(index)`, at most `depth` under way, and gives each outcome to `done`. */
typedef struct {
    size_t outcomes, degraded, failed;
    reconnect_status_t status; /* of the last that failed */
} run_t;

static void must(run_t outcome, const char *what) {
    if (outcome.failed > 0) fail(what, reconnect_status_name(outcome.status));
}

static run_t run(reconnect_replay_t replay, size_t count, size_t depth,
                 reconnect_replay_operation_t (*make)(size_t index), void (*done)(const reconnect_replay_event_t *)) {
    static reconnect_replay_operation_t operations[CROSSING];
    static reconnect_replay_event_t events[CROSSING];
    run_t result = {0};
    for (size_t handed = 0; result.outcomes < count;) {
        size_t room = depth - (handed - result.outcomes), some = count - handed;
        if (some > room) some = room;
        if (some > CROSSING) some = CROSSING;
        for (size_t i = 0; i < some; i++) operations[i] = make(handed + i);
        if (some > 0) handed += submit(replay, operations, some);
        size_t taken = take(replay, events, CROSSING, 5000);
        if (taken == 0) fail("an outcome", "did not come within 5 s");
        for (size_t i = 0; i < taken; i++) {
            if (events[i].type >= RECONNECT_REPLAY_EVENT_MESSAGE) continue;
            result.outcomes++;
            if (events[i].status != RECONNECT_OK) result.failed++, result.status = events[i].status;
            if (events[i].flags & RECONNECT_REPLAY_DEGRADED) result.degraded++;
            if (done) done(&events[i]);
        }
        give_back(replay, events);
    }
    return result;
}

/* ------------------------------------------------- one reader and one writer */

static size_t rooms, message_bytes;
static char *messages;
static struct {
    uint64_t generation;
    char position[TEXT];
} *readers;

static void make_messages(void) {
    messages = malloc(CROSSING * message_bytes);
    readers = calloc(rooms, sizeof *readers);
    if (!messages || !readers) fail("messages", "no memory");
    memset(messages, 'm', CROSSING * message_bytes);
}

static reconnect_replay_operation_t join_reader(size_t i) { return operation(RECONNECT_REPLAY_JOIN, i, "reader", i); }
static reconnect_replay_operation_t join_writer(size_t i) { return operation(RECONNECT_REPLAY_JOIN, i, "writer", i); }

static reconnect_replay_operation_t publish(size_t i) {
    reconnect_replay_operation_t it = operation(RECONNECT_REPLAY_PUBLISH, i % rooms, "writer", i % rooms);
    it.data = messages + i % CROSSING * message_bytes;
    it.size = message_bytes;
    return it;
}

static reconnect_replay_operation_t recover(size_t i) {
    reconnect_replay_operation_t it = operation(RECONNECT_REPLAY_RECOVER, i % rooms, "reader", i % rooms);
    it.generation = readers[i % rooms].generation;
    it.position = readers[i % rooms].position;
    it.position_size = TEXT;
    return it;
}

static void keep_generation(const reconnect_replay_event_t *event) {
    readers[event->tag].generation = event->generation;
}

static void keep_position(const reconnect_replay_event_t *event) {
    if (event->position_size != TEXT) fail("a position", "has another size");
    memcpy(readers[event->tag].position, event->position, TEXT);
}

static size_t replayed;

static void count_replayed(const reconnect_replay_event_t *event) {
    if (event->verdict != RECONNECT_RECOVERED || event->message_count != MISSED) return;
    if (event->messages[0].size != message_bytes || event->messages[MISSED - 1].sequence != event->sequence)
        fail("a replay", "is not what was published");
    replayed++;
}

/* Members, and what will be missed: in every room the last 20 of more messages than it keeps. */
static void fill_rooms(reconnect_replay_t replay, size_t depth) {
    must(run(replay, rooms, depth, join_reader, keep_generation), "joins");
    must(run(replay, rooms, depth, join_writer, NULL), "joins");
    size_t before = (2 * WINDOW - MISSED) * rooms;
    must(run(replay, before - rooms, depth, publish, NULL), "publishing");
    must(run(replay, rooms, depth, publish, keep_position), "publishing");
    must(run(replay, MISSED * rooms, depth, publish, NULL), "publishing");
}

static void print_rate(const char *name, size_t count, double seconds, double processor, run_t outcome) {
    printf("{\"bench\":\"%s\",\"message_bytes\":%zu,\"rooms\":%zu,\"count\":%zu,\"seconds\":%.4f,\"cpu_s\":%.4f,"
           "\"failed\":%zu,\"degraded\":%zu}\n",
           name, message_bytes, rooms, count, seconds, processor, outcome.failed, outcome.degraded);
    fflush(stdout);
}

/* With rooms in memory the library works on the caller's thread: its processor time is all there is. */
static void measure_memory(double length) {
    long before_kib = resident_kib(getpid());
    reconnect_replay_t replay = make_buffer(NULL, 0, 0);
    make_messages();
    fill_rooms(replay, CROSSING);
    reconnect_replay_statistics_t statistics = {.struct_size = sizeof statistics};
    check(reconnect_replay_statistics(replay, &statistics), "reconnect_replay_statistics");
    long kib = resident_kib(getpid()) - before_kib;

    enum { CHUNK = 10000 };
    run_t all = {0};
    size_t count = 0;
    double start = seconds_now(), processor = thread_seconds(), last = start;
    for (; last - start < length; count += CHUNK, last = seconds_now()) {
        run_t some = run(replay, CHUNK, CROSSING, recover, count_replayed);
        all.failed += some.failed;
    }
    if (replayed != count) fail("recoveries", "are not complete");
    print_rate("recover", count, last - start, thread_seconds() - processor, all);

    start = last = seconds_now(), processor = thread_seconds(), count = 0;
    for (; last - start < length; count += CHUNK, last = seconds_now()) {
        run_t some = run(replay, CHUNK, CROSSING, publish, NULL);
        all.failed += some.failed;
    }
    print_rate("publish", count, last - start, thread_seconds() - processor, all);

    size_t kept = rooms * WINDOW;
    printf("{\"bench\":\"held\",\"message_bytes\":%zu,\"rooms\":%zu,\"messages\":%zu,\"overhead_bytes\":%.1f,"
           "\"resident_overhead_bytes\":%.1f}\n",
           message_bytes, rooms, kept, (double)statistics.bytes_held / (double)kept - (double)message_bytes,
           (double)kib * 1024 / (double)kept - (double)message_bytes);
    check(reconnect_replay_destroy(replay), "reconnect_replay_destroy");
}

/* ---------------------------------------------------------------------- store */

/* Until the store is there: before that, rooms are numbered here. */
static void await_store(reconnect_replay_t replay) {
    for (int i = 0; i < 500; i++) {
        reconnect_replay_statistics_t statistics = {.struct_size = sizeof statistics};
        check(reconnect_replay_statistics(replay, &statistics), "reconnect_replay_statistics");
        reconnect_replay_event_t events[8];
        if (take(replay, events, 8, 10) > 0) give_back(replay, events);
        if (statistics.store == RECONNECT_STORE_PRESENT && i > 10) return;
    }
    fail("the store", "did not come");
}

static void say_ready(void) {
    printf("ready\n");
    fflush(stdout);
    if (getchar() == EOF) exit(0);
}

/* Two rooms more are for those who look on: a recovery from the one, a publish into the other. */
static reconnect_replay_operation_t recover_shown(size_t i) {
    (void)i;
    return recover(rooms - 2);
}

static reconnect_replay_operation_t publish_shown(size_t i) {
    (void)i;
    return publish(rooms - 1);
}

static void measure_store(const char *store, size_t count, size_t depth, size_t rounds) {
    reconnect_replay_t replay = make_buffer(store, 2000, 0);
    await_store(replay);
    rooms += 2;
    make_messages();
    fill_rooms(replay, depth);
    say_ready();
    must(run(replay, 1, 1, recover_shown, NULL), "a recovery");
    must(run(replay, 1, 1, publish_shown, NULL), "publishing");
    rooms -= 2;
    for (size_t i = 0; i < 2 * rounds; i++) {
        bool is_publish = i % 2;
        say_ready();
        replayed = 0;
        double start = seconds_now(), processor = cpu_seconds(getpid());
        run_t all = is_publish ? run(replay, count, depth, publish, NULL)
                               : run(replay, count, depth, recover, count_replayed);
        double seconds = seconds_now() - start;
        if (!is_publish && replayed != all.outcomes - all.failed - all.degraded)
            fail("recoveries", "are not complete");
        print_rate(is_publish ? "publish" : "recover", count, seconds, cpu_seconds(getpid()) - processor, all);
        say_ready();
        /* What was missed is missed again. */
        if (is_publish) must(run(replay, rooms, depth, publish, keep_position), "publishing");
        if (is_publish) must(run(replay, MISSED * rooms, depth, publish, NULL), "publishing");
    }
    say_ready();
    check(reconnect_replay_destroy(replay), "reconnect_replay_destroy");
}

/* ---------------------------------------------------------------------- order */

static const char *order_store;
static size_t order_count;
static const char *order_user;

static reconnect_replay_operation_t say(size_t i) {
    static size_t numbers[CROSSING];
    reconnect_replay_operation_t it = operation(RECONNECT_REPLAY_PUBLISH, 0, order_user, i);
    numbers[i % CROSSING] = i;
    it.data = &numbers[i % CROSSING];
    it.size = sizeof numbers[0];
    it.format = RECONNECT_BINARY;
    return it;
}

static reconnect_replay_operation_t come(size_t i) { return operation(RECONNECT_REPLAY_JOIN, 0, order_user, i); }

static void publish_all(int socket) {
    static char user[32];
    snprintf(user, sizeof user, "%ld", (long)getpid());
    order_user = user;
    reconnect_replay_t replay = make_buffer(order_store, 2000, 0);
    await_store(replay);
    must(run(replay, 1, 1, come, NULL), "a join");
    uint64_t tag;
    size_t size;
    send_text(socket, 0, "joined", 6);
    free(receive_text(socket, &tag, &size));
    run_t all = run(replay, order_count, 16, say, NULL);
    send_text(socket, all.failed + all.degraded, "done", 4);
    pause();
}

static reconnect_replay_operation_t listen_to(size_t i) { return operation(RECONNECT_REPLAY_SUBSCRIBE, 0, NULL, i); }

static void measure_order(const char *store, size_t processes, size_t count) {
    enum { MOST = 16 };
    process_t publishers[MOST];
    uint64_t next[MOST] = {0}, tag;
    size_t size, disordered = 0, missing = 0, all = processes * count, got = 0, failed = 0;
    if (processes > MOST) fail("processes", "too many");
    order_store = store, order_count = count;
    for (size_t i = 0; i < processes; i++) publishers[i] = start(publish_all);
    reconnect_replay_t replay = make_buffer(store, 2000, 0);
    await_store(replay);
    for (size_t i = 0; i < processes; i++) free(receive_text(publishers[i].socket, &tag, &size));
    must(run(replay, 1, 1, listen_to, NULL), "a subscription");
    double start_s = seconds_now();
    for (size_t i = 0; i < processes; i++) send_text(publishers[i].socket, 0, "go", 2);
    static reconnect_replay_event_t events[CROSSING];
    for (uint64_t sequence = 0; got < all;) {
        size_t taken = take(replay, events, CROSSING, 5000);
        if (taken == 0) break;
        for (size_t i = 0; i < taken; i++) {
            const reconnect_replay_event_t *event = &events[i];
            if (event->type == RECONNECT_REPLAY_EVENT_GAP) missing++;
            if (event->type != RECONNECT_REPLAY_EVENT_MESSAGE) continue;
            uint64_t number;
            memcpy(&number, event->data, sizeof number);
            size_t who = 0;
            char user[32];
            do snprintf(user, sizeof user, "%ld", (long)publishers[who].id);
            while ((strlen(user) != event->user_size || memcmp(user, event->user, event->user_size)) &&
                   ++who < processes);
            bool is_next = who < processes && number == next[who] && event->sequence == sequence + 1;
            if (!is_next) disordered++;
            if (who < processes) next[who] = number + 1;
            sequence = event->sequence;
            got++;
        }
        give_back(replay, events);
    }
    double seconds = seconds_now() - start_s;
    for (size_t i = 0; i < processes; i++) {
        free(receive_text(publishers[i].socket, &tag, &size));
        failed += tag;
        end(publishers[i]);
    }
    printf("{\"bench\":\"order\",\"processes\":%zu,\"messages\":%zu,\"received\":%zu,\"disordered\":%zu,\"gaps\":%zu,"
           "\"failed\":%zu,\"seconds\":%.4f}\n",
           processes, all, got, disordered, missing, failed, seconds);
}

/* ---------------------------------------------------------------------- storm */

typedef struct {
    char name[32], position[TEXT], token[TOKEN];
    size_t token_size;
    uint64_t generation;
    double due, came;
} user_t;
static user_t *users;

static reconnect_replay_operation_t of_user(uint32_t type, size_t i) {
    reconnect_replay_operation_t it = operation(type, i % rooms, users[i].name, i);
    it.generation = type == RECONNECT_REPLAY_DROP ? users[i].generation : 0;
    if (type != RECONNECT_REPLAY_JOIN || users[i].token_size == 0) return it;
    it.flags = RECONNECT_REPLAY_RESUME;
    it.position = users[i].position, it.position_size = TEXT;
    it.token = users[i].token, it.token_size = users[i].token_size;
    return it;
}

static reconnect_replay_operation_t join_user(size_t i) { return of_user(RECONNECT_REPLAY_JOIN, i); }
static reconnect_replay_operation_t drop_user(size_t i) { return of_user(RECONNECT_REPLAY_DROP, i); }
static reconnect_replay_operation_t announce(size_t i) {
    reconnect_replay_operation_t it = publish(i);
    it.user = NULL, it.user_size = 0;
    return it;
}

static void keep_user(const reconnect_replay_event_t *event) {
    user_t *user = &users[event->tag];
    if (event->position_size != TEXT || event->token_size > TOKEN) fail("a join", "has no position or token");
    memcpy(user->position, event->position, TEXT);
    memcpy(user->token, event->token, event->token_size);
    user->token_size = event->token_size;
    user->generation = event->generation;
}

static int compare(const void *a, const void *b) {
    double left = ((const user_t *)a)->came, right = ((const user_t *)b)->came;
    return left < right ? -1 : left > right;
}

/* Hands in the joins of up to one crossing of users whose time has come; returns how long it is until the next. */
static double come_back(reconnect_replay_t replay, size_t count, double now) {
    static reconnect_replay_operation_t operations[CROSSING];
    double soonest = 1;
    size_t some = 0;
    for (size_t i = 0; i < count; i++) {
        if (users[i].due < 0) continue;
        double wait = some == CROSSING ? 0 : users[i].due - now;
        if (wait > 0 || some == CROSSING) {
            if (wait < soonest) soonest = wait;
            continue;
        }
        users[i].due = -1;
        operations[some++] = join_user(i);
    }
    if (some > 0 && submit(replay, operations, some) != some) fail("max_pending", "is too small");
    return soonest;
}

typedef struct {
    size_t arrived, recovered, lost, reasons[7], degraded, failed, throttled;
} storm_t;

static void receive(storm_t *storm, const reconnect_replay_event_t *event, double now) {
    if (event->type != RECONNECT_REPLAY_JOIN) return;
    user_t *user = &users[event->tag];
    if (event->status == RECONNECT_THROTTLED) {
        storm->throttled++;
        user->due = now + (double)event->retry_after_ms / 1000;
        return;
    }
    user->came = now;
    storm->arrived++;
    if (event->status != RECONNECT_OK) {
        storm->failed++;
    } else if (event->verdict == RECONNECT_RECOVERED && event->message_count == MISSED) {
        storm->recovered++;
    } else {
        storm->lost++;
        storm->reasons[event->reason < 7 ? event->reason : 0]++;
    }
    if (event->flags & RECONNECT_REPLAY_DEGRADED) storm->degraded++;
}

static void measure_storm(const char *store, size_t count, uint32_t timeout_ms, uint32_t per_second) {
    enum { LIMIT_S = 25 };
    make_messages();
    users = calloc(count, sizeof *users);
    if (!users) fail("users", "no memory");
    for (size_t i = 0; i < count; i++) snprintf(users[i].name, sizeof users[i].name, "user-%zu", i);
    reconnect_replay_t replay = make_buffer(store, 10000, store ? 0 : per_second);
    if (store) await_store(replay);
    must(run(replay, count, 64, join_user, keep_user), "joins");
    must(run(replay, MISSED * rooms, 64, announce, NULL), "publishing");
    must(run(replay, count, 64, drop_user, NULL), "drops");
    if (store) {
        /* Its server starts anew. */
        check(reconnect_replay_destroy(replay), "reconnect_replay_destroy");
        replay = make_buffer(store, timeout_ms, per_second);
        await_store(replay);
    }
    say_ready();

    storm_t storm = {0};
    static reconnect_replay_event_t events[CROSSING];
    double start_s = seconds_now(), now = 0, processor = cpu_seconds(getpid());
    while (storm.arrived < count && now < LIMIT_S) {
        double wait = come_back(replay, count, now);
        size_t taken = take(replay, events, CROSSING, (int32_t)(wait * 1000));
        now = seconds_now() - start_s;
        for (size_t i = 0; i < taken; i++) receive(&storm, &events[i], now);
        if (taken > 0) give_back(replay, events);
    }
    processor = cpu_seconds(getpid()) - processor;
    say_ready();
    for (size_t i = 0; i < count; i++)
        if (users[i].came == 0) users[i].came = LIMIT_S;
    qsort(users, count, sizeof *users, compare);
    printf("{\"bench\":\"storm\",\"users\":%zu,\"rooms\":%zu,\"timeout_ms\":%u,\"per_second\":%u,\"arrived\":%zu,"
           "\"recovered\":%zu,\"lost\":%zu,\"lost_store\":%zu,\"lost_degraded\":%zu,\"degraded\":%zu,\"failed\":%zu,"
           "\"throttled\":%zu,\"p50_ms\":%.2f,\"p99_ms\":%.2f,\"max_ms\":%.2f,\"cpu_s\":%.4f}\n",
           count, rooms, timeout_ms, per_second, storm.arrived, storm.recovered, storm.lost,
           storm.reasons[RECONNECT_LOST_STORE], storm.reasons[RECONNECT_LOST_DEGRADED], storm.degraded, storm.failed,
           storm.throttled, users[count / 2].came * 1000, users[count * 99 / 100].came * 1000,
           users[count - 1].came * 1000, processor);
    check(reconnect_replay_destroy(replay), "reconnect_replay_destroy");
}

static const char *store_of(const char *argument) { return strcmp(argument, "memory") == 0 ? NULL : argument; }

int main(int argc, char **argv) {
    limit_seconds(60);
    size_t numbers[8] = {0};
    for (int i = 2; i < argc && i < 8; i++) numbers[i] = strtoul(argv[i], NULL, 10);
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "memory") == 0 && argc == 5) {
        message_bytes = numbers[2], rooms = numbers[3];
        name_rooms(rooms);
        measure_memory(strtod(argv[4], NULL));
    } else if (strcmp(command, "store") == 0 && argc == 7) {
        message_bytes = numbers[3], rooms = 1000;
        name_rooms(rooms + 2);
        measure_store(argv[2], numbers[4], numbers[5], numbers[6]);
    } else if (strcmp(command, "order") == 0 && argc == 5) {
        rooms = 1;
        name_rooms(rooms);
        measure_order(argv[2], numbers[3], numbers[4]);
    } else if (strcmp(command, "storm") == 0 && argc == 7) {
        message_bytes = 200, rooms = numbers[4];
        name_rooms(rooms);
        measure_storm(store_of(argv[2]), numbers[3], (uint32_t)numbers[5], (uint32_t)numbers[6]);
    } else {
        fail("usage", "replay memory|store|order|storm ...; the head of replay.c says which arguments");
    }
    return 0;
}
