/* Clients that come back, on loopback, against a server process on a processor of its own.

   storm cost [--quick]    processor time of the server for a connect of each mode, and for a fast answer alone
   storm reload [CLIENTS]  CLIENTS (default 10000) return without signaling, all started within one second

   The clients are connectors, a thousand to an engine, since that is what an engine keeps in memory. One JSON line for
   each result. Each ends by itself within a minute: clients that could not be made ready in time are left out. */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PER_ENGINE = 1000, MOST_ENGINES = 10, MOST = PER_ENGINE * MOST_ENGINES };

static const char *const modes[] = {"normal", "fast", "zero-signaling"};

typedef struct {
    reconnect_connector_t connector;
    reconnect_peer_t peer; /* the one that won */
    double started, took;  /* took: 0 until the echo is there */
    uint32_t mode;
    bool is_ready, is_greeted, has_ended;
} client_t;

static client_t clients[MOST];
static reconnect_engine_t engines[MOST_ENGINES];
static unsigned engine_count, client_count, ended;
static process_t server;
static bool is_pinned;

/* ----------------------------------------------------------------- processors */

/* The first processor is the server's, the others are the clients'. */
static void pin(bool is_server) {
    cpu_set_t all, own;
    CPU_ZERO(&own);
    if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2) return;
    for (int i = 0, seen = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all) && (seen++ == 0) == is_server) CPU_SET(i, &own);
    is_pinned = sched_setaffinity(0, sizeof own, &own) == 0;
}

static const reconnect_channel_config_t echo_channel = {
    .struct_size = sizeof echo_channel, .label = "echo", .negotiated = 1, .id = 1};
static const reconnect_peer_config_t echo_peer = {
    .struct_size = sizeof echo_peer, .channels = &echo_channel, .channel_count = 1};

static void serve_returning(int socket) {
    pin(true);
    serve(socket, make_engine_with((reconnect_engine_config_t){
                      .max_peers = 3 * MOST, .returning_peer = &echo_peer, .disable_trip = 1}),
          &echo_peer);
}

/* -------------------------------------------------------------------- clients */

/* A connect that is still in line after seconds has not failed: nobody falls back in a crowd. */
static void make_clients(unsigned count, bool has_tickets) {
    for (unsigned i = 0; i < count; i++) {
        unsigned number = client_count++;
        if (number / PER_ENGINE == engine_count)
            engines[engine_count++] = make_engine_with((reconnect_engine_config_t){.connect_timeout_ms = 60000});
        char key[32], detail[256] = "";
        snprintf(key, sizeof key, "client-%u", number);
        reconnect_channel_config_t channel = echo_channel;
        reconnect_peer_config_t peer = {.struct_size = sizeof peer, .channels = &channel, .channel_count = 1};
        channel.tag = peer.tag = number;
        reconnect_connector_config_t config = {.struct_size = sizeof config,
                                               .policy = RECONNECT_FALLBACK,
                                               .key = key,
                                               .fast_timeout_ms = 60000,
                                               .normal_timeout_ms = 60000,
                                               .disable_tickets = !has_tickets,
                                               .peer = &peer,
                                               .tag = number};
        if (reconnect_connector_create(engines[number / PER_ENGINE], &config, &clients[number].connector, detail,
                                       sizeof detail) != RECONNECT_OK)
            fail("the connector", detail);
    }
}

static void begin(unsigned number) {
    client_t *client = &clients[number];
    client->is_greeted = client->has_ended = false;
    client->took = 0;
    client->peer.id = 0;
    client->started = seconds_now();
    check(reconnect_connector_connect(client->connector), "reconnect_connector_connect");
}

static void end_connect(client_t *client) {
    if (client->has_ended) return;
    client->has_ended = true;
    ended++;
}

/* The exchange that a client's offer belongs to; one is under way for each client at most. */
static int64_t exchanges[MOST];
/* An offer with a token, kept instead of being sent. */
static bool is_recording;
static char *recorded;
static size_t recorded_size;

