#pragma once
#include <stdint.h>

/* Stream sockets (TCP and Unix) of clients, names, and waiting for several descriptors. Every call answers a negative
   errno on failure. */

typedef struct {
    uint8_t bytes[128]; /* a sockaddr */
    uint32_t length;
} cs_endpoint;

enum { CS_NAME_FAILURE = 100000 };

/* Looks up a name (or number) and waits for the answer. Writes at most `max` endpoints; answers how many, or
   -(CS_NAME_FAILURE + n), n being for cs_name_failure_text. `numeric` nonzero: numbers only, without any waiting. */
int cs_resolve_endpoints(const char *host, uint16_t port, int numeric, cs_endpoint *endpoints, int max);
const char *cs_name_failure_text(int n);

/* -ENAMETOOLONG if the path does not fit. */
int cs_unix_endpoint(const char *path, cs_endpoint *endpoint);

/* Starts to connect. Answers the non-blocking descriptor; the connection is there, or has failed, when it is writable. */
int cs_stream_connect(const cs_endpoint *endpoint);
/* 0: connected; otherwise why not. */
int cs_stream_result(int fd);
/* The number of bytes; -EAGAIN: later. Receiving 0: the other side has closed. */
int64_t cs_stream_send(int fd, const void *bytes, uint64_t count);
int64_t cs_stream_receive(int fd, void *bytes, uint64_t count);

enum { CS_READ = 1, CS_WRITE = 2 };

typedef struct {
    int32_t fd;   /* negative: skipped */
    int32_t want; /* CS_READ, CS_WRITE */
    int32_t got;  /* both after an error or a hang-up: the next call tells which */
} cs_wait_entry;

/* Waits for at most `nanoseconds` (negative: without limit) until one of `count` (at most 64) descriptors is ready.
   Answers how many are. */
int cs_wait_any(cs_wait_entry *entries, int count, int64_t nanoseconds);

enum { CS_EAGAIN = 11, CS_ENAMETOOLONG = 36 };
