/*
 * libreconnect: WebRTC that comes back.
 *
 * A complete WebRTC data-channel transport (ICE, DTLS, SCTP, SDP) with fast reconnection, for
 * programs that embed it. Link with `pkg-config --cflags --libs reconnect`.
 *
 * How it works
 *   An engine owns one UDP port, one certificate and one thread. A peer is one WebRTC connection
 *   on that port; a channel is one data channel of a peer. Calls hand work to the engine's thread
 *   and return at once; whatever happens afterwards is an event. Events are taken with
 *   reconnect_poll(); no library thread ever calls into the host.
 *
 * Threads
 *   Every function may be called from every thread at any time, also at once, unless it says
 *   otherwise. After fork() every call in the child gives RECONNECT_FORKED.
 *
 * Handles
 *   Plain numbers, checked on every call. A handle that was never given out, that belongs to
 *   something closed, or that is zero gives RECONNECT_INVALID_HANDLE and does nothing. A peer's
 *   handle ends with its RECONNECT_EVENT_PEER_STATE event of state RECONNECT_PEER_CLOSED, a
 *   channel's with its RECONNECT_EVENT_CHANNEL_CLOSED event. Nothing needs to be freed.
 *
 * Status
 *   Every function that can fail returns a reconnect_status_t: RECONNECT_OK or a negative number.
 *   Outputs are written only on success, unless a function says otherwise. A parameter `detail`
 *   (may be NULL) takes a sentence that says what was wrong, cut to `detail_capacity` bytes
 *   including the final NUL; it is written only on failure.
 *
 * Structs
 *   Input structs start with struct_size: set the whole struct to zero, then struct_size to its
 *   sizeof. Zero in any other member means its default. Later versions only append members.
 *   Pointers in them are read during the call and never kept.
 *
 * Units
 *   Sizes are bytes, `_ms` is milliseconds, `_ns` nanoseconds. Texts are UTF-8.
 */
#ifndef RECONNECT_H
#define RECONNECT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------ status */

/* RECONNECT_OK or one of the negative numbers below. A number is never given a second meaning. */
typedef int32_t reconnect_status_t;

enum {
    RECONNECT_OK = 0,
    RECONNECT_INVALID_ARGUMENT = -1,     /* NULL, a wrong struct_size, a value out of range */
    RECONNECT_INVALID_HANDLE = -2,       /* zero, closed, or never given out */
    RECONNECT_TOO_SMALL = -3,            /* the buffer; the length needed was written */
    RECONNECT_WOULD_BLOCK = -4,          /* the send queue is full; wait for RECONNECT_EVENT_BUFFERED_LOW */
    RECONNECT_CLOSED = -5,               /* the channel or peer is closing */
    RECONNECT_TOO_LARGE = -6,            /* the message is larger than the receiver accepts */
    RECONNECT_LIMIT = -7,                /* as many peers, connectors, channels, rooms or
                                         members as the configuration allows */
    RECONNECT_MALFORMED_JSON = -8,       /* the detail names the member, or line and column */
    RECONNECT_MALFORMED_SDP = -9,        /* the detail names the line */
    RECONNECT_UNACCEPTABLE = -10,        /* a valid description that cannot be accepted; the detail says why */
    RECONNECT_WRONG_STATE = -11,         /* for example a second answer */
    RECONNECT_PORT_IN_USE = -12,
    RECONNECT_NO_PERMISSION = -13,       /* for the port, or the certificate file */
    RECONNECT_NO_DESCRIPTORS = -14,      /* the process's or the system's limit of open files */
    RECONNECT_NO_MEMORY = -15,
    RECONNECT_NO_ADDRESS = -16,          /* an address is not an IP address, or none is left to offer */
    RECONNECT_CERTIFICATE_UNUSABLE = -17,/* the file is unreadable, malformed or of another key type */
    RECONNECT_STORAGE = -18,             /* a file could not be written */
    RECONNECT_FORKED = -19,              /* called in a child process of the one that made the engine */
    RECONNECT_SYSTEM = -20,              /* another error of the operating system; the detail names it */
    RECONNECT_INTERNAL = -21,            /* a defect of the library; please report it */

    /* Reasons why a peer closed, in RECONNECT_EVENT_PEER_STATE. RECONNECT_OK: the host closed it. */
    RECONNECT_PEER_GONE = -40,           /* the other side closed properly (close_notify or ABORT) */
    RECONNECT_REPLACED = -41,            /* its session came back with a new peer, which took over */
    RECONNECT_ICE_FAILED = -42,          /* no path was found in time */
    RECONNECT_CONSENT_EXPIRED = -43,     /* the path went silent for too long (RFC 7675) */
    RECONNECT_DTLS_FAILED = -44,         /* the handshake failed; the detail says how */
    RECONNECT_FINGERPRINT_MISMATCH = -45,/* the other side's certificate is not the one it announced (RFC 8122) */
    RECONNECT_SCTP_FAILED = -46,         /* the association was aborted or its retransmissions ran out */
    RECONNECT_TIMEOUT = -47,             /* connecting took longer than connect_timeout_ms */

    /* Reasons of connectors, in RECONNECT_EVENT_ATTEMPT and RECONNECT_EVENT_CONNECTOR. */
    RECONNECT_NOT_CACHED = -50,          /* nothing is known of an earlier connection */
    RECONNECT_CACHE_STALE = -51,         /* what is known is older than max_cache_age_ms */
    RECONNECT_SESSION_UNKNOWN = -52,     /* the other side answered normally: it does not know the session */
    RECONNECT_FAST_DISABLED = -53,       /* fast reload is switched off, or tripped */
    RECONNECT_NETWORK_CHANGED = -54,     /* the machine's addresses changed since */
    RECONNECT_OVERTAKEN = -55,           /* another attempt was connected first */
    RECONNECT_SIGNALING_FAILED = -56,    /* the host said that a message could not be exchanged, or no answer came */
    RECONNECT_TICKET_REFUSED = -57,      /* the other side refused the ticket: expired, or of keys it no longer has */

    /* Why an operation of a replay buffer did nothing. */
    RECONNECT_UNKNOWN_ROOM = -70,        /* nobody has joined it, or the last one left */
    RECONNECT_UNKNOWN_USER = -71,        /* not a member of the room */
    RECONNECT_UNKNOWN_RECIPIENT = -72,   /* likewise: nobody could ever come back for the message */
    RECONNECT_STALE = -73,               /* a newer connection of the same user took over */
    RECONNECT_THROTTLED = -74,           /* too many come back at once: again after retry_after_ms */
    RECONNECT_UNAVAILABLE = -75,         /* the store did not answer, and nothing else could */

    /* Why a TURN server gives no relay, in RECONNECT_EVENT_TURN. */
    RECONNECT_TURN_UNREACHABLE = -80,    /* its name is not known, it refuses connections, or it does not answer */
    RECONNECT_TURN_UNAUTHORIZED = -81,   /* it does not take the credentials, or there are none (401, 441) */
    RECONNECT_TURN_FORBIDDEN = -82,      /* not for this user or this address (403) */
    RECONNECT_TURN_QUOTA = -83,          /* 486 or 508: too many allocations; tried again later */
    RECONNECT_TURN_TLS_FAILED = -84,     /* the handshake failed, or the certificate is not the server's */
    RECONNECT_TURN_LOST = -85,           /* it was there, and the server or the connection to it is gone */
    RECONNECT_TURN_MALFORMED = -86,      /* what it answers is not TURN */
    RECONNECT_TURN_REFUSED = -87,        /* another error code, which the sentence names */

    /* Reasons why a channel closed, in RECONNECT_EVENT_CHANNEL_CLOSED. RECONNECT_OK: either side closed it.
       RECONNECT_PEER_GONE and the reasons above: its peer closed. */
    RECONNECT_CHANNEL_REFUSED = -60      /* the other side broke the channel protocol (RFC 8832) */
};

/* ----------------------------------------------------------------- handles */

typedef struct { uint64_t id; } reconnect_engine_t;
typedef struct { uint64_t id; } reconnect_peer_t;
typedef struct { uint64_t id; } reconnect_channel_t;
typedef struct { uint64_t id; } reconnect_connector_t;

/* ------------------------------------------------------------------ library */

/* The version of this header's ABI. The library file's name carries the major number. */
#define RECONNECT_VERSION_MAJOR 1
#define RECONNECT_VERSION_MINOR 3

/* The ABI's version as the library has it: major << 16 | minor. Programs built for the same major number keep
   working. */
uint32_t reconnect_version(void);

/* The library's version, for example "0.1.0". Static. */
const char *reconnect_version_string(void);

/* The name of a status without its prefix, for example "INVALID_HANDLE"; "UNKNOWN" for a number that
   this version does not know. Static. */
const char *reconnect_status_name(reconnect_status_t status);

/* A sentence for a status, for people. Static. */
const char *reconnect_status_text(reconnect_status_t status);

/* ------------------------------------------------------------------- engine */

/* reconnect_engine_config_t.ice_mode */
enum {
    RECONNECT_ICE_FULL = 0,   /* answers and sends checks: measures the path, keeps consent itself */
    RECONNECT_ICE_LITE = 1    /* only answers (RFC 8445 section 2.5); right where the address is public */
};

