#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void fail(const char *what, const char *detail) {
    fprintf(stderr, "%s: %s\n", what, detail);
    _exit(1);
}

void check(reconnect_status_t status, const char *what) {
    if (status != RECONNECT_OK) fail(what, reconnect_status_name(status));
}

void limit_seconds(unsigned seconds) { alarm(seconds); }

bool is_quick(int argc, char **argv) { return argc > 1 && strcmp(argv[1], "--quick") == 0; }

/* ------------------------------------------------------------------ processes */

process_t start(void (*body)(int socket)) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) fail("socketpair", strerror(errno));
    pid_t parent = getpid(), id = fork();
    if (id < 0) fail("fork", strerror(errno));
    if (id == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        close(pair[0]);
        body(pair[1]);
        _exit(0);
    }
    close(pair[1]);
    return (process_t){.id = id, .socket = pair[0]};
}

void end(process_t process) {
    kill(process.id, SIGKILL);
    waitpid(process.id, NULL, 0);
    close(process.socket);
}

static void write_all(int socket, const void *bytes, size_t size) {
    for (const char *next = bytes; size > 0;) {
        ssize_t count = send(socket, next, size, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) fail("the other process", "is gone");
        next += count;
        size -= (size_t)count;
    }
}

static void read_all(int socket, void *bytes, size_t size) {
    for (char *next = bytes; size > 0;) {
        ssize_t count = read(socket, next, size);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) fail("the other process", "is gone");
        next += count;
        size -= (size_t)count;
    }
}

void send_text(int socket, uint64_t tag, const void *text, size_t size) {
    uint64_t header[2] = {tag, size};
    write_all(socket, header, sizeof header);
    write_all(socket, text, size);
}

char *receive_text(int socket, uint64_t *tag, size_t *size) {
    uint64_t header[2];
    read_all(socket, header, sizeof header);
    char *text = header[1] < 1 << 20 ? malloc(header[1] + 1) : NULL;
    if (!text) fail("the other process", "sends nonsense");
    read_all(socket, text, header[1]);
    text[header[1]] = 0;
    *tag = header[0];
    *size = header[1];
    return text;
}

/* -------------------------------------------------------------------- library */

reconnect_engine_t make_engine(void) { return make_engine_with((reconnect_engine_config_t){0}); }

reconnect_engine_t make_engine_with(reconnect_engine_config_t config) {
    static const char *const addresses[] = {"127.0.0.1"};
    config.struct_size = sizeof config;
    config.bind_address = "127.0.0.1";
    config.addresses = addresses;
    config.address_count = 1;
    config.log_level = RECONNECT_LOG_NONE;
    reconnect_engine_t engine;
    char detail[256] = "";
    if (reconnect_engine_create(&config, &engine, detail, sizeof detail) != RECONNECT_OK) fail("the engine", detail);
    return engine;
}

reconnect_channel_t open_channel(reconnect_peer_t peer, uint64_t tag) {
    reconnect_channel_config_t config = {.struct_size = sizeof config, .label = "bench", .tag = tag};
    reconnect_channel_t channel;
    check(reconnect_channel_open(peer, &config, &channel), "reconnect_channel_open");
    return channel;
}

void serve_echo(int socket) { serve(socket, make_engine(), NULL); }

void serve(int socket, reconnect_engine_t engine, const reconnect_peer_config_t *peers) {
    reconnect_event_t events[BATCH];
    struct pollfd polled[2] = {{.events = POLLIN}, {.fd = socket, .events = POLLIN}};
    check(reconnect_event_fd(engine, &polled[0].fd), "reconnect_event_fd");
    while (poll(polled, 2, -1) >= 0 || errno == EINTR) {
        if (polled[1].revents) {
            uint64_t tag;
            size_t size;
            char *offer = receive_text(socket, &tag, &size), detail[256] = "";
            reconnect_peer_t peer;
            if (reconnect_answer(engine, offer, size, peers, tag, &peer, detail, sizeof detail) != RECONNECT_OK)
                fail("the offer", detail);
            free(offer);
        }
        size_t count = 0;
        check(reconnect_poll(engine, events, BATCH, 0, &count), "reconnect_poll");
        for (size_t i = 0; i < count; i++) {
            reconnect_event_t *event = &events[i];
            if (event->type == RECONNECT_EVENT_ANSWER) send_text(socket, event->tag, event->data, event->size);
            if (event->type == RECONNECT_EVENT_MESSAGE)
                (void)reconnect_send(event->channel, event->kind, event->data, event->size);
        }
        if (count > 0) reconnect_release(engine, events[0].batch);
    }
}

/* --------------------------------------------------------------------- clocks */

static double read_clock(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time) != 0) fail("clock_gettime", strerror(errno));
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

double seconds_now(void) { return read_clock(CLOCK_MONOTONIC); }

double cpu_seconds(pid_t process) {
    clockid_t clock;
    if (clock_getcpuclockid(process, &clock) != 0) fail("clock_getcpuclockid", "no such process");
    return read_clock(clock);
}

long resident_kib(pid_t process) {
    char path[64];
    long total, resident;
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)process);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%ld %ld", &total, &resident) != 2) fail(path, "cannot be read");
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}
