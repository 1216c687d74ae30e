#define _GNU_SOURCE
#include "CSystem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ------------------------------------------------------------------- messages */

/* A piece of a buffer. Everything is read through `load`, which never reads past its end. */
typedef struct {
    const uint8_t *data;
    size_t size;
} piece;

static int load(piece from, size_t offset, void *out, size_t size) {
    if (offset > from.size || size > from.size - offset) return 0;
    memcpy(out, from.data + offset, size);
    return 1;
}

/* Lengths in netlink are padded to four. */
static size_t padded(size_t size) { return (size + 3) & ~(size_t)3; }

static piece behind(piece whole, size_t offset) {
    if (offset > whole.size) offset = whole.size;
    return (piece){whole.data + offset, whole.size - offset};
}

/* Takes the first message off `rest`; 0 at the end, and if what is left is none. */
static int next_message(piece *rest, struct nlmsghdr *header, piece *body) {
    if (!load(*rest, 0, header, sizeof *header)) return 0;
    if (header->nlmsg_len < sizeof *header || header->nlmsg_len > rest->size) return 0;
    *body = (piece){rest->data + sizeof *header, header->nlmsg_len - sizeof *header};
    *rest = behind(*rest, padded(header->nlmsg_len));
    return 1;
}

/* Takes the first attribute off `rest` likewise. */
static int next_attribute(piece *rest, uint16_t *type, piece *value) {
    struct rtattr header;
    if (!load(*rest, 0, &header, sizeof header)) return 0;
    if (header.rta_len < sizeof header || header.rta_len > rest->size) return 0;
    *type = header.rta_type & NLA_TYPE_MASK;
    *value = (piece){rest->data + sizeof header, header.rta_len - sizeof header};
    *rest = behind(*rest, padded(header.rta_len));
    return 1;
}

static void load_text(char out[16], piece value) {
    size_t size = strnlen((const char *)value.data, value.size);
    if (size > 15) size = 15;
    memset(out, 0, 16);
    memcpy(out, value.data, size);
}

static int load_address(cs_address *out, int family, piece value) {
    uint8_t bytes[16];
    memset(out, 0, sizeof *out);
    if (family == AF_INET && value.size == 4) {
        uint32_t bits;
        memcpy(&bits, value.data, 4);
        out->low = 0x0000FFFF00000000u | ntohl(bits);
        return 1;
    }
    if (family == AF_INET6 && value.size == 16) {
        memcpy(bytes, value.data, 16);
        for (int i = 0; i < 8; i++) {
            out->high = out->high << 8 | bytes[i];
            out->low = out->low << 8 | bytes[8 + i];
        }
        return 1;
    }
    return 0;
}

static int parse_link(piece body, cs_link *link) {
    struct ifinfomsg info;
    if (!load(body, 0, &info, sizeof info) || info.ifi_index <= 0) return 0;
    memset(link, 0, sizeof *link);
    link->index = (uint32_t)info.ifi_index;
    link->flags = (info.ifi_flags & IFF_UP ? CS_LINK_UP : 0) | (info.ifi_flags & IFF_RUNNING ? CS_LINK_RUNNING : 0) |
                  (info.ifi_flags & IFF_LOOPBACK ? CS_LINK_LOOPBACK : 0) |
                  (info.ifi_flags & IFF_POINTOPOINT ? CS_LINK_POINT_TO_POINT : 0);
    piece rest = behind(body, padded(sizeof info)), value, inner, innermost;
    uint16_t type;
    while (next_attribute(&rest, &type, &value)) {
        if (type == IFLA_IFNAME) load_text(link->name, value);
        if (type == IFLA_MASTER) (void)load(value, 0, &link->master, sizeof link->master);
        if (type != IFLA_LINKINFO) continue;
        inner = value;
        while (next_attribute(&inner, &type, &innermost)) {
            if (type == IFLA_INFO_KIND) load_text(link->kind, innermost);
        }
    }
    return 1;
}

