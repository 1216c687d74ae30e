/* The answerer host: serves the example page, answers its offers and echoes every message. One thread, one poll()
   loop over the library's event descriptor and the HTTP connections; the parts are http.c and echo.c. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "answerer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
    "usage: answerer-c [--http HOST:PORT] [--udp PORT] [--address ADDR]... [--certificate FILE]\n"
    "                  [--cors ORIGIN] [--page FILE] [--lite] [--negotiated ID]\n"
    "\n"
    "Serves the example page, answers WebRTC offers and echoes every message.\n"
    "\n"
    "  --http HOST:PORT     where to serve HTTP (default 127.0.0.1:8080); IPv6 as [::1]:8080; port 0: any free one\n"
    "  --udp PORT           UDP port for all peers (default 0: any free one)\n"
    "  --address ADDR       IP address to offer, repeatable (default: those of the machine's interfaces)\n"
    "  --certificate FILE   PEM file for key and certificate, made if missing (default: a new one at every start)\n"
    "  --cors ORIGIN        the one other origin whose pages may send offers\n"
    "  --page FILE          the page (default: examples/page/index.html of the source tree)\n"
    "  --lite               ICE Lite: only answer checks; for public addresses\n"
    "  --negotiated ID      also open a pre-negotiated channel with this id on each peer\n"
    "  --help               this text\n";

enum { BATCH = 64, LARGEST_PAGE = 16 << 20 };

static volatile sig_atomic_t stopped;

static void stop(int number) {
    (void)number;
    stopped = 1;
}

void fail(int status, const char *what, const char *detail) {
    fprintf(stderr, "answerer-c: %s: %s\n", what, detail);
    exit(status);
}

int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The whole of a file; NULL with errno. */
static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    char *bytes = NULL;
    size_t capacity = 0;
    *size = 0;
    do {
        if (*size == capacity) {
            capacity = capacity ? capacity * 2 : 65536;
            char *larger = capacity > LARGEST_PAGE ? NULL : realloc(bytes, capacity);
            if (!larger) {
                errno = EFBIG;
                break;
            }
            bytes = larger;
        }
        errno = 0;
        *size += fread(bytes + *size, 1, capacity - *size, file);
    } while (!feof(file) && !ferror(file));
    int error = errno;
    int whole = feof(file);
    fclose(file);
    if (whole) return bytes;
    free(bytes);
    errno = error ? error : EIO;
    return NULL;
}

/* The page that was named, or the one of the source tree, looked for upwards from the executable. */
static char *read_page(const char *named, size_t *size) {
    char *page, path[4096 + 64], folder[4096];
    if (named) {
        if (!(page = read_file(named, size))) fail(1, named, strerror(errno));
        return page;
    }
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length < 0) length = 0;
    folder[length] = 0;
    for (char *slash; (slash = strrchr(folder, '/'));) {
        *slash = 0;
        snprintf(path, sizeof path, "%s/examples/page/index.html", folder);
        if ((page = read_file(path, size))) return page;
    }
    fail(1, "examples/page/index.html", "not found; name the page with --page FILE");
    return NULL;
}

/* Text that may contain anything, printed on one line. */
static void print_text(const void *text, size_t size) {
    const unsigned char *bytes = text;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] < 0x20 || bytes[i] == 0x7f) fprintf(stderr, "\\x%02x", bytes[i]);
        else fputc(bytes[i], stderr);
}

static void print_reason(const reconnect_event_t *event) {
    if (event->status != RECONNECT_OK) {
        fprintf(stderr, ": %s", reconnect_status_name(event->status));
        if (event->size) fputs(": ", stderr), print_text(event->data, event->size);
    }
    fputc('\n', stderr);
}

static void log_event(const reconnect_event_t *event) {
    static const char *const states[] = {"?", "connecting", "connected", "disconnected", "closed"};
    unsigned long long peer = event->peer.id, channel = event->channel.id;
    switch (event->type) {
    case RECONNECT_EVENT_LOG:
        print_text(event->data, event->size);
        fputc('\n', stderr);
        break;
    case RECONNECT_EVENT_PEER_STATE:
        fprintf(stderr, "peer %llx: %s after %lld ms", peer,
                states[event->number >= 1 && event->number <= 4 ? event->number : 0],
                (long long)(event->duration_ns / 1000000));
        print_reason(event);
        break;
    case RECONNECT_EVENT_SESSION:
        fprintf(stderr, "peer %llx: session ", peer);
        print_text(event->extra, event->extra_size);
        fputs(" of client ", stderr);
        print_text(event->data, event->size);
        fprintf(stderr, ", %s, connection %lld, away %lld ms\n",
                event->kind == RECONNECT_MODE_FAST ? "fast" : "normal", (long long)event->number,
                (long long)(event->duration_ns / 1000000));
        break;
    case RECONNECT_EVENT_CHANNEL_OPEN:
        fprintf(stderr, "peer %llx: channel %llx \"", peer, channel);
        print_text(event->data, event->size);
        fprintf(stderr, "\" open, stream %lld\n", (long long)event->number);
        break;
    case RECONNECT_EVENT_CHANNEL_CLOSED:
        fprintf(stderr, "peer %llx: channel %llx closed", peer, channel);
        print_reason(event);
        break;
    case RECONNECT_EVENT_ADDRESSES:
        fputs("addresses: ", stderr);
        print_text(event->data, event->size);
        fputc('\n', stderr);
        break;
    default:
        break;
    }
}

