/* TCP over both families, and UDP multicast. Every call answers a negative errno on failure; none waits. */
#ifndef CSYSTEM_TCP_H
#define CSYSTEM_TCP_H

#include <stdint.h>

/* Starts to connect to `to` from `from` (NULL, or an unspecified address: the system chooses; likewise its port 0).
   No delay, no keepalive. Answers the descriptor; the connection is there, or has failed, when it is writable:
   cs_stream_result() in stream.h. */
int cs_tcp_connect(const cs_address *to, const cs_address *from);

/* Listens on `address`; unspecified and IPv6: on both families, or on IPv4 where the machine has no IPv6. Writes the
   port in use. Answers the descriptor. */
int cs_tcp_listen(const cs_address *address, uint16_t *port);

/* Takes the next connection, and both of its ends. -EAGAIN: there is none. */
int cs_tcp_accept(int fd, cs_address *local, cs_address *remote);

/* 1 if the other end has answered. */
int cs_tcp_is_connected(int fd);

/* This end of a connection. */
int cs_tcp_local(int fd, cs_address *local);

/* Nothing more will be sent. */
void cs_tcp_finish(int fd);

/* A UDP socket for a multicast group on one interface (0: the system chooses). `joins` nonzero: bound to the group and
   its port, which others may have too, it hears what is sent there, and only that; otherwise it has a port of its own
   and hears answers. */
int cs_multicast_open(const cs_address *group, uint32_t interface, int joins);
int cs_multicast_send(int fd, const cs_address *group, uint32_t interface, const void *bytes, uint32_t count);
/* One datagram; its size, or -EAGAIN. */
int cs_multicast_receive(int fd, void *bytes, uint32_t count, cs_address *from);

#endif
