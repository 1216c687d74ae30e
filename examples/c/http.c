#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "answerer.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    LARGEST_HEAD = 16 << 10,
    LARGEST_BODY = 64 << 10,
    REQUEST_MS = 30000, /* for a request to arrive, for an answer to be taken */
    IDLE_MS = 120000,   /* between requests */
    LINGER_MS = 2000,   /* for what still comes after a refusal */
    LINGER_BYTES = 1 << 20
};

enum phase { READING, ANSWERING, WRITING, LINGERING };

struct client {
    int fd;
    enum phase phase;
    int keep_alive; /* after this request */
    const char *allowed; /* the allowed origin that this request came from */
    int head_only;
    int continued;  /* 100 Continue was sent */
    int64_t deadline;
    uint64_t serial; /* the answer's tag: descriptors are used again, serials are not */
    size_t received, sent, size;
    char *out;
    char in[LARGEST_HEAD + LARGEST_BODY];
};

struct request {
    char method[16], path[64];
    size_t head, body; /* sizes */
    int keep_alive, has_length, chunked, expects;
    const char *allowed;                     /* the allowed origin that it came from */
    const char *origin, *host, *known;       /* in the head */
    size_t origin_size, host_size, known_size;
};

static int transmit(struct client *client);

static reconnect_engine_t engine;
static struct client *clients[HTTP_CLIENTS];
static size_t client_count;
static uint64_t last_serial;
static int listener = -1;
static int64_t accept_after; /* out of descriptors: wait a little */
static const char *page, *module;
static size_t page_size, module_size;
static char module_tag[32]; /* its entity tag */
static const char *origins[64];
static size_t origin_count;

/* ------------------------------------------------------------------ opening */

void http_page(const char *bytes, size_t size) {
    page = bytes;
    page_size = size;
}

void http_module(const char *bytes, size_t size) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a: it only has to tell versions apart */
    for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)bytes[i]) * UINT64_C(0x100000001b3);
    snprintf(module_tag, sizeof module_tag, "\"%016llx\"", (unsigned long long)hash);
    module = bytes;
    module_size = size;
}

void http_allow(const char *origin) {
    if (strlen(origin) > 512) fail(2, "this origin is too long", origin);
    if (origin_count == sizeof origins / sizeof *origins) fail(2, origin, "there are too many origins");
    origins[origin_count++] = origin;
}

void http_open(reconnect_engine_t with, const char *address) {
    engine = with;
    char host[256];
    const char *colon = strrchr(address, ':');
    size_t length = colon ? (size_t)(colon - address) : 0;
    int bracketed = length >= 2 && address[0] == '[' && address[length - 1] == ']';
    if (!colon || length >= sizeof host || !colon[1] || strlen(colon + 1) > 5 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1) || atoi(colon + 1) > 65535 ||
        (!bracketed && memchr(address, ':', length)))
        fail(2, "--http takes HOST:PORT, not", address);
    snprintf(host, sizeof host, "%.*s", (int)(bracketed ? length - 2 : length), address + bracketed);

    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &found);
    if (error) fail(1, address, gai_strerror(error));
    int on = 1;
    listener = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(listener, found->ai_addr, found->ai_addrlen) < 0 || listen(listener, 128) < 0)
        fail(1, address, strerror(errno));
    freeaddrinfo(found);

    struct sockaddr_storage bound;
    socklen_t bound_size = sizeof bound;
    if (getsockname(listener, (struct sockaddr *)&bound, &bound_size) < 0) fail(1, address, strerror(errno));
    unsigned port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                      : ((struct sockaddr_in *)&bound)->sin_port);
    const char *left = strchr(host, ':') ? "[" : "", *right = *left ? "]" : "";
    printf("listening on http://%s%s%s:%u/\n", left, *host ? host : "localhost", right, port);
    fflush(stdout);
}

static void drop(struct client *client) {
    for (size_t i = 0; i < client_count; i++)
        if (clients[i] == client) clients[i] = clients[--client_count];
    close(client->fd);
    free(client->out);
    free(client);
}

void http_close(void) {
    while (client_count) drop(clients[0]);
    close(listener);
}

/* Dropped in the next round: not now, while poll's results refer to the clients by their places. */
static void abandon(struct client *client) {
    client->phase = LINGERING;
    client->deadline = 0;
}

/* ------------------------------------------------------------------ answers */

