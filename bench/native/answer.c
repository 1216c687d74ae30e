/* Production of answers to offers of browsers, one after the other, inside the library. */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* {"type":"offer","sdp":"..."} of a file with a description. */
static char *read_offer(const char *path) {
    static char sdp[65536];
    FILE *file = fopen(path, "r");
    if (!file) fail(path, strerror(errno));
    size_t size = fread(sdp, 1, sizeof sdp - 1, file);
    fclose(file);
    char *json = malloc(2 * size + 64), *next = json;
    if (!json) fail(path, "no memory");
    next += sprintf(next, "{\"type\":\"offer\",\"sdp\":\"");
    for (size_t i = 0; i < size; i++) {
        char byte = sdp[i];
        if (byte == '\r') next = stpcpy(next, "\\r");
        else if (byte == '\n') next = stpcpy(next, "\\n");
        else if (byte == '"' || byte == '\\') *next++ = '\\', *next++ = byte;
        else *next++ = byte;
    }
    strcpy(next, "\"}");
    return json;
}

static int compare(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

static int64_t answer(reconnect_engine_t engine, const char *offer, const char *path) {
    reconnect_peer_t peer;
    char detail[256] = "";
    if (reconnect_answer(engine, offer, strlen(offer), NULL, 0, &peer, detail, sizeof detail) != RECONNECT_OK)
        fail(path, detail);
    int64_t duration = -1;
    for (bool is_closed = false; !is_closed;) {
        reconnect_event_t event;
        size_t count = 0;
        check(reconnect_poll(engine, &event, 1, 5000, &count), "reconnect_poll");
        if (count == 0) fail(path, "no answer came");
        if (event.type == RECONNECT_EVENT_ANSWER) {
            check(event.status, path);
            duration = event.duration_ns;
            reconnect_peer_close(peer);
        }
        if (event.type == RECONNECT_EVENT_PEER_STATE) is_closed = event.number == RECONNECT_PEER_CLOSED;
        reconnect_release(engine, event.batch);
    }
    return duration;
}

int main(int argc, char **argv) {
    enum { MOST = 2000 };
    static int64_t durations[MOST];
    unsigned total = is_quick(argc, argv) ? 200 : MOST;
    limit_seconds(30);
    const char *names[] = {"chromium-offer", "chromium-restart-offer", "chromium-media-offer", "firefox-offer",
                           "firefox-media-offer", "safari-offer"};
    char *offers[6];
    size_t count = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s.sdp", VECTORS, names[i]);
        offers[count++] = read_offer(path);
    }
    reconnect_engine_t engine = make_engine();
    for (unsigned i = 0; i < 50; i++) answer(engine, offers[i % count], names[i % count]);
    for (unsigned i = 0; i < total; i++) durations[i] = answer(engine, offers[i % count], names[i % count]);
    reconnect_engine_destroy(engine);
    qsort(durations, total, sizeof *durations, compare);
    printf("{\"bench\":\"answer\",\"who\":\"libreconnect\",\"count\":%u,\"median_ms\":%.4f,\"p95_ms\":%.4f}\n", total,
           (double)durations[total / 2] / 1e6, (double)durations[total * 95 / 100] / 1e6);
    return 0;
}