static void take(const reconnect_event_t *event) {
    client_t *client = &clients[event->tag];
    switch (event->type) {
    case RECONNECT_EVENT_SIGNAL:
        if (!memmem(event->data, event->size, "\"sdp\"", 5)) break;
        if (is_recording && !recorded && memmem(event->data, event->size, "\"sessionToken\"", 14)) {
            recorded = malloc(event->size);
            if (recorded) memcpy(recorded, event->data, recorded_size = event->size);
            break;
        }
        exchanges[event->tag] = event->number;
        send_text(server.socket, event->tag, event->data, event->size);
        break;
    case RECONNECT_EVENT_CHANNEL_OPEN:
        if (client->is_greeted) break;
        client->is_greeted = true;
        check(reconnect_send(event->channel, RECONNECT_BINARY, "x", 1), "reconnect_send");
        break;
    case RECONNECT_EVENT_MESSAGE:
        if (client->took > 0) break;
        client->took = seconds_now() - client->started;
        client->is_ready = true;
        end_connect(client);
        break;
    case RECONNECT_EVENT_CONNECTOR:
        if (event->number == RECONNECT_CONNECTOR_CONNECTED) {
            client->peer = event->peer;
            client->mode = event->kind;
        } else if (event->number == RECONNECT_CONNECTOR_FAILED || event->number == RECONNECT_CONNECTOR_LOST) {
            end_connect(client);
            client->peer.id = 0;
        }
        break;
    }
}

/* Takes what has come, after waiting for it for at most that long. */
static void serve_clients(int milliseconds) {
    reconnect_event_t events[BATCH];
    struct pollfd polled[MOST_ENGINES + 1] = {{.fd = server.socket, .events = POLLIN}};
    for (unsigned i = 0; i < engine_count; i++) {
        polled[i + 1].events = POLLIN;
        check(reconnect_event_fd(engines[i], &polled[i + 1].fd), "reconnect_event_fd");
    }
    if (poll(polled, engine_count + 1, milliseconds) < 0 && errno != EINTR) fail("poll", strerror(errno));
    if (polled[0].revents) {
        uint64_t tag;
        size_t size;
        char *answer = receive_text(server.socket, &tag, &size);
        if (tag < client_count)
            (void)reconnect_connector_message(clients[tag].connector, exchanges[tag], answer, size, NULL, 0);
        free(answer);
    }
    for (unsigned i = 0; i < engine_count; i++) {
        size_t count = 0;
        if (!polled[i + 1].revents) continue;
        check(reconnect_poll(engines[i], events, BATCH, 0, &count), "reconnect_poll");
        for (size_t j = 0; j < count; j++)
            if (events[j].tag < client_count) take(&events[j]);
        if (count > 0) reconnect_release(engines[i], events[0].batch);
    }
}

static void rest(int milliseconds) {
    double end = seconds_now() + milliseconds / 1000.0;
    for (double now; (now = seconds_now()) < end;) serve_clients((int)((end - now) * 1000) + 1);
}

/* Connects these clients, `parallel` at once, each closed again after its echo. None is begun after `deadline` (0: no
   such time), and none is waited for longer than 5 s after that. Answers how many were connected. */
static unsigned connect_all(unsigned first, unsigned count, unsigned parallel, double deadline) {
    static unsigned open[64];
    unsigned begun = 0, done = 0, open_count = 0;
    for (;;) {
        double now = seconds_now();
        bool is_late = deadline > 0 && now >= deadline;
        while (begun < count && open_count < parallel && !is_late) {
            open[open_count++] = first + begun;
            begin(first + begun++);
        }
        if (open_count == 0 || (deadline > 0 && now >= deadline + 5)) break;
        serve_clients(100);
        for (unsigned i = 0; i < open_count;) {
            client_t *client = &clients[open[i]];
            if (!client->has_ended) {
                i++;
                continue;
            }
            if (client->took > 0) done++;
            if (client->peer.id) (void)reconnect_peer_close(client->peer);
            open[i] = open[--open_count];
        }
    }
    rest(200);
    return done;
}