/* Levels of log events. RECONNECT_LOG_DEFAULT is RECONNECT_LOG_INFO. */
enum {
    RECONNECT_LOG_DEFAULT = 0,
    RECONNECT_LOG_ERROR = 1,
    RECONNECT_LOG_WARNING = 2,
    RECONNECT_LOG_INFO = 3,   /* the lines of the log format, docs/formats.md */
    RECONNECT_LOG_DEBUG = 4,
    RECONNECT_LOG_NONE = 5
};

typedef struct reconnect_engine_config {
    uint32_t struct_size;
    uint32_t ice_mode;              /* RECONNECT_ICE_FULL or RECONNECT_ICE_LITE, for answering peers */
    const char *bind_address;       /* IP address to bind; NULL: all addresses, IPv6 and IPv4 */
    const char *const *addresses;   /* IP addresses to offer as host candidates; NULL: those of the machine's
                                       interfaces that are up, IPv6 first, loopback only if there is no other */
    size_t address_count;
    const char *certificate_path;   /* PEM file for key and certificate, made (mode 0600) if missing; NULL: memory */
    uint16_t port;                  /* UDP port; 0: any free one */
    uint16_t reserved0;
    uint32_t log_level;             /* RECONNECT_LOG_... */
    uint32_t max_peers;             /* default 10000; bounds connectors too */
    uint32_t max_channels;          /* per peer; default 1024 */
    uint64_t max_message_size;      /* largest message accepted from others; default 262144, at most 16777216 */
    uint64_t send_high_water;       /* per channel: at this many queued bytes reconnect_send() answers
                                       RECONNECT_WOULD_BLOCK; default 4194304 */
    uint64_t receive_window;        /* per peer: received bytes held for the host; default 2097152; never less
                                       than max_message_size */
    uint32_t connect_timeout_ms;    /* from the answer to the connected state; default 30000 */
    uint32_t disconnect_timeout_ms; /* silence before RECONNECT_PEER_DISCONNECTED; default 5000, and 8000
                                       with ICE Lite, which only hears the other side's checks */
    uint32_t failed_timeout_ms;     /* silence before the peer is given up (RFC 7675: 30000); default 30000 */
    uint32_t session_ttl_ms;        /* how long a session can return after its last sign of life; default 300000 */
    uint32_t max_sessions;          /* remembered sessions; the oldest go first; default 100000 */
    uint32_t disable_fast_reload;   /* nonzero: every answer is normal, as RECONNECT_FAST_RELOAD_OFF */

    /* Since 1.1. */
    const char *session_store;      /* where sessions are kept: NULL: in memory; "sqlite:PATH": a file, made (mode
                                       0600) if missing; "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]",
                                       "rediss://..." with TLS, "redis+unix:PATH": shared by several engines. A store
                                       that is away, slow or broken means normal answers, never an error */
    const char *session_prefix;     /* of keys in Redis; default "webrtc:reconnect:" */
    uint32_t store_timeout_ms;      /* how long an answer waits for the store; default 100 */
    uint32_t disable_tickets;       /* nonzero: no tickets for zero-signaling are given out or accepted */
    const void *ticket_secret;      /* 32 to 256 bytes from which the keys of tickets are derived, shared by engines
                                       that shall accept each other's (they must share the certificate too); NULL:
                                       derived from the certificate's private key */
    size_t ticket_secret_size;
    const void *old_ticket_secret;  /* accepted, not used for new tickets: for a change without a gap; may be NULL */
    size_t old_ticket_secret_size;
    const struct reconnect_peer_config *returning_peer; /* how peers are made that come back with a ticket,
                                       without a call of the host: their tag and negotiated channels; NULL: none */
    const char *const *stun_servers; /* "stun:HOST:PORT" or "HOST:PORT", at most 32: asked from the engine's own port
                                       for the address it has outside; all at once */
    size_t stun_server_count;
    const char *const *public_addresses; /* "203.0.113.5", "203.0.113.5:4000" or "[2001:db8::1]:4000": offered as
                                       server-reflexive candidates; the engine's port if none is named */
    size_t public_address_count;
    uint32_t interfaces;            /* RECONNECT_INTERFACES_...: addresses offered beyond the usual ones */
    uint32_t certificate_days;      /* the certificate is replaced at this age; default 30; UINT32_MAX: never */
    uint32_t fast_timeout_ms;       /* a fast answer that has not connected by then counts as failed; default 2000 */
    uint32_t trip_window_ms;        /* failures are counted over this time; default 60000 */
    uint32_t trip_failure_percent;  /* of fast connects that fail: above it fast reload goes off; default 30 */
    uint32_t trip_unstable_percent; /* of fast connections that end by an error within 10 s; default 20 */
    uint32_t trip_min_attempts;     /* fast attempts in the window before it is judged; default 20 */
    uint32_t trip_rearm_ms;         /* how long it stays off before it is tried again; default 60000, doubled at each
                                       further trip up to sixteenfold */
    uint32_t disable_trip;          /* nonzero: never switches itself off */
    uint32_t reserved1;

    /* Since 1.3. */
    const struct reconnect_turn_server *turn_servers; /* as in reconnect_engine_set_turn_servers() */
    size_t turn_server_count;
    const char *turn_ca_path;       /* PEM file of the authorities that sign certificates of "turns:" servers; NULL: the
                                       system's */
    const char *const *allowed_interfaces; /* if there are any, only these interfaces' addresses are used: names as
                                       "eth0", beginnings of names as "wlan*", networks as "192.0.2.0/24"; at most 32 */
    size_t allowed_interface_count;
    const char *const *denied_interfaces;  /* likewise: never these; stronger than allowed */
    size_t denied_interface_count;
    uint32_t ice_policy;            /* RECONNECT_ICE_POLICY_..., for peers that do not say otherwise */
    uint32_t tcp;                   /* RECONNECT_TCP_...: candidates over TCP (RFC 6544) */
    uint16_t tcp_port;              /* of the listening socket, one for all peers; 0: the UDP port's number, or any free
                                       one if that is taken */
    uint16_t reserved2;
    uint32_t disable_mdns;          /* nonzero: names of the other side ending in ".local" are not looked up (RFC 6762) */
    const struct reconnect_timers *timers; /* NULL: the defaults */
} reconnect_engine_config_t;

/* reconnect_engine_config_t.ice_policy and reconnect_peer_config_t.ice_policy */
enum {
    RECONNECT_ICE_POLICY_DEFAULT = 0, /* the engine's; ALL for an engine */
    RECONNECT_ICE_POLICY_ALL = 1,
    RECONNECT_ICE_POLICY_RELAY = 2    /* no candidate but a relay's is made, sent, checked or used */
};

/* reconnect_engine_config_t.tcp: bits */
enum {
    RECONNECT_TCP_ACTIVE = 1,       /* connections are opened to passive candidates of the other side */
    RECONNECT_TCP_PASSIVE = 2       /* listens, and offers passive candidates */
};

/* A TURN server (RFC 8656). */
typedef struct reconnect_turn_server {
    uint32_t struct_size;
    uint32_t lifetime_ms;           /* how long the password is good from now on; RECONNECT_EVENT_TURN asks for another
                                       one before. 0: for ever */
    const char *url;                /* RFC 7065: "turn:HOST[:PORT][?transport=udp]", "turn:...?transport=tcp" or
                                       "turns:HOST[:PORT]", TLS over TCP; ports 3478 and 5349 if none is named; at most
                                       512 bytes */
    const char *username;           /* 1 to 508 bytes without control characters, beyond ASCII prepared as RFC 8265 says
                                       (OpaqueString) */
    const char *password;           /* long-term credentials (RFC 8489 section 9.2): 1 to 512 bytes, likewise. All three
                                       NULL: the server asks for none */
    const char *secret;             /* or instead the one that the server shares (coturn: use-auth-secret), likewise:
                                       credentials for `username`, which may be NULL and has at most 495 bytes, are made
                                       here whenever they are needed */
} reconnect_turn_server_t;

/* When what is done; zero: the default. */
typedef struct reconnect_timers {
    uint32_t struct_size;
    uint32_t check_interval_ms;     /* between new checks of a peer (Ta, RFC 8445 section 14.2); default 20, at least 5 */
    uint32_t consent_interval_ms;   /* RFC 7675 section 5.1; default 5000; less than failed_timeout_ms */
    uint32_t heartbeat_ms;          /* a path that carries nothing is asked at least this often, more often than
                                       disconnect_timeout_ms; default: half of that, 2500 */
    uint32_t suspect_ms;            /* while data flows, a path that is silent for this long, or for two round trips and
                                       50 ms if that is longer, is probed; default 150 */
    uint32_t disconnect_timeout_ms; /* as in reconnect_engine_config_t, whose value is the default; not more than */
    uint32_t failed_timeout_ms;     /* this, likewise */
    uint32_t connect_timeout_ms;    /* likewise */
    uint32_t standby_interval_ms;   /* how often a second path is kept warm; default 2500; UINT32_MAX: none is kept */
    uint32_t restart_timeout_ms;    /* an ICE restart that has no path by then is tried again; default 5000 */
    uint32_t restart_attempts;      /* in a row, before it is left to failed_timeout_ms; default 10; UINT32_MAX: none */
    uint32_t restart_min_ms;        /* between attempts: at random between this */
    uint32_t restart_max_ms;        /* and this; defaults 250 and 3000 */
    uint32_t patience_ms;           /* RFC 8863: no path is given up earlier; default 39500 */
} reconnect_timers_t;

