#pragma once
#include <stddef.h>
#include <stdint.h>

/* hiredis' parser for what a Redis server sends, with bounds: what a server (or something that only answers on its
   port) can make us hold is limited. */

typedef enum {
    REPLY_NULL,
    REPLY_INTEGER,
    REPLY_STATUS,
    REPLY_BYTES,
    REPLY_ARRAY,
    REPLY_ERROR
} reply_type_t;

typedef struct reply reply_t;
struct reply {
    reply_type_t type;
    int64_t integer;
    size_t length;      /* of bytes */
    const char *bytes;  /* status, bytes, error; not terminated */
    size_t count;       /* of elements */
    reply_t **elements; /* array */
};

typedef struct reply_reader reply_reader_t;

/* Replies of more than `maximum_bytes`, everything counted, are refused. NULL without memory. */
reply_reader_t *reply_reader_create(size_t maximum_bytes);
void reply_reader_destroy(reply_reader_t *reader);

/* Takes bytes as they came, some ten kilobytes at a time; then ask for replies until there are none. 0, or -1 if no more
   can be made of this stream. */
int reply_reader_feed(reply_reader_t *reader, const void *bytes, size_t length);

/* 1: a reply in *reply, to be freed; 0: not yet complete; -1: what came is not Redis or breaks a bound. */
int reply_reader_next(reply_reader_t *reader, reply_t **reply);

void reply_free(reply_t *reply);

/* What was wrong after -1. Lives as long as the reader. */
const char *reply_reader_problem(const reply_reader_t *reader);