static int compare(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

/* ----------------------------------------------------------------------- cost */

static void measure_connects(uint32_t mode, unsigned first, unsigned count) {
    if (mode == RECONNECT_MODE_NORMAL)
        for (unsigned i = 0; i < count; i++)
            check(reconnect_connector_forget(clients[first + i].connector), "reconnect_connector_forget");
    double used = cpu_seconds(server.id), own = cpu_seconds(0);
    unsigned done = connect_all(first, count, 20, 0), others = 0;
    used = cpu_seconds(server.id) - used;
    own = cpu_seconds(0) - own;
    for (unsigned i = 0; i < count; i++) others += clients[first + i].took > 0 && clients[first + i].mode != mode;
    if (done == 0) fail(modes[mode], "no connect worked");
    printf("{\"bench\":\"reload cost\",\"who\":\"libreconnect\",\"mode\":\"%s\",\"connects\":%u,\"failures\":%u,"
           "\"other_mode\":%u,\"server_us\":%.1f,\"client_us\":%.1f}\n",
           modes[mode], done, count - done, others, used / done * 1e6, own / done * 1e6);
    fflush(stdout);
}

/* One offer with a token, again and again: nobody connects to what is answered. */
static void measure_answers(unsigned count) {
    is_recording = true;
    begin(0);
    for (int i = 0; i < 100 && !recorded; i++) serve_clients(50);
    if (!recorded) fail("an offer with a token", "was not made");
    double used = 0;
    unsigned fast = 0;
    for (unsigned i = 0; i < count + 20; i++) {
        if (i == 20) used = cpu_seconds(server.id);
        uint64_t tag;
        size_t size;
        send_text(server.socket, MOST, recorded, recorded_size);
        char *answer = receive_text(server.socket, &tag, &size);
        if (i >= 20) fast += strstr(answer, "\"connectionMode\":\"fast\"") != NULL;
        free(answer);
    }
    used = cpu_seconds(server.id) - used;
    printf("{\"bench\":\"fast answer\",\"who\":\"libreconnect\",\"count\":%u,\"fast\":%u,\"server_us\":%.1f}\n", count, fast,
           used / count * 1e6);
}

static void measure_cost(bool is_quick) {
    unsigned count = is_quick ? 100 : 500;
    make_clients(count, false);
    make_clients(count, true);
    connect_all(0, 2 * count, 20, 0);
    measure_connects(RECONNECT_MODE_FAST, 0, count);
    measure_connects(RECONNECT_MODE_ZERO_SIGNALING, count, count);
    measure_connects(RECONNECT_MODE_NORMAL, 0, count);
    /* A session to come back to, and its offer. */
    connect_all(0, 1, 1, 0);
    measure_answers(2 * count);
}

/* --------------------------------------------------------------------- reload */

static void measure_reload(unsigned count) {
    static double times[MOST];
    static unsigned ready[MOST];
    unsigned begun = 0, done = 0, others = 0;
    make_clients(count, true);
    connect_all(0, count, 50, seconds_now() + 25);
    unsigned wanted = count;
    count = 0;
    for (unsigned i = 0; i < wanted; i++)
        if (clients[i].is_ready) ready[count++] = i;
    ended = 0;
    double used = cpu_seconds(server.id), own = cpu_seconds(0), start = seconds_now(), begun_in = 0;
    while (ended < count && seconds_now() < start + 25) {
        /* Evenly over the second; a client that is late is started at once. */
        while (begun < count && seconds_now() >= start + (double)begun / count) begin(ready[begun++]);
        if (begun == count && begun_in == 0) begun_in = seconds_now() - start;
        serve_clients(begun < count ? 0 : 100);
    }
    double seconds = seconds_now() - start;
    used = cpu_seconds(server.id) - used;
    own = cpu_seconds(0) - own;
    for (unsigned i = 0; i < begun; i++) {
        const client_t *client = &clients[ready[i]];
        if (client->took <= 0) continue;
        others += client->mode != RECONNECT_MODE_ZERO_SIGNALING;
        times[done++] = client->took * 1000;
    }
    if (done == 0) fail("the reload", "nobody came back");
    qsort(times, done, sizeof *times, compare);
    printf("{\"bench\":\"reload crowd\",\"who\":\"libreconnect\",\"clients\":%u,\"started_in_s\":%.3f,\"completed\":%u,"
           "\"other_mode\":%u,\"seconds\":%.3f,\"completed_per_s\":%.0f,\"median_ms\":%.1f,\"p99_ms\":%.1f,"
           "\"worst_ms\":%.1f,\"cpu_server_s\":%.3f,\"cpu_clients_s\":%.3f,\"pinned\":%s}\n",
           begun, begun_in, done, others, seconds, done / seconds, times[done / 2], times[(done * 99 + 99) / 100 - 1],
           times[done - 1], used, own, is_pinned ? "true" : "false");
    fflush(stdout);
}

int main(int argc, char **argv) {
    unsigned count = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : MOST;
    bool is_cost = argc > 1 && strcmp(argv[1], "cost") == 0;
    if (argc < 2 || (!is_cost && (strcmp(argv[1], "reload") != 0 || count < 1 || count > MOST))) {
        fputs("usage: storm cost [--quick] | storm reload [1..10000]\n", stderr);
        return 2;
    }
    limit_seconds(59);
    /* Every client has its own port. */
    struct rlimit files = {4 * MOST, 4 * MOST};
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    server = start(serve_returning);
    pin(false);
    if (is_cost) measure_cost(is_quick(argc - 1, argv + 1));
    else measure_reload(count);
    end(server);
    /* Ten thousand connections need no leave-taking. */
    fflush(stdout);
    _exit(0);
}
