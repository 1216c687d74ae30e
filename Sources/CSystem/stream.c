#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

_Static_assert(CS_EAGAIN == EAGAIN && CS_EAGAIN == EWOULDBLOCK && CS_ENAMETOOLONG == ENAMETOOLONG,
               "error numbers of this system");
_Static_assert(sizeof(((cs_endpoint *)0)->bytes) >= sizeof(struct sockaddr_storage), "room for every address");

int cs_resolve_endpoints(const char *host, uint16_t port, int numeric, cs_endpoint *endpoints, int max) {
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)port);
    struct addrinfo hints;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | (numeric ? AI_NUMERICHOST : AI_ADDRCONFIG);
    struct addrinfo *list = NULL;
    int error = getaddrinfo(host, service, &hints, &list);
    if (error) return -(CS_NAME_FAILURE + (error < 0 ? -error : error));
    int count = 0;
    for (struct addrinfo *entry = list; entry && count < max; entry = entry->ai_next) {
        if (entry->ai_addrlen > sizeof endpoints[count].bytes) continue;
        memset(&endpoints[count], 0, sizeof endpoints[count]);
        memcpy(endpoints[count].bytes, entry->ai_addr, entry->ai_addrlen);
        endpoints[count].length = entry->ai_addrlen;
        count++;
    }
    freeaddrinfo(list);
    return count;
}

const char *cs_name_failure_text(int n) { return gai_strerror(-n); }

int cs_unix_endpoint(const char *path, cs_endpoint *endpoint) {
    struct sockaddr_un name;
    size_t length = strlen(path);
    if (length >= sizeof name.sun_path) return -ENAMETOOLONG;
    memset(&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
    memcpy(name.sun_path, path, length);
    memset(endpoint, 0, sizeof *endpoint);
    memcpy(endpoint->bytes, &name, sizeof name);
    endpoint->length = sizeof name;
    return 0;
}

int cs_stream_connect(const cs_endpoint *endpoint) {
    struct sockaddr_storage name;
    memcpy(&name, endpoint->bytes, sizeof name);
    int fd = socket(name.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    if (name.ss_family != AF_UNIX) {
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    }
    if (connect(fd, (struct sockaddr *)&name, endpoint->length) == 0 || errno == EINPROGRESS) return fd;
    int error = errno;
    close(fd);
    return -error;
}

int cs_stream_result(int fd) {
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
    return error;
}

int64_t cs_stream_send(int fd, const void *bytes, uint64_t count) {
    for (;;) {
        ssize_t done = send(fd, bytes, count, MSG_NOSIGNAL);
        if (done >= 0) return done;
        if (errno != EINTR) return -(int64_t)errno;
    }
}

int64_t cs_stream_receive(int fd, void *bytes, uint64_t count) {
    for (;;) {
        ssize_t done = recv(fd, bytes, count, 0);
        if (done >= 0) return done;
        if (errno != EINTR) return -(int64_t)errno;
    }
}

int cs_wait_any(cs_wait_entry *entries, int count, int64_t nanoseconds) {
    enum { MAXIMUM = 64 };
    if (count < 0 || count > MAXIMUM) return -EINVAL;
    struct pollfd fds[MAXIMUM];
    for (int i = 0; i < count; i++) {
        fds[i].fd = entries[i].fd;
        fds[i].events = (short)((entries[i].want & CS_READ ? POLLIN : 0) | (entries[i].want & CS_WRITE ? POLLOUT : 0));
        fds[i].revents = 0;
        entries[i].got = 0;
    }
    struct timespec limit = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    int ready = ppoll(fds, (nfds_t)count, nanoseconds < 0 ? NULL : &limit, NULL);
    if (ready < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        short got = fds[i].revents;
        if (got & (POLLERR | POLLHUP | POLLNVAL)) {
            entries[i].got = CS_READ | CS_WRITE;
        } else {
            entries[i].got = (got & POLLIN ? CS_READ : 0) | (got & POLLOUT ? CS_WRITE : 0);
        }
    }
    return ready;
}
