/* The operating system's calls that Swift cannot make by itself, or not without allocating: batched UDP with
   control messages, readiness, threads, interface addresses, the fork mark. Every call answers a negative errno
   on failure. Used by Engine only. */
#ifndef CSYSTEM_H
#define CSYSTEM_H

#include <stddef.h>
#include <stdint.h>
#include "stream.h"

/* An address as Wire's SocketAddress keeps it: IPv4 in its IPv4-mapped form, all numbers in host byte order. */
typedef struct {
    uint64_t high;
    uint64_t low;
    uint32_t scope;
    uint16_t port;
} cs_address;

/* ---------------------------------------------------------------- UDP sockets */

/* Opens a non-blocking UDP socket bound to `address`. An unspecified IPv6 address makes it dual-stack; where the
   machine has no IPv6, an unspecified address falls back to IPv4. Writes the port in use, and 1 to *is_v4 if the
   socket is an IPv4 one. Answers the descriptor. */
int cs_udp_open(const cs_address *address, uint16_t *port, int *is_v4);

/* One received datagram, or several of equal size that the kernel put together (UDP_GRO): `segment` is the size of
   each but the last; it equals `size` for a single one. */
typedef struct {
    const uint8_t *data;
    uint32_t size;
    uint32_t segment;
    cs_address from;
    cs_address to; /* port 0: the caller knows it */
} cs_datagram;

typedef struct cs_receiver cs_receiver;

/* Buffers for one call of cs_receive; NULL without memory. */
cs_receiver *cs_receiver_create(void);
void cs_receiver_destroy(cs_receiver *receiver);

/* Receives up to a buffer-full without waiting. Answers how many; *datagrams is valid until the next call.
   0: nothing there. */
int cs_receive(cs_receiver *receiver, int fd, const cs_datagram **datagrams);

typedef struct cs_sender cs_sender;
enum { CS_SENDER_PACKETS = 128, CS_PACKET_ROOM = 2048 };

cs_sender *cs_sender_create(void);
void cs_sender_destroy(cs_sender *sender);

/* Where the next packet is to be written (CS_PACKET_ROOM bytes), or NULL when it is time to flush. */
uint8_t *cs_sender_next(cs_sender *sender);

/* Queues the packet just written: `size` bytes, through descriptor `fd`, to `to`, from the address `from` (unspecified:
   the system chooses) and, if there is a way, through the interface that is its scope (0: likewise). */
void cs_sender_commit(cs_sender *sender, int fd, int is_v4, uint32_t size, const cs_address *to, const cs_address *from);

/* Sends everything queued; runs of equal size to one place in one go (UDP_SEGMENT). Counts into the two numbers:
   datagrams that were sent and that the system refused. Does not wait: what does not fit into the socket's buffer is
   lost, as on any network, and counts as refused. */
void cs_sender_flush(cs_sender *sender, uint64_t *sent, uint64_t *refused);

/* The number of packets queued. */
int cs_sender_queued(const cs_sender *sender);

/* ------------------------------------------------------------------ readiness */

int cs_epoll_create(void);
int cs_epoll_add(int epoll, int fd, uint64_t token);
/* From now on also when it is writable, or no more. */
int cs_epoll_modify(int epoll, int fd, uint64_t token, int writable);
int cs_epoll_remove(int epoll, int fd);
/* Waits for at most `nanoseconds` (-1: without limit). Writes up to `max` tokens. Answers how many. */
int cs_epoll_wait(int epoll, uint64_t *tokens, int max, int64_t nanoseconds);

int cs_eventfd_create(void);
void cs_eventfd_signal(int fd);
void cs_eventfd_clear(int fd);
/* Waits until `fd` is readable; 1 if it is, 0 after the time (milliseconds; -1: without limit) or a signal. */
int cs_wait_readable(int fd, int timeout_ms);
void cs_close(int fd);

/* -------------------------------------------------------------- clock, threads */

int64_t cs_monotonic_ns(void);
int64_t cs_unix_ns(void);

/* Starts a detached-free thread that runs body(context) with all signals blocked. */
typedef struct { uint64_t opaque; } cs_thread;
int cs_thread_start(cs_thread *thread, void *(*body)(void *), void *context);
int cs_thread_join(cs_thread thread);
/* Instead of joining: the thread ends by itself, whenever that is. */
int cs_thread_detach(cs_thread thread);
/* 1 if the caller is that thread. */
int cs_thread_is_current(cs_thread thread);

/* A lock. ThreadSanitizer knows POSIX mutexes; those of the Swift library are invisible to it. */
typedef struct cs_mutex cs_mutex;
/* Ends the process without memory: nothing could be done safely. */
cs_mutex *cs_mutex_create(void);
void cs_mutex_destroy(cs_mutex *mutex);
void cs_mutex_lock(cs_mutex *mutex);
void cs_mutex_unlock(cs_mutex *mutex);

/* From the first call on, a child made by fork() is told apart: cs_forked() is then 1 in it. */
void cs_fork_watch(void);
int cs_forked(void);

/* ------------------------------------------------------------------ addresses */

enum { CS_INTERFACE_LOOPBACK = 1, CS_INTERFACE_RUNNING = 2 };

typedef struct {
    cs_address address; /* port 0 */
    uint32_t flags;
    char name[16]; /* of the interface; ends with a zero */
} cs_interface_address;

/* The addresses of the interfaces that are up, as the system lists them; at most `max`. Answers how many. */
int cs_interface_addresses(cs_interface_address *addresses, int max);

/* A variable of the environment, or NULL. Valid until the host changes the environment. */
const char *cs_environment(const char *name);

/* The addresses of a host name, by the system's resolver, at most `max`, in its order of preference; port 0. Waits as
   long as that takes. Answers how many; 0: none, or an error. */
int cs_resolve(const char *name, cs_address *addresses, int max);

#include "netlink_table.h"
#include "tcp.h"

/* The name of an errno, for example "EADDRINUSE", and its sentence; static. */
const char *cs_error_text(int error);

enum {
    CS_EADDRINUSE = 98,
    CS_EACCES = 13,
    CS_EPERM = 1,
    CS_EMFILE = 24,
    CS_ENFILE = 23,
    CS_ENOMEM = 12,
    CS_EADDRNOTAVAIL = 99
};

#endif
