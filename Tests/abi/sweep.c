/* Calls every function of the header through libffi, as a foreign-function host would, with NULLs, zeros, wrong
   sizes, stale and made-up handles, and with live ones, from several threads. Every call must return; none with a
   bad handle may succeed; outputs are written only on success. The table of functions is made from the header.

   usage: sweep [calls|churn|fork] [SEED] */
#define _GNU_SOURCE

#include "exchange.h"

#include <errno.h>
#include <ffi.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

typedef enum {
    ENGINE, PEER, CHANNEL, CONNECTOR, REPLAY,
    U16, U32, I32, U64, I64,
    SIZE,    /* the size, count or capacity of the pointer before it */
    UNIT,    /* the size of one element of the pointer before it */
    TIMES,   /* how many of them */
    OPERATIONS, /* an array of operations of a replay buffer */
    TAKEN,   /* an output that is always written */
    BYTES,   /* text or bytes to read */
    STRINGS, /* an array of texts */
    CONFIG,  /* a struct to read, with struct_size */
    SERVERS, /* an array of such structs */
    FILLED,  /* a struct to fill, with struct_size */
    EVENTS, OUT, BUFFER, DETAIL
} kind_t;

typedef enum { STATUS, NUMBER, TEXT_RESULT } result_t;

typedef struct {
    kind_t kind;
    const char *name;
    size_t size; /* bytes behind a pointer to one */
} parameter_t;

enum { MOST_PARAMETERS = 10, THREADS = 4, CALLS = 3000, PAGE = 65536 };

typedef struct {
    const char *name;
    void (*function)(void);
    result_t result;
    unsigned count;
    parameter_t parameters[MOST_PARAMETERS];
} function_t;

#define FUNCTION(name) ((void (*)(void))(name))
#include "functions.inc"
enum { FUNCTIONS = sizeof functions / sizeof *functions };

/* Live and stale handles. Live ones are replaced when a call has closed them. */
static reconnect_engine_t live_engine, stale_engine;
static reconnect_peer_t stale_peer;
static reconnect_channel_t stale_channel;
static reconnect_connector_t stale_connector;
static reconnect_replay_t live_replay, stale_replay;
static _Atomic uint64_t shared_engine; /* what the churn phase calls with */

/* Which call runs, for the message after a crash. */
static _Thread_local const function_t *current;
static _Thread_local char current_words[512];

/* One argument as chosen: what to pass, and what is behind a pointer. */
typedef struct {
    union {
        uint64_t u64;
        uint32_t u32;
        int32_t i32;
        int64_t i64;
        uint16_t u16;
        size_t size;
        void *pointer;
    } value;
    unsigned char *memory; /* NULL for NULL */
    size_t capacity;       /* in bytes */
    size_t unit;
    bool live;  /* a handle that works */
    bool maybe; /* a made-up handle that might work by chance */
} argument_t;

/* Memory of a thread: for every parameter a page that ends at a page nobody may touch. */
typedef struct {
    unsigned char *pages[MOST_PARAMETERS];
    uint64_t random;
    reconnect_peer_t peer;
    reconnect_channel_t channel;
    reconnect_connector_t connector;
    unsigned long calls, failures, succeeded;
    unsigned number;
    bool everything;
} worker_t;

static void crashed(int signal_number) {
    char line[1024];
    int length = snprintf(line, sizeof line, "not ok - %s crashed (signal %d): %s\nBail out!\n",
                          current != NULL ? current->name : "?", signal_number, current_words);
    if (write(1, line, (size_t)length) < 0) {
        _exit(3);
    }
    _exit(2);
}

static uint64_t next(worker_t *worker) { /* xorshift64* */
    worker->random ^= worker->random >> 12;
    worker->random ^= worker->random << 25;
    worker->random ^= worker->random >> 27;
    return worker->random * UINT64_C(2685821657736338717);
}

static void prepare(worker_t *worker, uint64_t seed, unsigned number) {
    memset(worker, 0, sizeof *worker);
    worker->random = seed * 0x9E3779B97F4A7C15u + number + 1;
    worker->number = number;
    for (unsigned index = 0; index < MOST_PARAMETERS; index++) {
        unsigned char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (pages == MAP_FAILED || mprotect(pages + PAGE, PAGE, PROT_NONE) != 0) {
            perror("mmap");
            exit(3);
        }
        worker->pages[index] = pages;
    }
}

static void finish_worker(worker_t *worker) {
    for (unsigned index = 0; index < MOST_PARAMETERS; index++) {
        munmap(worker->pages[index], 2 * PAGE);
    }
}

