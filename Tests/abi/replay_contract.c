/* Replay buffers as a C or C++ host uses them: what the header says, member by member. C11 and C++17. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include "tap.h"

#include <reconnect.h>

#include <poll.h>
#include <string.h>

static reconnect_replay_t replay;

enum { MOST = 64 };

static void set_text(const char **text, size_t *size, const char *value) {
    *text = value;
    *size = value == NULL ? 0 : strlen(value);
}

static reconnect_replay_operation_t operation(uint32_t type, uint64_t tag, const char *room, const char *user) {
    reconnect_replay_operation_t made;
    memset(&made, 0, sizeof made);
    made.type = type;
    made.tag = tag;
    set_text(&made.room, &made.room_size, room);
    set_text(&made.user, &made.user_size, user);
    return made;
}

static reconnect_replay_operation_t publication(uint64_t tag, const char *room, const char *user, const char *data) {
    reconnect_replay_operation_t made = operation(RECONNECT_REPLAY_PUBLISH, tag, room, user);
    made.data = data;
    made.size = strlen(data);
    return made;
}

static reconnect_status_t submit(const reconnect_replay_operation_t *operations, size_t count, size_t *taken) {
    return reconnect_replay_submit(replay, operations, sizeof *operations, count, taken, NULL, 0);
}

static size_t take(reconnect_replay_event_t *events) {
    size_t count = 0;
    return reconnect_replay_poll(replay, events, sizeof *events, MOST, 0, &count) == RECONNECT_OK ? count : 0;
}

static void release(const reconnect_replay_event_t *events, size_t count) {
    if (count > 0) {
        check(reconnect_replay_release(replay, events[0].batch) == RECONNECT_OK, "the batch is given back");
    }
}

static int is(const void *data, size_t size, const char *text) {
    return size == strlen(text) && memcmp(data, text, size) == 0;
}

static int readable(void) {
    struct pollfd waiting;
    memset(&waiting, 0, sizeof waiting);
    waiting.events = POLLIN;
    return reconnect_replay_event_fd(replay, &waiting.fd) == RECONNECT_OK && poll(&waiting, 1, 0) == 1;
}

static int make(uint32_t max_pending) {
    reconnect_replay_config_t config;
    char detail[256] = "";
    reconnect_status_t status;
    memset(&config, 0, sizeof config);
    config.struct_size = sizeof config;
    config.max_pending = max_pending;
    config.max_message_size = 100;
    status = reconnect_replay_create(&config, &replay, detail, sizeof detail);
    return check(status == RECONNECT_OK, "a buffer: %s %s", reconnect_status_name(status), detail);
}

static void layout(void) {
    if (sizeof(void *) == 8) {
        check(sizeof(reconnect_replay_operation_t) == 256, "an operation has 256 bytes");
        check(sizeof(reconnect_replay_event_t) == 256, "an event has 256 bytes");
        check(sizeof(reconnect_replay_message_t) == 80, "a message has 80 bytes, and no more");
    }
    check((reconnect_version() >> 16) == RECONNECT_VERSION_MAJOR &&
              (reconnect_version() & 0xffff) >= RECONNECT_VERSION_MINOR,
          "the library is of the header's version, or newer");
}

/* One batch in, one batch out: outcomes and live messages in one order. */
static void batches(void) {
    reconnect_replay_operation_t in[7];
    reconnect_replay_event_t out[MOST], kept;
    char position[64], token[64], copy[5];
    size_t count, taken = 0, position_size, token_size;
    check(!readable(), "nothing is there");
    in[0] = operation(RECONNECT_REPLAY_SUBSCRIBE, 1, "room", NULL);
    in[1] = operation(RECONNECT_REPLAY_JOIN, 2, "room", "bob");
    in[2] = operation(RECONNECT_REPLAY_JOIN, 3, "room", "ann");
    memcpy(copy, "hello", 5);
    in[3] = publication(4, "room", "ann", "");
    in[3].data = copy;
    in[3].size = sizeof copy;
    in[4] = operation(RECONNECT_REPLAY_STATE, 5, "room", "nobody");
    in[5] = publication(6, "room", NULL, "");
    in[5].format = RECONNECT_BINARY;
    set_text(&in[5].to, &in[5].to_size, "bob");
    in[6] = operation(RECONNECT_REPLAY_STATE, 7, "room", "ann");
    check(submit(in, 7, &taken) == RECONNECT_OK && taken == 7, "seven operations go in at once");
    memset(copy, 0, sizeof copy); /* it was read */
    check(readable(), "the descriptor is readable");
    count = take(out);
    if (!check(count == 9, "nine events come out: %zu", count)) {
        release(out, count);
        return;
    }
    check(!readable(), "and is no longer");
    check(out[0].type == RECONNECT_REPLAY_SUBSCRIBE && out[0].tag == 1 && out[0].status == RECONNECT_OK, "subscribed");
    check(out[1].type == RECONNECT_REPLAY_JOIN && out[1].tag == 2 && out[1].verdict == RECONNECT_FRESH &&
              out[1].generation != 0 && out[1].position_size == 32 && out[1].token_size > 0 && out[1].replaced == 0,
          "joined");
    check(out[2].tag == 3 && out[2].generation != out[1].generation, "and another one");
    {
        const reconnect_replay_event_t *stored = out[3].type == RECONNECT_REPLAY_PUBLISH ? &out[3] : &out[4];
        const reconnect_replay_event_t *live = out[3].type == RECONNECT_REPLAY_PUBLISH ? &out[4] : &out[3];
        check(stored->tag == 4 && stored->sequence == 1 && stored->position_size == 32, "published");
        check(live->type == RECONNECT_REPLAY_EVENT_MESSAGE && live->sequence == 1 && is(live->room, live->room_size, "room") &&
                  is(live->user, live->user_size, "ann") && live->to_size == 0 && live->to != NULL &&
                  is(live->data, live->size, "hello") && live->format == RECONNECT_TEXT,
              "and heard");
        check(live->position_size == 32 && memcmp(live->position, stored->position, 32) == 0, "at the same position");
    }
    check(out[5].tag == 5 && out[5].status == RECONNECT_UNKNOWN_USER && out[5].state == NULL, "nobody is unknown");
    check(out[6].tag == 6 || out[7].tag == 6, "an empty message is one");
    check(out[8].tag == 7 && out[8].state != NULL && out[8].state->connected == 1 && out[8].state->connections == 1 &&
              (out[8].flags & RECONNECT_REPLAY_CONNECTED) != 0,
          "a state");
    kept = out[1];
    position_size = kept.position_size < sizeof position ? kept.position_size : 0;
    token_size = kept.token_size < sizeof token ? kept.token_size : 0;
    memcpy(position, kept.position, position_size);
    memcpy(token, kept.token, token_size);

    /* The first batch is kept while others come and go. */
    in[0] = operation(RECONNECT_REPLAY_JOIN, 8, "room", "bob");
    in[0].flags = RECONNECT_REPLAY_RESUME;
    in[0].position = position;
    in[0].position_size = position_size;
    in[0].token = token;
    in[0].token_size = token_size;
    check(submit(in, 1, NULL) == RECONNECT_OK, "bob comes back");
    {
        reconnect_replay_event_t again[MOST];
        count = take(again);
        check(count == 1 && again[0].verdict == RECONNECT_RECOVERED && again[0].message_count == 2 &&
                  again[0].messages[0].sequence == 1 && is(again[0].messages[0].data, again[0].messages[0].size, "hello") &&
                  again[0].messages[1].size == 0 && again[0].messages[1].format == RECONNECT_BINARY &&
                  again[0].sequence == 2 && again[0].replaced == kept.generation &&
                  (again[0].flags & RECONNECT_REPLAY_RECONNECTION) != 0,
              "and has both messages");
        release(again, count);
    }
    check(memcmp(position, kept.position, position_size) == 0, "what was not given back is still there");
    check(reconnect_replay_release(replay, kept.batch) == RECONNECT_OK, "until now");
    check(reconnect_replay_release(replay, kept.batch) == RECONNECT_INVALID_ARGUMENT, "and is not given back twice");
}

