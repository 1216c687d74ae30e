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
    "usage: answerer-c [OPTION]...\n"
    "\n"
    "Serves the example page, answers WebRTC offers and echoes every message.\n"
    "\n"
    "  --http HOST:PORT          where to serve HTTP (default 127.0.0.1:8080); IPv6 as [::1]:8080; port 0: any free one\n"
    "  --udp PORT                UDP port for all peers (default 0: any free one)\n"
    "  --address ADDR            IP address to offer, repeatable (default: those of the machine's interfaces)\n"
    "  --certificate FILE        PEM file for key and certificate, made if missing (default: a new one at every start)\n"
    "  --certificate-days N      replace the certificate at this age (default 30; 0: never)\n"
    "  --cors ORIGIN             another origin whose pages may send offers, repeatable (default: the same host only)\n"
    "  --page FILE               the page (default: examples/page/index.html of the source tree)\n"
    "  --lite                    ICE Lite: only answer checks; for public addresses\n"
    "  --negotiated ID           also open a pre-negotiated channel with this id on each peer\n"
    "\n"
    "Coming back:\n"
    "  --session-store URL       where sessions are kept: sqlite:PATH, redis://..., rediss://..., redis+unix:PATH\n"
    "                            (default: in memory)\n"
    "  --ticket-secret-file FILE 32 to 256 bytes that servers share to accept each other's tickets (they share the\n"
    "                            certificate too); given twice: first the new one, then the old one\n"
    "  --no-tickets              no returning without signaling\n"
    "  --fast-reload on|off|partial\n"
    "                            the kill switch (default on)\n"
    "  --fast-timeout MS         a fast answer that has not connected by then has failed (default 2000)\n"
    "  --trip-window MS          fast reload switches itself off by what happens in this time (default 60000)\n"
    "  --trip-failure PERCENT    ... if more fast connects fail (default 30)\n"
    "  --trip-unstable PERCENT   ... or end by an error within 10 s (default 20)\n"
    "  --trip-min N              ... of at least so many (default 20)\n"
    "  --trip-rearm MS           ... and tries again after this time (default 60000)\n"
    "\n"
    "Addresses:\n"
    "  --stun HOST:PORT          STUN server that tells the address outside, repeatable\n"
    "  --public ADDR[:PORT]      address outside, repeatable; IPv6 with a port as [2001:db8::1]:4000\n"
    "  --interfaces LIST         also offer addresses that are: temporary,deprecated,bridges,loopback\n"
    "\n"
    "  --help                    this text\n"
    "\n"
    "Environment, for what no option says: ENABLE_FAST_RELOAD (true, false, partial), STUN_URLS and ALLOWED_ORIGINS (both\n"
    "separated by commas; the latter adds to --cors), REDIS_URL, ICE_MODE (turn-only, all), TURN_URLS with TURN_USERNAME and\n"
    "TURN_PASSWORD, or with TURN_SECRET.\n"
    "Paths: /, /reconnect.js, /ping, /metrics, POST /offer.\n"
    "Signals: SIGHUP replaces the certificate, SIGUSR1 switches fast reload off, SIGUSR2 on.\n";

enum { BATCH = 64, LARGEST_FILE = 16 << 20, MOST_SECRETS = 2 };

static volatile sig_atomic_t stopped, rotates, switches_off, switches_on;

static void take_signal(int number) {
    if (number == SIGHUP) rotates = 1;
    else if (number == SIGUSR1) switches_off = 1;
    else if (number == SIGUSR2) switches_on = 1;
    else stopped = 1;
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
            char *larger = capacity > LARGEST_FILE ? NULL : realloc(bytes, capacity);
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

/* A file of the source tree, looked for upwards from the executable. */
static char *read_in_tree(const char *name, size_t *size) {
    char *file, path[4096 + 64], folder[4096];
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length < 0) length = 0;
    folder[length] = 0;
    for (char *slash; (slash = strrchr(folder, '/'));) {
        *slash = 0;
        snprintf(path, sizeof path, "%s/%s", folder, name);
        if ((file = read_file(path, size))) return file;
    }
    return NULL;
}

