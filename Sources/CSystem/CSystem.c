#define _GNU_SOURCE
#include "CSystem.h"
#include "socket_name.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

_Static_assert(CS_EADDRINUSE == EADDRINUSE && CS_EACCES == EACCES && CS_EPERM == EPERM && CS_EMFILE == EMFILE &&
                   CS_ENFILE == ENFILE && CS_ENOMEM == ENOMEM && CS_EADDRNOTAVAIL == EADDRNOTAVAIL,
               "error numbers of this system");

/* ------------------------------------------------------------------ addresses */

static int is_v4_mapped(const cs_address *address) {
    return address->high == 0 && address->low >> 32 == 0xFFFF;
}

static void store_ip(uint8_t out[16], const cs_address *address) {
    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)(address->high >> (56 - 8 * i));
        out[8 + i] = (uint8_t)(address->low >> (56 - 8 * i));
    }
}

static void load_ip(cs_address *address, const uint8_t in[16]) {
    address->high = address->low = 0;
    for (int i = 0; i < 8; i++) {
        address->high = address->high << 8 | in[i];
        address->low = address->low << 8 | in[8 + i];
    }
}

static void load_ip4(cs_address *address, struct in_addr in) {
    address->high = 0;
    address->low = 0x0000FFFF00000000u | ntohl(in.s_addr);
}

static socklen_t to_sockaddr(struct sockaddr_storage *out, const cs_address *address, int v4) {
    memset(out, 0, sizeof *out);
    if (v4) {
        struct sockaddr_in *in = (struct sockaddr_in *)out;
        in->sin_family = AF_INET;
        in->sin_port = htons(address->port);
        in->sin_addr.s_addr = htonl((uint32_t)address->low);
        return sizeof *in;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(address->port);
    in6->sin6_scope_id = address->scope;
    store_ip(in6->sin6_addr.s6_addr, address);
    return sizeof *in6;
}

static void from_sockaddr(cs_address *out, const struct sockaddr_storage *in) {
    memset(out, 0, sizeof *out);
    if (in->ss_family == AF_INET) {
        const struct sockaddr_in *in4 = (const struct sockaddr_in *)in;
        load_ip4(out, in4->sin_addr);
        out->port = ntohs(in4->sin_port);
    } else if (in->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)in;
        load_ip(out, in6->sin6_addr.s6_addr);
        out->port = ntohs(in6->sin6_port);
        /* A scope means something for link-local addresses only; elsewhere it would make one host two. */
        out->scope = IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr) ? in6->sin6_scope_id : 0;
    }
}

int cs_is_v4(const cs_address *address) { return is_v4_mapped(address); }

socklen_t cs_socket_name(struct sockaddr_storage *out, const cs_address *address, int v4) {
    return to_sockaddr(out, address, v4);
}

void cs_read_socket_name(cs_address *out, const struct sockaddr_storage *in) { from_sockaddr(out, in); }

int cs_interface_addresses(cs_interface_address *addresses, int max) {
    struct ifaddrs *list;
    if (getifaddrs(&list) != 0) return -errno;
    int count = 0;
    for (struct ifaddrs *entry = list; entry && count < max; entry = entry->ifa_next) {
        if (!entry->ifa_addr || !(entry->ifa_flags & IFF_UP)) continue;
        if (entry->ifa_addr->sa_family != AF_INET && entry->ifa_addr->sa_family != AF_INET6) continue;
        struct sockaddr_storage storage;
        memset(&storage, 0, sizeof storage);
        memcpy(&storage, entry->ifa_addr,
               entry->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        from_sockaddr(&addresses[count].address, &storage);
        addresses[count].address.port = 0;
        addresses[count].flags = (entry->ifa_flags & IFF_LOOPBACK ? CS_INTERFACE_LOOPBACK : 0) |
                                 (entry->ifa_flags & IFF_RUNNING ? CS_INTERFACE_RUNNING : 0);
        memset(addresses[count].name, 0, sizeof addresses[count].name);
        if (entry->ifa_name) strncpy(addresses[count].name, entry->ifa_name, sizeof addresses[count].name - 1);
        count++;
    }
    freeifaddrs(list);
    return count;
}

int cs_resolve(const char *name, cs_address *addresses, int max) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM}, *list = NULL;
    if (getaddrinfo(name, NULL, &hints, &list) != 0) return 0;
    int count = 0;
    for (struct addrinfo *entry = list; entry && count < max; entry = entry->ai_next) {
        if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
        struct sockaddr_storage storage;
        memset(&storage, 0, sizeof storage);
        memcpy(&storage, entry->ai_addr, entry->ai_addrlen < sizeof storage ? entry->ai_addrlen : sizeof storage);
        from_sockaddr(&addresses[count], &storage);
        addresses[count++].port = 0;
    }
    freeaddrinfo(list);
    return count;
}

