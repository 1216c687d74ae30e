/* A client that comes back: connects to an answerer host, gets an echo, and does so again, the fastest way that works.
   usage: client-c [--url http://HOST:PORT] [--cache FILE] [--address ADDR] [--times N] */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <getopt.h>
#include <netdb.h>
#include <pthread.h>
#include <reconnect.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: client-c [--url http://HOST:PORT] [--cache FILE] [--address ADDR] [--times N]\n"
    "\n"
    "Connects to an answerer host, again and again.\n"
    "\n"
    "  --url URL      the answerer host (default http://127.0.0.1:8080)\n"
    "  --cache FILE   for what is needed to come back after a restart; FILE.pem is the certificate (default: in memory)\n"
    "  --address ADDR IP address to offer (default: those of the machine's interfaces)\n"
    "  --times N      how often to connect (default 3)\n"
    "  --help         this text\n";

static const char *const modes[] = {"normal", "fast", "zero-signaling"};
static const char *const states[] = {"skipped", "started", "won", "failed", "stopped"};

enum { LARGEST_ANSWER = 1 << 20, PATIENCE_SECONDS = 20 };

static char host[256], port[8];

_Noreturn static void fail(const char *what, const char *detail) {
    fprintf(stderr, "client-c: %s: %s\n", what, detail);
    exit(1);
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

/* ---------------------------------------------------------------- signaling */

struct exchange {
    reconnect_connector_t connector;
    int64_t number;
    size_t size;
    char offer[];
};

static int dial(void) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *each;
    struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    int fd = -1;
    if (getaddrinfo(host, port, &hints, &found)) return -1;
    for (each = found; each && fd < 0; each = each->ai_next) {
        fd = socket(each->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        if (connect(fd, each->ai_addr, each->ai_addrlen) < 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

static int send_all(int fd, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        bytes += sent;
        size -= (size_t)sent;
    }
    return 1;
}

/* Posts the offer. The answer, which the caller frees; NULL: there is none. */
static char *post(const struct exchange *exchange, size_t *size) {
    char head[512], *answer = NULL, *body = NULL;
    ssize_t got = 1;
    size_t count = 0;
    int fd = dial();
    if (fd < 0) return NULL;
    int length = snprintf(head, sizeof head,
                          "POST /offer HTTP/1.0\r\nHost: %s:%s\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\n\r\n",
                          host, port, exchange->size);
    if (send_all(fd, head, (size_t)length) && send_all(fd, exchange->offer, exchange->size) &&
        (answer = malloc(LARGEST_ANSWER))) {
        while (count < LARGEST_ANSWER && (got = recv(fd, answer + count, LARGEST_ANSWER - count, 0)) > 0)
            count += (size_t)got;
        body = got == 0 && count > 12 && !memcmp(answer + 9, "200", 3) ? memmem(answer, count, "\r\n\r\n", 4) : NULL;
    }
    close(fd);
    if (!body) {
        free(answer);
        return NULL;
    }
    *size = count - (size_t)(body + 4 - answer);
    memmove(answer, body + 4, *size);
    return answer;
}

/* Carries an offer, in a thread of its own: the attempt with a ticket goes on meanwhile. */
static void *carry(void *context) {
    struct exchange *exchange = context;
    size_t size = 0;
    char *answer = post(exchange, &size), detail[256];
    if (!answer) fprintf(stderr, "client-c: %s:%s gave no answer\n", host, port);
    if (!answer || reconnect_connector_message(exchange->connector, exchange->number, answer, size, detail,
                                               sizeof detail) != RECONNECT_OK)
        reconnect_connector_signaling_failed(exchange->connector, exchange->number); /* ignored if it is over */
    free(answer);
    free(exchange);
    return NULL;
}

static void signal_out(const reconnect_event_t *event) {
    struct exchange *exchange;
    pthread_t thread;
    /* An offer holds all candidates: there is no need for those that come alone. */
    if (!memmem(event->data, event->size, "\"offer\"", 7) || !(exchange = malloc(sizeof *exchange + event->size))) return;
    *exchange = (struct exchange){.connector = event->connector, .number = event->number, .size = event->size};
    memcpy(exchange->offer, event->data, event->size);
    if (pthread_create(&thread, NULL, carry, exchange) == 0) {
        pthread_detach(thread);
        return;
    }
    reconnect_connector_signaling_failed(exchange->connector, exchange->number);
    free(exchange);
}

/* ------------------------------------------------------------------- events */

/* The connect under way. */
static struct {
    double started;
    reconnect_peer_t peer; /* the one that won */
    const char *mode;
    double opened;
    int greeted, echoed;
} now;

/* The channels that opened last: those of two attempts may, of which one wins. */
static struct {
    reconnect_peer_t peer;
    reconnect_channel_t channel;
} open_channels[8];
static size_t opened;

static reconnect_channel_t channel_of(reconnect_peer_t peer) {
    for (size_t i = 0; i < 8; i++)
        if (open_channels[i].peer.id == peer.id) return open_channels[i].channel;
    return (reconnect_channel_t){0};
}

/* Says hello once the peer that won and its channel are known. */
static void greet(void) {
    reconnect_channel_t channel = channel_of(now.peer);
    if (!now.peer.id || !channel.id || now.greeted) return;
    if (reconnect_send(channel, RECONNECT_TEXT, "hello", 5) != RECONNECT_OK) fail("the channel", "is closed");
    now.greeted = 1;
}

static void take(const reconnect_event_t *event) {
    switch (event->type) {
    case RECONNECT_EVENT_SIGNAL:
        signal_out(event);
        break;
    case RECONNECT_EVENT_ATTEMPT:
        fprintf(stderr, "%s %s after %.1f ms", modes[event->kind % 3], states[event->number % 5],
                (double)event->duration_ns / 1e6);
        if (event->status)
            fprintf(stderr, ": %s: %.*s", reconnect_status_name(event->status), (int)event->size,
                    (const char *)event->data);
        fputc('\n', stderr);
        break;
    case RECONNECT_EVENT_CHANNEL_OPEN:
        open_channels[opened % 8].peer = event->peer;
        open_channels[opened++ % 8].channel = event->channel;
        greet();
        break;
    case RECONNECT_EVENT_CONNECTOR:
        if (event->number == RECONNECT_CONNECTOR_FAILED) {
            char sentence[512];
            snprintf(sentence, sizeof sentence, "%s: %.*s", reconnect_status_name(event->status), (int)event->size,
                     (const char *)event->data);
            fail("connecting", sentence);
        }
        if (event->number != RECONNECT_CONNECTOR_CONNECTED) break;
        now.mode = modes[event->kind % 3];
        now.opened = (double)event->duration_ns / 1e6;
        now.peer = event->peer;
        greet();
        break;
    case RECONNECT_EVENT_MESSAGE:
        printf("%s: open after %.1f ms, \"%.*s\" after %.1f ms\n", now.mode, now.opened, (int)event->size,
               (const char *)event->data, now_ms() - now.started);
        now.echoed = 1;
        break;
    default:
        break;
    }
}

static void run_once(reconnect_engine_t engine, reconnect_connector_t connector) {
    reconnect_event_t events[16];
    size_t count;
    now.started = now_ms();
    now.greeted = now.echoed = 0;
    now.peer.id = 0;
    if (reconnect_connector_connect(connector) != RECONNECT_OK) fail("the connector", "does not connect");
    while (!now.echoed) {
        if (now_ms() - now.started > 30000) fail("the echo", "did not come");
        if (reconnect_poll(engine, events, 16, 1000, &count) != RECONNECT_OK) fail("the engine", "has ended");
        for (size_t i = 0; i < count; i++) take(&events[i]);
        if (count > 0) reconnect_release(engine, events[0].batch);
    }
}

static void take_url(const char *url) {
    const char *start = strncmp(url, "http://", 7) ? url : url + 7, *end = start + strcspn(start, "/");
    const char *colon = memrchr(start, ':', (size_t)(end - start));
    if (start == url || !colon || (size_t)(end - colon) > sizeof port || (size_t)(colon - start) >= sizeof host)
        fail("--url takes http://HOST:PORT, not", url);
    int bracketed = *start == '[' && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(colon - start) - 2 * bracketed, start + bracketed);
    snprintf(port, sizeof port, "%.*s", (int)(end - colon) - 1, colon + 1);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"url", 1, NULL, 'u'}, {"cache", 1, NULL, 'c'}, {"address", 1, NULL, 'a'}, {"times", 1, NULL, 't'},
        {"help", 0, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *url = "http://127.0.0.1:8080", *cache = NULL, *address = NULL;
    char certificate[4096], detail[512] = "";
    int times = 3;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'u': url = optarg; break;
        case 'c': cache = optarg; break;
        case 'a': address = optarg; break;
        case 't': times = atoi(optarg); break;
        case 'h': fputs(usage, stdout); return 0;
        default: return 2;
        }
    }
    take_url(url);
    setvbuf(stdout, NULL, _IOLBF, 0); /* in order with what goes to standard error, into a pipe too */

    /* What is kept can be used with the same certificate only. */
    reconnect_engine_config_t config = {.struct_size = sizeof config, .log_level = RECONNECT_LOG_WARNING};
    snprintf(certificate, sizeof certificate, "%s.pem", cache ? cache : "");
    config.certificate_path = cache ? certificate : NULL;
    config.addresses = &address;
    config.address_count = address ? 1 : 0;
    reconnect_engine_t engine;
    if (reconnect_engine_create_from_env(&config, &engine, detail, sizeof detail) != RECONNECT_OK)
        fail("the engine", detail);

    reconnect_channel_config_t echo = {.struct_size = sizeof echo, .label = "echo", .negotiated = 1, .id = 1};
    reconnect_peer_config_t peer = {.struct_size = sizeof peer, .channels = &echo, .channel_count = 1};
    reconnect_connector_config_t settings = {
        .struct_size = sizeof settings, .key = url, .cache_path = cache, .peer = &peer};
    reconnect_connector_t connector;
    if (reconnect_connector_create(engine, &settings, &connector, detail, sizeof detail) != RECONNECT_OK)
        fail("the connector", detail);
    for (int i = 0; i < times; i++) run_once(engine, connector);
    reconnect_engine_destroy(engine); /* a thread that still carries an offer finds that the connector is gone */
    return 0;
}
