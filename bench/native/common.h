/* What the native benchmarks share: processes that are joined by a socket, events, clocks, lines of results. */
#ifndef COMMON_H
#define COMMON_H

#include <reconnect.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { BATCH = 512 };

_Noreturn void fail(const char *what, const char *detail);
/* Ends the program unless the status is RECONNECT_OK. */
void check(reconnect_status_t status, const char *what);

/* Ends this process, and with it those it started, after that many seconds: no benchmark runs on. */
void limit_seconds(unsigned seconds);
bool is_quick(int argc, char **argv);

/* A process beside this one, joined to it by a socket. It ends when this one does. */
typedef struct {
    pid_t id;
    int socket;
} process_t;
process_t start(void (*body)(int socket));
void end(process_t process);

/* A text with a number over the socket. `receive_text` ends the program when the other side is gone; the text is
   terminated and to be freed. */
void send_text(int socket, uint64_t tag, const void *text, size_t size);
char *receive_text(int socket, uint64_t *tag, size_t *size);

/* An engine on 127.0.0.1, without log events; `make_engine_with` leaves what else is set as it is. */
reconnect_engine_t make_engine(void);
reconnect_engine_t make_engine_with(reconnect_engine_config_t config);
reconnect_channel_t open_channel(reconnect_peer_t peer, uint64_t tag);

double seconds_now(void);
/* Processor time of a process: all its threads, user and system. */
double cpu_seconds(pid_t process);
long resident_kib(pid_t process);

/* Serves offers from the socket and echoes every message, until the socket closes; `serve` with this engine, and these
   channels for each peer. */
void serve_echo(int socket);
void serve(int socket, reconnect_engine_t engine, const reconnect_peer_config_t *peers);

#endif