/* reconnect_engine_config_t.interfaces: bits. Left out by default: temporary IPv6 addresses (RFC 8981) where the
   interface has a stable one, deprecated ones, and addresses of bridges and container networks. Link-local addresses
   are never offered to pages: candidates cannot carry their zone. */
enum {
    RECONNECT_INTERFACES_TEMPORARY = 1,
    RECONNECT_INTERFACES_DEPRECATED = 2,
    RECONNECT_INTERFACES_BRIDGES = 4,
    RECONNECT_INTERFACES_LOOPBACK = 8
};

/* Makes an engine: opens the port, loads or makes the certificate (ECDSA P-256, RFC 8827 section 6.5),
   starts the thread. `config` may be NULL for all defaults. On success the engine is in `*engine`.
   Fails with PORT_IN_USE, NO_PERMISSION, NO_ADDRESS, NO_DESCRIPTORS, CERTIFICATE_UNUSABLE, STORAGE, SYSTEM,
   INVALID_ARGUMENT. Blocks for the file and the key only. */
reconnect_status_t reconnect_engine_create(const reconnect_engine_config_t *config, reconnect_engine_t *engine,
                                           char *detail, size_t detail_capacity);

/* As reconnect_engine_create(), and what `config` leaves at its default is taken from the environment:
   ENABLE_FAST_RELOAD ("false", "0", "no", "off": RECONNECT_FAST_RELOAD_OFF; "partial": ..._PARTIAL), STUN_URLS
   (separated by commas), REDIS_URL (session_store), ICE_MODE ("turn-only" or "relay": RECONNECT_ICE_POLICY_RELAY;
   "all"), TURN_URLS (separated by commas) with TURN_USERNAME and TURN_PASSWORD, or with TURN_SECRET. Nothing else of
   the library reads the environment. A value that cannot be used gives INVALID_ARGUMENT, with its name in the detail. */
reconnect_status_t reconnect_engine_create_from_env(const reconnect_engine_config_t *config, reconnect_engine_t *engine,
                                                    char *detail, size_t detail_capacity);

/* Closes all peers (the other sides are told), stops the thread, closes the port and the event descriptor.
   All handles of the engine, and all payloads of its events, are invalid afterwards. Waits for the thread.
   A reconnect_poll() that waits in another thread returns with RECONNECT_INVALID_HANDLE. */
reconnect_status_t reconnect_engine_destroy(reconnect_engine_t engine);

/* The UDP port in use. */
reconnect_status_t reconnect_engine_port(reconnect_engine_t engine, uint16_t *port);

/* Hash functions for fingerprints (RFC 8122). */
enum { RECONNECT_SHA256 = 0, RECONNECT_SHA384 = 1, RECONNECT_SHA512 = 2 };

/* The certificate's fingerprint as in SDP, for example "sha-256 AB:CD:...", without a final NUL in `*length`
   but with one in the buffer. RECONNECT_TOO_SMALL writes the capacity needed (NUL included) to `*length`. */
reconnect_status_t reconnect_engine_fingerprint(reconnect_engine_t engine, uint32_t hash, char *buffer,
                                                size_t capacity, size_t *length);

/* Replaces the addresses offered from now on, IPv6 first, otherwise in the order given. `addresses` NULL and `count`
   0: back to the machine's own. */
reconnect_status_t reconnect_engine_set_addresses(reconnect_engine_t engine, const char *const *addresses, size_t count);

/* Replaces the TURN servers: at most 32, in order of preference between servers that are equally near; NULL and 0:
   none. The first one's struct_size is the distance from each to the next. Relays of servers that stay are kept; credentials
   that are new are used from the next request on. A server that is dead delays nothing. RECONNECT_EVENT_TURN tells what
   becomes of each. INVALID_ARGUMENT names what is wrong with which, and then nothing has changed. */
reconnect_status_t reconnect_engine_set_turn_servers(reconnect_engine_t engine, const reconnect_turn_server_t *servers,
                                                     size_t count, char *detail, size_t detail_capacity);

/* Changes timers of all peers, those that are up included; NULL: back to the defaults. INVALID_ARGUMENT names the
   member that cannot be so. */
reconnect_status_t reconnect_engine_set_timers(reconnect_engine_t engine, const reconnect_timers_t *timers,
                                               char *detail, size_t detail_capacity);

/* Makes time-limited credentials for a server with a shared secret (coturn: use-auth-secret): the user name is
   "EXPIRY:USER", or "EXPIRY" with `user` NULL or empty, EXPIRY in seconds since 1970, lifetime_ms from now (default a
   day); the password is base64(HMAC-SHA1(secret, user name)). Both end with NUL. For hosts that give them to pages.
   RECONNECT_TOO_SMALL if one of them does not fit, and then neither is written: 300 bytes do for users of up to 256
   bytes. Fails with INVALID_ARGUMENT for a secret that is empty or longer than 512 bytes, a user longer than 495, and
   control characters. */
reconnect_status_t reconnect_turn_credentials(const char *secret, const char *user, uint32_t lifetime_ms,
                                              char *username, size_t username_capacity, char *password,
                                              size_t password_capacity);

/* The kill switch of fast reload. */
enum {
    RECONNECT_FAST_RELOAD_OFF = 0,    /* every answer is normal, tickets are refused; known sessions stay, unused */
    RECONNECT_FAST_RELOAD_ON = 1,
    RECONNECT_FAST_RELOAD_PARTIAL = 2 /* as OFF, but sessions go on: clients stay known, and later return fast */
};

/* Throws the kill switch while running; answers and connects under way are finished as they were begun. ON also
   re-arms a tripped switch. RECONNECT_EVENT_FAST_RELOAD tells what became of it. */
reconnect_status_t reconnect_engine_set_fast_reload(reconnect_engine_t engine, uint32_t setting);

/* Replaces the certificate now, on disk too if certificate_path was given. The previous one stays in use for peers
   that are up and for tickets that were issued with it, until they expire. RECONNECT_EVENT_CERTIFICATE follows. Fails
   with NO_PERMISSION or STORAGE, and then nothing has changed. Blocks for the file and the key. */
reconnect_status_t reconnect_engine_rotate_certificate(reconnect_engine_t engine, char *detail, size_t detail_capacity);

/* Forgets a session for good, by the client id that RECONNECT_EVENT_SESSION told (text that ends with NUL): its peers
   are closed, its tokens are unknown from now on, and this engine refuses its tickets as long as it runs. After a
   restart, and by other engines with the same certificate and secret, they are taken until they expire, at most 1.25
   times session_ttl_ms after they were issued; other ticket secrets end all tickets. For clients that must not come
   back without being asked. INVALID_ARGUMENT if it is no client id; an unknown one is not an error. */
reconnect_status_t reconnect_engine_revoke(reconnect_engine_t engine, const char *client_id);

/* All metrics of the engine in Prometheus' text format 0.0.4, UTF-8, without a final NUL in `*length` but with one in
   the buffer. RECONNECT_TOO_SMALL writes a sufficient capacity to `*length`. */
reconnect_status_t reconnect_engine_metrics(reconnect_engine_t engine, char *buffer, size_t capacity, size_t *length);

/* Changes the level of log events. */
reconnect_status_t reconnect_engine_set_log_level(reconnect_engine_t engine, uint32_t level);

/* Counters since the engine's start; those marked "now" are gauges. */
typedef struct reconnect_engine_statistics {
    uint32_t struct_size;           /* set by the caller; the library fills no more than that */
    uint32_t peers;                 /* now */
    uint64_t sessions;              /* now */
    uint64_t answers_fast;
    uint64_t answers_normal;
    uint64_t peers_connected;       /* ever */
    uint64_t peers_failed;          /* closed before they connected, or by an error */
    uint64_t sessions_returned;     /* connections that came back to their session */
    uint64_t datagrams_received;
    uint64_t datagrams_sent;
    uint64_t bytes_received;        /* UDP payload */
    uint64_t bytes_sent;
    uint64_t datagrams_dropped;     /* from strangers, malformed, failed integrity; counted and dropped */
    uint64_t send_errors;           /* datagrams the operating system refused */
    uint64_t certificate_age_seconds; /* now */
    uint64_t events_queued;         /* now */
} reconnect_engine_statistics_t;

reconnect_status_t reconnect_engine_statistics(reconnect_engine_t engine, reconnect_engine_statistics_t *statistics);

/* ------------------------------------------------------------------- events */

/* reconnect_event_t.type. Hosts must ignore types they do not know. */
enum {
    /* data: the line; number: RECONNECT_LOG_... */
    RECONNECT_EVENT_LOG = 1,