/* ---------------------------------------------------------------- UDP sockets */

static int open_bound(int v4, const cs_address *address) {
    int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    int on = 1, off = 0;
    /* Large buffers: a burst of a whole congestion window must fit. The system may grant less. */
    int buffer = 4 << 20;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    int failed;
    if (v4) {
        failed = setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
    } else {
        failed = setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) ||
                 setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    }
    (void)setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
    struct sockaddr_storage name;
    socklen_t length = to_sockaddr(&name, address, v4);
    if (failed || bind(fd, (struct sockaddr *)&name, length) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int cs_udp_open(const cs_address *address, uint16_t *port, int *is_v4) {
    int wildcard = address->high == 0 && (address->low == 0 || address->low == 0x0000FFFF00000000u);
    int v4 = 0;
    int fd = open_bound(0, address);
    if (fd == -EAFNOSUPPORT || (fd == -EADDRNOTAVAIL && (wildcard || is_v4_mapped(address)))) {
        /* No IPv6 on this machine. */
        if (wildcard || is_v4_mapped(address)) {
            v4 = 1;
            fd = open_bound(1, address);
        }
    }
    if (fd < 0) return fd;
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &length) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    cs_address bound;
    from_sockaddr(&bound, &name);
    *port = bound.port;
    *is_v4 = v4;
    return fd;
}

enum { RECEIVE_MESSAGES = 16, RECEIVE_ROOM = 65536, CONTROL_ROOM = 128 };

struct cs_receiver {
    struct mmsghdr headers[RECEIVE_MESSAGES];
    struct iovec vectors[RECEIVE_MESSAGES];
    struct sockaddr_storage names[RECEIVE_MESSAGES];
    cs_datagram datagrams[RECEIVE_MESSAGES];
    _Alignas(16) uint8_t control[RECEIVE_MESSAGES][CONTROL_ROOM];
    uint8_t data[RECEIVE_MESSAGES][RECEIVE_ROOM];
};

cs_receiver *cs_receiver_create(void) {
    /* The pages of `data` are used only as far as datagrams need them. */
    return malloc(sizeof(cs_receiver));
}

void cs_receiver_destroy(cs_receiver *receiver) { free(receiver); }

int cs_receive(cs_receiver *receiver, int fd, const cs_datagram **datagrams) {
    for (int i = 0; i < RECEIVE_MESSAGES; i++) {
        struct msghdr *header = &receiver->headers[i].msg_hdr;
        receiver->vectors[i] = (struct iovec){receiver->data[i], RECEIVE_ROOM};
        *header = (struct msghdr){.msg_name = &receiver->names[i],
                                  .msg_namelen = sizeof receiver->names[i],
                                  .msg_iov = &receiver->vectors[i],
                                  .msg_iovlen = 1,
                                  .msg_control = receiver->control[i],
                                  .msg_controllen = CONTROL_ROOM};
    }
    int count;
    do {
        count = recvmmsg(fd, receiver->headers, RECEIVE_MESSAGES, MSG_DONTWAIT, NULL);
    } while (count < 0 && errno == EINTR);
    if (count < 0) {
        /* ECONNREFUSED and the like are reports of earlier ICMP messages, not of this call. */
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    }
    for (int i = 0; i < count; i++) {
        cs_datagram *datagram = &receiver->datagrams[i];
        struct msghdr *header = &receiver->headers[i].msg_hdr;
        memset(datagram, 0, sizeof *datagram);
        datagram->data = receiver->data[i];
        datagram->size = header->msg_flags & MSG_TRUNC ? 0 : receiver->headers[i].msg_len;
        datagram->segment = datagram->size;
        from_sockaddr(&datagram->from, &receiver->names[i]);
        for (struct cmsghdr *item = CMSG_FIRSTHDR(header); item; item = CMSG_NXTHDR(header, item)) {
            if (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_PKTINFO) {
                struct in6_pktinfo info;
                memcpy(&info, CMSG_DATA(item), sizeof info);
                load_ip(&datagram->to, info.ipi6_addr.s6_addr);
                datagram->to.scope = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? info.ipi6_ifindex : 0;
            } else if (item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_PKTINFO) {
                struct in_pktinfo info;
                memcpy(&info, CMSG_DATA(item), sizeof info);
                load_ip4(&datagram->to, info.ipi_addr);
            } else if (item->cmsg_level == IPPROTO_UDP && item->cmsg_type == UDP_GRO) {
                int segment;
                memcpy(&segment, CMSG_DATA(item), sizeof segment);
                if (segment > 0 && (uint32_t)segment < datagram->size) datagram->segment = (uint32_t)segment;
            }
        }
    }
    *datagrams = receiver->datagrams;
    return count;
}

