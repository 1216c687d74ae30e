/* Connects from creation to first echo, many at once, against a process that answers and echoes. */
#include "common.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static reconnect_engine_t engine;
static unsigned begun;

static void begin(void) {
    reconnect_peer_config_t config = {.struct_size = sizeof config, .tag = ++begun};
    reconnect_peer_t peer;
    check(reconnect_peer_create(engine, &config, &peer), "reconnect_peer_create");
    open_channel(peer, peer.id);
    check(reconnect_peer_offer(peer, peer.id), "reconnect_peer_offer");
}

/* Makes `total` connections, `parallel` at once; answers the seconds. */
static double connect_all(process_t host, unsigned total, unsigned parallel) {
    reconnect_event_t events[BATCH];
    struct pollfd polled[2] = {{.events = POLLIN}, {.fd = host.socket, .events = POLLIN}};
    check(reconnect_event_fd(engine, &polled[0].fd), "reconnect_event_fd");
    double start = seconds_now();
    unsigned done = 0;
    begun = 0;
    while (begun < parallel && begun < total) begin();
    while (done < total && poll(polled, 2, -1) >= 0) {
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
            switch (event->type) {
            case RECONNECT_EVENT_OFFER: send_text(host.socket, event->tag, event->data, event->size); break;
            case RECONNECT_EVENT_CHANNEL_OPEN: check(reconnect_send(event->channel, RECONNECT_BINARY, "x", 1), "send"); break;
            case RECONNECT_EVENT_MESSAGE:
                reconnect_peer_close(event->peer);
                done++;
                if (begun < total) begin();
                break;
            case RECONNECT_EVENT_PEER_STATE:
                if (event->number == RECONNECT_PEER_CLOSED && event->status != RECONNECT_OK)
                    fail("a peer", reconnect_status_name(event->status));
                break;
            }
        }
        if (count > 0) reconnect_release(engine, events[0].batch);
    }
    return seconds_now() - start;
}

int main(int argc, char **argv) {
    bool quick = is_quick(argc, argv);
    unsigned total = quick ? 200 : 1000, parallel = 50;
    limit_seconds(40);
    process_t host = start(serve_echo);
    engine = make_engine();
    connect_all(host, 20, 5);
    struct pollfd pause;
    poll(&pause, 0, 200);
    double offerer = cpu_seconds(0), answerer = cpu_seconds(host.id);
    double seconds = connect_all(host, total, parallel);
    poll(&pause, 0, 200);
    offerer = cpu_seconds(0) - offerer;
    answerer = cpu_seconds(host.id) - answerer;
    end(host);
    printf("{\"bench\":\"connects\",\"who\":\"libreconnect\",\"connects\":%u,\"parallel\":%u,\"seconds\":%.4f,"
           "\"cpu_offerer_s\":%.4f,\"cpu_answerer_s\":%.4f}\n", total, parallel, seconds, offerer, answerer);
    return 0;
}