    /* The result of reconnect_answer(); after a failure the peer's handle is invalid. status; data: on success the
       answer as JSON, otherwise a sentence; number: RECONNECT_MODE_...; duration_ns: time from the call to the
       finished answer. tag: the call's. */
    RECONNECT_EVENT_ANSWER = 2,

    /* The result of reconnect_peer_offer(). status; data: the offer as JSON, or a sentence. tag: the call's. */
    RECONNECT_EVENT_OFFER = 3,

    /* The result of reconnect_peer_accept(). status; data: a sentence on failure. tag: the call's. Of a peer that
       negotiates by itself: why a message of the other side, or a restart, could not be taken; tag: the peer's. */
    RECONNECT_EVENT_RESULT = 4,

    /* number: RECONNECT_PEER_...; status: the reason when closed; data: a sentence, possibly empty;
       duration_ns: since the peer was made. tag: the peer's. */
    RECONNECT_EVENT_PEER_STATE = 5,

    /* Who came, told once per peer, when the connection is authenticated. data: the client id (text, stable
       over the session's life); extra: the first 8 characters of the session token's
       random part, as log lines show it; number: how many times this
       session has connected, this one included; kind: RECONNECT_MODE_...; flags: RECONNECT_FLAG_RETURNED if it
       connected before; duration_ns: how long nothing had been heard of it (0 if not returned). tag: the peer's. */
    RECONNECT_EVENT_SESSION = 6,

    /* A channel is open for sending. data: label; extra: protocol; number: stream id; flags: RECONNECT_FLAG_REMOTE
       if the other side opened it, RECONNECT_FLAG_UNORDERED, RECONNECT_FLAG_PARTIAL. tag: the channel's
       (0 if the other side opened it). */
    RECONNECT_EVENT_CHANNEL_OPEN = 7,

    /* data: the message; kind: RECONNECT_TEXT or RECONNECT_BINARY. tag: the channel's. */
    RECONNECT_EVENT_MESSAGE = 8,

    /* The queued bytes of a channel fell to its low-water mark. number: bytes queued now. tag: the channel's. */
    RECONNECT_EVENT_BUFFERED_LOW = 9,

    /* The channel is gone and its handle invalid. status: why. tag: the channel's. */
    RECONNECT_EVENT_CHANNEL_CLOSED = 10,

    /* The result of reconnect_peer_query_statistics(). data: a reconnect_peer_statistics_t. tag: the call's. */
    RECONNECT_EVENT_STATISTICS = 11,

    /* The addresses that answers offer have changed. data: the new ones, separated by spaces. */
    RECONNECT_EVENT_ADDRESSES = 12,

    /* A connector has a message for the other side. data: JSON, an offer or a candidate; number: the exchange it
       belongs to: answers and candidates of the other side go to reconnect_connector_message() with that number.
       connector, tag: the connector's. */
    RECONNECT_EVENT_SIGNAL = 13,

    /* What became of one of a connector's attempts. number: RECONNECT_ATTEMPT_...; kind: RECONNECT_MODE_...; status
       and data: why, as a sentence; duration_ns: since reconnect_connector_connect(). connector, tag: the
       connector's. */
    RECONNECT_EVENT_ATTEMPT = 14,

    /* A connector's state. number: RECONNECT_CONNECTOR_...; kind: RECONNECT_MODE_... of the winner; peer: the
       winner; status and data: why it failed; duration_ns: since reconnect_connector_connect(). connector, tag: the
       connector's. */
    RECONNECT_EVENT_CONNECTOR = 15,

    /* The kill switch of fast reload. number: RECONNECT_FAST_RELOAD_... as it acts now; kind: RECONNECT_SWITCH_...;
       data: a sentence. */
    RECONNECT_EVENT_FAST_RELOAD = 16,

    /* The engine has a new certificate. data: its SHA-256 fingerprint as in SDP. */
    RECONNECT_EVENT_CERTIFICATE = 17,

    /* The session store. number: 1: it answers; 0: it is away, and answers are normal until it is back. data: a
       sentence. */
    RECONNECT_EVENT_STORE = 18,

    /* A peer that negotiates by itself has a message for the other side, to be carried there in order: data: JSON, an
       offer, an answer or a candidate (whose text is empty at the end of them); what comes back goes to
       reconnect_peer_signal(). peer, tag: the peer's. */
    RECONNECT_EVENT_PEER_SIGNAL = 19,

    /* The machine's network is another. kind: RECONNECT_NETWORK_... bits, what changed; number: 1 online, 0 offline;
       data: a sentence. Peers have been told already. */
    RECONNECT_EVENT_NETWORK = 20,

    /* What a TURN server is to this engine. number: RECONNECT_TURN_...; status: why it failed; data: its URL; extra: a
       sentence, or the relayed addresses separated by spaces; duration_ns: how long the allocation took, or until the
       credentials end. */
    RECONNECT_EVENT_TURN = 21,

    /* The path that a peer uses is another, or is the first. data: the text of our candidate, extra: of theirs
       (RFC 8839 section 5.1); kind: RECONNECT_PATH_...; number: how many paths it has had, this one included;
       duration_ns: the path's round trip, 0 if not measured. peer, tag: the peer's. */
    RECONNECT_EVENT_PATH = 22,

    /* An ICE restart. number: RECONNECT_RESTART_...; kind: the attempt, from 1; status and data: why it failed or was
       begun, as a sentence; duration_ns: since the first attempt began. peer, tag: the peer's. */
    RECONNECT_EVENT_RESTART = 23
};

/* RECONNECT_EVENT_NETWORK.kind */
enum {
    RECONNECT_NETWORK_ADDRESSES = 1,
    RECONNECT_NETWORK_ROUTE = 2,
    RECONNECT_NETWORK_ONLINE = 4    /* number is not what it was */
};

/* RECONNECT_EVENT_TURN.number */
enum {
    RECONNECT_TURN_ALLOCATED = 1,
    RECONNECT_TURN_FAILED = 2,      /* tried again by itself where that makes sense */
    RECONNECT_TURN_CREDENTIALS = 3  /* they end soon, or were refused: reconnect_engine_set_turn_servers() */
};

/* RECONNECT_EVENT_PATH.kind: what the path was before, in relation to this one. */
enum {
    RECONNECT_PATH_FIRST = 1,
    RECONNECT_PATH_BETTER = 2,      /* another one of a higher priority */
    RECONNECT_PATH_FAILOVER = 3,    /* the earlier one was silent */
    RECONNECT_PATH_RESTARTED = 4,   /* found by an ICE restart */
    RECONNECT_PATH_MOVED = 5        /* the other side moved */
};

/* RECONNECT_EVENT_RESTART.number */
enum {
    RECONNECT_RESTART_STARTED = 1,
    RECONNECT_RESTART_RECOVERED = 2, /* authenticated bytes arrived on a path of the new generation */
    RECONNECT_RESTART_FAILED = 3,    /* this attempt; the path there was, if there was one, is still used */
    RECONNECT_RESTART_PAUSED = 4,    /* offline: goes on when the network is back */
    RECONNECT_RESTART_GIVEN_UP = 5   /* restart_attempts failed; reconnect_peer_restart() begins again */
};

/* reconnect_event_t.kind of RECONNECT_EVENT_FAST_RELOAD: who threw the switch. */
enum {
    RECONNECT_SWITCH_HOST = 0,
    RECONNECT_SWITCH_TRIPPED = 1,
    RECONNECT_SWITCH_REARMED = 2
};

/* States of a peer. */
enum {
    RECONNECT_PEER_CONNECTING = 1,   /* the first check came: ICE has a path, DTLS has begun */
    RECONNECT_PEER_CONNECTED = 2,    /* DTLS is finished: the other side is authenticated; again after DISCONNECTED */
    RECONNECT_PEER_DISCONNECTED = 3, /* silent for disconnect_timeout_ms; may come back by itself */
    RECONNECT_PEER_CLOSED = 4        /* the end; the handle is invalid */
};

enum {
    RECONNECT_MODE_NORMAL = 0,
    RECONNECT_MODE_FAST = 1,          /* one exchange of signaling, answered from what is known */
    RECONNECT_MODE_ZERO_SIGNALING = 2 /* none: the first packet was the connectivity check, its name a ticket */
};

enum {
    RECONNECT_FLAG_RETURNED = 1,
    RECONNECT_FLAG_REMOTE = 2,
    RECONNECT_FLAG_UNORDERED = 4,
    RECONNECT_FLAG_PARTIAL = 8,      /* limited retransmits or lifetime */
    RECONNECT_FLAG_TICKET = 16       /* RECONNECT_EVENT_PEER_STATE: made by the library, for a client with a ticket */
};

/* One event, 128 bytes on 64-bit systems. `data` and `extra` belong to the library and live until the event's
   batch is released. They are never NULL; texts in them are not NUL-terminated. Members an event type does not
   mention are zero. */