/* The whole response. A refusal that leaves a part of the request unread ends the connection. */
static void respond(struct client *client, int status, const char *reason, const char *type, const char *more,
                    const char *body, size_t size) {
    char head[1024], length_field[48] = "";
    if (status != 304) snprintf(length_field, sizeof length_field, "Content-Length: %zu\r\n", size);
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %d %s\r\n%s%s%s%s%s"
                          "X-Content-Type-Options: nosniff\r\nConnection: %s\r\n%s",
                          status, reason, type ? "Content-Type: " : "", type ? type : "", type ? "\r\n" : "",
                          length_field, strstr(more, "Cache-Control:") ? "" : "Cache-Control: no-store\r\n",
                          client->keep_alive ? "keep-alive" : "close", more);
    size_t origin = origin_count ? 64 + (client->allowed ? strlen(client->allowed) : 0) : 0;
    free(client->out);
    client->out = malloc((size_t)length + origin + 2 + size);
    if (!client->out) {
        abandon(client);
        return;
    }
    memcpy(client->out, head, (size_t)length);
    client->size = (size_t)length;
    if (origin_count) {
        client->size += (size_t)sprintf(client->out + client->size, "Vary: Origin\r\n");
        if (client->allowed)
            client->size +=
                (size_t)sprintf(client->out + client->size, "Access-Control-Allow-Origin: %s\r\n", client->allowed);
    }
    memcpy(client->out + client->size, "\r\n", 2);
    client->size += 2;
    if (!client->head_only) {
        memcpy(client->out + client->size, body, size);
        client->size += size;
    }
    client->sent = 0;
    client->phase = WRITING;
    client->deadline = now_ms() + REQUEST_MS;
}

/* Appends text to a JSON string. The library's details are UTF-8, possibly cut in the middle of a character. */
static void append_json(char *out, size_t capacity, const char *text, size_t size) {
    size_t at = strlen(out);
    for (size_t i = 0; i < size && at + 7 < capacity; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') at += (size_t)sprintf(out + at, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f) at += (size_t)sprintf(out + at, "\\u%04x", c < 0x7f ? c : '?');
        else out[at++] = (char)c;
    }
    out[at] = 0;
}

static void refuse(struct client *client, int status, const char *reason, const char *more, const char *name,
                   const char *detail, size_t detail_size) {
    char body[2048];
    snprintf(body, sizeof body, "{\"error\":\"%s\",\"detail\":\"", name);
    append_json(body, sizeof body - 2, detail, detail_size);
    strcat(body, "\"}");
    respond(client, status, reason, "application/json", more, body, strlen(body));
}

static void refuse_request(struct client *client, int status, const char *reason, const char *name,
                           const char *detail) {
    client->keep_alive = 0;
    refuse(client, status, reason, "", name, detail, strlen(detail));
}

/* A status of the library: what the offer is to blame for is 400. */
static void refuse_status(struct client *client, reconnect_status_t status, const char *detail, size_t size) {
    const char *name = reconnect_status_name(status);
    if (!size) size = strlen(detail = reconnect_status_text(status));
    switch (status) {
    case RECONNECT_MALFORMED_JSON:
    case RECONNECT_MALFORMED_SDP:
    case RECONNECT_UNACCEPTABLE:
    case RECONNECT_INVALID_ARGUMENT:
        refuse(client, 400, "Bad Request", "", name, detail, size);
        break;
    case RECONNECT_LIMIT:
        refuse(client, 503, "Service Unavailable", "", name, detail, size);
        break;
    default:
        refuse(client, 500, "Internal Server Error", "", name, detail, size);
    }
}

/* Every peer gets the channel "echo" with stream 1, which needs no announcement: a page that opens it likewise can
   send as soon as SCTP is up. The page is the DTLS client, so the channels that it announces have even streams
   (RFC 8832 section 6). */
static reconnect_channel_config_t channels[2] = {
    {.struct_size = sizeof *channels, .label = "echo", .negotiated = 1, .id = 1}};
static size_t channel_count = 1;

void http_negotiate(uint32_t id) {
    channels[1] =
        (reconnect_channel_config_t){.struct_size = sizeof *channels, .label = "negotiated", .negotiated = 1, .id = id};
    channel_count = 2;
}

const reconnect_peer_config_t *http_peer(void) {
    static reconnect_peer_config_t config = {.struct_size = sizeof config, .channels = channels};
    config.channel_count = channel_count;
    return &config;
}

static void take_offer(struct client *client, const char *offer, size_t size) {
    reconnect_peer_t peer;
    char detail[512] = "";
    reconnect_status_t status =
        reconnect_answer(engine, offer, size, http_peer(), client->serial, &peer, detail, sizeof detail);
    if (status == RECONNECT_OK) client->phase = ANSWERING;
    else refuse_status(client, status, detail, strlen(detail));
}

