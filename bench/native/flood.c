/* Two processes: one sends as fast as it can on a reliable ordered channel, the other counts. */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static size_t message_bytes;

/* Offers, and then sends until it is ended. */
static void send_flood(int socket) {
    reconnect_engine_t engine = make_engine();
    reconnect_peer_t peer;
    check(reconnect_peer_create(engine, NULL, &peer), "reconnect_peer_create");
    reconnect_channel_t channel = open_channel(peer, 0);
    check(reconnect_peer_offer(peer, 0), "reconnect_peer_offer");
    char *message = calloc(1, message_bytes);
    reconnect_event_t events[BATCH];
    for (bool is_open = false;;) {
        size_t count = 0;
        check(reconnect_poll(engine, events, BATCH, -1, &count), "reconnect_poll");
        for (size_t i = 0; i < count; i++) {
            if (events[i].type == RECONNECT_EVENT_CHANNEL_OPEN) is_open = true;
            if (events[i].type == RECONNECT_EVENT_PEER_STATE && events[i].number == RECONNECT_PEER_CLOSED)
                fail("the sender's peer", reconnect_status_name(events[i].status));
            if (events[i].type == RECONNECT_EVENT_OFFER) {
                uint64_t tag;
                size_t size;
                send_text(socket, 0, events[i].data, events[i].size);
                char *answer = receive_text(socket, &tag, &size);
                check(reconnect_peer_accept(peer, answer, size, 0, NULL, 0), "reconnect_peer_accept");
                free(answer);
            }
        }
        if (count > 0) reconnect_release(engine, events[0].batch);
        reconnect_status_t status = RECONNECT_OK;
        while (is_open && status == RECONNECT_OK)
            status = reconnect_send(channel, RECONNECT_BINARY, message, message_bytes);
        if (is_open && status != RECONNECT_WOULD_BLOCK) check(status, "reconnect_send");
    }
}

typedef struct {
    double seconds, sender, receiver;
} reading_t;

static reading_t read_clocks(process_t sender, pid_t own) {
    return (reading_t){seconds_now(), cpu_seconds(sender.id), cpu_seconds(own)};
}

/* Counts what arrives between `warm_up` and `warm_up + length` seconds after the first message. */
static void measure(size_t bytes, double warm_up, double length) {
    message_bytes = bytes;
    process_t sender = start(send_flood);
    reconnect_engine_t engine = make_engine();
    reconnect_event_t events[BATCH];
    uint64_t tag, messages = 0, received = 0;
    size_t size;
    char *offer = receive_text(sender.socket, &tag, &size), detail[256] = "";
    reconnect_peer_t peer;
    if (reconnect_answer(engine, offer, size, NULL, 0, &peer, detail, sizeof detail) != RECONNECT_OK)
        fail("the offer", detail);
    free(offer);
    double first = 0;
    bool is_counting = false;
    reading_t before = {0, 0, 0}, after;
    for (;;) {
        size_t count = 0;
        check(reconnect_poll(engine, events, BATCH, -1, &count), "reconnect_poll");
        for (size_t i = 0; i < count; i++) {
            if (events[i].type == RECONNECT_EVENT_ANSWER) send_text(sender.socket, 0, events[i].data, events[i].size);
            if (events[i].type == RECONNECT_EVENT_PEER_STATE && events[i].number == RECONNECT_PEER_CLOSED)
                fail("the receiver's peer", reconnect_status_name(events[i].status));
            if (events[i].type != RECONNECT_EVENT_MESSAGE) continue;
            if (events[i].size != bytes) fail("a message", "has the wrong size");
            if (first == 0) first = seconds_now();
            if (!is_counting) continue;
            messages++;
            received += events[i].size;
        }
        if (count > 0) reconnect_release(engine, events[0].batch);
        if (first == 0) continue;
        double now = seconds_now();
        if (!is_counting && now >= first + warm_up) {
            is_counting = true;
            before = read_clocks(sender, 0);
        } else if (is_counting && now >= before.seconds + length) {
            after = read_clocks(sender, 0);
            break;
        }
    }
    end(sender);
    reconnect_engine_destroy(engine);
    printf("{\"bench\":\"flood\",\"who\":\"libreconnect\",\"message_bytes\":%zu,\"seconds\":%.4f,\"bytes\":%llu,"
           "\"messages\":%llu,\"cpu_sender_s\":%.4f,\"cpu_receiver_s\":%.4f,\"high_water\":4194304}\n",
           bytes, after.seconds - before.seconds, (unsigned long long)received, (unsigned long long)messages,
           after.sender - before.sender, after.receiver - before.receiver);
    fflush(stdout);
}

/* In a process of its own: a process that has had an engine cannot start another one that has one, too. */
static void measure_apart(size_t bytes, double length) {
    pid_t id = fork();
    if (id < 0) fail("fork", "failed");
    if (id == 0) {
        limit_seconds((unsigned)length + 20);
        measure(bytes, 0.5, length);
        exit(0);
    }
    int status;
    if (waitpid(id, &status, 0) != id || status != 0) fail("the measurement", "has failed");
}

/* usage: flood [--quick] or flood BYTES SECONDS */
int main(int argc, char **argv) {
    if (argc == 3) {
        measure_apart(strtoul(argv[1], NULL, 10), strtod(argv[2], NULL));
        return 0;
    }
    double length = is_quick(argc, argv) ? 1 : 4;
    measure_apart(65536, length);
    measure_apart(100, length);
    return 0;
}