/* The operation that is wrong is named, those before it are taken, those after it are not. */
static void wrong_operations(void) {
    static const char braces[] = "{room}", zero[] = "ro\0om", control[] = "ro\nom";
    reconnect_replay_operation_t in[3], wrong[16];
    reconnect_replay_event_t out[MOST];
    size_t count = 0, index, taken, before;
    char detail[128];
    memset(wrong, 0, sizeof wrong);
    wrong[count++] = operation(0, 0, "room", "ann");
    wrong[count++] = operation(11, 0, "room", "ann");
    wrong[count++] = operation(RECONNECT_REPLAY_EVENT_MESSAGE, 0, "room", "ann");
    wrong[count++] = operation(RECONNECT_REPLAY_STATE, 0, NULL, "ann");
    wrong[count++] = operation(RECONNECT_REPLAY_STATE, 0, "room", NULL);
    wrong[count++] = operation(RECONNECT_REPLAY_JOIN, 0, braces, "ann");
    wrong[count++] = operation(RECONNECT_REPLAY_JOIN, 0, control, "ann");
    wrong[count] = operation(RECONNECT_REPLAY_JOIN, 0, zero, "ann");
    wrong[count++].room_size = sizeof zero - 1;
    wrong[count] = operation(RECONNECT_REPLAY_JOIN, 0, "room", "ann");
    wrong[count++].user_size = SIZE_MAX;
    wrong[count] = operation(RECONNECT_REPLAY_JOIN, 0, "room", "ann");
    wrong[count++].flags = 1u << 31;
    wrong[count] = publication(0, "room", "ann", "text");
    wrong[count++].format = 3;
    wrong[count] = publication(0, "room", "ann", "text");
    wrong[count++].kind = 4;
    wrong[count] = publication(0, "room", "ann", "\xff");
    wrong[count++].format = RECONNECT_TEXT;
    wrong[count] = publication(0, "room", "ann", "text");
    wrong[count++].data = NULL;
    before = count;
    for (index = 0; index < count; index++) {
        reconnect_status_t status;
        in[0] = in[2] = operation(RECONNECT_REPLAY_STATE, 99, "room", "ann");
        in[1] = wrong[index];
        taken = 77;
        detail[0] = 0;
        status = reconnect_replay_submit(replay, in, sizeof *in, 3, &taken, detail, sizeof detail);
        check(status == RECONNECT_INVALID_ARGUMENT && taken == 1 && detail[0] != 0, "wrong operation %zu: %s, %zu taken, %s",
              index, reconnect_status_name(status), taken, detail);
        before -= taken != 1;
    }
    count = take(out);
    check(count == before, "those that were taken have outcomes: %zu", count);
    release(out, count);

    in[0] = publication(1, "room", "ann", "");
    in[0].size = 101;
    in[0].data = "01234567890123456789012345678901234567890123456789"
                 "01234567890123456789012345678901234567890123456789x";
    check(submit(in, 1, &taken) == RECONNECT_OK || taken == 0, "a message that is too large");
    count = take(out);
    check(taken == 0 || (count == 1 && out[0].status == RECONNECT_TOO_LARGE), "is refused");
    release(out, count);
}