typedef struct reconnect_event {
    uint32_t type;                /* RECONNECT_EVENT_... */
    reconnect_status_t status;
    uint64_t tag;                 /* the number that the host gave the call, peer or channel */
    reconnect_peer_t peer;
    reconnect_channel_t channel;
    const void *data;
    size_t size;
    const void *extra;
    size_t extra_size;
    int64_t number;
    int64_t duration_ns;
    uint32_t kind;
    uint32_t flags;
    uint64_t batch;               /* the batch it came with, the same for all events of one reconnect_poll() */
    reconnect_connector_t connector;
    uint64_t reserved[3];
} reconnect_event_t;

/* A descriptor that polls readable while events wait: for epoll, select, asyncio, Go's netpoller. It stays the
   engine's: never read from it, never close it. It becomes unreadable when the last event is taken and readable again
   with the next one, so both level- and edge-triggered waiting work. */
reconnect_status_t reconnect_event_fd(reconnect_engine_t engine, int *fd);

/* Takes up to `max` events (1 or more), in the order in which they happened. Waits up to timeout_ms for the first
   one: 0 does not wait, -1 waits without limit. On success `*count` events were written (0 after the time ran
   out), and all of them must be given back with one reconnect_release(). Hosts that do not release, or do not
   poll, make the engine stop reading from the peers concerned; nothing is dropped. */
reconnect_status_t reconnect_poll(reconnect_engine_t engine, reconnect_event_t *events, size_t max, int32_t timeout_ms,
                                  size_t *count);

/* Gives back a batch: its payloads are freed. `batch` is the member `batch` of any of its events. */
reconnect_status_t reconnect_release(reconnect_engine_t engine, uint64_t batch);

/* ----------------------------------------------------------------- channels */

typedef struct reconnect_channel_config {
    uint32_t struct_size;
    uint32_t unordered;             /* nonzero: messages may overtake each other */
    const char *label;              /* at most 65535 bytes; NULL: empty */
    const char *protocol;           /* likewise */
    uint32_t reliability;           /* RECONNECT_RELIABLE, RECONNECT_MAX_RETRANSMITS or RECONNECT_MAX_LIFETIME */
    uint32_t reliability_value;     /* retransmissions, or milliseconds */
    uint32_t negotiated;            /* nonzero: both sides open the channel with the same id (RFC 8832 is not used) */
    uint32_t id;                    /* 0 to 65534; only if negotiated */
    uint64_t low_water;             /* RECONNECT_EVENT_BUFFERED_LOW when the queue falls to this; default: a quarter
                                       of send_high_water, and only after RECONNECT_WOULD_BLOCK */
    uint64_t tag;                   /* comes with the channel's events */
} reconnect_channel_config_t;

enum { RECONNECT_RELIABLE = 0, RECONNECT_MAX_RETRANSMITS = 1, RECONNECT_MAX_LIFETIME = 2 };

/* -------------------------------------------------------------------- peers */

typedef struct reconnect_peer_config {
    uint32_t struct_size;
    uint32_t dtls_active;           /* answering: nonzero takes the DTLS client's part where the offer allows it */
    uint64_t tag;                   /* comes with the peer's events */
    const reconnect_channel_config_t *channels; /* negotiated channels to open with the peer; their tags come with
                                       RECONNECT_EVENT_CHANNEL_OPEN */
    size_t channel_count;

    /* Since 1.3. */
    uint32_t ice_policy;            /* RECONNECT_ICE_POLICY_... */
    uint32_t negotiation;           /* RECONNECT_NEGOTIATION_..., of peers that reconnect_peer_create() makes; others are
                                       MANUAL */
} reconnect_peer_config_t;

/* reconnect_peer_config_t.negotiation: who exchanges descriptions. */
enum {
    RECONNECT_NEGOTIATION_MANUAL = 0,   /* the host, with one offer and one answer */
    /* The peer itself (W3C WebRTC section 10.7, "perfect negotiation"): its messages come as
       RECONNECT_EVENT_PEER_SIGNAL, those of the other side go to reconnect_peer_signal(), and candidates are trickled
       (RFC 8838). Either side may begin, both at once included. It restarts ICE when its path fails or its network
       changes, and keeps the connection through it. One side is polite, the other one is not. It begins with
       reconnect_peer_restart() or the other side's offer; reconnect_peer_offer() and reconnect_peer_accept() give
       WRONG_STATE. */
    RECONNECT_NEGOTIATION_POLITE = 1,
    RECONNECT_NEGOTIATION_IMPOLITE = 2
};

/* Answers an offer: JSON {"type":"offer","sdp":...,"sessionToken":...} of `size` bytes in; the answer comes as
   RECONNECT_EVENT_ANSWER with `tag`. A token of a live session from the client it was given to gives
   "connectionMode":"fast". Malformed input is refused at once, with a detail, and makes nothing.
   On success the peer's handle is in `*peer`; it closes by itself if nobody connects within connect_timeout_ms.
   `config` may be NULL. */
reconnect_status_t reconnect_answer(reconnect_engine_t engine, const char *offer, size_t size,
                                    const reconnect_peer_config_t *config, uint64_t tag, reconnect_peer_t *peer,
                                    char *detail, size_t detail_capacity);

/* Makes a peer that will offer. Open its channels, then call reconnect_peer_offer(). */
reconnect_status_t reconnect_peer_create(reconnect_engine_t engine, const reconnect_peer_config_t *config,
                                         reconnect_peer_t *peer);

/* Makes the offer, with all candidates in it; it comes as RECONNECT_EVENT_OFFER with `tag`. */
reconnect_status_t reconnect_peer_offer(reconnect_peer_t peer, uint64_t tag);

/* Takes the answer to the offer, JSON as above; then connects. RECONNECT_EVENT_RESULT with `tag` says whether it
   fits the offer. Malformed input is refused at once. */
reconnect_status_t reconnect_peer_accept(reconnect_peer_t peer, const char *answer, size_t size, uint64_t tag,
                                         char *detail, size_t detail_capacity);

/* Adds a candidate of the other side, JSON {"candidate":{...}} or {"candidate":null} for the end of them. */
reconnect_status_t reconnect_peer_add_candidate(reconnect_peer_t peer, const char *candidate, size_t size,
                                                char *detail, size_t detail_capacity);

/* Hands in a message of the other side for a peer that negotiates by itself: an offer, an answer or a candidate as JSON,
   in the order in which they were sent. What it leads to comes as RECONNECT_EVENT_PEER_SIGNAL. An answer to an offer
   that is no longer there, and a candidate of an earlier generation, are ignored. Malformed input is refused at once
   and changes nothing; what cannot be accepted is told by RECONNECT_EVENT_RESULT, and changes nothing either.
   WRONG_STATE: the peer's negotiation is MANUAL. */
reconnect_status_t reconnect_peer_signal(reconnect_peer_t peer, const char *message, size_t size, char *detail,
                                         size_t detail_capacity);

/* Restarts ICE (RFC 8445 section 9): a new path is looked for while the one there is stays in use until the new one is
   proven; DTLS, SCTP and all messages live on. With a peer that has not connected yet, begins: the offer comes as
   RECONNECT_EVENT_PEER_SIGNAL. WRONG_STATE: the peer's negotiation is MANUAL. */
reconnect_status_t reconnect_peer_restart(reconnect_peer_t peer);

/* Closes the peer and its channels; the other side is told. Messages not yet sent are lost. */
reconnect_status_t reconnect_peer_close(reconnect_peer_t peer);

typedef struct reconnect_peer_statistics {
    uint32_t struct_size;
    uint32_t channels;              /* open now */
    uint64_t ice_ns;                /* from the peer's making to its first verified check; 0: not yet */
    uint64_t dtls_ns;               /* to the finished handshake; 0: not yet */
    uint64_t sctp_ns;               /* to the association; 0: not yet */
    uint64_t round_trip_ns;         /* smoothed; 0: not measured */
    uint64_t bytes_sent;            /* UDP payload */
    uint64_t bytes_received;
    uint64_t messages_sent;
    uint64_t messages_received;
    uint64_t retransmissions;       /* SCTP chunks sent again */
    uint64_t congestion_window;     /* bytes */
    uint64_t buffered;              /* bytes waiting in all channels */
    char local_address[64];         /* of the path in use, as "[::1]:9" or "127.0.0.1:9", NUL-terminated */
    char remote_address[64];

    /* Since 1.3. */
    char local_type[8];             /* of the path's candidates: "host", "srflx", "prflx", "relay", NUL-terminated */
    char remote_type[8];
    char transport[8];              /* "udp" or "tcp" */
    char relay_transport[8];        /* to our TURN server: "udp", "tcp", "tls"; empty without one */
    char relay_address[64];         /* of our TURN server, as above; empty without one */
    uint64_t packets_sent;
    uint64_t packets_received;
    uint64_t checks_sent;           /* STUN requests, consent included */
    uint64_t checks_received;
    uint64_t path_changes;
    uint64_t restarts;              /* ICE restarts begun by either side */
    uint32_t generation;            /* of ICE: 0 until the first restart */
    uint32_t standby;               /* 1: a second path is valid and kept warm */
    uint64_t candidates_refused;    /* of the other side: malformed, unusable or beyond a limit */
} reconnect_peer_statistics_t;