/* A live peer or channel of this thread, made anew if a call has closed it. */
static reconnect_peer_t live_peer(worker_t *worker) {
    uint64_t bytes;
    if (worker->peer.id == 0 || reconnect_channel_buffered(worker->channel, &bytes) != RECONNECT_OK) {
        if (worker->peer.id != 0) {
            reconnect_peer_close(worker->peer);
        }
        if (reconnect_peer_create(live_engine, NULL, &worker->peer) != RECONNECT_OK) {
            worker->peer.id = 0;
        }
        if (reconnect_channel_open(worker->peer, NULL, &worker->channel) != RECONNECT_OK) {
            worker->channel.id = 0;
        }
    }
    return worker->peer;
}

/* A live connector of this thread, likewise. */
static reconnect_connector_t live_connector(worker_t *worker) {
    size_t length;
    if (worker->connector.id == 0 ||
        reconnect_connector_cache(worker->connector, NULL, 0, &length) == RECONNECT_INVALID_HANDLE) {
        if (reconnect_connector_create(live_engine, NULL, &worker->connector, NULL, 0) != RECONNECT_OK) {
            worker->connector.id = 0;
        }
    }
    return worker->connector;
}

static unsigned choices(const parameter_t *parameter) {
    switch (parameter->kind) {
    case ENGINE: case PEER: case CHANNEL: case CONNECTOR: case REPLAY: return 8;
    case UNIT: return 6;
    case TIMES: return 4;
    case OPERATIONS: return 9;
    case TAKEN: return 2;
    case U16: case U32: case U64: return 4;
    case I32: case I64: return 5;
    case SIZE: return 4;
    case BYTES: return 7;
    case STRINGS: return 3;
    case CONFIG: case FILLED: return 9;
    case SERVERS: return 8;
    case EVENTS: case OUT: case BUFFER: case DETAIL: return 3;
    }
    return 1;
}

/* Puts `size` bytes at the very end of the parameter's page. */
static void place(argument_t *argument, unsigned char *page, size_t size, int fill) {
    argument->capacity = size;
    argument->memory = page + PAGE - size;
    if (size > 0) {
        memset(argument->memory, fill, size);
    }
    argument->value.pointer = argument->memory;
}

static void choose_handle(worker_t *worker, const parameter_t *parameter, unsigned choice, argument_t *argument) {
    uint64_t stale = parameter->kind == ENGINE ? stale_engine.id
                     : parameter->kind == PEER ? stale_peer.id
                     : parameter->kind == CHANNEL ? stale_channel.id
                     : parameter->kind == REPLAY ? stale_replay.id : stale_connector.id;
    uint64_t live = live_engine.id;
    if (parameter->kind == REPLAY) {
        live = live_replay.id;
    } else if (worker->everything) {
        live = atomic_load(&shared_engine);
    }
    if (parameter->kind == CONNECTOR) {
        live = live_connector(worker).id;
    } else if (parameter->kind != ENGINE && parameter->kind != REPLAY) {
        live_peer(worker);
        live = parameter->kind == PEER ? worker->peer.id : worker->channel.id;
    }
    switch (choice) {
    case 0: argument->value.u64 = 0; break;
    case 1: argument->value.u64 = 1; break;
    case 2: argument->value.u64 = UINT64_MAX; break;
    case 3: argument->value.u64 = next(worker); break;
    case 4: argument->value.u64 = stale; break;
    case 5: argument->value.u64 = live ^ (UINT64_C(1) << (next(worker) % 64)); break; /* nearly right */
    case 6: /* a live handle of another kind */
        live_peer(worker);
        argument->value.u64 = parameter->kind == ENGINE ? worker->channel.id : live_engine.id;
        break;
    default: argument->value.u64 = live;
    }
    argument->live = argument->value.u64 == live || (parameter->kind == ENGINE && argument->value.u64 == live_engine.id);
    /* A number that happens to be some live handle of this kind is no mistake of the library. */
    argument->maybe = choice == 1 || choice == 3 || choice == 5 || choice == 6;
}

