/* Reloads of a native client: connects to an answerer host, again and again, by one of the three modes, through a
   connector. The time is from reconnect_connector_connect() to the first echo on the negotiated channel 1; offers
   travel on an HTTP connection that is already open.
   usage: reload --url http://HOST:PORT --address ADDR --mode normal|fast|zero-signaling [--count N] [--parallel N]

   One JSON line for each connect. The first connect of each lane makes the session, and is not shown. */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_LANES = 16, LARGEST_RESPONSE = 1 << 18, TIMEOUT_S = 15, MOST_PREPARATIONS = 5 };

static const char *const modes[] = {"normal", "fast", "zero-signaling"};

/* One client, with one connect at a time. */
typedef struct {
    reconnect_connector_t connector;
    reconnect_peer_t peer; /* the one that won */
    int64_t exchange;
    int socket;
    enum { PINGING, CONNECTING, CLOSING, DONE } phase;
    bool is_prepared, is_greeted;
    unsigned preparations;
    uint32_t mode;
    double started, opened;
    size_t received;
    char response[LARGEST_RESPONSE];
} lane_t;

static lane_t lanes[MOST_LANES];
static unsigned lane_count = 1, left = 1;
static uint32_t wanted = RECONNECT_MODE_ZERO_SIGNALING;
static reconnect_engine_t engine;
static char host[256], port[8];

/* ------------------------------------------------------------------ signaling */

static int dial(void) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int yes = 1;
    if (getaddrinfo(host, port, &hints, &found) != 0) fail(host, "is no address");
    int descriptor = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0 || connect(descriptor, found->ai_addr, found->ai_addrlen) != 0) fail(host, strerror(errno));
    freeaddrinfo(found);
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return descriptor;
}

/* In one write, so that no acknowledgement is waited for. */
static void request(lane_t *lane, const char *line, const void *body, size_t size) {
    static char text[LARGEST_RESPONSE];
    int head = snprintf(text, sizeof text,
                        "%s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", line,
                        host, port, size);
    if ((size_t)head + size > sizeof text) fail("an offer", "is too large");
    if (size > 0) memcpy(text + head, body, size);
    lane->received = 0;
    if (send(lane->socket, text, (size_t)head + size, MSG_NOSIGNAL) != (ssize_t)((size_t)head + size))
        fail("the host", "does not read");
}

/* The body of a response that is complete. */
static char *body_of(lane_t *lane, size_t *size) {
    char *end = memmem(lane->response, lane->received, "\r\n\r\n", 4);
    if (!end) return NULL;
    *end = 0;
    const char *length = strcasestr(lane->response, "\r\nContent-Length:");
    bool is_good = strncmp(lane->response, "HTTP/1.1 200", 12) == 0;
    if (!length || !is_good) fail("the host", lane->response);
    *size = strtoul(length + 17, NULL, 10);
    *end = '\r';
    char *body = end + 4;
    return lane->received - (size_t)(body - lane->response) >= *size ? body : NULL;
}

/* ------------------------------------------------------------------- connects */

static void print_failure(const char *why) { printf("{\"ok\":false,\"error\":\"%s\"}\n", why); }

static void ping(lane_t *lane) {
    if (left == 0) {
        lane->phase = DONE;
        return;
    }
    if (lane->is_prepared) left--;
    lane->phase = PINGING;
    request(lane, "GET /ping", NULL, 0);
}

static void begin(lane_t *lane) {
    lane->phase = CONNECTING;
    lane->is_greeted = false;
    lane->peer.id = 0;
    if (wanted == RECONNECT_MODE_NORMAL) check(reconnect_connector_forget(lane->connector), "reconnect_connector_forget");
    lane->started = seconds_now();
    check(reconnect_connector_connect(lane->connector), "reconnect_connector_connect");
}

static void failed(lane_t *lane, const char *why) {
    if (lane->is_prepared) print_failure(why);
    else if (++lane->preparations == MOST_PREPARATIONS) fail("the first connect", why);
    lane->is_prepared = false;
    ping(lane);
}

static void echoed(lane_t *lane) {
    double now = seconds_now();
    if (lane->is_prepared)
        printf("{\"ok\":true,\"ms\":%.3f,\"open_ms\":%.3f,\"mode\":\"%s\"}\n", (now - lane->started) * 1000,
               (lane->opened - lane->started) * 1000, modes[lane->mode % 3]);
    /* After a fallback there is a new session to come back to. */
    lane->is_prepared = true;
    lane->phase = CLOSING;
    check(reconnect_peer_close(lane->peer), "reconnect_peer_close");
}

static void take(const reconnect_event_t *event) {
    if (event->tag >= lane_count) return;
    lane_t *lane = &lanes[event->tag];
    switch (event->type) {
    case RECONNECT_EVENT_SIGNAL:
        /* A host of this library needs no candidates of the client. */
        if (!memmem(event->data, event->size, "\"sdp\"", 5)) break;
        lane->exchange = event->number;
        request(lane, "POST /offer", event->data, event->size);
        break;
    case RECONNECT_EVENT_CHANNEL_OPEN:
        if (lane->phase != CONNECTING || lane->is_greeted) break;
        lane->is_greeted = true;
        lane->opened = seconds_now();
        check(reconnect_send(event->channel, RECONNECT_BINARY, "x", 1), "reconnect_send");
        break;
    case RECONNECT_EVENT_MESSAGE:
        if (lane->phase == CONNECTING) echoed(lane);
        break;
    case RECONNECT_EVENT_CONNECTOR:
        if (event->number == RECONNECT_CONNECTOR_CONNECTED) {
            lane->peer = event->peer;
            lane->mode = event->kind;
        } else if (event->number == RECONNECT_CONNECTOR_FAILED) {
            failed(lane, reconnect_status_name(event->status));
        } else if (event->number == RECONNECT_CONNECTOR_LOST) {
            if (lane->phase == CLOSING) ping(lane);
            else failed(lane, reconnect_status_name(event->status));
        }
        break;
    }
}