void http_answered(const reconnect_event_t *event) {
    struct client *client = NULL;
    for (size_t i = 0; i < client_count; i++)
        if (clients[i]->serial == event->tag && clients[i]->phase == ANSWERING) client = clients[i];
    if (!client) {
        reconnect_peer_close(event->peer); /* whoever offered has left */
        return;
    }
    if (event->status == RECONNECT_OK) respond(client, 200, "OK", "application/json", "", event->data, event->size);
    else refuse_status(client, event->status, event->data, event->size);
    if (!transmit(client)) abandon(client);
}

/* ----------------------------------------------------------------- requests */

static int is(const char *text, size_t size, const char *word) {
    return size == strlen(word) && !strncasecmp(text, word, size);
}

/* One header field; 0: malformed. */
static int take_field(struct request *request, const char *line, size_t size) {
    const char *colon = memchr(line, ':', size);
    if (!colon || colon == line || memchr(line, ' ', (size_t)(colon - line)) || memchr(line, 0, size)) return 0;
    size_t name = (size_t)(colon - line);
    const char *value = colon + 1;
    size_t length = size - name - 1;
    while (length && (*value == ' ' || *value == '\t')) value++, length--;
    while (length && (value[length - 1] == ' ' || value[length - 1] == '\t')) length--;
    if (is(line, name, "content-length")) {
        size_t body = 0;
        if (!length) return 0;
        for (size_t i = 0; i < length; i++) {
            if (value[i] < '0' || value[i] > '9') return 0;
            if (body <= LARGEST_BODY) body = body * 10 + (size_t)(value[i] - '0');
        }
        if (request->has_length && request->body != body) return 0;
        request->body = body;
        request->has_length = 1;
    } else if (is(line, name, "transfer-encoding")) {
        request->chunked = 1;
    } else if (is(line, name, "connection")) {
        if (is(value, length, "close")) request->keep_alive = 0;
        else if (is(value, length, "keep-alive")) request->keep_alive = 1;
    } else if (is(line, name, "expect")) {
        request->expects = is(value, length, "100-continue");
    } else if (is(line, name, "origin")) {
        request->origin = value;
        request->origin_size = length;
        for (size_t i = 0; i < origin_count; i++)
            if (length == strlen(origins[i]) && !memcmp(value, origins[i], length)) request->allowed = origins[i];
    } else if (is(line, name, "host")) {
        request->host = value;
        request->host_size = length;
    } else if (is(line, name, "if-none-match")) {
        request->known = value;
        request->known_size = length;
    }
    return 1;
}

/* The request's head, of `size` bytes with the empty line; 0: malformed. */
static int take_head(struct request *request, const char *head, size_t size) {
    const char *end = memmem(head, size, "\r\n", 2);
    const char *space = memchr(head, ' ', (size_t)(end - head));
    if (!space || space == head || (size_t)(space - head) >= sizeof request->method) return 0;
    memcpy(request->method, head, (size_t)(space - head));
    const char *path = space + 1;
    const char *version = memchr(path, ' ', (size_t)(end - path));
    if (!version || *path != '/' || end - version != 9 || memcmp(version, " HTTP/1.", 8)) return 0;
    request->keep_alive = version[8] != '0';
    size_t length = 0;
    while (path + length < version && path[length] != '?' && length < sizeof request->path - 1) length++;
    memcpy(request->path, path, length);
    for (const char *line = end + 2; line < head + size - 2; line = end + 2) {
        end = memmem(line, (size_t)(head + size - line), "\r\n", 2);
        if (!take_field(request, line, (size_t)(end - line))) return 0;
    }
    request->head = size;
    return 1;
}

static void get(struct client *client, const struct request *request, const char *type, const char *body, size_t size) {
    static const char preflight[] = "Access-Control-Allow-Methods: GET, HEAD, POST\r\n"
                                    "Access-Control-Allow-Headers: Content-Type\r\nAccess-Control-Max-Age: 600\r\n";
    static const char refusal[] = "allowed are GET, HEAD, OPTIONS";
    if (!strcmp(request->method, "OPTIONS"))
        respond(client, 204, "No Content", NULL, client->allowed ? preflight : "", "", 0);
    else if (body && (!strcmp(request->method, "GET") || client->head_only))
        respond(client, 200, "OK", type, "", body, size);
    else if (body)
        refuse(client, 405, "Method Not Allowed", "Allow: GET, HEAD, OPTIONS\r\n", "METHOD_NOT_ALLOWED", refusal,
               sizeof refusal - 1);
    else
        refuse(client, 405, "Method Not Allowed", "Allow: OPTIONS, POST\r\n", "METHOD_NOT_ALLOWED",
               "allowed are OPTIONS, POST", 25);
}

