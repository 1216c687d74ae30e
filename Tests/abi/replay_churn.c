/* Threads that use replay buffers in every way at once, right and wrong, while others are destroyed and made. A run is
   so many calls, not so much time. To be compiled with AddressSanitizer.
   usage: replay_churn CALLS SEED [STORE] */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "tap.h"

#include <reconnect.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { BUFFERS = 4, THREADS = 6, MOST_OPERATIONS = 12, MOST_EVENTS = 24, KEPT = 8 };

/* A buffer in its place. Payloads are invalid after the end of their buffer, so who reads them holds it; where nobody
   reads them it ends at any moment. */
typedef struct {
    pthread_rwlock_t lock;
    int is_read;
    _Atomic uint64_t handle;
    atomic_ulong taken, outcomes; /* of this buffer */
} place_t;

static place_t places[BUFFERS];
static const char *store;
static unsigned long long calls, seed;
static atomic_ulong wrong, submitted, made;
static _Atomic uint32_t wrong_call;
static _Atomic int32_t wrong_status;

static uint64_t next(uint64_t *random) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static uint64_t below(uint64_t *random, uint64_t limit) { return next(random) % limit; }

/* The call gave a status that it cannot give. */
static void blame(uint32_t call, reconnect_status_t status) {
    wrong++;
    wrong_call = call;
    wrong_status = status;
}

static void make(place_t *place) {
    reconnect_replay_config_t config;
    reconnect_replay_t replay = {0};
    char detail[256] = "";
    reconnect_status_t status;
    memset(&config, 0, sizeof config);
    config.struct_size = sizeof config;
    config.window = 8;
    config.max_rooms = 8;
    config.max_members_per_room = 4;
    config.max_pending = 50;
    config.max_message_size = 4096;
    config.message_ttl_ms = 20;
    config.store = store;
    config.store_timeout_ms = 2000;
    status = reconnect_replay_create(&config, &replay, detail, sizeof detail);
    if (status != RECONNECT_OK) {
        printf("# create: %s: %s\n", reconnect_status_name(status), detail);
        blame(1, status);
        return;
    }
    made++;
    place->taken = 0;
    place->outcomes = 0;
    place->handle = replay.id;
}

static reconnect_replay_t handle_of(place_t *place, uint64_t *random) {
    reconnect_replay_t replay;
    replay.id = place->handle;
    if (below(random, 200) == 0) {
        replay.id = next(random);
    }
    return replay;
}

/* What clients present: the last few texts that any of them was given. */
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static char kept[KEPT][64];
static size_t kept_sizes[KEPT];
static atomic_ulong generations[KEPT];

static void keep(uint64_t *random, const char *text, size_t size) {
    const size_t at = below(random, KEPT);
    if (size <= sizeof kept[0]) {
        pthread_mutex_lock(&kept_lock);
        memcpy(kept[at], text, size);
        kept_sizes[at] = size;
        pthread_mutex_unlock(&kept_lock);
    }
}

static const char *text(uint64_t *random, char *buffer, size_t *size) {
    const size_t at = below(random, KEPT);
    pthread_mutex_lock(&kept_lock);
    memcpy(buffer, kept[at], kept_sizes[at]);
    *size = kept_sizes[at];
    pthread_mutex_unlock(&kept_lock);
    if (below(random, 8) == 0 && *size > 0) {
        buffer[below(random, *size)] ^= (char)(1 << below(random, 8));
    }
    return below(random, 8) == 0 ? NULL : buffer;
}

static const char *name(uint64_t *random, size_t *size) {
    static char longest[300];
    static const char *const names[] = {"a", "b", "c", "d", "a", "b", "c", "d", "a", "b", "", "{a}", "\n", "\xff", "x"};
    const uint64_t index = below(random, sizeof names / sizeof *names + 1);
    if (index == sizeof names / sizeof *names) {
        *size = sizeof longest;
        return longest;
    }
    *size = strlen(names[index]);
    return below(random, 50) == 0 ? NULL : names[index];
}