/* Takes all events that wait. While a channel is blocked they come one by one: see echo.h. */
static void take_events(reconnect_engine_t engine) {
    reconnect_event_t events[BATCH];
    size_t count;
    for (int round = 0; round < 256; round++) { /* then HTTP has its turn */
        size_t most = echo_blocked() ? 1 : BATCH;
        if (reconnect_poll(engine, events, most, 0, &count) != RECONNECT_OK || count == 0) return;
        int kept = 0;
        for (size_t i = 0; i < count; i++) {
            if (events[i].type == RECONNECT_EVENT_ANSWER) http_answered(&events[i]);
            else kept |= echo_event(engine, &events[i], most == 1);
            log_event(&events[i]);
        }
        if (!kept) reconnect_release(engine, events[0].batch);
    }
}

static long number(const char *text, long most) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && !errno && value <= most ? value : -1;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"http", 1, NULL, 'h'},        {"udp", 1, NULL, 'u'},  {"address", 1, NULL, 'a'},
        {"certificate", 1, NULL, 'c'}, {"cors", 1, NULL, 'o'}, {"page", 1, NULL, 'p'},
        {"lite", 0, NULL, 'l'},        {"help", 0, NULL, 'H'}, {"negotiated", 1, NULL, 'n'},
        {NULL, 0, NULL, 0}};
    const char *http = "127.0.0.1:8080", *page_path = NULL, *origin = NULL;
    const char **addresses = calloc((size_t)argc, sizeof *addresses);
    reconnect_engine_config_t config = {.struct_size = sizeof config};
    unsigned char scratch[16];
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
        switch (option) {
        case 'h': http = optarg; break;
        case 'u':
            if (number(optarg, 65535) < 0) fail(2, "--udp takes a port from 0 to 65535, not", optarg);
            config.port = (uint16_t)number(optarg, 65535);
            break;
        case 'a':
            if (inet_pton(AF_INET, optarg, scratch) != 1 && inet_pton(AF_INET6, optarg, scratch) != 1)
                fail(2, "--address takes an IP address, not", optarg);
            if (addresses) addresses[config.address_count++] = optarg;
            break;
        case 'c': config.certificate_path = optarg; break;
        case 'o': origin = optarg; break;
        case 'p': page_path = optarg; break;
        case 'l': config.ice_mode = RECONNECT_ICE_LITE; break;
        case 'n':
            if (number(optarg, 65534) < 0 || number(optarg, 65534) == 1)
                fail(2, "--negotiated takes an id from 0 to 65534 other than 1, not", optarg);
            http_negotiate((uint32_t)number(optarg, 65534));
            break;
        case ':': fail(2, argv[optind - 1], "a value is missing; --help tells more"); break;
        case 'H': fputs(usage, stdout); return 0;
        default: fail(2, argv[optind - 1], "there is no such option; --help tells more");
        }
    }
    if (optind < argc) fail(2, argv[optind], "there is nothing to do with it; --help tells more");
    config.addresses = config.address_count ? addresses : NULL;

    /* Blocked before the engine starts its thread, and let through in ppoll() only: a signal always ends the wait. */
    sigset_t signals, waiting;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, &waiting);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);

    size_t page_size;
    char *page = read_page(page_path, &page_size), detail[512];
    reconnect_engine_t engine;
    int events;
    reconnect_status_t status = reconnect_engine_create(&config, &engine, detail, sizeof detail);
    free(addresses);
    if (status != RECONNECT_OK) fail(1, reconnect_status_name(status), detail);
    if (reconnect_event_fd(engine, &events) != RECONNECT_OK) fail(1, "the engine", "has no event descriptor");
    http_open(engine, http, page, page_size, origin);

    while (!stopped) {
        struct pollfd polled[HTTP_POLLED + 1];
        struct timespec patience;
        polled[0] = (struct pollfd){.fd = events, .events = POLLIN};
        size_t count = 1 + http_prepare(polled + 1, &patience);
        if (ppoll(polled, count, &patience, &waiting) < 0) {
            if (errno == EINTR) continue;
            fail(1, "ppoll", strerror(errno));
        }
        if (polled[0].revents) take_events(engine);
        http_serve(polled + 1, count - 1);
    }
    http_close();
    echo_close();
    reconnect_engine_destroy(engine);
    free(page);
    return 0;
}