/* Asks for the peer's figures; they come as RECONNECT_EVENT_STATISTICS with `tag`. */
reconnect_status_t reconnect_peer_query_statistics(reconnect_peer_t peer, uint64_t tag);

/* Opens a data channel (RFC 8831, 8832). May be called before the peer is connected. RECONNECT_EVENT_CHANNEL_OPEN
   says when it is open; messages sent before are kept and go out first. */
reconnect_status_t reconnect_channel_open(reconnect_peer_t peer, const reconnect_channel_config_t *config,
                                          reconnect_channel_t *channel);

enum { RECONNECT_TEXT = 1, RECONNECT_BINARY = 2 };

/* Sends one message: `data` is copied. Text must be valid UTF-8 (RECONNECT_INVALID_ARGUMENT). RECONNECT_WOULD_BLOCK:
   nothing was taken, the queue is at its high-water mark; RECONNECT_EVENT_BUFFERED_LOW follows. RECONNECT_TOO_LARGE:
   larger than the other side accepts. An empty message is a message; `data` may then be NULL. */
reconnect_status_t reconnect_send(reconnect_channel_t channel, uint32_t kind, const void *data, size_t size);

/* Bytes queued and not yet handed to the network. */
reconnect_status_t reconnect_channel_buffered(reconnect_channel_t channel, uint64_t *bytes);

/* Sets the low-water mark; from now on every fall to it is an event. */
reconnect_status_t reconnect_channel_set_low_water(reconnect_channel_t channel, uint64_t bytes);

/* Closes the channel once its queued messages are sent; the other side's end closes too. */
reconnect_status_t reconnect_channel_close(reconnect_channel_t channel);

/* --------------------------------------------------------------- connectors */

/* A connector makes and remakes the connection of a client to one server, the fastest way that works:

     zero-signaling  with the ticket that the server gave out in the last connection: nothing is exchanged beforehand
     fast            one offer and one answer, the session token in it
     normal          one offer and one answer

   The host carries its messages: RECONNECT_EVENT_SIGNAL out, reconnect_connector_message() in, over whatever it has.
   What is needed to come back is kept in the cache under the connector's key, only from connections that worked, and
   removed when a connect in that way failed. */

/* reconnect_connector_config_t.policy */
enum {
    RECONNECT_RACE = 0,       /* the signaling exchange starts with the ticket attempt; the first to connect wins */
    RECONNECT_FALLBACK = 1    /* one attempt at a time: the next begins when the one before has failed or timed out */
};

typedef struct reconnect_connector_config {
    uint32_t struct_size;
    uint32_t policy;                /* RECONNECT_RACE or RECONNECT_FALLBACK */
    const char *key;                /* names the server in the cache, 1 to 256 bytes; NULL: "default" */
    const char *cache_path;         /* JSON file for what is kept, made (mode 0600) if missing, for many keys; a
                                       second file PATH.tickets holds the tickets; NULL: in the engine's memory */
    uint32_t fast_timeout_ms;       /* for an attempt by ticket or session; default 2000 */
    uint32_t normal_timeout_ms;     /* for one in normal mode, the answer included; default 20000 */
    uint32_t max_cache_age_ms;      /* default 300000 */
    uint32_t disable_tickets;       /* nonzero: never without signaling */
    const reconnect_peer_config_t *peer; /* for the peers it makes: tag, negotiated channels; NULL: none */
    uint64_t tag;                   /* comes with the connector's events */
} reconnect_connector_config_t;

/* RECONNECT_EVENT_CONNECTOR.number */
enum {
    RECONNECT_CONNECTOR_CONNECTED = 1, /* the peer's channels are open; without any, its DTLS handshake is finished */
    RECONNECT_CONNECTOR_FAILED = 2,    /* no attempt worked; reconnect_connector_connect() may be called again */
    RECONNECT_CONNECTOR_LOST = 3,      /* the winner closed; reconnect_connector_connect() may be called again */
    RECONNECT_CONNECTOR_CLOSED = 4     /* the end; the handle is invalid */
};

/* RECONNECT_EVENT_ATTEMPT.number */
enum {
    RECONNECT_ATTEMPT_SKIPPED = 0,     /* not made; status says why */
    RECONNECT_ATTEMPT_STARTED = 1,
    RECONNECT_ATTEMPT_WON = 2,
    RECONNECT_ATTEMPT_FAILED = 3,      /* status says why */
    RECONNECT_ATTEMPT_STOPPED = 4      /* another one won */
};

/* Makes a connector. It does nothing until reconnect_connector_connect(). A cache file that cannot be used is a
   warning in the log, never an error. Fails with INVALID_ARGUMENT, LIMIT. */
reconnect_status_t reconnect_connector_create(reconnect_engine_t engine, const reconnect_connector_config_t *config,
                                              reconnect_connector_t *connector, char *detail, size_t detail_capacity);

/* Connects, or connects again: a peer that is up stays so until its successor is, then closes with
   RECONNECT_REPLACED. RECONNECT_WRONG_STATE while a connect is under way. */
reconnect_status_t reconnect_connector_connect(reconnect_connector_t connector);

/* Hands in a message of the other side: the answer to the offer of this exchange, or a candidate. Malformed input is
   refused at once and changes nothing; one of an exchange that is over is ignored. */
reconnect_status_t reconnect_connector_message(reconnect_connector_t connector, int64_t exchange, const char *message,
                                               size_t size, char *detail, size_t detail_capacity);

/* Says that an exchange will have no answer: the signaling connection is down. The attempt fails at once. */
reconnect_status_t reconnect_connector_signaling_failed(reconnect_connector_t connector, int64_t exchange);

/* Writes the cache entry of the connector's key as JSON (its fields: docs/formats.md), as reconnect_engine_metrics()
   does; an empty text if there is none. The session token is in it: nothing for logs. */
reconnect_status_t reconnect_connector_cache(reconnect_connector_t connector, char *buffer, size_t capacity,
                                             size_t *length);

/* Drops what is kept under the connector's key: the next connect is normal. */
reconnect_status_t reconnect_connector_forget(reconnect_connector_t connector);

/* Stops attempts under way, closes the connected peer and ends the connector. What is kept stays. */
reconnect_status_t reconnect_connector_close(reconnect_connector_t connector);

/* ----------------------------------------------------------- replay buffers */

/* A replay buffer keeps what was said in rooms, so that a client that was away gets what it missed, in order, and is
   told "recovered" only if that is everything. It carries no messages to clients: the host does, over whatever it has
   (WebSockets, data channels). It needs no engine.

   Work is handed in as an array of operations with one call, and outcomes are taken as an array of events with one
   call: reconnect_replay_submit(), reconnect_replay_poll(). Operations of one room take effect in the order in which
   they were handed in.

   What a host does
     a client comes      RECONNECT_REPLAY_JOIN with the position and token that the client presents, if it has any.
                         The outcome has the verdict, what it missed, and the position, token and generation that
                         stand for this connection from now on; position and token go to the client.
     a client sends      RECONNECT_REPLAY_PUBLISH
     a room has clients  RECONNECT_REPLAY_SUBSCRIBE, before the first join: every message of the room comes as
                         RECONNECT_REPLAY_EVENT_MESSAGE, whichever server published it. It goes to `to`, or to everybody
                         but `from`: to each client whose last sequence is lower than the message's.
     a client's
     connection ends     RECONNECT_REPLAY_DROP: it may come back. RECONNECT_REPLAY_LEAVE: it will not.

   Live and replayed fit together without gap: the outcome of a join or recover at sequence N comes before every live
   message of the room after N, and no message after N is left out without RECONNECT_REPLAY_EVENT_GAP. The host's part: a
   client whose JOIN or RECOVER is under way gets nothing until its outcome, whose sequence is then its last one. */

typedef struct { uint64_t id; } reconnect_replay_t;

/* reconnect_replay_config_t.durability */
enum {
    RECONNECT_REPLAY_DURABLE = 0,   /* SQLite: an outcome comes after its transaction is on the disk */
    RECONNECT_REPLAY_RELAXED = 1    /* SQLite: survives the process, not the loss of power */
};

