/* One end of a connection whose path dies, or whose path is a relay. It follows lines on standard input and writes lines
   to standard output; bench/paths.py has the other end, carries the signaling and breaks the path.
   usage: paths --role offer|answer [--echo] [--turn URL --user NAME --password TEXT [--ca FILE]] [--allocated] [--log]

   --echo       measure a connect instead of sending numbered messages: the offering end sends one message as soon as it
                can, the other one sends it back
   --turn       a TURN server, and the policy "relay". The engine is told of it by G
   --allocated  told at the start instead, and the answering end uses the engine's own port and its relays: they are
                there before anybody comes

   Lines in: G begin; S JSON: a message of the other end; ?: how many were received and sent; T: stop sending; D: all
   measurements; X: close and forget. Lines out: S JSON; "E TIME NAME": an event; the answers to ?, T, D and X. */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { MOST_ARRIVALS = 1 << 17, MOST_EVENTS = 512, LONGEST_LINE = 1 << 18, MESSAGE_BYTES = 100, INTERVAL_NS = 10000000 };

typedef struct {
    double when;
    char name[240];
} happening_t;

static reconnect_engine_t engine;
static reconnect_peer_t peer;
static reconnect_channel_t channel;
static bool has_peer, has_channel, is_offering, is_echo, is_allocated, is_logged, is_closing,
    is_forgetting;
static const char *server, *user, *password, *authorities;

static double arrivals[MOST_ARRIVALS];
static happening_t happenings[MOST_EVENTS];
static size_t received, sent, wrong, happening_count;
static int timer;