static int parse_address(piece body, cs_link_address *address) {
    struct ifaddrmsg info;
    if (!load(body, 0, &info, sizeof info) || info.ifa_index == 0) return 0;
    if (info.ifa_family != AF_INET && info.ifa_family != AF_INET6) return 0;
    memset(address, 0, sizeof *address);
    address->interface = info.ifa_index;
    address->prefix_length = info.ifa_prefixlen;
    uint32_t flags = info.ifa_flags;
    int has_local = 0, has_address = 0;
    piece rest = behind(body, padded(sizeof info)), value;
    uint16_t type;
    while (next_attribute(&rest, &type, &value)) {
        /* On a point-to-point link IFA_ADDRESS is the other end, and IFA_LOCAL this one. */
        if (type == IFA_LOCAL && load_address(&address->address, info.ifa_family, value)) has_local = 1;
        if (type == IFA_ADDRESS && !has_local && load_address(&address->address, info.ifa_family, value)) {
            has_address = 1;
        }
        /* The header has room for the first eight of them only. */
        if (type == IFA_FLAGS) (void)load(value, 0, &flags, sizeof flags);
    }
    int is_v6 = info.ifa_family == AF_INET6;
    /* IPv4 has a flag for second addresses with the same value. */
    address->flags = (uint8_t)((is_v6 && flags & IFA_F_TEMPORARY ? CS_ADDRESS_TEMPORARY : 0) |
                               (flags & IFA_F_DEPRECATED ? CS_ADDRESS_DEPRECATED : 0) |
                               (flags & IFA_F_TENTATIVE ? CS_ADDRESS_TENTATIVE : 0) |
                               (flags & IFA_F_DADFAILED ? CS_ADDRESS_DUPLICATE : 0));
    return has_local || has_address;
}

static int parse_route(piece body, cs_default_route *route) {
    struct rtmsg info;
    if (!load(body, 0, &info, sizeof info)) return 0;
    if (info.rtm_family != AF_INET && info.rtm_family != AF_INET6) return 0;
    memset(route, 0, sizeof *route);
    if (info.rtm_type != RTN_UNICAST) return info.rtm_family;
    piece rest = behind(body, padded(sizeof info)), value;
    uint16_t type, family;
    while (next_attribute(&rest, &type, &value)) {
        if (type == RTA_OIF) (void)load(value, 0, &route->interface, sizeof route->interface);
        if (type == RTA_GATEWAY) (void)load_address(&route->gateway, info.rtm_family, value);
        if (type == RTA_PREFSRC) (void)load_address(&route->source, info.rtm_family, value);
        /* An IPv4 route through an IPv6 router. */
        if (type == RTA_VIA && load(value, 0, &family, sizeof family)) {
            (void)load_address(&route->gateway, family, behind(value, sizeof family));
        }
    }
    return info.rtm_family;
}

/* ---------------------------------------------------------------------- table */

cs_netlink_table *cs_netlink_table_create(void) { return calloc(1, sizeof(cs_netlink_table)); }

void cs_netlink_table_destroy(cs_netlink_table *table) {
    if (!table) return;
    free(table->links);
    free(table->addresses);
    free(table);
}

static void empty(cs_netlink_table *table) {
    table->link_count = table->address_count = 0;
    memset(&table->route4, 0, sizeof table->route4);
    memset(&table->route6, 0, sizeof table->route6);
}

/* Makes room for one more of `size` bytes; 1 if there is, 0 at the limit, -ENOMEM. */
static int make_room(void **list, uint32_t count, uint32_t *capacity, uint32_t limit, size_t size) {
    if (count < *capacity) return 1;
    if (count >= limit) return 0;
    uint32_t wanted = *capacity ? *capacity * 2 : 32;
    if (wanted > limit) wanted = limit;
    void *grown = realloc(*list, wanted * size);
    if (!grown) return -ENOMEM;
    *list = grown;
    *capacity = wanted;
    return 1;
}

static int add_link(cs_netlink_table *table, const cs_link *link) {
    void *list = table->links;
    int room = make_room(&list, table->link_count, &table->link_capacity, CS_LINKS_MAX, sizeof *link);
    table->links = list;
    if (room > 0) table->links[table->link_count++] = *link;
    return room < 0 ? room : 0;
}

static int add_address(cs_netlink_table *table, const cs_link_address *address) {
    void *list = table->addresses;
    int room =
        make_room(&list, table->address_count, &table->address_capacity, CS_ADDRESSES_MAX, sizeof *address);
    table->addresses = list;
    if (room > 0) table->addresses[table->address_count++] = *address;
    return room < 0 ? room : 0;
}