/* The client for pages. Browsers ask each time whether theirs is still the one. */
static void get_module(struct client *client, const struct request *request) {
    static const char missing[] = "bindings/web/reconnect.js was not found";
    char more[128];
    int reads = client->head_only || !strcmp(request->method, "GET");
    snprintf(more, sizeof more, "ETag: %s\r\nCache-Control: no-cache\r\n", module_tag);
    if (!module)
        refuse(client, 404, "Not Found", "", "NOT_FOUND", missing, sizeof missing - 1);
    else if (!reads)
        get(client, request, "", module, module_size);
    else if (request->known && memmem(request->known, request->known_size, module_tag, strlen(module_tag)))
        respond(client, 304, "Not Modified", NULL, more, "", 0);
    else
        respond(client, 200, "OK", "text/javascript; charset=utf-8", more, module, module_size);
}

static void get_metrics(struct client *client, const struct request *request) {
    size_t capacity = 65536, length = 0;
    char *text = NULL;
    reconnect_status_t status;
    do { /* it may grow between two calls */
        free(text);
        text = malloc(capacity);
        status = text ? reconnect_engine_metrics(engine, text, capacity, &length) : RECONNECT_NO_MEMORY;
        capacity = length;
    } while (status == RECONNECT_TOO_SMALL);
    if (status == RECONNECT_OK) get(client, request, "text/plain; version=0.0.4; charset=utf-8", text, length);
    else refuse_status(client, status, NULL, 0);
    free(text);
}

/* Programs may send offers, which have no origin, and pages of this host and of the origins that were allowed by name. */
static int may_offer(const struct request *request) {
    if (!request->origin || request->allowed) return 1;
    const char *scheme = memmem(request->origin, request->origin_size, "://", 3);
    if (!scheme || !request->host) return 0;
    size_t size = request->origin_size - (size_t)(scheme + 3 - request->origin);
    return size && size == request->host_size && !strncasecmp(scheme + 3, request->host, size);
}

static void serve(struct client *client, const struct request *request, const char *body) {
    static const char missing[] = "there are /, /reconnect.js, /ping, /metrics and /offer";
    static const char stranger[] = "pages of this origin may not send offers; --cors or ALLOWED_ORIGINS allow it";
    if (!strcmp(request->path, "/")) get(client, request, "text/html; charset=utf-8", page, page_size);
    else if (!strcmp(request->path, "/reconnect.js")) get_module(client, request);
    else if (!strcmp(request->path, "/metrics")) get_metrics(client, request);
    else if (!strcmp(request->path, "/ping")) get(client, request, "text/plain; charset=utf-8", "pong", 4);
    else if (strcmp(request->path, "/offer"))
        refuse(client, 404, "Not Found", "", "NOT_FOUND", missing, sizeof missing - 1);
    else if (strcmp(request->method, "POST")) get(client, request, NULL, NULL, 0);
    else if (!may_offer(request))
        refuse(client, 403, "Forbidden", "", "ORIGIN_NOT_ALLOWED", stranger, sizeof stranger - 1);
    else take_offer(client, body, request->body);
}

/* Serves the next request if it is here whole. */
static void process(struct client *client) {
    struct request request = {0};
    char *end = memmem(client->in, client->received, "\r\n\r\n", 4);
    client->head_only = client->keep_alive = 0;
    client->allowed = NULL;
    if (!end || end - client->in + 4 > LARGEST_HEAD) {
        if (client->received >= LARGEST_HEAD)
            refuse_request(client, 431, "Request Header Fields Too Large", "TOO_LARGE", "a head has at most 16384 bytes");
        return;
    }
    if (!take_head(&request, client->in, (size_t)(end - client->in) + 4)) {
        refuse_request(client, 400, "Bad Request", "BAD_REQUEST", "this is not HTTP/1.1");
        return;
    }
    client->allowed = request.allowed;
    client->head_only = !strcmp(request.method, "HEAD");
    if (request.chunked) {
        refuse_request(client, 411, "Length Required", "LENGTH_REQUIRED", "a body needs a Content-Length");
        return;
    }
    if (request.body > LARGEST_BODY) {
        refuse_request(client, 413, "Content Too Large", "TOO_LARGE", "an offer has at most 65536 bytes");
        return;
    }
    if (client->received < request.head + request.body) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        if (request.expects && !client->continued)
            client->continued = send(client->fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL) == sizeof go_on - 1;
        return;
    }
    client->keep_alive = request.keep_alive;
    client->continued = 0;
    serve(client, &request, client->in + request.head);
    client->received -= request.head + request.body;
    memmove(client->in, client->in + request.head + request.body, client->received);
}

