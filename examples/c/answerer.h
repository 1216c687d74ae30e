/* What the parts of the answerer host give each other. */
#ifndef ANSWERER_H
#define ANSWERER_H

#include <poll.h>
#include <reconnect.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* answerer.c */
_Noreturn void fail(int status, const char *what, const char *detail); /* prints "what: detail" and ends the process */
int64_t now_ms(void);

/* http.c: many connections, none of which can hold up the others. */
enum { HTTP_CLIENTS = 256, HTTP_POLLED = HTTP_CLIENTS + 1 };
void http_open(reconnect_engine_t engine, const char *address);
void http_page(const char *bytes, size_t size);
void http_module(const char *bytes, size_t size); /* the client for pages */
void http_allow(const char *origin);              /* an origin whose pages may send offers */
void http_negotiate(uint32_t id);                 /* a further channel of every peer, agreed on beforehand */
const reconnect_peer_config_t *http_peer(void);   /* how peers are made */
size_t http_prepare(struct pollfd *polled, struct timespec *patience); /* what to wait for, and for how long */
void http_serve(const struct pollfd *polled, size_t count);
void http_answered(const reconnect_event_t *event); /* RECONNECT_EVENT_ANSWER */
void http_close(void);

/* echo.c: sends every message back on its channel. While a channel cannot send, its messages are kept in the library:
   their batches are not released, so they fill the peer's receive window and the other side stops sending. For that
   the host takes events one by one while echo_blocked(): a batch that is kept must hold nothing of other peers. */
int echo_blocked(void);
int echo_event(reconnect_engine_t engine, const reconnect_event_t *event, int alone); /* 1: the batch is kept */
void echo_close(void);

#endif
