/* Resident memory that idle connections cost the process that answers them. */
#include "common.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static reconnect_engine_t engine;

static void hold(process_t host, unsigned total) {
    reconnect_event_t events[BATCH];
    struct pollfd polled[2] = {{.events = POLLIN}, {.fd = host.socket, .events = POLLIN}};
    check(reconnect_event_fd(engine, &polled[0].fd), "reconnect_event_fd");
    unsigned begun = 0, done = 0;
    while (done < total) {
        while (begun < total && begun < done + 20) {
            reconnect_peer_t peer;
            check(reconnect_peer_create(engine, NULL, &peer), "reconnect_peer_create");
            open_channel(peer, 0);
            check(reconnect_peer_offer(peer, peer.id), "reconnect_peer_offer");
            begun++;
        }
        if (poll(polled, 2, -1) < 0) fail("poll", "failed");
        if (polled[1].revents) {
            uint64_t peer;
            size_t size;
            char *answer = receive_text(host.socket, &peer, &size);
            check(reconnect_peer_accept((reconnect_peer_t){peer}, answer, size, 0, NULL, 0), "reconnect_peer_accept");
            free(answer);
        }
        size_t count = 0;
        check(reconnect_poll(engine, events, BATCH, 0, &count), "reconnect_poll");
        for (size_t i = 0; i < count; i++) {
            reconnect_event_t *event = &events[i];
            if (event->type == RECONNECT_EVENT_OFFER) send_text(host.socket, event->tag, event->data, event->size);
            if (event->type == RECONNECT_EVENT_CHANNEL_OPEN)
                check(reconnect_send(event->channel, RECONNECT_BINARY, "x", 1), "reconnect_send");
            if (event->type == RECONNECT_EVENT_MESSAGE) done++;
            if (event->type == RECONNECT_EVENT_PEER_STATE && event->number == RECONNECT_PEER_CLOSED)
                fail("a peer", reconnect_status_name(event->status));
        }
        if (count > 0) reconnect_release(engine, events[0].batch);
    }
}

int main(int argc, char **argv) {
    unsigned total = is_quick(argc, argv) ? 200 : 1000;
    limit_seconds(60);
    /* Every offering peer has its own port. */
    struct rlimit files = {4096, 4096};
    if (setrlimit(RLIMIT_NOFILE, &files) != 0) fail("setrlimit", "4096 descriptors are too many");
    process_t host = start(serve_echo);
    engine = make_engine();
    hold(host, 20);
    struct pollfd pause;
    poll(&pause, 0, 3000);
    long before = resident_kib(host.id);
    hold(host, total);
    poll(&pause, 0, 3000);
    double each = (double)(resident_kib(host.id) - before) / total;
    end(host);
    printf("{\"bench\":\"memory\",\"who\":\"libreconnect\",\"connections\":%u,\"kib_per_connection\":%.1f}\n", total, each);
    return 0;
}