typedef struct reconnect_replay_config {
    uint32_t struct_size;
    uint32_t window;                /* messages kept per room; default 50, at most 65536 */
    uint32_t max_window;            /* rooms whose clients stay away longer than the window lasts get a larger one, up
                                       to this; 0: windows do not adapt */
    uint32_t message_ttl_ms;        /* how long a message is kept; default 300000 */
    uint32_t state_ttl_ms;          /* how long rooms and users are remembered after their last sign of life; default
                                       ten times message_ttl_ms; never less than message_ttl_ms */
    uint32_t max_message_size;      /* default 65536, at most 16777216 */
    uint64_t max_room_bytes;        /* of messages, per room; default 1048576 */
    uint64_t max_bytes;             /* of messages of all rooms, overhead included; default 268435456. The rooms that
                                       were least recently used lose theirs first */
    uint32_t max_rooms;             /* default 1048576 */
    uint32_t max_members;           /* users of all rooms; default 1048576 */
    uint32_t max_members_per_room;  /* default 10000 */
    uint32_t max_kept;              /* offers, answers and priority messages kept beside the window; default 16 */
    uint32_t max_batch;             /* messages that one outcome may carry; more is RECONNECT_LOST_LIMIT; default
                                       1000, at most 1048576 */
    uint32_t max_batch_bytes;       /* default 4194304, at most 1073741824 */
    uint32_t recoveries_per_second; /* admitted over all rooms, the others are RECONNECT_THROTTLED; 0: no limit */
    uint32_t recovery_burst;        /* admitted at once; default 1000 */
    uint32_t trust_users;           /* nonzero: the host has authenticated the user, and no token is needed to resume */
    uint32_t replay_kept_on_loss;   /* nonzero: "lost" replays the latest offers, answers and priority messages */
    uint32_t max_keys;              /* idempotency keys remembered per room; default 64 */
    uint32_t key_ttl_ms;            /* default 300000 */
    const char *store;              /* NULL: memory; "sqlite:PATH", "redis://...", "rediss://...", "redis+unix:PATH" as
                                       in reconnect_engine_config_t.session_store */
    const char *prefix;             /* of keys in Redis, without braces; default "webrtc:reconnect:" */
    uint32_t store_timeout_ms;      /* an operation is done without the store when that has answered nothing for so long,
                                       or not this one for a hundred times as long (but for 5000 ms, if this is less);
                                       default 50, and 5000 with SQLite */
    uint32_t durability;            /* RECONNECT_REPLAY_DURABLE or RECONNECT_REPLAY_RELAXED */
    uint32_t breaker_window_ms;     /* the store is left alone when breaker_percent of at least breaker_operations
                                       failed over this time; default 10000 */
    uint32_t breaker_operations;    /* default 20 */
    uint32_t breaker_percent;       /* default 50 */
    uint32_t breaker_open_ms;       /* how long, before one operation tries again; default 1000 */
    const void *secret;             /* signs positions: 16 to 256 bytes, the same on servers that share a store; NULL: a
                                       random one, kept in the store. A server that cannot ask for it within
                                       store_timeout_ms takes one of its own until it can */
    size_t secret_size;
    uint32_t compression;           /* nonzero: messages above 200 bytes are kept compressed where that saves a tenth.
                                       Servers that share a store read each other's whatever they set here */
    uint32_t max_pending;           /* operations handed in whose outcomes were not taken; default 100000 */
    double latency_ms[2];           /* quality: above the first is fair, above the second poor; default 150, 400 */
    double loss_percent[2];         /* default 1, 5 */
    double jitter_ms[2];            /* default 30, 75 */
    double bandwidth_kbps[2];       /* below the first is fair, below the second poor; default 1000, 300 */
    double hysteresis;              /* better only if better than the limit by this share; default 0.1; negative: 0 */
} reconnect_replay_config_t;

/* Makes a replay buffer. `config` may be NULL for all defaults. Waits for a SQLite file to be open, and for Redis at most
   twice store_timeout_ms. A Redis that is away is not an error: rooms are numbered here until it is there, and
   RECONNECT_REPLAY_EVENT_STORE tells. Fails with INVALID_ARGUMENT (also for a
   store's address), STORAGE (a SQLite file that cannot be used), NO_DESCRIPTORS, LIMIT, SYSTEM. */
reconnect_status_t reconnect_replay_create(const reconnect_replay_config_t *config, reconnect_replay_t *replay,
                                           char *detail, size_t detail_capacity);

/* As reconnect_replay_create(), with REDIS_URL from the environment where `config` names no store. */
reconnect_status_t reconnect_replay_create_from_env(const reconnect_replay_config_t *config,
                                                    reconnect_replay_t *replay, char *detail, size_t detail_capacity);

/* Ends the buffer and its connections; operations without an outcome get none. Payloads of its events are invalid
   afterwards. What is in a store stays there. A reconnect_replay_poll() that waits in another thread returns with
   RECONNECT_INVALID_HANDLE. */
reconnect_status_t reconnect_replay_destroy(reconnect_replay_t replay);

/* reconnect_replay_operation_t.type, and of its outcome. "Needs" names members that must be set. */
enum {
    /* Stores a message. Needs room, data. The sender `user` must be a member; NULL: the server itself. `to`: the only
       recipient, a member; NULL: everybody. Outcome: sequence, position; RECONNECT_REPLAY_DUPLICATE in flags if the
       key was used before: the outcome of back then, and nothing was stored.
       UNKNOWN_ROOM, UNKNOWN_USER, UNKNOWN_RECIPIENT, TOO_LARGE (max_message_size), UNAVAILABLE. */
    RECONNECT_REPLAY_PUBLISH = 1,

    /* A connection begins. Needs room, user. With RECONNECT_REPLAY_RESUME in flags it goes on where another one ended,
       with `position` and `token` as the client sent them, however wrong. Outcome: verdict, reason, problem, messages,
       skipped, sequence, position, token, generation; RECONNECT_REPLAY_RECONNECTION in flags if the user was here
       before and has not left: then disconnect_ms; replaced: the generation that this one takes over from, whose
       connection the host closes (0: none).
       LIMIT (rooms or members), THROTTLED. */
    RECONNECT_REPLAY_JOIN = 2,

    /* What came after `position`, or without one after what was acknowledged, for a connection that has joined. Needs
       room, user, generation. Outcome as of a join, without token. UNKNOWN_ROOM, UNKNOWN_USER, STALE, THROTTLED. */
    RECONNECT_REPLAY_RECOVER = 3,

    /* The client has everything up to `position`. Needs room, user, generation, position. UNKNOWN_ROOM, UNKNOWN_USER,
       STALE; a position that is not one of the room's is INVALID_ARGUMENT or without effect. */
    RECONNECT_REPLAY_ACKNOWLEDGE = 4,

    /* The connection ended; the user may come back within state_ttl_ms. Needs room, user, generation. STALE: a newer
       connection has taken over, and nothing has changed. */
    RECONNECT_REPLAY_DROP = 5,

    /* The user does not come back. The last one to leave takes the room along. As DROP. */
    RECONNECT_REPLAY_LEAVE = 6,

    /* Needs room, user. Outcome: state. UNKNOWN_ROOM, UNKNOWN_USER. */
    RECONNECT_REPLAY_STATE = 7,

    /* What a client measured. Needs room, user, and latency_ms, loss_percent, jitter_ms, bandwidth_kbps (negative: not
       known). Outcome: quality; data: recommendations, one sentence a line. The quality is kept in the user's state.
       INVALID_ARGUMENT for figures that cannot be. */
    RECONNECT_REPLAY_QUALITY = 8,

    /* Live messages of a room, from now on; counted, so that each one needs its UNSUBSCRIBE. Needs room. The outcome
       comes when every message published from then on will come; or, if the store does not answer, after
       store_timeout_ms with RECONNECT_REPLAY_DEGRADED in flags: then they come as soon as it does, with a gap if there
       is one. LIMIT. */
    RECONNECT_REPLAY_SUBSCRIBE = 9,
    /* Needs room. WRONG_STATE: it is not subscribed. */
    RECONNECT_REPLAY_UNSUBSCRIBE = 10,

    /* A live message. room, user (the sender; empty: the server), to, data, format, kind, negotiation, sequence,
       position. */
    RECONNECT_REPLAY_EVENT_MESSAGE = 32,

    /* Live messages of a room may be missing: each of its clients is to RECOVER from its last position, unless its JOIN or
       RECOVER is under way. room; reason: RECONNECT_LOST_.... */
    RECONNECT_REPLAY_EVENT_GAP = 33,

    /* The store. number: RECONNECT_STORE_...; data: a sentence. */
    RECONNECT_REPLAY_EVENT_STORE = 34,

    /* A connection that began while the store was away was taken over by it: room, user, generation (the new one),
       replaced (the old one), token, position; verdict and reason to tell the client. status RECONNECT_STALE: the store
       did not take it, and it must join again. */
    RECONNECT_REPLAY_EVENT_RETURNED = 35,

    /* data: the line; number: RECONNECT_LOG_.... */
    RECONNECT_REPLAY_EVENT_LOG = 36
};

/* reconnect_replay_operation_t.flags and reconnect_replay_event_t.flags */
enum {
    RECONNECT_REPLAY_RESUME = 1,        /* join: position and token count */
    RECONNECT_REPLAY_PRIORITY = 2,      /* publish: kept beside the window, as offers and answers are */
    RECONNECT_REPLAY_DUPLICATE = 4,
    RECONNECT_REPLAY_RECONNECTION = 8,
    RECONNECT_REPLAY_CONNECTED = 16,    /* state: has a connection */
    RECONNECT_REPLAY_DEGRADED = 32      /* done without the store */
};

/* What a message is to a WebRTC negotiation. A newer offer replaces the older one of the same sender, recipient and
   negotiation, and its candidates; a newer answer the older answer. */
enum {
    RECONNECT_REPLAY_OTHER = 0,
    RECONNECT_REPLAY_OFFER = 1,
    RECONNECT_REPLAY_ANSWER = 2,
    RECONNECT_REPLAY_CANDIDATE = 3
};