static void happen(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void happen(const char *format, ...) {
    happening_t *event = &happenings[happening_count < MOST_EVENTS ? happening_count++ : MOST_EVENTS - 1];
    event->when = seconds_now();
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(event->name, sizeof event->name, format, arguments);
    va_end(arguments);
    for (char *next = event->name; *next; next++)
        if (*next == '"' || *next == '\\' || (unsigned char)*next < ' ') *next = '\'';
    printf("E %.6f %s\n", event->when, event->name);
}

/* ------------------------------------------------------------------ connection */

static void use_server(void) {
    reconnect_turn_server_t turn = {
        .struct_size = sizeof turn, .url = server, .username = user, .password = password};
    char detail[256] = "";
    if (!server) return;
    if (reconnect_engine_set_turn_servers(engine, &turn, 1, detail, sizeof detail) != RECONNECT_OK)
        fail("the TURN server", detail);
}

static void make_path_engine(void) {
    reconnect_engine_config_t config = {.struct_size = sizeof config,
                                        .log_level = is_logged ? RECONNECT_LOG_DEBUG : RECONNECT_LOG_NONE,
                                        .turn_ca_path = authorities,
                                        .ice_policy = server ? RECONNECT_ICE_POLICY_RELAY : RECONNECT_ICE_POLICY_ALL};
    char detail[256] = "";
    if (reconnect_engine_create(&config, &engine, detail, sizeof detail) != RECONNECT_OK) fail("the engine", detail);
    if (is_allocated) use_server();
}

static reconnect_peer_config_t peer_settings(void) {
    return (reconnect_peer_config_t){
        .struct_size = sizeof(reconnect_peer_config_t),
        .ice_policy = server ? RECONNECT_ICE_POLICY_RELAY : RECONNECT_ICE_POLICY_ALL,
        .negotiation = is_offering    ? RECONNECT_NEGOTIATION_IMPOLITE
                       : is_allocated ? RECONNECT_NEGOTIATION_MANUAL
                                      : RECONNECT_NEGOTIATION_POLITE};
}

static void begin(void) {
    received = sent = wrong = happening_count = 0;
    has_channel = false;
    happen("begin");
    if (!is_allocated) use_server();
    if (!is_offering && is_allocated) return; /* made by the offer */
    reconnect_peer_config_t settings = peer_settings();
    check(reconnect_peer_create(engine, &settings, &peer), "reconnect_peer_create");
    has_peer = true;
    if (is_offering) open_channel(peer, 0);
}

static void receive(const char *text, size_t size) {
    char detail[256] = "";
    reconnect_status_t status;
    if (has_peer && is_allocated && !is_offering) {
        status = reconnect_peer_add_candidate(peer, text, size, detail, sizeof detail);
    } else if (has_peer) {
        status = reconnect_peer_signal(peer, text, size, detail, sizeof detail);
    } else if (is_allocated && memmem(text, size, "\"offer\"", 7)) {
        reconnect_peer_config_t settings = peer_settings();
        status = reconnect_answer(engine, text, size, &settings, 0, &peer, detail, sizeof detail);
        has_peer = status == RECONNECT_OK;
    } else {
        return;
    }
    if (status != RECONNECT_OK) happen("refused %s %s", reconnect_status_name(status), detail);
}

/* Once the events of the last one are given back. */
static void forget(void) {
    is_forgetting = has_peer = has_channel = is_closing = false;
    if (server && !is_allocated) { /* nothing of the server is to be known the next time */
        check(reconnect_engine_destroy(engine), "reconnect_engine_destroy");
        make_path_engine();
    }
    printf("X\n");
}

static void set_timer(bool runs) {
    struct itimerspec every = {.it_interval.tv_nsec = runs ? INTERVAL_NS : 0, .it_value.tv_nsec = runs ? 1 : 0};
    timerfd_settime(timer, 0, &every, NULL);
}

static void send_due(void) {
    uint64_t due = 0;
    if (read(timer, &due, sizeof due) != sizeof due || !has_channel) return;
    while (due-- > 0) {
        unsigned char message[MESSAGE_BYTES] = {sent >> 24 & 255, sent >> 16 & 255, sent >> 8 & 255, sent & 255};
        reconnect_status_t status = reconnect_send(channel, RECONNECT_BINARY, message, sizeof message);
        if (status == RECONNECT_OK) sent++;
        else happen("not sent: %s", reconnect_status_name(status));
    }
}

/* ---------------------------------------------------------------------- events */

static void take_message(const reconnect_event_t *event) {
    if (is_echo) {
        if (is_offering) happen("echo");
        else (void)reconnect_send(event->channel, RECONNECT_BINARY, "x", 1);
        return;
    }
    const unsigned char *data = event->data;
    bool is_next = event->size == MESSAGE_BYTES &&
                   ((size_t)data[0] << 24 | (size_t)data[1] << 16 | (size_t)data[2] << 8 | data[3]) == received;
    if (!is_next) wrong++;
    if (received < MOST_ARRIVALS) arrivals[received] = seconds_now();
    received++;
}

static void dump(const reconnect_peer_statistics_t *figures) {
    printf("D {\"sent\":%zu,\"received\":%zu,\"wrong\":%zu", sent, received, wrong);
    if (figures)
        printf(",\"pair\":\"%s %s %s %s %s %s\",\"restarts\":%" PRIu64 ",\"standby\":%u,\"retransmissions\":%" PRIu64
               ",\"round_trip_ms\":%.2f",
               figures->local_type, figures->local_address, figures->remote_type, figures->remote_address,
               figures->transport, figures->relay_transport, figures->restarts, figures->standby,
               figures->retransmissions, (double)figures->round_trip_ns / 1e6);
    printf(",\"arrivals\":[");
    for (size_t i = 0; i < received && i < MOST_ARRIVALS; i++) printf("%s%.6f", i ? "," : "", arrivals[i]);
    printf("],\"events\":[");
    for (size_t i = 0; i < happening_count; i++)
        printf("%s[%.6f,\"%s\"]", i ? "," : "", happenings[i].when, happenings[i].name);
    printf("]}\n");
}

static void take(const reconnect_event_t *event) {
    static const char *const states[] = {"?", "connecting", "connected", "disconnected", "closed"};
    static const char *const paths[] = {"?", "first", "better", "failover", "restarted", "moved"};
    static const char *const restarts[] = {"?", "started", "recovered", "failed", "paused", "given up"};
    static const char *const relays[] = {"?", "allocated", "failed", "credentials"};
    const char *data = event->data, *extra = event->extra;
    int size = (int)event->size, extra_size = (int)event->extra_size;
    switch (event->type) {
    case RECONNECT_EVENT_LOG:
        fprintf(stderr, "%.4f %.*s\n", seconds_now(), size, data);
        break;
    case RECONNECT_EVENT_TURN:
        happen("turn %s %s %.*s", relays[event->number & 3], reconnect_status_name(event->status), extra_size, extra);
        break;
    case RECONNECT_EVENT_NETWORK:
        happen("network %s %.*s", event->number ? "online" : "offline", size, data);
        break;
    }
    if (!has_peer || event->peer.id != peer.id) return;
    switch (event->type) {
    case RECONNECT_EVENT_ANSWER:
        if (event->status != RECONNECT_OK) happen("refused %.*s", size, data);
        else printf("S %.*s\n", size, data);
        break;
    case RECONNECT_EVENT_PEER_SIGNAL:
        printf("S %.*s\n", size, data);
        break;
    case RECONNECT_EVENT_RESULT:
        if (event->status != RECONNECT_OK) happen("refused %.*s", size, data);
        break;
    case RECONNECT_EVENT_PEER_STATE:
        happen("%s %s", states[event->number % 5], event->status ? reconnect_status_name(event->status) : "");
        if (event->number == RECONNECT_PEER_CLOSED) {
            if (is_closing) is_forgetting = true;
            else has_peer = has_channel = false;
        }
        break;
    case RECONNECT_EVENT_PATH:
        happen("path %s %.*s to %.*s", paths[event->kind % 6], size, data, extra_size, extra);
        break;
    case RECONNECT_EVENT_RESTART:
        happen("restart %s %.*s", restarts[event->number % 6], size, data);
        break;
    case RECONNECT_EVENT_CHANNEL_OPEN:
        happen("open");
        channel = event->channel;
        has_channel = true;
        if (!is_echo) set_timer(true);
        else if (is_offering) check(reconnect_send(channel, RECONNECT_BINARY, "x", 1), "reconnect_send");
        break;
    case RECONNECT_EVENT_CHANNEL_CLOSED:
        has_channel = false;
        break;
    case RECONNECT_EVENT_MESSAGE:
        take_message(event);
        break;
    case RECONNECT_EVENT_STATISTICS:
        dump(event->data);
        break;
    }
}

/* ----------------------------------------------------------------------- lines */

static void obey(char *line, size_t size) {
    switch (line[0]) {
    case 'G':
        begin();
        break;
    case 'S':
        if (size > 2) receive(line + 2, size - 2);
        break;
    case '?':
        printf("? %zu %zu\n", received, sent);
        break;
    case 'T':
        set_timer(false);
        printf("T %zu\n", sent);
        break;
    case 'D':
        if (!has_peer || reconnect_peer_query_statistics(peer, 0) != RECONNECT_OK) dump(NULL);
        break;
    case 'X':
        set_timer(false);
        is_closing = true;
        is_forgetting = !has_peer || reconnect_peer_close(peer) != RECONNECT_OK;
        break;
    }
}

/* False when nobody is there any more. */
static bool read_lines(void) {
    static char buffer[LONGEST_LINE];
    static size_t used;
    ssize_t count = read(STDIN_FILENO, buffer + used, sizeof buffer - used);
    if (count <= 0) return count < 0 && errno == EINTR;
    used += (size_t)count;
    char *start = buffer, *end;
    while ((end = memchr(start, '\n', used - (size_t)(start - buffer)))) {
        *end = 0;
        obey(start, (size_t)(end - start));
        start = end + 1;
    }
    used -= (size_t)(start - buffer);
    memmove(buffer, start, used);
    return used < sizeof buffer;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"role", 1, NULL, 'r'},     {"echo", 0, NULL, 'e'}, {"turn", 1, NULL, 't'},
                                            {"user", 1, NULL, 'u'},     {"ca", 1, NULL, 'c'},   {"log", 0, NULL, 'l'},
                                            {"password", 1, NULL, 'p'}, {"allocated", 0, NULL, 'a'}, {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        switch (option) {
        case 'r':
            is_offering = strcmp(optarg, "offer") == 0;
            break;
        case 'e':
            is_echo = true;
            break;
        case 't':
            server = optarg;
            break;
        case 'u':
            user = optarg;
            break;
        case 'p':
            password = optarg;
            break;
        case 'c':
            authorities = optarg;
            break;
        case 'a':
            is_allocated = true;
            break;
        case 'l':
            is_logged = true;
            break;
        default:
            fail("usage", "paths --role offer|answer [--echo] [--turn URL --user NAME --password TEXT [--ca FILE]]");
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    reconnect_event_t events[BATCH];
    make_path_engine();
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct pollfd polled[3] = {{.events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}, {.fd = timer, .events = POLLIN}};
    printf("ready\n");
    do {
        size_t count = 0;
        check(reconnect_poll(engine, events, BATCH, 0, &count), "reconnect_poll");
        for (size_t i = 0; i < count; i++) take(&events[i]);
        if (count > 0) reconnect_release(engine, events[0].batch);
        if (polled[2].revents) send_due();
        if (polled[1].revents && !read_lines()) break;
        if (is_forgetting) forget();
        check(reconnect_event_fd(engine, &polled[0].fd), "reconnect_event_fd");
    } while (poll(polled, 3, -1) >= 0 || errno == EINTR);
    reconnect_engine_destroy(engine);
    return 0;
}