/* A name, text, key or position: absent, good, bad, or of the wrong size. */
static void choose_words(worker_t *worker, const char **words, size_t *size) {
    static const char *const texts[] = {"room", "user", "other", "{", "\xff\xfe", "a\nb", "",
                                        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAA"};
    *words = next(worker) % 8 == 0 ? NULL : texts[next(worker) % 2 == 0 ? next(worker) % 3 : next(worker) % 9];
    *size = *words == NULL ? (next(worker) % 4 == 0 ? SIZE_MAX : next(worker) % 300) : strlen(*words);
}

static void make_operations(worker_t *worker, unsigned char *memory, size_t count) {
    for (size_t index = 0; index < count; index++) {
        reconnect_replay_operation_t operation;
        const char *words;
        memset(&operation, 0, sizeof operation);
        operation.type = (uint32_t)(next(worker) % 32 == 0 ? next(worker) : next(worker) % 11);
        operation.flags = next(worker) % 8 == 0 ? (uint32_t)next(worker) : (uint32_t)(next(worker) % 3);
        operation.tag = next(worker);
        choose_words(worker, &operation.room, &operation.room_size);
        choose_words(worker, &operation.user, &operation.user_size);
        choose_words(worker, &operation.to, &operation.to_size);
        choose_words(worker, &operation.position, &operation.position_size);
        choose_words(worker, &operation.token, &operation.token_size);
        choose_words(worker, &words, &operation.size);
        operation.data = words;
        choose_words(worker, &words, &operation.key_size);
        operation.key = words;
        operation.generation = next(worker);
        operation.negotiation = next(worker);
        operation.format = (uint32_t)(next(worker) % 4);
        operation.kind = (uint32_t)(next(worker) % 5);
        operation.lifetime_ms = (uint32_t)next(worker);
        operation.latency_ms = next(worker) % 4 == 0 ? -1 : (double)next(worker);
        memcpy(memory + index * sizeof operation, &operation, sizeof operation);
    }
}

/* Four TURN servers, good and bad ones; the size that they give is the distance from each to the next. */
static void make_servers(worker_t *worker, unsigned char *memory, size_t distance) {
    static const char *const urls[] = {"turn:127.0.0.1:1", "turns:[::1]:1", "turn:", "\xff", NULL};
    static const char *const words[] = {"ann", NULL, "", "a\nb", "\xff"};
    const bool good = next(worker) % 2 == 0;
    for (size_t index = 0; index < 4; index++) {
        reconnect_turn_server_t server;
        memset(&server, 0, sizeof server);
        server.struct_size = (uint32_t)distance;
        server.lifetime_ms = (uint32_t)next(worker);
        server.url = urls[good ? index % 2 : next(worker) % 5];
        server.username = words[good ? 0 : next(worker) % 5];
        server.password = words[good ? 0 : next(worker) % 5];
        server.secret = words[good ? 1 : next(worker) % 5];
        memcpy(memory + index * distance, &server, distance < sizeof server ? distance : sizeof server);
    }
}

static void choose(worker_t *worker, const function_t *function, unsigned index, unsigned choice,
                   argument_t *arguments) {
    static const char *const texts[] = {
        "", "x", "{\"type\":\"offer\",\"sdp\":\"v=0\"}", "{\"candidate\":null}", "\xff\xfe\xfd\xfc\xfb\xfa"};
    static const char *const strings[] = {"127.0.0.1", "::1", "nonsense", NULL};
    const parameter_t *parameter = &function->parameters[index];
    argument_t *argument = &arguments[index];
    unsigned char *page = worker->pages[index];
    uint32_t size;
    memset(argument, 0, sizeof *argument);
    argument->unit = 1;
    switch (parameter->kind) {
    case ENGINE: case PEER: case CHANNEL: case CONNECTOR: case REPLAY: choose_handle(worker, parameter, choice, argument); break;
    case U16: argument->value.u16 = (uint16_t[]){0, 1, 2, UINT16_MAX}[choice]; break;
    case U32: argument->value.u32 = (uint32_t[]){0, 1, 2, UINT32_MAX}[choice]; break;
    case U64: argument->value.u64 = (uint64_t[]){0, 1, 7, UINT64_MAX}[choice]; break;
    case I32: argument->value.i32 = (int32_t[]){0, 1, -1, INT32_MIN, 2}[choice]; break;
    case I64: argument->value.i64 = (int64_t[]){0, 1, -1, INT64_MIN, INT64_MAX}[choice]; break;
    case SIZE:
        /* Never more than there is, but anything for NULL. */
        if (index == 0 || arguments[index - 1].memory == NULL) {
            argument->value.size = (size_t[]){0, 1, (size_t)1 << 40, SIZE_MAX}[choice];
        } else {
            size_t most = arguments[index - 1].capacity / arguments[index - 1].unit;
            argument->value.size = (size_t[]){0, most > 0 ? 1 : 0, most, most / 2}[choice];
        }
        break;
    case UNIT: {
        size_t one = function->parameters[index - 1].size;
        argument->value.size = (size_t[]){0, 1, one - 8, one, 2 * one, SIZE_MAX}[choice];
        break;
    }
    case TIMES: {
        /* Never more than there is, but anything for NULL. */
        size_t unit = arguments[index - 1].value.size, most;
        if (arguments[index - 2].memory == NULL) {
            argument->value.size = (size_t[]){0, 1, (size_t)1 << 40, SIZE_MAX}[choice];
            break;
        }
        most = unit == 0 ? 1 : arguments[index - 2].capacity / unit;
        argument->value.size = (size_t[]){0, most > 0 ? 1 : 0, most, most / 2}[choice];
        break;
    }
    case OPERATIONS:
        if (choice > 0) {
            place(argument, page, 8 * parameter->size, 0);
            make_operations(worker, argument->memory, 8);
        }
        break;
    case BYTES:
        if (choice == 0) {
            break;
        }
        if (choice < 6) {
            size = (uint32_t)strlen(texts[choice - 1]) + 1;
            place(argument, page, size, 0);
            memcpy(argument->memory, texts[choice - 1], size);
        } else {
            place(argument, page, 5000, '{');
            argument->memory[4999] = 0;
        }
        break;
    case STRINGS:
        if (choice > 0) {
            place(argument, page, sizeof strings, 0);
            memcpy(argument->memory, strings, sizeof strings);
            argument->unit = sizeof *strings;
            if (choice == 2) { /* only the good ones */
                argument->capacity = 2 * sizeof *strings;
            }
        }
        break;
    case CONFIG: case FILLED:
        if (choice == 0) {
            break;
        }
        /* Sizes that are too small have no more memory than they say. */
        size = (uint32_t[]){0, 1, 4, 8, (uint32_t)parameter->size - 8, (uint32_t)parameter->size, UINT32_MAX,
                            UINT32_C(1) << 31}[choice - 1];
        place(argument, page, size < 4 ? 4 : size > parameter->size ? parameter->size : size, 0);
        memcpy(argument->memory, &size, sizeof size);
        break;
    case SERVERS:
        if (choice == 0) {
            break;
        }
        if (choice < 4) {
            /* As the library knows them, as a later one does, and without their last member. */
            size_t distance = parameter->size + (choice == 1 ? 0 : choice == 2 ? 16 : (size_t)-8);
            place(argument, page, 4 * distance, 0);
            make_servers(worker, argument->memory, distance);
            argument->unit = distance;
            break;
        }
        /* A first size that is nonsense: there is no more memory than one struct. */
        size = (uint32_t[]){0, 7, UINT32_MAX, 20}[choice - 4];
        place(argument, page, parameter->size, 0);
        memcpy(argument->memory, &size, sizeof size);
        argument->unit = parameter->size;
        break;
    case EVENTS: case OUT: case TAKEN:
        if (choice > 0) {
            place(argument, page, parameter->kind == EVENTS && choice == 2 ? 8 * parameter->size : parameter->size,
                  0xA5);
            argument->unit = parameter->size;
        }
        break;
    case BUFFER: case DETAIL:
        if (choice > 0) {
            place(argument, page, choice == 1 ? 10 : 300, 0xA5);
        }
        break;
    }
}

static bool untouched(const argument_t *argument) {
    for (size_t index = 0; index < argument->capacity; index++) {
        if (argument->memory[index] != 0xA5) {
            return false;
        }
    }
    return true;
}

static void complain(worker_t *worker, const function_t *function, reconnect_status_t status, const char *what) {
    if (worker->failures++ < 3) {
        char line[1024];
        int length = snprintf(line, sizeof line, "# %s(%s) = %d: %s\n", function->name, current_words, (int)status, what);
        fwrite(line, 1, (size_t)length, stdout);
    }
}

/* Undoes what a successful call has made, so that limits stay far away. */
static void undo(const function_t *function, const argument_t *arguments) {
    const argument_t *last = NULL;
    for (unsigned index = 0; index < function->count; index++) {
        if (function->parameters[index].kind == OUT && arguments[index].memory != NULL) {
            last = &arguments[index];
        }
    }
    if (last == NULL) {
        return;
    }
    if (strcmp(function->name, "reconnect_engine_create") == 0 ||
        strcmp(function->name, "reconnect_engine_create_from_env") == 0) {
        reconnect_engine_t engine;
        memcpy(&engine, last->memory, sizeof engine);
        reconnect_engine_destroy(engine);
    } else if (strcmp(function->name, "reconnect_peer_create") == 0 ||
               strcmp(function->name, "reconnect_answer") == 0) {
        reconnect_peer_t peer;
        memcpy(&peer, last->memory, sizeof peer);
        reconnect_peer_close(peer);
    } else if (strcmp(function->name, "reconnect_channel_open") == 0) {
        reconnect_channel_t channel;
        memcpy(&channel, last->memory, sizeof channel);
        reconnect_channel_close(channel);
    } else if (strcmp(function->name, "reconnect_connector_create") == 0) {
        reconnect_connector_t connector;
        memcpy(&connector, last->memory, sizeof connector);
        reconnect_connector_close(connector);
    } else if (strcmp(function->name, "reconnect_replay_create") == 0 ||
               strcmp(function->name, "reconnect_replay_create_from_env") == 0) {
        reconnect_replay_t replay;
        memcpy(&replay, last->memory, sizeof replay);
        reconnect_replay_destroy(replay);
    } else if (strcmp(function->name, "reconnect_replay_poll") == 0) {
        /* Whatever the size of an event: its batch lies at the same place. */
        size_t count, place = offsetof(reconnect_replay_event_t, batch);
        uint64_t batch;
        memcpy(&count, last->memory, sizeof count);
        if (count > 0 && arguments[1].memory != NULL && arguments[2].value.size >= place + sizeof batch) {
            memcpy(&batch, arguments[1].memory + place, sizeof batch);
            reconnect_replay_release((reconnect_replay_t){arguments[0].value.u64}, batch);
        }
    } else if (strcmp(function->name, "reconnect_poll") == 0) {
        size_t count;
        reconnect_event_t event;
        memcpy(&count, last->memory, sizeof count);
        if (count > 0 && arguments[1].memory != NULL) {
            memcpy(&event, arguments[1].memory, sizeof event);
            reconnect_release((reconnect_engine_t){arguments[0].value.u64}, event.batch);
        }
    }
}

static ffi_type *handle_elements[] = {&ffi_type_uint64, NULL};
static ffi_type handle_type = {0, 0, FFI_TYPE_STRUCT, handle_elements};

static ffi_type *type_of(kind_t kind) {
    switch (kind) {
    case ENGINE: case PEER: case CHANNEL: case CONNECTOR: case REPLAY: return &handle_type;
    case U16: return &ffi_type_uint16;
    case U32: return &ffi_type_uint32;
    case I32: return &ffi_type_sint32;
    case U64: return &ffi_type_uint64;
    case I64: return &ffi_type_sint64;
    case SIZE: case UNIT: case TIMES: return sizeof(size_t) == 8 ? &ffi_type_uint64 : &ffi_type_uint32;
    default: return &ffi_type_pointer;
    }
}

static void describe(const function_t *function, const argument_t *arguments) {
    size_t length = 0;
    current = function;
    current_words[0] = 0;
    for (unsigned index = 0; index < function->count && length < sizeof current_words - 80; index++) {
        length += (size_t)snprintf(current_words + length, sizeof current_words - length, "%s%s=%#llx",
                                   index > 0 ? ", " : "", function->parameters[index].name,
                                   (unsigned long long)arguments[index].value.u64);
        if (function->parameters[index].kind == CONFIG && arguments[index].memory != NULL) {
            uint32_t size;
            memcpy(&size, arguments[index].memory, sizeof size);
            length += (size_t)snprintf(current_words + length, sizeof current_words - length, " struct_size=%u", size);
        }
    }
}

/* Whether a call may be made at all: a wait without limit on a live engine never ends, and destroying the live
   engine ends the sweep. */
static bool sensible(const worker_t *worker, const function_t *function, const argument_t *arguments) {
    if (function->count == 0 || (function->parameters[0].kind != ENGINE && function->parameters[0].kind != REPLAY)) {
        return true;
    }
    if (strcmp(function->name, "reconnect_engine_destroy") == 0 ||
        strcmp(function->name, "reconnect_replay_destroy") == 0) {
        /* While engines come and go a made-up number can be the next one's. */
        return !arguments[0].live && !(worker->everything && arguments[0].maybe);
    }
    if (!arguments[0].live || (worker->everything && function->parameters[0].kind == ENGINE &&
                               arguments[0].value.u64 != live_engine.id)) {
        return true; /* in the churn an engine's end wakes every wait */
    }
    for (unsigned index = 0; index < function->count; index++) {
        if (function->parameters[index].kind == I32 && arguments[index].value.i32 < 0) {
            return false;
        }
    }
    return true;
}

/* Looks at what a call has returned and written. */
static void judge(worker_t *worker, const function_t *function, const argument_t *arguments, reconnect_status_t status) {
    if (status > 0 || strcmp(reconnect_status_name(status), "UNKNOWN") == 0 || status == RECONNECT_INTERNAL) {
        complain(worker, function, status, "not a status that the header has for this");
    }
    if (status == RECONNECT_OK && function->count > 0 && type_of(function->parameters[0].kind) == &handle_type &&
        !arguments[0].live && !arguments[0].maybe) {
        complain(worker, function, status, "success with a bad handle");
    }
    for (unsigned index = 0; index < function->count; index++) {
        const argument_t *argument = &arguments[index];
        if (argument->memory == NULL) {
            continue;
        }
        switch (function->parameters[index].kind) {
        case OUT: case EVENTS: case BUFFER:
            if (status != RECONNECT_OK && status != RECONNECT_TOO_SMALL && !untouched(argument)) {
                complain(worker, function, status, "an output was written though the call failed");
            }
            break;
        case DETAIL:
            if (status == RECONNECT_OK && !untouched(argument)) {
                complain(worker, function, status, "a detail without a failure");
            }
            if (status != RECONNECT_OK && arguments[index + 1].value.size > 0 &&
                memchr(argument->memory, 0, arguments[index + 1].value.size) == NULL) {
                complain(worker, function, status, "a failure without a detail");
            }
            break;
        default: break;
        }
    }
}

/* One call. Returns its status, 0 for functions without one. */
static reconnect_status_t call(worker_t *worker, const function_t *function, argument_t *arguments) {
    ffi_cif cif;
    ffi_type *types[MOST_PARAMETERS];
    void *values[MOST_PARAMETERS];
    union {
        ffi_arg word;
        ffi_sarg status;
        const char *text;
    } result;
    reconnect_status_t status = RECONNECT_OK;
    ffi_type *type = function->result == STATUS ? &ffi_type_sint32
                     : function->result == NUMBER ? &ffi_type_uint32 : &ffi_type_pointer;
    for (unsigned index = 0; index < function->count; index++) {
        types[index] = type_of(function->parameters[index].kind);
        values[index] = &arguments[index].value;
    }
    if (ffi_prep_cif(&cif, FFI_DEFAULT_ABI, function->count, type, types) != FFI_OK) {
        complain(worker, function, 0, "libffi cannot call it");
        return RECONNECT_INTERNAL;
    }
    describe(function, arguments);
    memset(&result, 0, sizeof result);
    ffi_call(&cif, function->function, &result, values);
    worker->calls++;

    if (function->result == TEXT_RESULT) {
        if (result.text == NULL || strnlen(result.text, 500) == 500) {
            complain(worker, function, 0, "no text");
        }
        return RECONNECT_OK;
    }
    if (function->result == NUMBER) {
        return RECONNECT_OK;
    }
    status = (reconnect_status_t)result.status;
    if (status == RECONNECT_OK) {
        worker->succeeded++;
    }
    return status;
}

/* A call with what belongs after it. */
static void call_and_judge(worker_t *worker, const function_t *function, argument_t *arguments) {
    if (!sensible(worker, function, arguments)) {
        return;
    }
    reconnect_status_t status = call(worker, function, arguments);
    if (function->result != STATUS) {
        return;
    }
    if (!worker->everything) {
        judge(worker, function, arguments, status);
    }
    if (status == RECONNECT_OK) {
        undo(function, arguments);
    }
}

static void random_call(worker_t *worker, const function_t *function) {
    argument_t arguments[MOST_PARAMETERS];
    memset(arguments, 0, sizeof arguments);
    for (unsigned index = 0; index < function->count; index++) {
        choose(worker, function, index, (unsigned)(next(worker) % choices(&function->parameters[index])), arguments);
    }
    call_and_judge(worker, function, arguments);
}

/* Every combination of a function's values if there are few, otherwise as many drawn ones. */
static void sweep(worker_t *worker, const function_t *function) {
    argument_t arguments[MOST_PARAMETERS];
    uint64_t combinations = 1;
    for (unsigned index = 0; index < function->count; index++) {
        combinations *= choices(&function->parameters[index]);
    }
    if (combinations > CALLS) {
        for (unsigned count = 0; count < CALLS; count++) {
            random_call(worker, function);
        }
        return;
    }
    for (uint64_t combination = 0; combination < combinations; combination++) {
        uint64_t rest = combination;
        memset(arguments, 0, sizeof arguments);
        for (unsigned index = 0; index < function->count; index++) {
            unsigned number = choices(&function->parameters[index]);
            choose(worker, function, index, (unsigned)(rest % number), arguments);
            rest /= number;
        }
        call_and_judge(worker, function, arguments);
    }
}

/* Says to threads that run until they are told that this is the end. */
static atomic_bool done;

typedef struct {
    worker_t worker;
    const function_t *function;
    unsigned calls; /* 0: until `done` */
} task_t;

static void *sweep_in_thread(void *context) {
    task_t *task = context;
    sweep(&task->worker, task->function);
    return NULL;
}

static void *random_calls_in_thread(void *context) {
    task_t *task = context;
    for (unsigned count = 0; task->calls == 0 ? !atomic_load(&done) : count < task->calls; count++) {
        random_call(&task->worker, &functions[next(&task->worker) % FUNCTIONS]);
    }
    return NULL;
}

/* Takes the live engine's events as a host would, so that none of its queues fills up. */
static void *drain(void *context) {
    reconnect_event_t events[64];
    (void)context;
    while (!atomic_load(&done)) {
        size_t count = 0;
        if (reconnect_poll(live_engine, events, 64, 20, &count) == RECONNECT_OK && count > 0) {
            reconnect_release(live_engine, events[0].batch);
        }
    }
    return NULL;
}

static bool make_handles(void) {
    char detail[256] = "";
    reconnect_status_t status = reconnect_engine_create(NULL, &stale_engine, detail, sizeof detail);
    if (!check(status == RECONNECT_OK, "an engine with all defaults: %s %s", reconnect_status_name(status), detail)) {
        return false;
    }
    check(reconnect_peer_create(stale_engine, NULL, &stale_peer) == RECONNECT_OK, "a peer");
    check(reconnect_channel_open(stale_peer, NULL, &stale_channel) == RECONNECT_OK, "a channel");
    status = reconnect_connector_create(stale_engine, NULL, &stale_connector, detail, sizeof detail);
    check(status == RECONNECT_OK, "a connector: %s %s", reconnect_status_name(status), detail);
    check(reconnect_engine_destroy(stale_engine) == RECONNECT_OK, "the end of all four");
    status = reconnect_replay_create(NULL, &stale_replay, detail, sizeof detail);
    check(status == RECONNECT_OK, "a replay buffer: %s %s", reconnect_status_name(status), detail);
    check(reconnect_replay_destroy(stale_replay) == RECONNECT_OK, "its end");
    status = reconnect_replay_create(NULL, &live_replay, detail, sizeof detail);
    check(status == RECONNECT_OK, "a second replay buffer");
    status = reconnect_engine_create(NULL, &live_engine, detail, sizeof detail);
    atomic_store(&shared_engine, live_engine.id);
    return check(status == RECONNECT_OK, "a second engine");
}

static void run_threads(void *(*body)(void *), task_t *tasks) {
    pthread_t threads[THREADS];
    for (unsigned number = 0; number < THREADS; number++) {
        pthread_create(&threads[number], NULL, body, &tasks[number]);
    }
    for (unsigned number = 0; number < THREADS; number++) {
        pthread_join(threads[number], NULL);
    }
}

static void sum(const task_t *tasks, unsigned long *calls, unsigned long *failures, unsigned long *succeeded) {
    *calls = *failures = *succeeded = 0;
    for (unsigned number = 0; number < THREADS; number++) {
        *calls += tasks[number].worker.calls;
        *failures += tasks[number].worker.failures;
        *succeeded += tasks[number].worker.succeeded;
    }
}

static void *destroy_in_thread(void *context) {
    *(reconnect_status_t *)context = reconnect_engine_destroy(live_engine);
    return NULL;
}

/* Function by function, the same one in all threads at once; then all functions mixed. */
static void run_calls(uint64_t seed) {
    static task_t tasks[THREADS];
    unsigned long calls, failures, succeeded;
    pthread_t drainer, destroyers[THREADS];
    reconnect_status_t results[THREADS];
    unsigned fine = 0;
    if (!make_handles()) {
        return;
    }
    pthread_create(&drainer, NULL, drain, NULL);
    for (unsigned number = 0; number < THREADS; number++) {
        prepare(&tasks[number].worker, seed, number);
    }
    for (unsigned index = 0; index < FUNCTIONS; index++) {
        for (unsigned number = 0; number < THREADS; number++) {
            tasks[number].function = &functions[index];
            tasks[number].worker.calls = tasks[number].worker.failures = tasks[number].worker.succeeded = 0;
        }
        run_threads(sweep_in_thread, tasks);
        sum(tasks, &calls, &failures, &succeeded);
        check(failures == 0 && calls > 0, "%s: %lu calls, %lu of them succeed", functions[index].name, calls, succeeded);
    }
    for (unsigned number = 0; number < THREADS; number++) {
        tasks[number].calls = 20000;
        tasks[number].worker.calls = tasks[number].worker.failures = tasks[number].worker.succeeded = 0;
    }
    run_threads(random_calls_in_thread, tasks);
    sum(tasks, &calls, &failures, &succeeded);
    check(failures == 0 && calls > 0, "all functions mixed: %lu calls, %lu of them succeed", calls, succeeded);
    for (unsigned number = 0; number < THREADS; number++) {
        finish_worker(&tasks[number].worker);
    }
    atomic_store(&done, true);
    pthread_join(drainer, NULL);

    for (unsigned number = 0; number < THREADS; number++) {
        pthread_create(&destroyers[number], NULL, destroy_in_thread, &results[number]);
    }
    for (unsigned number = 0; number < THREADS; number++) {
        pthread_join(destroyers[number], NULL);
        fine += results[number] == RECONNECT_OK;
        if (results[number] != RECONNECT_OK && results[number] != RECONNECT_INVALID_HANDLE) {
            fine += 100;
        }
    }
    check(fine == 1, "of %d threads that destroy the engine at once, one does, the others are told", THREADS);
}

/* Engines come and go while other threads call with their handles. */
static void run_churn(uint64_t seed) {
    static task_t tasks[THREADS];
    pthread_t threads[THREADS];
    unsigned long calls, failures, succeeded;
    unsigned engines = 0, refused = 0;
    if (!make_handles()) {
        return;
    }
    for (unsigned number = 0; number < THREADS; number++) {
        prepare(&tasks[number].worker, seed, number + 100);
        tasks[number].worker.everything = true;
    }
    pthread_t drainer;
    pthread_create(&drainer, NULL, drain, NULL);
    for (unsigned number = 0; number < THREADS; number++) {
        pthread_create(&threads[number], NULL, random_calls_in_thread, &tasks[number]);
    }
    while (engines + refused < 200) {
        reconnect_engine_t engine;
        if (reconnect_engine_create(NULL, &engine, NULL, 0) != RECONNECT_OK) {
            refused++;
            continue;
        }
        engines++;
        atomic_store(&shared_engine, engine.id);
        for (unsigned turn = 0; turn < 20; turn++) {
            sched_yield();
        }
        if (reconnect_engine_destroy(engine) != RECONNECT_OK) {
            refused++;
        }
    }
    atomic_store(&done, true);
    pthread_join(drainer, NULL);
    for (unsigned number = 0; number < THREADS; number++) {
        /* A wait on an engine that is gone has ended, or this would wait for ever. */
        pthread_join(threads[number], NULL);
        finish_worker(&tasks[number].worker);
    }
    sum(tasks, &calls, &failures, &succeeded);
    check(failures == 0 && refused == 0, "%u engines come and go under %lu calls", engines, calls);
    check(reconnect_engine_destroy(live_engine) == RECONNECT_OK, "the end");
}

/* Waits for a child and says how it ended: its exit code, or -1. */
static int end_of(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void run_fork(uint64_t seed) {
    static worker_t worker;
    pid_t child;
    /* A server that forks its workers first, and uses the library only in them. */
    fflush(stdout);
    child = fork();
    if (child == 0) {
        reconnect_engine_t engine;
        alarm(20);
        _exit(reconnect_engine_create(NULL, &engine, NULL, 0) == RECONNECT_OK &&
                      reconnect_engine_destroy(engine) == RECONNECT_OK
                  ? 0
                  : 1);
    }
    check(end_of(child) == 0, "a child of a process without an engine makes its own");

    if (!make_handles()) {
        return;
    }
    prepare(&worker, seed, 0);
    live_peer(&worker);
    live_connector(&worker);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        unsigned wrong = 0;
        alarm(60);
        for (unsigned index = 0; index < FUNCTIONS; index++) {
            argument_t arguments[MOST_PARAMETERS];
            const function_t *function = &functions[index];
            memset(arguments, 0, sizeof arguments);
            for (unsigned number = 0; number < function->count; number++) {
                kind_t kind = function->parameters[number].kind;
                unsigned choice = kind == BYTES ? 3 : kind == CONFIG || kind == FILLED ? 6 : kind == SERVERS ? 1 : 2;
                if (kind <= REPLAY) {
                    arguments[number].value.u64 = kind == ENGINE ? live_engine.id
                                                  : kind == PEER ? worker.peer.id
                                                  : kind == CHANNEL ? worker.channel.id
                                                  : kind == REPLAY ? live_replay.id : worker.connector.id;
                    continue;
                }
                choose(&worker, function, number, kind == UNIT ? 3 : kind == I32 || kind == U32 || kind == I64 ? 1 : choice, arguments);
            }
            reconnect_status_t status = call(&worker, function, arguments);
            if (function->result == STATUS && status != RECONNECT_FORKED) {
                printf("# in a child %s gives %s\n", function->name, reconnect_status_name(status));
                wrong++;
            }
        }
        fflush(stdout);
        /* And with every other kind of argument: no crash, no success. */
        for (unsigned count = 0; count < 20000; count++) {
            const function_t *function = &functions[next(&worker) % FUNCTIONS];
            argument_t arguments[MOST_PARAMETERS];
            memset(arguments, 0, sizeof arguments);
            for (unsigned number = 0; number < function->count; number++) {
                kind_t kind = function->parameters[number].kind;
                if (kind <= REPLAY) {
                    arguments[number].value.u64 = next(&worker) % 2 == 0 ? live_engine.id : next(&worker);
                    continue;
                }
                choose(&worker, function, number, (unsigned)(next(&worker) % choices(&function->parameters[number])),
                       arguments);
            }
            if (call(&worker, function, arguments) == RECONNECT_OK && function->result == STATUS) {
                printf("# in a child %s succeeds\n", function->name);
                wrong++;
            }
        }
        fflush(stdout);
        _exit(wrong == 0 ? 0 : 1);
    }
    check(end_of(child) == 0, "in a child of the engine's process every call gives FORKED");
    uint16_t port = 0;
    check(reconnect_engine_port(live_engine, &port) == RECONNECT_OK && port != 0, "the parent goes on");
    check(reconnect_engine_destroy(live_engine) == RECONNECT_OK, "the end");
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "calls";
    uint64_t seed = count > 2 ? strtoull(words[2], NULL, 10) : (uint64_t)time(NULL);
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGABRT, SIGFPE};
    for (unsigned index = 0; index < sizeof signals / sizeof *signals; index++) {
        signal(signals[index], crashed);
    }
    printf("# seed %llu: sweep %s %llu repeats this\n", (unsigned long long)seed, what, (unsigned long long)seed);
    check((unsigned)FUNCTIONS > 0, "%u functions", (unsigned)FUNCTIONS);
    if (strcmp(what, "calls") == 0) {
        run_calls(seed);
    } else if (strcmp(what, "churn") == 0) {
        run_churn(seed);
    } else if (strcmp(what, "fork") == 0) {
        run_fork(seed);
    } else {
        fprintf(stderr, "usage: sweep [calls|churn|fork] [SEED]\n");
        return 2;
    }
    return finish();
}