static void submit(place_t *place, uint64_t *random) {
    static const char data[8192] = "data";
    reconnect_replay_operation_t operations[MOST_OPERATIONS];
    char texts[MOST_OPERATIONS][2][64];
    char detail[64];
    const size_t count = below(random, MOST_OPERATIONS + 1);
    size_t index, taken = 77;
    reconnect_status_t status;
    memset(operations, 0, sizeof operations);
    for (index = 0; index < count; index++) {
        reconnect_replay_operation_t *each = &operations[index];
        each->type = (uint32_t)(below(random, 100) == 0 ? below(random, 50) : 1 + below(random, 10));
        each->flags = (uint32_t)(below(random, 30) == 0 ? next(random) : each->type == 2 ? below(random, 2) : 0);
        each->tag = next(random);
        each->room = name(random, &each->room_size);
        each->user = name(random, &each->user_size);
        if (below(random, 3) == 0) {
            each->to = name(random, &each->to_size);
        }
        if (each->type == RECONNECT_REPLAY_PUBLISH) {
            each->data = data;
            each->size = below(random, 20) == 0 ? sizeof data : below(random, 600);
            each->kind = (uint32_t)below(random, 5);
            each->negotiation = below(random, 2);
            each->lifetime_ms = (uint32_t)below(random, 3);
            each->key = below(random, 4) == 0 ? data : NULL;
            each->key_size = below(random, 9);
        }
        each->position = text(random, texts[index][0], &each->position_size);
        each->token = text(random, texts[index][1], &each->token_size);
        each->generation = generations[below(random, KEPT)];
        each->latency_ms = (double)below(random, 1000) - 10;
        each->loss_percent = (double)below(random, 200) - 50;
    }
    status = reconnect_replay_submit(handle_of(place, random), count == 0 ? NULL : operations, sizeof *operations, count,
                                     &taken, detail, sizeof detail);
    if (status != RECONNECT_OK && status != RECONNECT_INVALID_ARGUMENT && status != RECONNECT_INVALID_HANDLE &&
        status != RECONNECT_WOULD_BLOCK && status != RECONNECT_TOO_LARGE) {
        blame(2, status);
    }
    if (taken > count || (status == RECONNECT_OK && taken != count) ||
        (status != RECONNECT_OK && count > 0 && taken == count)) {
        blame(3, status);
    }
    if (taken <= count) {
        place->taken += taken;
        submitted += taken;
    }
}

static unsigned long sum; /* nobody reads it */

static void read_all(const void *data, size_t size) {
    unsigned long here = 0;
    size_t index;
    for (index = 0; index < size; index++) {
        here += ((const unsigned char *)data)[index];
    }
    __atomic_fetch_add(&sum, here, __ATOMIC_RELAXED);
}

static void read_event(const reconnect_replay_event_t *event, uint64_t *random) {
    size_t index;
    if (event->data == NULL || event->room == NULL || event->user == NULL || event->to == NULL ||
        event->position == NULL || event->token == NULL || (event->message_count > 0 && event->messages == NULL)) {
        blame(4, event->status);
        return;
    }
    read_all(event->data, event->size);
    read_all(event->room, event->room_size);
    read_all(event->user, event->user_size);
    read_all(event->to, event->to_size);
    read_all(event->position, event->position_size);
    read_all(event->token, event->token_size);
    for (index = 0; index < event->message_count; index++) {
        read_all(event->messages[index].data, event->messages[index].size);
    }
    if (event->state != NULL) {
        read_all(event->state, sizeof *event->state);
    }
    keep(random, event->position, event->position_size);
    keep(random, event->token, event->token_size);
    if (event->generation != 0) {
        generations[below(random, KEPT)] = event->generation;
    }
}

static void take(place_t *place, uint64_t *random) {
    reconnect_replay_event_t events[MOST_EVENTS];
    const reconnect_replay_t replay = handle_of(place, random);
    size_t count = 0, index;
    reconnect_status_t status = reconnect_replay_poll(replay, events, sizeof *events, 1 + below(random, MOST_EVENTS),
                                                      below(random, 50) == 0, &count);
    if (status != RECONNECT_OK && status != RECONNECT_INVALID_HANDLE) {
        blame(5, status);
    }
    if (status != RECONNECT_OK || count == 0) {
        return;
    }
    for (index = 0; index < count; index++) {
        if (events[index].type < RECONNECT_REPLAY_EVENT_MESSAGE) {
            place->outcomes++;
        }
        if (events[index].batch != events[0].batch) {
            blame(6, events[index].status);
        }
        if (place->is_read) {
            read_event(&events[index], random);
        }
    }
    if (below(random, 100) == 0) {
        reconnect_replay_release(replay, next(random));
    }
    status = reconnect_replay_release(replay, events[0].batch);
    if (status != RECONNECT_OK && (place->is_read || status != RECONNECT_INVALID_HANDLE)) {
        blame(7, status);
    }
    if (below(random, 100) == 0 && reconnect_replay_release(replay, events[0].batch) == RECONNECT_OK) {
        blame(8, RECONNECT_OK);
    }
}

static void look(place_t *place, uint64_t *random) {
    reconnect_replay_statistics_t statistics;
    char metrics[256];
    size_t length = 0;
    int fd = -1;
    memset(&statistics, 0, sizeof statistics);
    statistics.struct_size = (uint32_t)(below(random, 4) == 0 ? below(random, 400) : sizeof statistics);
    reconnect_replay_statistics(handle_of(place, random), &statistics);
    reconnect_replay_metrics(handle_of(place, random), metrics, below(random, sizeof metrics), &length);
    reconnect_replay_event_fd(handle_of(place, random), &fd);
}