typedef struct {
    int fd;
    int is_v4;
    uint32_t size;
    cs_address to;
    cs_address from;
} queued_packet;

struct cs_sender {
    int count;
    queued_packet packets[CS_SENDER_PACKETS];
    struct mmsghdr headers[CS_SENDER_PACKETS];
    struct iovec vectors[CS_SENDER_PACKETS];
    int segments[CS_SENDER_PACKETS];
    struct sockaddr_storage names[CS_SENDER_PACKETS];
    _Alignas(16) uint8_t control[CS_SENDER_PACKETS][CONTROL_ROOM];
    uint8_t data[CS_SENDER_PACKETS][CS_PACKET_ROOM];
};

cs_sender *cs_sender_create(void) {
    cs_sender *sender = malloc(sizeof(cs_sender));
    if (sender) sender->count = 0;
    return sender;
}

void cs_sender_destroy(cs_sender *sender) { free(sender); }

uint8_t *cs_sender_next(cs_sender *sender) {
    return sender->count < CS_SENDER_PACKETS ? sender->data[sender->count] : NULL;
}

void cs_sender_commit(cs_sender *sender, int fd, int is_v4, uint32_t size, const cs_address *to,
                      const cs_address *from) {
    if (sender->count >= CS_SENDER_PACKETS || size > CS_PACKET_ROOM) return;
    sender->packets[sender->count++] =
        (queued_packet){.fd = fd, .is_v4 = is_v4, .size = size, .to = *to, .from = *from};
}

int cs_sender_queued(const cs_sender *sender) { return sender->count; }

static int same_place(const queued_packet *a, const queued_packet *b) {
    return a->fd == b->fd && a->to.high == b->to.high && a->to.low == b->to.low && a->to.port == b->to.port &&
           a->to.scope == b->to.scope && a->from.scope == b->from.scope && a->from.high == b->from.high && a->from.low == b->from.low;
}

static void add_control(struct msghdr *header, int level, int type, const void *value, size_t size) {
    struct cmsghdr *item = (struct cmsghdr *)((uint8_t *)header->msg_control + header->msg_controllen);
    memset(item, 0, CMSG_SPACE(size));
    item->cmsg_level = level;
    item->cmsg_type = type;
    item->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(item), value, size);
    header->msg_controllen += CMSG_SPACE(size);
}

/* Hosts without UDP_SEGMENT (some virtual interfaces) answer EIO or EINVAL: sending one by one works everywhere. */
static _Atomic int segmentation_works = 1;

