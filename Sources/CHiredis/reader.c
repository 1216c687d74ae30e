#include "CHiredis.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

struct reply_reader {
    redisReader *reader;
    size_t maximum;
    size_t held;     /* bytes of the reply under construction */
    size_t unparsed; /* bytes fed since the last complete reply: what hiredis may hold in its buffer */
    const char *problem;
};

/* hiredis 1.0 counts elements in size_t, 0.14 in int. */
#if defined(HIREDIS_MAJOR) && HIREDIS_MAJOR >= 1
typedef size_t element_count;
#else
typedef int element_count;
#endif

static reply_t *make(const redisReadTask *task, reply_type_t type, size_t extra) {
    reply_reader_t *owner = task->privdata;
    size_t size = sizeof(reply_t) + sizeof(void *) + extra;
    if (size > owner->maximum || owner->held > owner->maximum - size) {
        owner->problem = "a reply exceeds the size limit";
        return NULL;
    }
    reply_t *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    owner->held += size;
    made->type = type;
    return made;
}

/* Puts a finished or just begun reply into its array. hiredis has checked the index. */
static void *place(const redisReadTask *task, reply_t *made) {
    if (task->parent) {
        reply_t *parent = task->parent->obj;
        parent->elements[task->idx] = made;
    }
    return made;
}

static void *create_string(const redisReadTask *task, char *bytes, size_t length) {
    reply_type_t type = task->type == REDIS_REPLY_STATUS  ? REPLY_STATUS
                        : task->type == REDIS_REPLY_ERROR ? REPLY_ERROR
                                                          : REPLY_BYTES;
    reply_t *made = make(task, type, length);
    if (!made) return NULL;
    char *copy = malloc(length ? length : 1);
    if (!copy) {
        free(made);
        return NULL;
    }
    memcpy(copy, bytes, length);
    made->bytes = copy;
    made->length = length;
    return place(task, made);
}

static void *create_array(const redisReadTask *task, element_count count) {
    reply_reader_t *owner = task->privdata;
    if (count < 0 || (size_t)count > owner->maximum / sizeof(void *)) {
        owner->problem = "a reply exceeds the size limit";
        return NULL;
    }
    reply_t *made = make(task, REPLY_ARRAY, (size_t)count * sizeof(void *));
    if (!made) return NULL;
    if (count > 0) {
        made->elements = calloc((size_t)count, sizeof *made->elements);
        if (!made->elements) {
            free(made);
            return NULL;
        }
    }
    made->count = (size_t)count;
    return place(task, made);
}

static void *create_integer(const redisReadTask *task, long long value) {
    reply_t *made = make(task, REPLY_INTEGER, 0);
    if (!made) return NULL;
    made->integer = value;
    return place(task, made);
}

static void *create_null(const redisReadTask *task) {
    reply_t *made = make(task, REPLY_NULL, 0);
    return made ? place(task, made) : NULL;
}

#if defined(HIREDIS_MAJOR) && HIREDIS_MAJOR >= 1
/* Types of RESP 3, which is never asked for: only a broken server sends them. */
static void *create_double(const redisReadTask *task, double value, char *text, size_t length) {
    (void)value;
    (void)text;
    (void)length;
    ((reply_reader_t *)task->privdata)->problem = "a reply of a later protocol";
    return NULL;
}

static void *create_boolean(const redisReadTask *task, int value) {
    (void)value;
    ((reply_reader_t *)task->privdata)->problem = "a reply of a later protocol";
    return NULL;
}
#endif

void reply_free(reply_t *reply) {
    if (!reply) return;
    /* No deeper than hiredis' stack of nine. */
    for (size_t index = 0; index < reply->count; index++) reply_free(reply->elements[index]);
    free(reply->elements);
    free((void *)reply->bytes);
    free(reply);
}

static void free_object(void *object) { reply_free(object); }

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_null,
#if defined(HIREDIS_MAJOR) && HIREDIS_MAJOR >= 1
    .createDouble = create_double,
    .createBool = create_boolean,
#endif
    .freeObject = free_object,
};

reply_reader_t *reply_reader_create(size_t maximum_bytes) {
    reply_reader_t *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->reader = redisReaderCreateWithFunctions(&functions);
    if (!made->reader) {
        free(made);
        return NULL;
    }
    made->reader->privdata = made;
    made->maximum = maximum_bytes;
    return made;
}

void reply_reader_destroy(reply_reader_t *reader) {
    if (!reader) return;
    redisReaderFree(reader->reader);
    free(reader);
}

int reply_reader_feed(reply_reader_t *reader, const void *bytes, size_t length) {
    if (reader->reader->err) return -1;
    reader->unparsed += length;
    return redisReaderFeed(reader->reader, bytes, length) == REDIS_OK ? 0 : -1;
}

int reply_reader_next(reply_reader_t *reader, reply_t **reply) {
    void *made = NULL;
    if (redisReaderGetReply(reader->reader, &made) != REDIS_OK) return -1;
    if (!made) {
        if (reader->unparsed <= reader->maximum) return 0;
        reader->problem = "a reply exceeds the size limit";
        return -1;
    }
    reader->held = 0;
    /* What is left in the buffer belongs to the next one. */
    reader->unparsed = reader->reader->len - reader->reader->pos;
    *reply = made;
    return 1;
}

const char *reply_reader_problem(const reply_reader_t *reader) {
    if (reader->problem) return reader->problem;
    return reader->reader->err ? reader->reader->errstr : "";
}