static void replace(place_t *place) {
    reconnect_replay_t replay;
    reconnect_status_t status;
    replay.id = atomic_exchange(&place->handle, 0);
    if (replay.id == 0) {
        return; /* another thread is at it */
    }
    status = reconnect_replay_destroy(replay);
    if (status != RECONNECT_OK) {
        blame(9, status);
    }
    if (reconnect_replay_destroy(replay) != RECONNECT_INVALID_HANDLE) {
        blame(10, RECONNECT_OK);
    }
    make(place);
}

static void *churn(void *argument) {
    uint64_t random = (seed + 1) * 0x9e3779b97f4a7c15u + (uint64_t)(size_t)argument * 0xbf58476d1ce4e5b9u + 1;
    unsigned long long index;
    for (index = 0; index < calls / THREADS; index++) {
        place_t *place = &places[below(&random, BUFFERS)];
        const uint64_t what = below(&random, 1000);
        if (what < 2) {
            if (place->is_read) {
                pthread_rwlock_wrlock(&place->lock);
            }
            replace(place);
        } else {
            if (place->is_read) {
                pthread_rwlock_rdlock(&place->lock);
            }
            if (what < 500) {
                submit(place, &random);
            } else if (what < 980) {
                take(place, &random);
            } else {
                look(place, &random);
            }
        }
        if (place->is_read) {
            pthread_rwlock_unlock(&place->lock);
        }
    }
    return NULL;
}

/* Waits for ever, until the end of the buffer ends it. */
static void *wait_for_the_end(void *argument) {
    place_t *place = argument;
    reconnect_replay_event_t event;
    reconnect_replay_t replay;
    size_t count = 0;
    reconnect_status_t status;
    replay.id = place->handle;
    do {
        status = reconnect_replay_poll(replay, &event, sizeof event, 1, -1, &count);
        if (status == RECONNECT_OK && count == 1) {
            if (event.type < RECONNECT_REPLAY_EVENT_MESSAGE) {
                place->outcomes++;
            }
            reconnect_replay_release(replay, event.batch);
        }
    } while (status == RECONNECT_OK);
    if (status != RECONNECT_INVALID_HANDLE) {
        blame(11, status);
    }
    return NULL;
}

/* Every operation that was taken has exactly one outcome: takes events until they are all there. */
static void settle(place_t *place) {
    uint64_t random = 1;
    int patience;
    for (patience = 0; patience < 100000 && place->outcomes < place->taken; patience++) {
        take(place, &random);
    }
}

int main(int count, char **arguments) {
    pthread_t threads[THREADS], waiting[2];
    size_t index;
    calls = count > 1 ? strtoull(arguments[1], NULL, 10) : 100000;
    seed = count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    store = count > 3 && arguments[3][0] ? arguments[3] : NULL;
    printf("# seed %llu, store %s\n", seed, store ? store : "memory");
    for (index = 0; index < BUFFERS; index++) {
        pthread_rwlock_init(&places[index].lock, NULL);
        places[index].is_read = index % 2 == 0;
        make(&places[index]);
    }
    for (index = 0; index < THREADS; index++) {
        pthread_create(&threads[index], NULL, churn, (void *)index);
    }
    for (index = 0; index < THREADS; index++) {
        pthread_join(threads[index], NULL);
    }
    check(submitted > calls / 10, "%lu operations were taken, by %lu buffers", (unsigned long)submitted,
          (unsigned long)made);
    check(wrong == 0, "no call gave what it cannot give: %lu did, the last one is number %u, %s", (unsigned long)wrong,
          (unsigned)wrong_call, reconnect_status_name(wrong_status));
    for (index = 0; index < BUFFERS; index += 2) { /* of the others, counting and replacing mix */
        settle(&places[index]);
        check(places[index].outcomes == places[index].taken, "buffer %zu: %lu operations have %lu outcomes", index,
              (unsigned long)places[index].taken, (unsigned long)places[index].outcomes);
    }
    for (index = 0; index < 2; index++) {
        pthread_create(&waiting[index], NULL, wait_for_the_end, &places[index]);
    }
    for (index = 0; index < BUFFERS; index++) {
        reconnect_replay_t replay;
        replay.id = places[index].handle;
        check(reconnect_replay_destroy(replay) == RECONNECT_OK, "buffer %zu ends", index);
    }
    for (index = 0; index < 2; index++) {
        pthread_join(waiting[index], NULL);
    }
    check(wrong == 0, "and with it who waits for its events");
    return finish();
}