int cs_netlink_take(cs_netlink_table *table, const uint8_t *data, size_t size, uint32_t sequence) {
    piece rest = {data, size}, body;
    struct nlmsghdr header;
    while (next_message(&rest, &header, &body)) {
        if (header.nlmsg_seq != sequence) continue;
        if (header.nlmsg_flags & NLM_F_DUMP_INTR) return -EAGAIN;
        int failed = 0;
        if (header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR) {
            /* Either may end a list with an error; the same number without one. */
            int32_t error = 0;
            (void)load(body, 0, &error, sizeof error);
            return error < 0 && error > -4096 ? error : error == 0 ? CS_NETLINK_DONE : -EPROTO;
        }
        if (header.nlmsg_type == RTM_NEWLINK) {
            cs_link link;
            if (parse_link(body, &link)) failed = add_link(table, &link);
        } else if (header.nlmsg_type == RTM_NEWADDR) {
            cs_link_address address;
            if (parse_address(body, &address)) failed = add_address(table, &address);
        } else if (header.nlmsg_type == RTM_NEWROUTE) {
            cs_default_route route;
            int family = parse_route(body, &route);
            if (family == AF_INET) table->route4 = route;
            if (family == AF_INET6) table->route6 = route;
        }
        if (failed) return failed;
        /* The answer that is not a list is one message. */
        if (!(header.nlmsg_flags & NLM_F_MULTI)) return CS_NETLINK_DONE;
    }
    return CS_NETLINK_MORE;
}

/* -------------------------------------------------------------------- sockets */

/* The kernel makes no message larger than 32 KiB unless one interface alone needs it. */
enum { BUFFER = 65536 };

/* Reads one buffer. Its size; 0: nothing there; -EMSGSIZE: it was larger; -ENOBUFS: some were lost; -EPERM: not from
   the kernel, to be skipped. */