/* Hosts of older and newer headers have smaller and larger structs. */
static void sizes(void) {
    struct {
        reconnect_replay_operation_t known;
        uint64_t more[4];
    } newer[2];
    struct {
        reconnect_replay_event_t known;
        uint64_t more[4];
    } out[2];
    unsigned char older[2][128];
    reconnect_replay_operation_t one;
    reconnect_replay_event_t events[MOST];
    const size_t known = 120; /* up to and with `token` */
    size_t count = 0, taken = 0;
    memset(newer, 0, sizeof newer);
    newer[0].known = operation(RECONNECT_REPLAY_STATE, 1, "room", "ann");
    newer[1].known = operation(RECONNECT_REPLAY_STATE, 2, "room", "ann");
    check(reconnect_replay_submit(replay, &newer[0].known, sizeof newer[0], 2, &taken, NULL, 0) == RECONNECT_OK && taken == 2,
          "larger operations whose new members are zero");
    memset(out, 0xa5, sizeof out);
    check(reconnect_replay_poll(replay, &out[0].known, sizeof out[0], 2, 0, &count) == RECONNECT_OK && count == 2 &&
              out[0].known.tag == 1 && out[1].known.tag == 2,
          "larger events");
    if (count == 2) {
        check(out[0].more[0] == 0 && out[1].more[3] == 0, "whose new members are zero");
        check(reconnect_replay_release(replay, out[0].known.batch) == RECONNECT_OK, "the batch is given back");
    }
    newer[1].more[2] = 1;
    check(reconnect_replay_submit(replay, &newer[0].known, sizeof newer[0], 2, &taken, NULL, 0) == RECONNECT_INVALID_ARGUMENT &&
              taken == 1,
          "a member that the library does not know is not ignored");
    one = operation(RECONNECT_REPLAY_STATE, 3, "room", "ann");
    memcpy(older[0], &one, known);
    one.tag = 4;
    memcpy(older[0] + known, &one, known < sizeof older - known ? known : 0);
    check(reconnect_replay_submit(replay, (const reconnect_replay_operation_t *)(const void *)older, known, 2, &taken, NULL,
                                  0) == RECONNECT_OK && taken == 2,
          "smaller operations");
    count = take(events);
    check(count == 3 && events[1].tag == 3 && events[2].tag == 4, "are what they are");
    release(events, count);
    check(reconnect_replay_submit(replay, &one, 0, 1, &taken, NULL, 0) == RECONNECT_INVALID_ARGUMENT && taken == 0,
          "operations of no size");
    check(reconnect_replay_submit(replay, &one, SIZE_MAX / 2, 3, &taken, NULL, 0) == RECONNECT_INVALID_ARGUMENT,
          "operations of any size");
    check(reconnect_replay_submit(replay, NULL, sizeof one, 1, &taken, NULL, 0) == RECONNECT_INVALID_ARGUMENT, "no operations");
    check(reconnect_replay_submit(replay, NULL, sizeof one, 0, &taken, NULL, 0) == RECONNECT_OK && taken == 0, "none");
    check(reconnect_replay_poll(replay, events, sizeof *events, 0, 0, &count) == RECONNECT_INVALID_ARGUMENT, "no events");
    check(reconnect_replay_poll(replay, events, 4, 1, 0, &count) == RECONNECT_INVALID_ARGUMENT, "events of no size");
}

