#include "answerer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A message that waits to be echoed. */
struct kept {
    struct kept *next;
    const void *data; /* in the library; behind this struct if batch is 0 */
    size_t size;
    uint64_t batch;
    uint32_t kind;
};

/* A channel that cannot send. */
struct blocked {
    struct blocked *next;
    reconnect_channel_t channel;
    struct kept *first, **end;
};

static struct blocked *all;

int echo_blocked(void) {
    return all != NULL;
}

static struct blocked **find(reconnect_channel_t channel) {
    struct blocked **place = &all;
    while (*place && (*place)->channel.id != channel.id) place = &(*place)->next;
    return place;
}

/* 0: the channel cannot send now. Otherwise the message is done with: sent, or impossible to send. */
static int send_back(reconnect_channel_t channel, uint32_t kind, const void *data, size_t size) {
    reconnect_status_t status = reconnect_send(channel, kind, data, size);
    if (status == RECONNECT_WOULD_BLOCK) return 0;
    if (status != RECONNECT_OK && status != RECONNECT_CLOSED && status != RECONNECT_INVALID_HANDLE)
        fprintf(stderr, "channel %llx: %zu bytes not echoed: %s\n", (unsigned long long)channel.id, size,
                reconnect_status_name(status));
    return 1;
}

static void drop_first(reconnect_engine_t engine, struct blocked *blocked) {
    struct kept *kept = blocked->first;
    if (!(blocked->first = kept->next)) blocked->end = &blocked->first;
    if (kept->batch) reconnect_release(engine, kept->batch);
    free(kept);
}

static void forget(reconnect_engine_t engine, struct blocked **place) {
    struct blocked *blocked = *place;
    while (blocked->first) drop_first(engine, blocked);
    *place = blocked->next;
    free(blocked);
}

/* Keeps a message: in the library if it is alone in its batch, as a copy otherwise. */
static int keep(struct blocked *blocked, const reconnect_event_t *event, int alone) {
    struct kept *kept = malloc(sizeof *kept + (alone ? 0 : event->size));
    if (!kept) return 0;
    *kept = (struct kept){.data = event->data, .size = event->size, .kind = event->kind};
    if (alone) kept->batch = event->batch;
    else kept->data = memcpy(kept + 1, event->data, event->size);
    *blocked->end = kept;
    blocked->end = &kept->next;
    return 1;
}

static int message(const reconnect_event_t *event, int alone) {
    struct blocked **place = find(event->channel);
    if (!*place) {
        if (send_back(event->channel, event->kind, event->data, event->size)) return 0;
        struct blocked *blocked = calloc(1, sizeof *blocked);
        if (blocked) {
            blocked->channel = event->channel;
            blocked->end = &blocked->first;
        }
        *place = blocked;
    }
    if (*place && keep(*place, event, alone)) return alone;
    reconnect_peer_close(event->peer); /* no memory: better no connection than a lost message */
    return 0;
}

int echo_event(reconnect_engine_t engine, const reconnect_event_t *event, int alone) {
    struct blocked **place;
    switch (event->type) {
    case RECONNECT_EVENT_MESSAGE:
        return message(event, alone);
    case RECONNECT_EVENT_BUFFERED_LOW:
        if (!*(place = find(event->channel))) return 0;
        while ((*place)->first) {
            struct kept *kept = (*place)->first;
            if (!send_back(event->channel, kept->kind, kept->data, kept->size)) return 0;
            drop_first(engine, *place);
        }
        forget(engine, place);
        return 0;
    case RECONNECT_EVENT_CHANNEL_CLOSED:
        if (*(place = find(event->channel))) forget(engine, place);
        return 0;
    default:
        return 0;
    }
}

void echo_close(void) { /* the engine's end releases the batches */
    while (all) {
        struct blocked *blocked = all;
        for (struct kept *kept; (kept = blocked->first); free(kept)) blocked->first = kept->next;
        all = blocked->next;
        free(blocked);
    }
}