static ssize_t receive(int fd, uint8_t *buffer) {
    struct sockaddr_nl from;
    memset(&from, 0, sizeof from);
    struct iovec vector = {buffer, BUFFER};
    struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &vector, .msg_iovlen = 1};
    ssize_t count;
    do {
        count = recvmsg(fd, &message, MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    if (count < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    /* Any process may send to a netlink socket; the kernel's own number is 0. */
    if (message.msg_namelen < sizeof from || from.nl_family != AF_NETLINK || from.nl_pid != 0) return -EPERM;
    if (message.msg_flags & MSG_TRUNC) return -EMSGSIZE;
    return count;
}

typedef struct {
    struct nlmsghdr header;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg address;
        struct rtmsg route;
    } body;
    uint8_t attributes[32];
} request;

/* The size of the message so far, with one more attribute. */
static void add_attribute(request *message, uint16_t type, const void *value, uint16_t size) {
    struct rtattr header = {.rta_len = (uint16_t)(sizeof header + size), .rta_type = type};
    uint8_t *end = (uint8_t *)message + message->header.nlmsg_len;
    memcpy(end, &header, sizeof header);
    memcpy(end + sizeof header, value, size);
    message->header.nlmsg_len += (uint32_t)padded(header.rta_len);
}

static int ask(int fd, cs_netlink_table *table, request *message, uint8_t *buffer) {
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    ssize_t sent;
    do {
        sent = sendto(fd, message, message->header.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) return -errno;
    /* The kernel has answered by now; the bounds are for surprises. */
    int waits = 0;
    for (int buffers = 0; buffers < 4096; buffers++) {
        ssize_t count = receive(fd, buffer);
        if (count == -EPERM) continue;
        if (count < 0) return (int)count;
        if (count == 0) {
            struct pollfd item = {.fd = fd, .events = POLLIN};
            if (++waits > 3) return -ETIMEDOUT;
            (void)poll(&item, 1, 50);
            continue;
        }
        int result = cs_netlink_take(table, buffer, (size_t)count, message->header.nlmsg_seq);
        if (result != CS_NETLINK_MORE) return result < 0 ? result : 0;
    }
    return -EPROTO;
}

static int list_links(int fd, cs_netlink_table *table, uint8_t *buffer) {
    request message = {
        .header = {.nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1}};
    message.header.nlmsg_len = (uint32_t)(sizeof message.header + sizeof message.body.link);
    message.body.link.ifi_family = AF_UNSPEC;
    uint32_t mask = RTEXT_FILTER_SKIP_STATS;
    add_attribute(&message, IFLA_EXT_MASK, &mask, sizeof mask);
    return ask(fd, table, &message, buffer);
}

static int list_addresses(int fd, cs_netlink_table *table, uint8_t *buffer) {
    request message = {
        .header = {.nlmsg_type = RTM_GETADDR, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 2}};
    message.header.nlmsg_len = (uint32_t)(sizeof message.header + sizeof message.body.address);
    message.body.address.ifa_family = AF_UNSPEC;
    return ask(fd, table, &message, buffer);
}

/* How would a packet to the world go? Better than a list of routes, which may be long, and knows of rules. The
   addresses are those of one of the root name servers; nothing is sent there. */
static int find_route(int fd, cs_netlink_table *table, uint8_t *buffer, int is_v6, uint32_t exit) {
    static const uint8_t world4[4] = {198, 41, 0, 4};
    static const uint8_t world6[16] = {0x20, 0x01, 0x05, 0x03, 0xBA, 0x3E, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0x30};
    request message = {
        .header = {.nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = is_v6 ? 4 : 3}};
    message.header.nlmsg_len = (uint32_t)(sizeof message.header + sizeof message.body.route);
    message.body.route.rtm_family = is_v6 ? AF_INET6 : AF_INET;
    message.body.route.rtm_dst_len = is_v6 ? 128 : 32;
    add_attribute(&message, RTA_DST, is_v6 ? world6 : world4, is_v6 ? 16 : 4);
    if (exit) {
        /* The route itself: without one the kernel would take the whole world for the link's neighbour. */
        message.body.route.rtm_flags = RTM_F_FIB_MATCH;
        add_attribute(&message, RTA_OIF, &exit, sizeof exit);
    }
    int result = ask(fd, table, &message, buffer);
    switch (-result) {
    /* There is none, or not even the protocol. */
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENODEV:
    case EACCES:
    case EINVAL:
    case EAFNOSUPPORT:
    case EOPNOTSUPP: return 0;
    default: return result;
    }
}

/* Whether IPv4 packets can leave through other interfaces than the best one, too. (IPv6 has no way to say so for a
   single packet: the kernel takes the named interface for a wish only, if the source address is given.) */
static int find_exits(int fd, cs_netlink_table *table, uint8_t *buffer) {
    cs_default_route best = table->route4;
    int result = 0, asked = 0;
    for (uint32_t i = 0; best.interface && i < table->link_count && asked < CS_EXITS_MAX && result == 0; i++) {
        cs_link *link = &table->links[i];
        int has_address = 0;
        for (uint32_t a = 0; a < table->address_count; a++) {
            const cs_link_address *entry = &table->addresses[a];
            if (entry->interface == link->index && entry->address.high == 0) has_address = 1;
        }
        if (!(link->flags & CS_LINK_UP) || link->flags & CS_LINK_LOOPBACK || !has_address) continue;
        asked++;
        table->route4.interface = 0;
        result = find_route(fd, table, buffer, 0, link->index);
        if (table->route4.interface == link->index) link->flags |= CS_LINK_EXIT;
    }
    table->route4 = best;
    return result;
}

static int read_once(int fd, cs_netlink_table *table, uint8_t *buffer) {
    empty(table);
    int result = list_links(fd, table, buffer);
    if (result == 0) result = list_addresses(fd, table, buffer);
    if (result == 0) result = find_route(fd, table, buffer, 0, 0);
    if (result == 0) result = find_route(fd, table, buffer, 1, 0);
    if (result == 0) result = find_exits(fd, table, buffer);
    return result;
}

int cs_netlink_read(cs_netlink_table *table) {
    uint8_t *buffer = malloc(BUFFER);
    if (!buffer) return -ENOMEM;
    int result = -EAGAIN;
    /* A list that was interrupted is made again, on a new socket: the rest of the old answer dies with the old one. */
    for (int tries = 0; tries < 4 && result == -EAGAIN; tries++) {
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (fd < 0) {
            result = -errno;
            break;
        }
        result = read_once(fd, table, buffer);
        close(fd);
    }
    free(buffer);
    return result;
}

/* ------------------------------------------------------------------- watching */

int cs_netlink_watch(void) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0) return -errno;
    struct sockaddr_nl own = {.nl_family = AF_NETLINK,
                              .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
                                           RTMGRP_IPV6_ROUTE};
    if (bind(fd, (struct sockaddr *)&own, sizeof own) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

static int parse_change(const struct nlmsghdr *header, piece body, cs_network_change *change) {
    memset(change, 0, sizeof *change);
    switch (header->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: {
        struct ifinfomsg info;
        /* A bridge tells of its ports as of links, under its own family: those are not gone when they leave it. */
        if (!load(body, 0, &info, sizeof info) || info.ifi_index <= 0 || info.ifi_family != AF_UNSPEC) return 0;
        change->what = CS_CHANGE_LINK;
        change->interface = (uint32_t)info.ifi_index;
        change->is_gone = header->nlmsg_type == RTM_DELLINK || !(info.ifi_flags & IFF_UP) ||
                          !(info.ifi_flags & IFF_RUNNING);
        return 1;
    }
    case RTM_NEWADDR:
    case RTM_DELADDR: {
        cs_link_address address;
        if (!parse_address(body, &address)) return 0;
        change->what = CS_CHANGE_ADDRESS;
        change->interface = address.interface;
        change->address = address.address;
        change->is_gone = header->nlmsg_type == RTM_DELADDR || address.flags & CS_ADDRESS_DUPLICATE;
        return 1;
    }
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
        struct rtmsg info;
        /* A router may have millions of others. */
        if (!load(body, 0, &info, sizeof info) || info.rtm_dst_len != 0) return 0;
        change->what = CS_CHANGE_ROUTE;
        change->is_gone = header->nlmsg_type == RTM_DELROUTE;
        return 1;
    }
    default: return 0;
    }
}

int cs_netlink_parse_changes(const uint8_t *data, size_t size, cs_network_change *changes, int max) {
    piece rest = {data, size}, body;
    struct nlmsghdr header;
    int count = 0;
    while (count < max && next_message(&rest, &header, &body)) {
        count += parse_change(&header, body, &changes[count]);
    }
    return count;
}

int cs_netlink_changes(int fd, cs_network_change *changes, int max) {
    if (max < 1) return 0;
    uint8_t *buffer = malloc(BUFFER);
    int count = 0, is_lost = buffer == NULL;
    /* Bounded: what comes meanwhile is there the next time. */
    for (int buffers = 0; buffer && buffers < 256; buffers++) {
        ssize_t size = receive(fd, buffer);
        if (size == 0) break;
        if (size == -EPERM) continue;
        if (size < 0) {
            is_lost = 1;
            /* The kernel reports lost messages once, and goes on. */
            if (size != -ENOBUFS && size != -EMSGSIZE) break;
            continue;
        }
        /* One place is kept for the report of a loss. */
        count += cs_netlink_parse_changes(buffer, (size_t)size, changes + count, max - count);
        if (count == max) is_lost = 1, count = max - 1;
    }
    free(buffer);
    if (is_lost) changes[count++] = (cs_network_change){.what = CS_CHANGE_UNKNOWN};
    return count;
}

int cs_source_address(const cs_address *to, cs_address *from) {
    int is_v4 = to->high == 0 && to->low >> 32 == 0xFFFF;
    int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    struct sockaddr_in in4 = {
        .sin_family = AF_INET, .sin_port = htons(to->port), .sin_addr.s_addr = htonl((uint32_t)to->low)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(to->port), .sin6_scope_id = to->scope};
    for (int i = 0; i < 8; i++) {
        in6.sin6_addr.s6_addr[i] = (uint8_t)(to->high >> (56 - 8 * i));
        in6.sin6_addr.s6_addr[8 + i] = (uint8_t)(to->low >> (56 - 8 * i));
    }
    struct sockaddr *name = is_v4 ? (struct sockaddr *)&in4 : (struct sockaddr *)&in6;
    socklen_t length = is_v4 ? sizeof in4 : sizeof in6;
    int result = 0;
    /* Connecting a UDP socket looks up the way and sends nothing. */
    if (connect(fd, name, length) != 0 || getsockname(fd, name, &length) != 0) result = -errno;
    if (result == 0) {
        piece bytes = is_v4 ? (piece){(const uint8_t *)&in4.sin_addr, 4} : (piece){in6.sin6_addr.s6_addr, 16};
        (void)load_address(from, is_v4 ? AF_INET : AF_INET6, bytes);
    }
    close(fd);
    return result;
}