/* A host that takes no outcomes gets no further: nothing grows. */
static void pressure(void) {
    reconnect_replay_operation_t in[MOST];
    reconnect_replay_event_t out[MOST];
    size_t index, taken = 0, count;
    for (index = 0; index < MOST; index++) {
        in[index] = operation(RECONNECT_REPLAY_JOIN, index, "room", "ann");
    }
    check(submit(in, MOST, &taken) == RECONNECT_WOULD_BLOCK && taken == 10, "max_pending: %zu are taken", taken);
    check(submit(in, 1, &taken) == RECONNECT_WOULD_BLOCK && taken == 0, "and no more");
    count = take(out);
    check(count == 10, "until outcomes were: %zu", count);
    release(out, count);
    check(submit(in, 1, &taken) == RECONNECT_OK && taken == 1, "then it goes on");
    count = take(out);
    release(out, count);
}

static void ends(void) {
    reconnect_replay_event_t event;
    reconnect_replay_statistics_t statistics;
    size_t count = 0, length = 0;
    char text[8192];
    memset(&statistics, 0, sizeof statistics);
    statistics.struct_size = sizeof statistics;
    check(reconnect_replay_statistics(replay, &statistics) == RECONNECT_OK && statistics.joins > 0, "%llu joins were counted",
          (unsigned long long)statistics.joins);
    check(reconnect_replay_metrics(replay, text, sizeof text, &length) == RECONNECT_OK && strstr(text, "# TYPE ") != NULL &&
              strlen(text) == length,
          "%zu bytes of metrics", length);
    check(reconnect_replay_metrics(replay, text, 1, &length) == RECONNECT_TOO_SMALL && length > 1, "in a buffer that is too small");
    check(reconnect_replay_destroy(replay) == RECONNECT_OK, "the end");
    check(reconnect_replay_destroy(replay) == RECONNECT_INVALID_HANDLE, "not twice");
    check(reconnect_replay_poll(replay, &event, sizeof event, 1, -1, &count) == RECONNECT_INVALID_HANDLE, "no events any more");
    check(submit(NULL, 0, NULL) == RECONNECT_INVALID_HANDLE, "no operations any more");
}

int main(void) {
    layout();
    if (make(0)) {
        batches();
        wrong_operations();
        sizes();
        ends();
    }
    if (make(10)) {
        pressure();
        check(reconnect_replay_destroy(replay) == RECONNECT_OK, "the end");
    }
    return finish();
}