/* Fills the header for the packets [first, first + run). */
static void fill_message(cs_sender *sender, int index, int first, int run) {
    queued_packet *packet = &sender->packets[first];
    struct msghdr *header = &sender->headers[index].msg_hdr;
    *header = (struct msghdr){.msg_name = &sender->names[index],
                              .msg_iov = &sender->vectors[first],
                              .msg_iovlen = (size_t)run,
                              .msg_control = sender->control[index],
                              .msg_controllen = 0};
    header->msg_namelen = to_sockaddr(&sender->names[index], &packet->to, packet->is_v4);
    for (int i = first; i < first + run; i++) {
        sender->vectors[i] = (struct iovec){sender->data[i], sender->packets[i].size};
    }
    int unspecified = packet->from.high == 0 && (packet->from.low == 0 || packet->from.low == 0x0000FFFF00000000u);
    if (!unspecified) {
        if (packet->is_v4) {
            struct in_pktinfo info = {.ipi_ifindex = (int)packet->from.scope,
                                      .ipi_spec_dst.s_addr = htonl((uint32_t)packet->from.low)};
            add_control(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
        } else {
            struct in6_pktinfo info = {.ipi6_ifindex = packet->from.scope};
            store_ip(info.ipi6_addr.s6_addr, &packet->from);
            add_control(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
        }
    }
    if (run > 1) {
        uint16_t segment = (uint16_t)packet->size;
        add_control(header, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
    }
    if (header->msg_controllen == 0) header->msg_control = NULL;
    sender->segments[index] = run;
}

/* A message that cannot leave where it was told to goes wherever the system has a way. True: send it again. */
static int leave_anywhere(cs_sender *sender, int index, int first) {
    if (errno != ENETUNREACH && errno != EHOSTUNREACH && errno != EINVAL && errno != ENODEV) return 0;
    for (int i = 0; i < index; i++) first += sender->segments[i];
    int run = sender->segments[index];
    const cs_address *from = &sender->packets[first].from;
    if (from->scope == 0 || from->high >> 54 == 0x3FA) return 0;
    for (int i = first; i < first + run; i++) sender->packets[i].from.scope = 0;
    fill_message(sender, index, first, run);
    return 1;
}

void cs_sender_flush(cs_sender *sender, uint64_t *sent, uint64_t *refused) {
    int next = 0;
    while (next < sender->count) {
        /* As many messages as share one descriptor; each of them a run of equal packets to one place. */
        int fd = sender->packets[next].fd, messages = 0, first = next;
        while (first < sender->count && sender->packets[first].fd == fd) {
            int run = 1;
            uint32_t total = sender->packets[first].size;
            if (atomic_load_explicit(&segmentation_works, memory_order_relaxed)) {
                while (first + run < sender->count && run < 64 &&
                       same_place(&sender->packets[first], &sender->packets[first + run]) &&
                       sender->packets[first + run].size <= sender->packets[first].size &&
                       total + sender->packets[first + run].size <= 65000) {
                    total += sender->packets[first + run].size;
                    run++;
                    /* Only the last one may be shorter. */
                    if (sender->packets[first + run - 1].size < sender->packets[first].size) break;
                }
            }
            fill_message(sender, messages++, first, run);
            first += run;
        }
        int done = 0;
        while (done < messages) {
            int count = sendmmsg(fd, sender->headers + done, (unsigned)(messages - done), MSG_DONTWAIT);
            if (count > 0) {
                for (int i = done; i < done + count; i++) *sent += (uint64_t)sender->segments[i];
                done += count;
                continue;
            }
            if (count < 0 && errno == EINTR) continue;
            if (count < 0 && sender->segments[done] > 1 && (errno == EIO || errno == EINVAL || errno == EOPNOTSUPP)) {
                atomic_store_explicit(&segmentation_works, 0, memory_order_relaxed);
                int start = next;
                for (int i = 0; i < done; i++) start += sender->segments[i];
                for (int i = start; i < start + sender->segments[done]; i++) {
                    struct msghdr one = sender->headers[done].msg_hdr;
                    struct mmsghdr copy = {.msg_hdr = one};
                    copy.msg_hdr.msg_iov = &sender->vectors[i];
                    copy.msg_hdr.msg_iovlen = 1;
                    copy.msg_hdr.msg_controllen -= CMSG_SPACE(sizeof(uint16_t));
                    if (copy.msg_hdr.msg_controllen == 0) copy.msg_hdr.msg_control = NULL;
                    if (sendmmsg(fd, &copy, 1, MSG_DONTWAIT) == 1) (*sent)++;
                    else (*refused)++;
                }
                done++;
                continue;
            }
            if (count < 0 && leave_anywhere(sender, done, next)) continue;
            /* This one cannot go (no route, buffer full); the next ones may. */
            *refused += (uint64_t)sender->segments[done];
            done++;
        }
        next = first;
    }
    sender->count = 0;
}

/* ------------------------------------------------------------------ readiness */

int cs_epoll_create(void) {
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int cs_epoll_add(int epoll, int fd, uint64_t token) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = token};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

int cs_epoll_modify(int epoll, int fd, uint64_t token, int writable) {
    struct epoll_event event = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.u64 = token};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0 ? 0 : -errno;
}

int cs_epoll_remove(int epoll, int fd) { return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL) == 0 ? 0 : -errno; }

int cs_epoll_wait(int epoll, uint64_t *tokens, int max, int64_t nanoseconds) {
    struct epoll_event events[64];
    struct timespec time = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    int count = epoll_pwait2(epoll, events, max < 64 ? max : 64, nanoseconds < 0 ? NULL : &time, NULL);
    if (count < 0 && errno == ENOSYS) {
        int64_t milliseconds = nanoseconds < 0 ? -1 : (nanoseconds + 999999) / 1000000;
        count = epoll_wait(epoll, events, max < 64 ? max : 64, milliseconds > 3600000 ? 3600000 : (int)milliseconds);
    }
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) tokens[i] = events[i].data.u64;
    return count;
}

