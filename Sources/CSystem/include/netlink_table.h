/* The machine's network interfaces, addresses and ways out, as the kernel tells them over a NETLINK_ROUTE socket
   (rtnetlink(7)). What is read is bounded, and no message is read past its end, whoever made it. */
#ifndef NETLINK_TABLE_H
#define NETLINK_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* More than this of either is not kept. */
enum { CS_LINKS_MAX = 4096, CS_ADDRESSES_MAX = 4096 };

enum {
    CS_LINK_UP = 1,
    CS_LINK_RUNNING = 2,
    CS_LINK_LOOPBACK = 4,
    CS_LINK_POINT_TO_POINT = 8,
    /* Leads to the rest of the IPv4 world by itself. Known of the first CS_EXITS_MAX interfaces that might. */
    CS_LINK_EXIT = 16
};

enum { CS_EXITS_MAX = 16 };

/* One interface. */
typedef struct {
    uint32_t index;
    uint32_t master; /* index of the bridge, bond or VRF it belongs to; 0: none */
    uint32_t flags;  /* CS_LINK_... */
    char name[16];   /* ends with a zero */
    char kind[16];   /* "bridge", "veth", "tun", ...; empty for hardware and loopback. Ends with a zero */
} cs_link;

enum { CS_ADDRESS_TEMPORARY = 1, CS_ADDRESS_DEPRECATED = 2, CS_ADDRESS_TENTATIVE = 4, CS_ADDRESS_DUPLICATE = 8 };

/* One address of an interface. */
typedef struct {
    cs_address address; /* port 0 */
    uint32_t interface; /* its index */
    uint8_t flags;      /* CS_ADDRESS_... */
    uint8_t prefix_length;
} cs_link_address;

/* The way to the rest of the world. */
typedef struct {
    uint32_t interface; /* 0: there is none */
    cs_address gateway; /* unspecified: none is needed */
    cs_address source;  /* what the system would send from; unspecified if it does not say */
} cs_default_route;

typedef struct {
    cs_link *links;
    cs_link_address *addresses;
    uint32_t link_count;
    uint32_t address_count;
    uint32_t link_capacity;
    uint32_t address_capacity;
    cs_default_route route4;
    cs_default_route route6;
} cs_netlink_table;

/* An empty table; NULL without memory. */
cs_netlink_table *cs_netlink_table_create(void);
void cs_netlink_table_destroy(cs_netlink_table *table);

/* Reads everything from the kernel into the table, which is emptied first. Does not wait longer than the kernel needs
   to answer. 0, or a negative errno, and the table is then of no use. */
int cs_netlink_read(cs_netlink_table *table);

enum { CS_NETLINK_MORE = 0, CS_NETLINK_DONE = 1 };

/* Takes one buffer of the kernel's answer to a request with that sequence number; other messages in it are skipped.
   CS_NETLINK_DONE after the last one, CS_NETLINK_MORE before; negative errno: the kernel's error, -EAGAIN if things
   changed while it listed them, -ENOMEM. Open to tests: cs_netlink_read() is what to use. */
int cs_netlink_take(cs_netlink_table *table, const uint8_t *data, size_t size, uint32_t sequence);

/* A non-blocking socket that becomes readable when links, addresses or routes change. */
int cs_netlink_watch(void);

enum {
    CS_CHANGE_LINK = 1,    /* interface `interface` is new, another, or gone */
    CS_CHANGE_ADDRESS = 2, /* `address` of `interface` likewise */
    CS_CHANGE_ROUTE = 3,   /* a default route */
    CS_CHANGE_UNKNOWN = 4  /* messages were lost: anything may have changed */
};

typedef struct {
    uint8_t what;    /* CS_CHANGE_... */
    uint8_t is_gone; /* does not exist or does not run any more */
    uint32_t interface;
    cs_address address;
} cs_network_change;

/* Takes what the watching socket has, up to `max` changes; what is beyond becomes one CS_CHANGE_UNKNOWN. Answers how
   many there are. */
int cs_netlink_changes(int fd, cs_network_change *changes, int max);

/* Reads the notifications in one buffer; for tests, as cs_netlink_take(). Answers how many; `max`: perhaps more. */
int cs_netlink_parse_changes(const uint8_t *data, size_t size, cs_network_change *changes, int max);

/* What the system would send from to reach `to`, without sending anything: works where nothing may be listed. */
int cs_source_address(const cs_address *to, cs_address *from);

#endif
