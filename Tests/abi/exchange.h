/* Connects two engines over loopback and exchanges messages: C11 and C++17. */
#ifndef EXCHANGE_H
#define EXCHANGE_H

#include "tap.h"

#include <reconnect.h>

#include <string.h>
#include <time.h>

typedef struct {
    reconnect_engine_t offerer;
    reconnect_engine_t answerer;
    reconnect_peer_t offering;
    reconnect_peer_t answering;
    reconnect_channel_t local;  /* the channel that the offerer opened */
    reconnect_channel_t remote; /* its other end */
} exchange_t;

static inline int64_t exchange_milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* What a test waits for: an event of this type at this engine, and what it brought. */
typedef struct {
    reconnect_engine_t engine;
    uint32_t type;
    uint64_t tag;      /* 0: any */
    int64_t number;    /* of a PEER_STATE event; 0: any */
    reconnect_event_t event;
    unsigned char *data; /* a copy that the caller frees, with a NUL behind it */
} exchange_wait_t;

/* Takes events of the engine until the one that is waited for; others are ignored. Returns whether it came. */
static inline int exchange_wait(exchange_wait_t *wait) {
    const int64_t end = exchange_milliseconds() + 30000;
    wait->data = NULL;
    for (;;) {
        reconnect_event_t event;
        size_t count = 0;
        const int64_t left = end - exchange_milliseconds();
        reconnect_status_t status;
        if (left <= 0) {
            printf("# no event of type %u came\n", (unsigned)wait->type);
            return 0;
        }
        status = reconnect_poll(wait->engine, &event, 1, (int32_t)left, &count);
        if (status != RECONNECT_OK) {
            printf("# reconnect_poll: %s\n", reconnect_status_name(status));
            return 0;
        }
        if (count == 0) {
            continue;
        }
        if (event.type == wait->type && (wait->tag == 0 || event.tag == wait->tag) &&
            (wait->number == 0 || event.number == wait->number)) {
            wait->event = event;
            wait->data = (unsigned char *)malloc(event.size + 1);
            if (wait->data != NULL) {
                memcpy(wait->data, event.data, event.size);
                wait->data[event.size] = 0;
            }
            return reconnect_release(wait->engine, event.batch) == RECONNECT_OK && wait->data != NULL;
        }
        if (event.type == RECONNECT_EVENT_LOG || event.type == RECONNECT_EVENT_PEER_STATE) {
            printf("# event %u number %lld %s: %.*s\n", (unsigned)event.type, (long long)event.number,
                   reconnect_status_name(event.status), (int)event.size, (const char *)event.data);
        }
        if (reconnect_release(wait->engine, event.batch) != RECONNECT_OK ||
            (event.type == RECONNECT_EVENT_PEER_STATE && event.number == RECONNECT_PEER_CLOSED)) {
            return 0; /* nothing more comes from a closed peer */
        }
    }
}

static inline int exchange_expect(reconnect_engine_t engine, uint32_t type, uint64_t tag, int64_t number,
                                  exchange_wait_t *wait) {
    memset(wait, 0, sizeof *wait);
    wait->engine = engine;
    wait->type = type;
    wait->tag = tag;
    wait->number = number;
    return exchange_wait(wait);
}

/* Sends `size` bytes from one end to the other and back, and compares. */
static inline int exchange_echo(exchange_t *exchange, uint32_t kind, size_t size) {
    exchange_wait_t wait;
    unsigned char *message = (unsigned char *)malloc(size + 1);
    reconnect_status_t status;
    size_t index;
    int held = 0;
    if (message == NULL) {
        return 0;
    }
    for (index = 0; index < size; index++) {
        message[index] = (unsigned char)(kind == RECONNECT_TEXT ? 'a' + index % 26 : index * 31 + 7);
    }
    status = reconnect_send(exchange->local, kind, size == 0 ? NULL : message, size);
    if (!check(status == RECONNECT_OK, "send %zu bytes, kind %u: %s", size, (unsigned)kind,
               reconnect_status_name(status))) {
        free(message);
        return 0;
    }
    held = exchange_expect(exchange->answerer, RECONNECT_EVENT_MESSAGE, 0, 0, &wait);
    held = held && wait.event.kind == kind && wait.event.size == size &&
           (size == 0 || memcmp(wait.data, message, size) == 0) && wait.event.channel.id == exchange->remote.id;
    check(held, "%zu bytes arrive", size);
    if (held) {
        status = reconnect_send(exchange->remote, kind, wait.data, wait.event.size);
        held = status == RECONNECT_OK;
    }
    free(wait.data);
    held = held && exchange_expect(exchange->offerer, RECONNECT_EVENT_MESSAGE, 1, 0, &wait);
    if (held) {
        held = wait.event.kind == kind && wait.event.size == size &&
               (size == 0 || memcmp(wait.data, message, size) == 0) && wait.event.channel.id == exchange->local.id;
        free(wait.data);
    }
    check(held, "%zu bytes come back", size);
    free(message);
    return held;
}

