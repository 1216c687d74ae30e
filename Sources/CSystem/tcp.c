#define _GNU_SOURCE
#include "CSystem.h"
#include "socket_name.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static int set(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof value);
}

/* Closes it and answers what went wrong. */
static int give_up(int fd) {
    int error = errno;
    close(fd);
    return -error;
}

static int is_unspecified(const cs_address *address) {
    return address->high == 0 && (address->low == 0 || address->low == 0x0000FFFF00000000u);
}

static void set_connection_options(int fd) {
    (void)set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    (void)set(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
}

int cs_tcp_connect(const cs_address *to, const cs_address *from) {
    int v4 = cs_is_v4(to);
    if (from && !is_unspecified(from) && cs_is_v4(from) != v4) return -EAFNOSUPPORT;
    int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    set_connection_options(fd);
    struct sockaddr_storage name;
    if (from && (!is_unspecified(from) || from->port != 0)) {
        /* The port is chosen by connect(), which knows the other end: 60 thousand for each of those. */
        if (from->port == 0) (void)set(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        socklen_t length = cs_socket_name(&name, from, v4);
        if (bind(fd, (struct sockaddr *)&name, length) != 0) return give_up(fd);
    }
    socklen_t length = cs_socket_name(&name, to, v4);
    if (connect(fd, (struct sockaddr *)&name, length) == 0 || errno == EINPROGRESS) return fd;
    return give_up(fd);
}

static int listen_on(const cs_address *address, int v4, uint16_t *port) {
    int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    /* Connections of the process before, which the system still remembers, do not hold the port. */
    (void)set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (!v4) (void)set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !is_unspecified(address));
    struct sockaddr_storage name;
    socklen_t length = cs_socket_name(&name, address, v4);
    if (bind(fd, (struct sockaddr *)&name, length) != 0 || listen(fd, 512) != 0) return give_up(fd);
    length = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &length) != 0) return give_up(fd);
    cs_address bound;
    cs_read_socket_name(&bound, &name);
    *port = bound.port;
    return fd;
}

int cs_tcp_listen(const cs_address *address, uint16_t *port) {
    int v4 = cs_is_v4(address);
    int fd = listen_on(address, v4, port);
    if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) {
        if (!v4 && is_unspecified(address)) return listen_on(address, 1, port);
    }
    return fd;
}

int cs_tcp_local(int fd, cs_address *local) {
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    memset(&name, 0, sizeof name);
    if (getsockname(fd, (struct sockaddr *)&name, &length) != 0) return -errno;
    cs_read_socket_name(local, &name);
    return 0;
}

int cs_tcp_is_connected(int fd) {
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    return getpeername(fd, (struct sockaddr *)&name, &length) == 0;
}

int cs_tcp_accept(int fd, cs_address *local, cs_address *remote) {
    for (;;) {
        struct sockaddr_storage name;
        socklen_t length = sizeof name;
        memset(&name, 0, sizeof name);
        int accepted = accept4(fd, (struct sockaddr *)&name, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted < 0) {
            /* accept(2): errors of the network that belong to a connection that is gone again. */
            if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
            return -errno;
        }
        cs_read_socket_name(remote, &name);
        int error = cs_tcp_local(accepted, local);
        if (error) {
            close(accepted);
            continue;
        }
        set_connection_options(accepted);
        return accepted;
    }
}

void cs_tcp_finish(int fd) { (void)shutdown(fd, SHUT_WR); }

static int join_group(int fd, const cs_address *group, uint32_t interface, int v4) {
    /* Others listen there too. */
    (void)set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    (void)set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    struct sockaddr_storage name;
    cs_address bound = *group;
    if (!v4) bound.scope = interface;
    socklen_t length = cs_socket_name(&name, &bound, v4);
    if (bind(fd, (struct sockaddr *)&name, length) != 0) return -1;
    if (v4) {
        (void)set(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
        struct ip_mreqn request;
        memset(&request, 0, sizeof request);
        request.imr_multiaddr = ((struct sockaddr_in *)&name)->sin_addr;
        request.imr_ifindex = (int)interface;
        return setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request);
    }
    struct ipv6_mreq request;
    memset(&request, 0, sizeof request);
    request.ipv6mr_multiaddr = ((struct sockaddr_in6 *)&name)->sin6_addr;
    request.ipv6mr_interface = interface;
    return setsockopt(fd, IPPROTO_IPV6, IPV6_JOIN_GROUP, &request, sizeof request);
}

int cs_multicast_open(const cs_address *group, uint32_t interface, int joins) {
    int v4 = cs_is_v4(group);
    int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    /* RFC 6762 section 11: with a TTL of 255. Programs of this machine may have the answer. */
    if (v4) {
        struct ip_mreqn choice;
        memset(&choice, 0, sizeof choice);
        choice.imr_ifindex = (int)interface;
        (void)set(fd, IPPROTO_IP, IP_MULTICAST_TTL, 255);
        (void)set(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 1);
        if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &choice, sizeof choice) != 0) return give_up(fd);
    } else {
        (void)set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
        (void)set(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 255);
        (void)set(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1);
        if (set(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)interface) != 0) return give_up(fd);
    }
    if (joins && join_group(fd, group, interface, v4) != 0) return give_up(fd);
    return fd;
}

int cs_multicast_send(int fd, const cs_address *group, uint32_t interface, const void *bytes, uint32_t count) {
    int v4 = cs_is_v4(group);
    struct sockaddr_storage name;
    cs_address to = *group;
    if (!v4) to.scope = interface;
    socklen_t length = cs_socket_name(&name, &to, v4);
    ssize_t sent;
    do {
        sent = sendto(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&name, length);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int cs_multicast_receive(int fd, void *bytes, uint32_t count, cs_address *from) {
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    memset(&name, 0, sizeof name);
    ssize_t size;
    do {
        size = recvfrom(fd, bytes, count, MSG_DONTWAIT, (struct sockaddr *)&name, &length);
    } while (size < 0 && errno == EINTR);
    if (size < 0) return -errno;
    cs_read_socket_name(from, &name);
    return (int)size;
}