/* Verdicts. */
enum {
    RECONNECT_FRESH = 1,            /* it came without a position */
    RECONNECT_RECOVERED = 2,        /* everything it missed is in the outcome */
    RECONNECT_RECOVERED_EMPTY = 3,  /* it missed nothing */
    RECONNECT_LOST = 4              /* something cannot be proven to be there: it must negotiate anew */
};

/* Why RECONNECT_LOST. */
enum {
    RECONNECT_LOST_EPOCH = 1,       /* the position is of another incarnation of the room, or of no room */
    RECONNECT_LOST_TRIMMED = 2,     /* dropped for limits of count or bytes */
    RECONNECT_LOST_EXPIRED = 3,     /* became too old */
    RECONNECT_LOST_LIMIT = 4,       /* more than max_batch or max_batch_bytes */
    RECONNECT_LOST_STORE = 5,       /* the store did not answer */
    RECONNECT_LOST_DEGRADED = 6     /* messages went around the store while it was away */
};

/* What was wrong with what a client presented. */
enum {
    RECONNECT_MALFORMED_POSITION = 1,
    RECONNECT_FORGED_POSITION = 2,
    RECONNECT_FOREIGN_POSITION = 3, /* of another incarnation, or another room */
    RECONNECT_FUTURE_POSITION = 4,  /* after the last message */
    RECONNECT_WRONG_TOKEN = 5
};

enum {
    RECONNECT_QUALITY_UNKNOWN = 0,
    RECONNECT_QUALITY_GOOD = 1,
    RECONNECT_QUALITY_FAIR = 2,
    RECONNECT_QUALITY_POOR = 3
};

/* RECONNECT_REPLAY_EVENT_STORE.number */
enum {
    RECONNECT_STORE_AWAY = 0,       /* left alone; rooms are numbered here */
    RECONNECT_STORE_PRESENT = 1,
    RECONNECT_STORE_PROBED = 2      /* one operation tries it */
};

/* One operation, 256 bytes on 64-bit systems. Set it to zero, then the members its type needs. Names are 1 to 256 bytes
   of UTF-8 without control characters; of rooms, also without braces. Pointers are read during the call and never kept.
   A pointer that is NULL or a size that is 0 is absent, except that a message may be empty. */
typedef struct reconnect_replay_operation {
    uint32_t type;
    uint32_t flags;                 /* RECONNECT_REPLAY_... */
    uint64_t tag;                   /* comes with the outcome */
    const char *room;
    size_t room_size;
    const char *user;
    size_t user_size;
    const char *to;
    size_t to_size;
    const void *data;
    size_t size;
    const char *position;
    size_t position_size;
    const char *token;
    size_t token_size;
    const void *key;                /* publish: the same key by the same user in the same room is the same message; up to
                                       1024 bytes */
    size_t key_size;
    uint64_t generation;
    uint64_t negotiation;           /* publish: names the peer connection, where two users have several */
    uint32_t format;                /* publish: RECONNECT_TEXT (default) or RECONNECT_BINARY */
    uint32_t kind;                  /* publish: RECONNECT_REPLAY_OTHER, ... */
    uint32_t lifetime_ms;           /* publish: worth nothing afterwards, and then not missed; 0: message_ttl_ms */
    uint32_t reserved0;
    double latency_ms;
    double loss_percent;
    double jitter_ms;
    double bandwidth_kbps;
    uint64_t reserved[8];
} reconnect_replay_operation_t;

/* One message of an outcome, 80 bytes on 64-bit systems. */
typedef struct reconnect_replay_message {
    uint64_t sequence;
    const void *data;
    size_t size;
    uint64_t negotiation;
    uint32_t format;                /* RECONNECT_TEXT or RECONNECT_BINARY */
    uint32_t kind;                  /* RECONNECT_REPLAY_OTHER, ... */
    uint64_t reserved[5];
} reconnect_replay_message_t;

typedef struct reconnect_replay_state {
    uint64_t last_sequence;         /* the highest that the client is known to have, or was given */
    int64_t last_seen_ms;           /* Unix time */
    int64_t disconnect_ms;          /* for how long it is gone; 0 while connected */
    uint32_t connected;
    uint32_t quality;               /* RECONNECT_QUALITY_... */
    uint32_t connections;           /* of this user so far, the present one included */
    uint32_t reserved;
} reconnect_replay_state_t;

/* One outcome or event, 256 bytes on 64-bit systems. Pointers belong to the library and live until the batch is
   released. Texts are not NUL-terminated; they are never NULL. Members that a type does not mention are zero. */
typedef struct reconnect_replay_event {
    uint32_t type;                  /* of the operation, or RECONNECT_REPLAY_EVENT_... */
    reconnect_status_t status;
    uint64_t tag;                   /* the operation's */
    uint64_t batch;                 /* the batch it came with */
    uint64_t sequence;              /* of the message, or of the last one before `position` */
    uint64_t generation;
    uint64_t replaced;
    uint32_t flags;                 /* RECONNECT_REPLAY_... */
    uint32_t verdict;               /* RECONNECT_FRESH, ... */
    uint32_t reason;                /* RECONNECT_LOST_... */
    uint32_t problem;               /* RECONNECT_MALFORMED_POSITION, ... */
    const reconnect_replay_message_t *messages; /* in order */
    size_t message_count;
    uint64_t skipped;               /* messages for this client that are not among them because a newer one replaced
                                       them or their lifetime passed, as far as the buffer still knows of them */
    const char *position;           /* opaque; 32 bytes */
    size_t position_size;
    const char *token;              /* for this client only; never for logs */
    size_t token_size;
    const void *data;
    size_t size;
    const char *room;
    size_t room_size;
    const char *user;
    size_t user_size;
    const char *to;
    size_t to_size;
    const reconnect_replay_state_t *state; /* NULL unless the outcome of STATE */
    int64_t disconnect_ms;
    uint32_t retry_after_ms;        /* RECONNECT_THROTTLED: come again after this time, which differs for each */
    uint32_t format;
    uint32_t kind;
    uint32_t quality;
    uint64_t negotiation;
    int64_t number;
    uint64_t reserved[3];
} reconnect_replay_event_t;

/* Hands in `count` operations of `operation_size` bytes each (the sizeof, so that later versions can append members).
   `*taken` (may be NULL) is how many were taken, and is written whatever the status; each of them has exactly one outcome.
   If it is fewer than `count`, the status says what is wrong with the next one, and it and those after it had no effect:
   INVALID_ARGUMENT (the detail names the member), or RECONNECT_WOULD_BLOCK: max_pending outcomes wait to be taken, or
   events that were not taken or given back take max_bytes. */
reconnect_status_t reconnect_replay_submit(reconnect_replay_t replay, const reconnect_replay_operation_t *operations,
                                           size_t operation_size, size_t count, size_t *taken, char *detail,
                                           size_t detail_capacity);

/* Takes up to `max` events of `event_size` bytes each, as reconnect_poll() does. With rooms in memory every outcome is
   there when reconnect_replay_submit() returns. On success with a count above 0, give the batch back with
   reconnect_replay_release(). */
reconnect_status_t reconnect_replay_poll(reconnect_replay_t replay, reconnect_replay_event_t *events, size_t event_size,
                                         size_t max, int32_t timeout_ms, size_t *count);

/* Gives back a batch: what its events point to is freed. */
reconnect_status_t reconnect_replay_release(reconnect_replay_t replay, uint64_t batch);

/* A descriptor that polls readable while events wait, as reconnect_event_fd(). */
reconnect_status_t reconnect_replay_event_fd(reconnect_replay_t replay, int *fd);

/* Counters since the buffer was made; those marked "now" are gauges. */
typedef struct reconnect_replay_statistics {
    uint32_t struct_size;           /* set by the caller; the library fills no more than that */
    uint32_t store;                 /* RECONNECT_STORE_..., now */
    uint64_t rooms;                 /* now; in memory */
    uint64_t members;               /* now; in memory */
    uint64_t bytes_held;            /* now; of messages in memory, overhead included */
    uint64_t published;
    uint64_t duplicates;
    uint64_t joins;
    uint64_t fresh;
    uint64_t recovered;
    uint64_t recovered_empty;
    uint64_t lost[7];               /* by RECONNECT_LOST_...; the first is unused */
    uint64_t messages_replayed;
    uint64_t messages_live;         /* RECONNECT_REPLAY_EVENT_MESSAGE */
    uint64_t gaps;
    uint64_t throttled;
    uint64_t store_operations;      /* given to a store that is not memory */
    uint64_t store_failures;        /* failed, or not answered in time */
    uint64_t without_store;         /* done without it */
    uint64_t events_queued;         /* now */
} reconnect_replay_statistics_t;

reconnect_status_t reconnect_replay_statistics(reconnect_replay_t replay, reconnect_replay_statistics_t *statistics);

/* All metrics of the buffer, as reconnect_engine_metrics(). */
reconnect_status_t reconnect_replay_metrics(reconnect_replay_t replay, char *buffer, size_t capacity, size_t *length);

#ifdef __cplusplus
}
#endif

#endif