/* Makes an engine that offers only `address`; binds to it too if `bind` says so. */
static inline reconnect_status_t exchange_engine(const char *address, int bind, reconnect_engine_t *engine) {
    reconnect_engine_config_t config;
    const char *addresses[1];
    char detail[256] = "";
    reconnect_status_t status;
    addresses[0] = address;
    memset(&config, 0, sizeof config);
    config.struct_size = sizeof config;
    config.bind_address = bind ? address : NULL;
    config.addresses = addresses;
    config.address_count = 1;
    status = reconnect_engine_create(&config, engine, detail, sizeof detail);
    if (status != RECONNECT_OK) {
        printf("# reconnect_engine_create: %s: %s\n", reconnect_status_name(status), detail);
    }
    return status;
}

/* Offer, answer, connection, an open channel. Returns whether all went well. */
static inline int exchange_connect(exchange_t *exchange) {
    reconnect_peer_config_t peer;
    reconnect_channel_config_t channel;
    exchange_wait_t wait;
    char detail[256] = "";
    reconnect_status_t status;

    memset(&peer, 0, sizeof peer);
    peer.struct_size = sizeof peer;
    peer.tag = 11;
    memset(&channel, 0, sizeof channel);
    channel.struct_size = sizeof channel;
    channel.label = "greetings";
    channel.protocol = "plain";
    channel.tag = 1;

    status = reconnect_peer_create(exchange->offerer, &peer, &exchange->offering);
    if (!check(status == RECONNECT_OK, "make a peer: %s", reconnect_status_name(status))) {
        return 0;
    }
    status = reconnect_channel_open(exchange->offering, &channel, &exchange->local);
    if (!check(status == RECONNECT_OK, "open a channel: %s", reconnect_status_name(status))) {
        return 0;
    }
    status = reconnect_peer_offer(exchange->offering, 21);
    if (!check(status == RECONNECT_OK, "ask for the offer: %s", reconnect_status_name(status)) ||
        !check(exchange_expect(exchange->offerer, RECONNECT_EVENT_OFFER, 21, 0, &wait), "the offer comes")) {
        return 0;
    }
    check(wait.event.status == RECONNECT_OK, "it is an offer: %s", (const char *)wait.data);

    status = reconnect_answer(exchange->answerer, (const char *)wait.data, wait.event.size, NULL, 22,
                              &exchange->answering, detail, sizeof detail);
    free(wait.data);
    if (!check(status == RECONNECT_OK, "answer it: %s %s", reconnect_status_name(status), detail) ||
        !check(exchange_expect(exchange->answerer, RECONNECT_EVENT_ANSWER, 22, 0, &wait), "the answer comes")) {
        return 0;
    }
    check(wait.event.status == RECONNECT_OK && wait.event.peer.id == exchange->answering.id, "it is an answer: %s",
          (const char *)wait.data);
    check(wait.event.number == RECONNECT_MODE_NORMAL, "a first connection is normal");

    status = reconnect_peer_accept(exchange->offering, (const char *)wait.data, wait.event.size, 23, detail,
                                   sizeof detail);
    free(wait.data);
    if (!check(status == RECONNECT_OK, "accept it: %s %s", reconnect_status_name(status), detail) ||
        !check(exchange_expect(exchange->offerer, RECONNECT_EVENT_RESULT, 23, 0, &wait) &&
                   wait.event.status == RECONNECT_OK,
               "it fits the offer")) {
        return 0;
    }
    free(wait.data);

    if (!check(exchange_expect(exchange->offerer, RECONNECT_EVENT_CHANNEL_OPEN, 1, 0, &wait), "the channel opens")) {
        return 0;
    }
    check(wait.event.channel.id == exchange->local.id && strcmp((const char *)wait.data, "greetings") == 0,
          "with its own handle and label");
    free(wait.data);
    if (!check(exchange_expect(exchange->answerer, RECONNECT_EVENT_CHANNEL_OPEN, 0, 0, &wait),
               "its other end opens")) {
        return 0;
    }
    exchange->remote = wait.event.channel;
    check((wait.event.flags & RECONNECT_FLAG_REMOTE) != 0 && strcmp((const char *)wait.data, "greetings") == 0,
          "as one that the other side opened");
    free(wait.data);
    return 1;
}