static void read_response(lane_t *lane) {
    ssize_t count = recv(lane->socket, lane->response + lane->received, LARGEST_RESPONSE - 1 - lane->received, 0);
    if (count <= 0) fail("the host", "has closed the connection");
    lane->received += (size_t)count;
    lane->response[lane->received] = 0;
    size_t size;
    char *body = body_of(lane, &size), detail[256] = "";
    if (!body) return;
    if (lane->phase == PINGING) {
        begin(lane);
    } else if (reconnect_connector_message(lane->connector, lane->exchange, body, size, detail, sizeof detail) !=
               RECONNECT_OK) {
        fail("the answer", detail);
    }
}

static void make_connector(lane_t *lane) {
    uint64_t tag = (uint64_t)(lane - lanes);
    char key[32], detail[256] = "";
    snprintf(key, sizeof key, "lane-%llu", (unsigned long long)tag);
    reconnect_channel_config_t channel = {
        .struct_size = sizeof channel, .label = "echo", .negotiated = 1, .id = 1, .tag = tag};
    reconnect_peer_config_t peer = {.struct_size = sizeof peer, .tag = tag, .channels = &channel, .channel_count = 1};
    reconnect_connector_config_t config = {.struct_size = sizeof config,
                                           .policy = RECONNECT_FALLBACK,
                                           .key = key,
                                           .normal_timeout_ms = TIMEOUT_S * 1000,
                                           .disable_tickets = wanted != RECONNECT_MODE_ZERO_SIGNALING,
                                           .peer = &peer,
                                           .tag = tag};
    if (reconnect_connector_create(engine, &config, &lane->connector, detail, sizeof detail) != RECONNECT_OK)
        fail("the connector", detail);
}

static void run(void) {
    reconnect_event_t events[BATCH];
    struct pollfd polled[MOST_LANES + 1] = {{.events = POLLIN}};
    check(reconnect_event_fd(engine, &polled[0].fd), "reconnect_event_fd");
    for (unsigned i = 0; i < lane_count; i++) {
        lanes[i].socket = dial();
        polled[i + 1] = (struct pollfd){.fd = lanes[i].socket, .events = POLLIN};
        make_connector(&lanes[i]);
        ping(&lanes[i]);
    }
    for (bool is_over = false; !is_over;) {
        if (poll(polled, lane_count + 1, -1) < 0 && errno != EINTR) fail("poll", strerror(errno));
        size_t count = 0;
        check(reconnect_poll(engine, events, BATCH, 0, &count), "reconnect_poll");
        for (size_t i = 0; i < count; i++) take(&events[i]);
        if (count > 0) reconnect_release(engine, events[0].batch);
        is_over = true;
        for (unsigned i = 0; i < lane_count; i++) {
            if (polled[i + 1].revents) read_response(&lanes[i]);
            is_over = is_over && lanes[i].phase == DONE;
        }
    }
}

static void take_url(const char *url) {
    const char *start = strncmp(url, "http://", 7) == 0 ? url + 7 : url, *colon = strrchr(start, ':');
    if (!colon) fail("--url takes http://HOST:PORT, not", url);
    bool is_bracketed = *start == '[' && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(colon - start) - 2 * is_bracketed, start + is_bracketed);
    snprintf(port, sizeof port, "%.*s", (int)strcspn(colon + 1, "/"), colon + 1);
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"url", 1, NULL, 'u'},   {"address", 1, NULL, 'a'},  {"mode", 1, NULL, 'm'},
                                            {"count", 1, NULL, 'c'}, {"parallel", 1, NULL, 'p'}, {NULL, 0, NULL, 0}};
    const char *address = NULL;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'u': take_url(optarg); break;
        case 'a': address = optarg; break;
        case 'm':
            for (wanted = 0; wanted < 3 && strcmp(modes[wanted], optarg) != 0;) wanted++;
            break;
        case 'c': left = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'p': lane_count = (unsigned)strtoul(optarg, NULL, 10); break;
        default: return 2;
        }
    }
    if (!*host || !address || wanted > 2 || lane_count < 1 || lane_count > MOST_LANES) {
        fputs("usage: reload --url http://HOST:PORT --address ADDR --mode normal|fast|zero-signaling [--count N] "
              "[--parallel 1..16]\n", stderr);
        return 2;
    }
    limit_seconds(60 + left * TIMEOUT_S / lane_count);
    setvbuf(stdout, NULL, _IOLBF, 0);
    reconnect_engine_config_t config = {.struct_size = sizeof config,
                                        .addresses = &address,
                                        .address_count = 1,
                                        .log_level = RECONNECT_LOG_NONE};
    char detail[256] = "";
    if (reconnect_engine_create(&config, &engine, detail, sizeof detail) != RECONNECT_OK) fail("the engine", detail);
    run();
    reconnect_engine_destroy(engine);
    return 0;
}