int cs_eventfd_create(void) {
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void cs_eventfd_signal(int fd) {
    uint64_t one = 1;
    ssize_t written;
    do {
        written = write(fd, &one, sizeof one);
    } while (written < 0 && errno == EINTR);
}

void cs_eventfd_clear(int fd) {
    uint64_t value;
    ssize_t count;
    do {
        count = read(fd, &value, sizeof value);
    } while (count < 0 && errno == EINTR);
}

int cs_wait_readable(int fd, int timeout_ms) {
    struct pollfd item = {.fd = fd, .events = POLLIN};
    int count = poll(&item, 1, timeout_ms);
    return count > 0 ? 1 : 0;
}

void cs_close(int fd) { (void)close(fd); }

/* -------------------------------------------------------------- clock, threads */

static int64_t clock_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int64_t cs_monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
int64_t cs_unix_ns(void) { return clock_ns(CLOCK_REALTIME); }

int cs_thread_start(cs_thread *thread, void *(*body)(void *), void *context) {
    /* The host's signals are the host's: none of them is handled on this thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t id;
    int error = pthread_create(&id, NULL, body, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) return -error;
    pthread_setname_np(id, "reconnect");
    thread->opaque = (uint64_t)id;
    return 0;
}

int cs_thread_join(cs_thread thread) { return -pthread_join((pthread_t)thread.opaque, NULL); }

int cs_thread_detach(cs_thread thread) { return -pthread_detach((pthread_t)thread.opaque); }

int cs_thread_is_current(cs_thread thread) { return pthread_equal((pthread_t)thread.opaque, pthread_self()) != 0; }

struct cs_mutex { pthread_mutex_t mutex; };

cs_mutex *cs_mutex_create(void) {
    cs_mutex *made = malloc(sizeof *made);
    if (!made || pthread_mutex_init(&made->mutex, NULL) != 0) abort();
    return made;
}

void cs_mutex_destroy(cs_mutex *mutex) {
    (void)pthread_mutex_destroy(&mutex->mutex);
    free(mutex);
}

void cs_mutex_lock(cs_mutex *mutex) { (void)pthread_mutex_lock(&mutex->mutex); }
void cs_mutex_unlock(cs_mutex *mutex) { (void)pthread_mutex_unlock(&mutex->mutex); }

static _Atomic int forked;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void mark_child(void) { atomic_store(&forked, 1); }
static void register_fork(void) { (void)pthread_atfork(NULL, NULL, mark_child); }

void cs_fork_watch(void) { (void)pthread_once(&fork_once, register_fork); }
int cs_forked(void) { return atomic_load_explicit(&forked, memory_order_relaxed); }

const char *cs_environment(const char *name) { return getenv(name); }

const char *cs_error_text(int error) {
    const char *name = strerrordesc_np(error);
    return name ? name : "unknown error";
}