/* -------------------------------------------------------------- connections */

static void accept_clients(void) {
    while (client_count < HTTP_CLIENTS) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                accept_after = now_ms() + 100;
            if (errno != ECONNABORTED && errno != EINTR) return;
            continue;
        }
        struct client *client = malloc(sizeof *client);
        if (!client) {
            close(fd);
            return;
        }
        memset(client, 0, offsetof(struct client, in));
        client->fd = fd;
        client->serial = ++last_serial;
        client->deadline = now_ms() + REQUEST_MS;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        clients[client_count++] = client;
    }
}

/* Reads what is there; 0: the connection is over. */
static int receive(struct client *client) {
    for (;;) {
        ssize_t size = recv(client->fd, client->in + client->received, sizeof client->in - client->received, 0);
        if (size <= 0) return size < 0 && (errno == EAGAIN || errno == EINTR);
        if (!client->received) client->deadline = now_ms() + REQUEST_MS;
        client->received += (size_t)size;
        process(client);
        if (client->phase != READING) return 1;
        if (client->received == sizeof client->in) return 0;
    }
}

/* The response is sent: on to the next request, or to the end. */
static void finish(struct client *client) {
    if (client->keep_alive) {
        client->phase = READING;
        client->deadline = now_ms() + (client->received ? REQUEST_MS : IDLE_MS);
        process(client); /* it may be here already */
    } else {
        /* Closing with something unread would send a reset, which may overtake the response. */
        shutdown(client->fd, SHUT_WR);
        client->phase = LINGERING;
        client->deadline = now_ms() + LINGER_MS;
        client->received = 0;
    }
}

/* Sends what can be sent; 0: the connection is over. */
static int transmit(struct client *client) {
    while (client->phase == WRITING) {
        ssize_t size = send(client->fd, client->out + client->sent, client->size - client->sent, MSG_NOSIGNAL);
        if (size < 0) return errno == EAGAIN || errno == EINTR;
        client->sent += (size_t)size;
        if (client->sent == client->size) finish(client);
    }
    return 1;
}

/* Reads and forgets; 0: the connection is over. */
static int linger(struct client *client) {
    ssize_t size = recv(client->fd, client->in, sizeof client->in, 0);
    if (size > 0) return (client->received += (size_t)size) < LINGER_BYTES;
    return size < 0 && (errno == EAGAIN || errno == EINTR);
}

static int advance(struct client *client, short events) {
    if (client->phase == ANSWERING) return !(events & (POLLERR | POLLHUP));
    if (client->phase == LINGERING) return linger(client);
    if (client->phase == READING && !receive(client)) return 0;
    return transmit(client);
}

size_t http_prepare(struct pollfd *polled, struct timespec *patience) {
    int64_t now = now_ms(), first = now + 60000;
    int accepting = client_count < HTTP_CLIENTS && now >= accept_after;
    if (client_count < HTTP_CLIENTS && accept_after > now) first = accept_after;
    polled[0] = (struct pollfd){.fd = accepting ? listener : -1, .events = POLLIN};
    for (size_t i = 0; i < client_count; i++) {
        static const short events[] = {[READING] = POLLIN, [ANSWERING] = 0, [WRITING] = POLLOUT, [LINGERING] = POLLIN};
        polled[i + 1] = (struct pollfd){.fd = clients[i]->fd, .events = events[clients[i]->phase]};
        if (clients[i]->phase != ANSWERING && clients[i]->deadline < first) first = clients[i]->deadline;
    }
    int64_t wait = first > now ? first - now : 0;
    *patience = (struct timespec){.tv_sec = wait / 1000, .tv_nsec = wait % 1000 * 1000000};
    return client_count + 1;
}

void http_serve(const struct pollfd *polled, size_t count) {
    int64_t now = now_ms();
    for (size_t i = count - 1; i > 0; i--) { /* backwards: drop() moves the last one to the gap */
        struct client *client = clients[i - 1];
        int late = client->phase != ANSWERING && client->deadline <= now;
        if (late || (polled[i].revents && !advance(client, polled[i].revents))) drop(client);
    }
    if (polled[0].revents) accept_clients();
}