/* Both engines, a connection over `address`, messages both ways, and the end of it all. */
static inline int exchange_run(const char *address, int bind) {
    exchange_t exchange;
    exchange_wait_t wait;
    reconnect_status_t status;
    uint64_t bytes = 1;
    memset(&exchange, 0, sizeof exchange);
    if (!check(exchange_engine(address, bind, &exchange.offerer) == RECONNECT_OK, "an engine for %s", address)) {
        return 0;
    }
    if (!check(exchange_engine(address, bind, &exchange.answerer) == RECONNECT_OK, "another engine for %s", address)) {
        reconnect_engine_destroy(exchange.offerer);
        return 0;
    }
    if (exchange_connect(&exchange)) {
        exchange_echo(&exchange, RECONNECT_TEXT, 1);
        exchange_echo(&exchange, RECONNECT_TEXT, 0);
        exchange_echo(&exchange, RECONNECT_BINARY, 0);
        exchange_echo(&exchange, RECONNECT_BINARY, 1000);
        exchange_echo(&exchange, RECONNECT_TEXT, 65536);
        exchange_echo(&exchange, RECONNECT_BINARY, 262144);
        check(reconnect_send(exchange.local, RECONNECT_BINARY, "", 0x7fffffff) == RECONNECT_TOO_LARGE,
              "a message of 2 GiB is too large, and its bytes are not touched");
        status = reconnect_channel_buffered(exchange.local, &bytes);
        check(status == RECONNECT_OK && bytes == 0, "nothing is left in the queue");

        status = reconnect_peer_query_statistics(exchange.offering, 31);
        if (check(status == RECONNECT_OK &&
                      exchange_expect(exchange.offerer, RECONNECT_EVENT_STATISTICS, 31, 0, &wait),
                  "statistics come")) {
            reconnect_peer_statistics_t figures;
            memset(&figures, 0, sizeof figures);
            memcpy(&figures, wait.data, wait.event.size < sizeof figures ? wait.event.size : sizeof figures);
            check(figures.channels == 1 && figures.messages_sent == 6 && figures.messages_received == 6,
                  "they count %u channels, %llu messages sent, %llu received", (unsigned)figures.channels,
                  (unsigned long long)figures.messages_sent, (unsigned long long)figures.messages_received);
            check(figures.dtls_ns > 0 && figures.sctp_ns >= figures.dtls_ns && figures.ice_ns > 0,
                  "ICE, DTLS and SCTP have their times");
            check(strstr(figures.remote_address, address) != NULL, "the remote address is %s", figures.remote_address);
            free(wait.data);
        }

        status = reconnect_channel_close(exchange.local);
        check(status == RECONNECT_OK, "close the channel: %s", reconnect_status_name(status));
        check(exchange_expect(exchange.answerer, RECONNECT_EVENT_CHANNEL_CLOSED, 0, 0, &wait), "its other end closes");
        free(wait.data);
        check(exchange_expect(exchange.offerer, RECONNECT_EVENT_CHANNEL_CLOSED, 1, 0, &wait), "it closes");
        free(wait.data);
        check(reconnect_send(exchange.local, RECONNECT_TEXT, "x", 1) == RECONNECT_INVALID_HANDLE,
              "its handle is invalid now");

        status = reconnect_peer_close(exchange.offering);
        check(status == RECONNECT_OK, "close the peer: %s", reconnect_status_name(status));
        if (check(exchange_expect(exchange.answerer, RECONNECT_EVENT_PEER_STATE, 0, RECONNECT_PEER_CLOSED, &wait),
                  "the other side hears of it")) {
            check(wait.event.status == RECONNECT_PEER_GONE, "and why: %s", reconnect_status_name(wait.event.status));
            free(wait.data);
        }
    }
    status = reconnect_engine_destroy(exchange.offerer);
    check(status == RECONNECT_OK, "destroy an engine: %s", reconnect_status_name(status));
    status = reconnect_engine_destroy(exchange.answerer);
    check(status == RECONNECT_OK, "destroy the other engine: %s", reconnect_status_name(status));
    check(reconnect_engine_destroy(exchange.answerer) == RECONNECT_INVALID_HANDLE, "destroying it again is refused");
    return tap_failed == 0;
}

#endif