static char *read_page(const char *named, size_t *size) {
    char *page = named ? read_file(named, size) : read_in_tree("examples/page/index.html", size);
    if (!page && named) fail(1, named, strerror(errno));
    if (!page) fail(1, "examples/page/index.html", "not found; name the page with --page FILE");
    return page;
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
    static const char *const modes[] = {"normal", "fast", "zero-signaling"};
    static const char *const settings[] = {"off", "on", "partial"}, *const by[] = {"host", "tripped", "rearmed"};
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
        if (event->flags & RECONNECT_FLAG_TICKET) fputs(" (with a ticket)", stderr);
        print_reason(event);
        break;
    case RECONNECT_EVENT_SESSION:
        fprintf(stderr, "peer %llx: session ", peer);
        print_text(event->extra, event->extra_size);
        fputs(" of client ", stderr);
        print_text(event->data, event->size);
        fprintf(stderr, ", %s, connection %lld, away %lld ms\n",
                modes[event->kind <= 2 ? event->kind : 0], (long long)event->number,
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
    case RECONNECT_EVENT_FAST_RELOAD:
        fprintf(stderr, "fast reload: %s, by %s: ",
                event->number >= 0 && event->number <= 2 ? settings[event->number] : "?",
                event->kind <= 2 ? by[event->kind] : "?");
        print_text(event->data, event->size);
        fputc('\n', stderr);
        break;
    case RECONNECT_EVENT_CERTIFICATE:
        fputs("certificate: ", stderr);
        print_text(event->data, event->size);
        fputc('\n', stderr);
        break;
    case RECONNECT_EVENT_STORE:
        if (event->number) {
            fputs("session store: available\n", stderr);
            break;
        }
        fputs("session store: unavailable: ", stderr);
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

static long number(const char *text, long most) { /* -1: it is none */
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    return *text >= '0' && *text <= '9' && !*end && !errno && value <= most ? value : -1;
}

/* The value of an option, which must be a number up to `most`. */
static uint32_t count(const char *option, const char *text, uint32_t most) {
    if (number(text, most) < 0) {
        fprintf(stderr, "answerer-c: --%s takes a number from 0 to %lu, not %s\n", option, (unsigned long)most, text);
        exit(2);
    }
    return (uint32_t)number(text, most);
}

static int is_address(const char *text) {
    unsigned char scratch[16];
    return inet_pton(AF_INET, text, scratch) == 1 || inet_pton(AF_INET6, text, scratch) == 1;
}

/* HOST:PORT, where IPv6 addresses stand in brackets. The host is cut off to `host`. */
static int has_port(const char *text, char *host, size_t capacity) {
    const char *colon = strrchr(text, ':');
    size_t size = colon ? (size_t)(colon - text) : 0;
    int bracketed = size > 2 && text[0] == '[' && colon[-1] == ']';
    if (!size || number(colon + 1, 65535) < 0 || (!bracketed && memchr(text, ':', size))) return 0;
    snprintf(host, capacity, "%.*s", (int)(bracketed ? size - 2 : size), text + bracketed);
    return 1;
}

static uint32_t interface_policy(const char *list) {
    static const char *const names[] = {"temporary", "deprecated", "bridges", "loopback"};
    uint32_t policy = 0;
    for (const char *name = list; name; name = strchr(name, ',') ? strchr(name, ',') + 1 : NULL) {
        uint32_t bit = 0;
        for (size_t i = 0; i < 4; i++)
            if (strcspn(name, ",") == strlen(names[i]) && !strncmp(name, names[i], strlen(names[i]))) bit = 1u << i;
        if (!bit) fail(2, "--interfaces takes temporary, deprecated, bridges and loopback, not", list);
        policy |= bit;
    }
    return policy;
}

static void allow_list(char *list) {
    char *rest = NULL;
    for (char *origin = strtok_r(list, ", \t", &rest); origin; origin = strtok_r(NULL, ", \t", &rest))
        http_allow(origin);
}

static void complain(reconnect_status_t status, const char *what, const char *detail) {
    if (status != RECONNECT_OK)
        fprintf(stderr, "%s: %s: %s\n", what, reconnect_status_name(status), detail);
}

/* Does what signals have asked for. */
static void obey(reconnect_engine_t engine) {
    char detail[512] = "";
    if (rotates) complain(reconnect_engine_rotate_certificate(engine, detail, sizeof detail), "SIGHUP", detail);
    if (switches_off) complain(reconnect_engine_set_fast_reload(engine, RECONNECT_FAST_RELOAD_OFF), "SIGUSR1", "");
    if (switches_on) complain(reconnect_engine_set_fast_reload(engine, RECONNECT_FAST_RELOAD_ON), "SIGUSR2", "");
    rotates = switches_off = switches_on = 0;
}

/* What the command line says. */
struct settings {
    const char *http, *page;
    int fast_reload; /* RECONNECT_FAST_RELOAD_..., -1: not said */
    reconnect_engine_config_t config;
};

static void take_options(int argc, char **argv, struct settings *settings) {
    static const struct option options[] = {{"http", 1, NULL, 'h'},
                                            {"udp", 1, NULL, 'u'},
                                            {"address", 1, NULL, 'a'},
                                            {"certificate", 1, NULL, 'c'},
                                            {"certificate-days", 1, NULL, 'd'},
                                            {"cors", 1, NULL, 'o'},
                                            {"page", 1, NULL, 'p'},
                                            {"lite", 0, NULL, 'l'},
                                            {"negotiated", 1, NULL, 'n'},
                                            {"session-store", 1, NULL, 's'},
                                            {"ticket-secret-file", 1, NULL, 'k'},
                                            {"no-tickets", 0, NULL, 't'},
                                            {"fast-reload", 1, NULL, 'f'},
                                            {"fast-timeout", 1, NULL, 'F'},
                                            {"trip-window", 1, NULL, 'W'},
                                            {"trip-failure", 1, NULL, 'P'},
                                            {"trip-unstable", 1, NULL, 'U'},
                                            {"trip-min", 1, NULL, 'M'},
                                            {"trip-rearm", 1, NULL, 'R'},
                                            {"stun", 1, NULL, 'S'},
                                            {"public", 1, NULL, 'A'},
                                            {"interfaces", 1, NULL, 'i'},
                                            {"help", 0, NULL, 'H'},
                                            {NULL, 0, NULL, 0}};
    reconnect_engine_config_t *config = &settings->config;
    const char **addresses = calloc((size_t)argc * 3, sizeof *addresses), *name;
    if (!addresses) fail(1, "memory", "there is none");
    const char **servers = addresses + argc, **publics = servers + argc;
    char *secrets[MOST_SECRETS], host[256];
    size_t sizes[MOST_SECRETS] = {0}, secret_count = 0;
    config->addresses = addresses; /* live as long as the process */
    config->stun_servers = servers;
    config->public_addresses = publics;
    opterr = 0;
    int index = 0;
    for (int option; (option = getopt_long(argc, argv, ":", options, &index)) != -1;) {
        name = options[index].name;
        switch (option) {
        case 'h': settings->http = optarg; break;
        case 'u':
            if (number(optarg, 65535) < 0) fail(2, "--udp takes a port from 0 to 65535, not", optarg);
            config->port = (uint16_t)number(optarg, 65535);
            break;
        case 'a':
            if (!is_address(optarg)) fail(2, "--address takes an IP address, not", optarg);
            addresses[config->address_count++] = optarg;
            break;
        case 'c': config->certificate_path = optarg; break;
        case 'd':
            config->certificate_days = count(name, optarg, 36500);
            if (!config->certificate_days) config->certificate_days = UINT32_MAX;
            break;
        case 'o': http_allow(optarg); break;
        case 'p': settings->page = optarg; break;
        case 'l': config->ice_mode = RECONNECT_ICE_LITE; break;
        case 'n':
            if (number(optarg, 65534) < 0 || number(optarg, 65534) == 1)
                fail(2, "--negotiated takes an id from 0 to 65534 other than 1, not", optarg);
            http_negotiate((uint32_t)number(optarg, 65534));
            break;
        case 's': config->session_store = optarg; break;
        case 'k':
            if (secret_count == MOST_SECRETS) fail(2, "--ticket-secret-file", "can be given twice at most");
            if (!(secrets[secret_count] = read_file(optarg, &sizes[secret_count]))) fail(2, optarg, strerror(errno));
            if (sizes[secret_count] < 32 || sizes[secret_count] > 256) fail(2, optarg, "must have 32 to 256 bytes");
            secret_count++;
            break;
        case 't': config->disable_tickets = 1; break;
        case 'f':
            if (!strcmp(optarg, "off")) settings->fast_reload = RECONNECT_FAST_RELOAD_OFF;
            else if (!strcmp(optarg, "on")) settings->fast_reload = RECONNECT_FAST_RELOAD_ON;
            else if (!strcmp(optarg, "partial")) settings->fast_reload = RECONNECT_FAST_RELOAD_PARTIAL;
            else fail(2, "--fast-reload takes on, off or partial, not", optarg);
            break;
        case 'F': config->fast_timeout_ms = count(name, optarg, UINT32_MAX); break;
        case 'W': config->trip_window_ms = count(name, optarg, UINT32_MAX); break;
        case 'P': config->trip_failure_percent = count(name, optarg, 100); break;
        case 'U': config->trip_unstable_percent = count(name, optarg, 100); break;
        case 'M': config->trip_min_attempts = count(name, optarg, UINT32_MAX); break;
        case 'R': config->trip_rearm_ms = count(name, optarg, UINT32_MAX); break;
        case 'S':
            if (!has_port(strncmp(optarg, "stun:", 5) ? optarg : optarg + 5, host, sizeof host))
                fail(2, "--stun takes HOST:PORT, not", optarg);
            servers[config->stun_server_count++] = optarg;
            break;
        case 'A':
            if (!is_address(optarg) && !(has_port(optarg, host, sizeof host) && is_address(host)))
                fail(2, "--public takes an IP address, and a port, not", optarg);
            publics[config->public_address_count++] = optarg;
            break;
        case 'i': config->interfaces = interface_policy(optarg); break;
        case ':': fail(2, argv[optind - 1], "a value is missing; --help tells more"); break;
        case 'H': fputs(usage, stdout); exit(0);
        default: fail(2, argv[optind - 1], "there is no such option; --help tells more");
        }
    }
    if (optind < argc) fail(2, argv[optind], "there is nothing to do with it; --help tells more");
    if (!config->address_count) config->addresses = NULL;
    config->ticket_secret = secret_count > 0 ? secrets[0] : NULL;
    config->ticket_secret_size = sizes[0];
    config->old_ticket_secret = secret_count > 1 ? secrets[1] : NULL;
    config->old_ticket_secret_size = sizes[1];
    config->returning_peer = http_peer(); /* who comes back with a ticket gets what one gets that was answered */
}

int main(int argc, char **argv) {
    struct settings settings = {.http = "127.0.0.1:8080", .fast_reload = -1};
    settings.config.struct_size = sizeof settings.config;
    take_options(argc, argv, &settings);
    if (getenv("ALLOWED_ORIGINS")) allow_list(getenv("ALLOWED_ORIGINS"));

    /* Blocked before the engine starts its thread, and let through in ppoll() only: a signal always ends the wait. */
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
    struct sigaction action = {.sa_handler = take_signal};
    sigset_t signals, waiting;
    sigemptyset(&signals);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaddset(&signals, numbers[i]);
    sigprocmask(SIG_BLOCK, &signals, &waiting);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaction(numbers[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN);

    size_t page_size, module_size;
    char *page = read_page(settings.page, &page_size), detail[512];
    char *module = read_in_tree("bindings/web/reconnect.js", &module_size); /* without it there is no /reconnect.js */
    reconnect_engine_t engine;
    int events;
    reconnect_status_t status = reconnect_engine_create_from_env(&settings.config, &engine, detail, sizeof detail);
    if (status != RECONNECT_OK) fail(1, reconnect_status_name(status), detail);
    if (settings.fast_reload >= 0) /* stronger than the environment */
        reconnect_engine_set_fast_reload(engine, (uint32_t)settings.fast_reload);
    if (reconnect_event_fd(engine, &events) != RECONNECT_OK) fail(1, "the engine", "has no event descriptor");
    http_page(page, page_size);
    if (module) http_module(module, module_size);
    http_open(engine, settings.http);

    while (!stopped) {
        obey(engine);
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
    free(module);
    return 0;
}
