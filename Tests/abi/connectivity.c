/* What 1.3 added: TURN servers, timers, policies, interfaces, credentials, and peers that negotiate by themselves.
   C11 and C++17.
   usage: connectivity --list | CASE */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "exchange.h"

#include <stddef.h>

static char longest[1024]; /* of 'a's */

static const char *of_length(size_t length) {
    memset(longest, 'a', sizeof longest);
    longest[length] = 0;
    return longest;
}

static reconnect_engine_config_t defaults(void) {
    reconnect_engine_config_t config;
    memset(&config, 0, sizeof config);
    config.struct_size = sizeof config;
    return config;
}

static reconnect_turn_server_t server(const char *url, const char *username, const char *password, const char *secret) {
    reconnect_turn_server_t made;
    memset(&made, 0, sizeof made);
    made.struct_size = sizeof made;
    made.url = url;
    made.username = username;
    made.password = password;
    made.secret = secret;
    return made;
}

static reconnect_timers_t timers(void) {
    reconnect_timers_t made;
    memset(&made, 0, sizeof made);
    made.struct_size = sizeof made;
    return made;
}

/* A refusal has its status, names what is wrong and repeats no secret. */
static void refused(reconnect_status_t status, const char *detail, const char *word, const char *what) {
    check(status == RECONNECT_INVALID_ARGUMENT, "%s: %s", what, reconnect_status_name(status));
    check(strlen(detail) >= 10 && strstr(detail, word) != NULL, "the detail: %.250s", detail);
    check(strstr(detail, "hunter2") == NULL, "there is no secret in it");
}

static void config_refused(const reconnect_engine_config_t *config, const char *word, const char *what) {
    char detail[256] = "";
    reconnect_engine_t engine = {42};
    refused(reconnect_engine_create(config, &engine, detail, sizeof detail), detail, word, what);
    check(engine.id == 42, "no handle was written");
}

static void config_allowed(const reconnect_engine_config_t *config, const char *what) {
    char detail[256] = "";
    reconnect_engine_t engine = {0};
    reconnect_status_t status = reconnect_engine_create(config, &engine, detail, sizeof detail);
    check(status == RECONNECT_OK, "%s: %s %s", what, reconnect_status_name(status), detail);
    if (status == RECONNECT_OK) {
        check(reconnect_engine_destroy(engine) == RECONNECT_OK, "and its end");
    }
}

/* ------------------------------------------------------------------ cases */

/* One server, in a configuration and while an engine runs: good if there is no word that the detail must have. */
static void one_server(reconnect_engine_t engine, reconnect_turn_server_t given, const char *word, const char *what) {
    char detail[256] = "";
    reconnect_engine_config_t config = defaults();
    reconnect_status_t status = reconnect_engine_set_turn_servers(engine, &given, 1, detail, sizeof detail);
    config.turn_servers = &given;
    config.turn_server_count = 1;
    if (word == NULL) {
        check(status == RECONNECT_OK, "%s: %s %s", what, reconnect_status_name(status), detail);
        config_allowed(&config, what);
    } else {
        refused(status, detail, word, what);
        check(strncmp(detail, "servers[0].", 11) == 0, "and which of them");
        config_refused(&config, word, what);
    }
}

static void servers(void) {
    static const char *const wrong[] = {
        "", "turn:", "turns:", "stun:127.0.0.1", "127.0.0.1:3478", "turn://127.0.0.1", "turn:127.0.0.1:0",
        "turn:127.0.0.1:70000", "turn:127.0.0.1:x", "turn:127.0.0.1?transport=sctp", "turns:127.0.0.1?transport=udp",
        "turn:127.0.0.1?", "turn:a b", "turn:[::1", "turn:::1:x", "turn:user@127.0.0.1/path"};
    static const char *const right[] = {
        "turn:127.0.0.1:1", "turn:127.0.0.1:1?transport=udp", "turn:127.0.0.1:1?transport=tcp", "turns:127.0.0.1:1",
        "turns:127.0.0.1:1?transport=tcp", "turn:[::1]:1"};
    const char *url = right[0];
    char many[600], detail[256] = "";
    reconnect_engine_t engine;
    reconnect_turn_server_t all[33];
    reconnect_engine_config_t config = defaults();
    reconnect_status_t status;
    size_t index;
    if (!check(reconnect_engine_create(NULL, &engine, NULL, 0) == RECONNECT_OK, "an engine")) {
        return;
    }
    for (index = 0; index < sizeof right / sizeof *right; index++) {
        one_server(engine, server(right[index], "ann", "hunter2", NULL), NULL, right[index]);
    }
    for (index = 0; index < sizeof wrong / sizeof *wrong; index++) {
        one_server(engine, server(wrong[index], "ann", "hunter2", NULL), "url", wrong[index]);
    }
    one_server(engine, server(NULL, "ann", "hunter2", NULL), "url", "no url");
    one_server(engine, server("turn:\xff", "ann", "hunter2", NULL), "url", "a url that is not UTF-8");
    snprintf(many, sizeof many, "turn:%s", of_length(550));
    one_server(engine, server(many, "ann", "hunter2", NULL), "url", "a url of 555 bytes");

    one_server(engine, server(url, NULL, NULL, NULL), NULL, "a server that asks for nothing");
    one_server(engine, server(url, NULL, NULL, "hunter2"), NULL, "a shared secret without a user");
    one_server(engine, server(url, "ann", NULL, "hunter2"), NULL, "a shared secret with a user");
    one_server(engine, server(url, "", NULL, "hunter2"), NULL, "a shared secret with an empty user");
    one_server(engine, server(url, "ann", "hunter2", "hunter2"), "exclude", "a password and a secret");
    one_server(engine, server(url, NULL, "hunter2", NULL), "username", "a password without a user");
    one_server(engine, server(url, "ann", NULL, NULL), "password", "a user without a password");
    one_server(engine, server(url, "", "hunter2", NULL), "username", "an empty user");
    one_server(engine, server(url, "ann", "", NULL), "password", "an empty password");
    one_server(engine, server(url, "ann", NULL, ""), "secret", "an empty secret");
    one_server(engine, server(url, "a\nb", "hunter2", NULL), "username", "a user of two lines");
    one_server(engine, server(url, "ann", "hunter2\n", NULL), "password", "a password of two lines");
    one_server(engine, server(url, "ann", NULL, "hunter2\x7f"), "secret", "a secret with a control character");
    one_server(engine, server(url, "ann", "hunter2\xff", NULL), "password", "a password that is not UTF-8");
    one_server(engine, server(url, "\xc3\xa4nn", "h\xc3\xbcnter", NULL), NULL, "letters beyond ASCII");
    one_server(engine, server(url, of_length(508), "hunter2", NULL), NULL, "a user of 508 bytes");
    one_server(engine, server(url, of_length(509), "hunter2", NULL), "username", "a user of 509 bytes");
    one_server(engine, server(url, "ann", of_length(512), NULL), NULL, "a password of 512 bytes");
    one_server(engine, server(url, "ann", of_length(513), NULL), "password", "a password of 513 bytes");
    one_server(engine, server(url, NULL, NULL, of_length(513)), "secret", "a secret of 513 bytes");

    for (index = 0; index < 33; index++) {
        all[index] = server(url, "ann", "hunter2", NULL);
        all[index].lifetime_ms = index % 2 == 0 ? 0 : UINT32_MAX;
    }
    status = reconnect_engine_set_turn_servers(engine, all, 32, detail, sizeof detail);
    check(status == RECONNECT_OK, "32 servers: %s %s", reconnect_status_name(status), detail);
    refused(reconnect_engine_set_turn_servers(engine, all, 33, detail, sizeof detail), detail, "servers", "33 servers");
    refused(reconnect_engine_set_turn_servers(engine, NULL, 1, detail, sizeof detail), detail, "servers",
            "a count without servers");
    refused(reconnect_engine_set_turn_servers(engine, all, SIZE_MAX, detail, sizeof detail), detail, "servers",
            "a count without sense");
    all[7].url = "turn:";
    refused(reconnect_engine_set_turn_servers(engine, all, 8, detail, sizeof detail), detail, "servers[7].url",
            "a bad one at the end");
    all[7] = server(url, "ann", "hunter2", NULL);
    all[5].struct_size = 16;
    refused(reconnect_engine_set_turn_servers(engine, all, 8, detail, sizeof detail), detail, "servers[5].struct_size",
            "structs of different sizes");
    all[0].struct_size = 0;
    refused(reconnect_engine_set_turn_servers(engine, all, 8, detail, sizeof detail), detail, "servers[0].struct_size",
            "no struct_size");
    check(reconnect_engine_set_turn_servers(engine, NULL, 0, detail, sizeof detail) == RECONNECT_OK, "no servers at all");

    /* A host that knows more members than the library: the structs are further apart. */
    struct {
        reconnect_turn_server_t known;
        uint64_t unknown;
    } later[2];
    memset(later, 0, sizeof later);
    later[0].known = later[1].known = server(url, "ann", "hunter2", NULL);
    later[0].known.struct_size = later[1].known.struct_size = sizeof *later;
    check(reconnect_engine_set_turn_servers(engine, &later[0].known, 2, detail, sizeof detail) == RECONNECT_OK,
          "structs of a later version");
    later[1].unknown = 1;
    refused(reconnect_engine_set_turn_servers(engine, &later[0].known, 2, detail, sizeof detail), detail, "servers[1].",
            "with a member that is not known here");
    check(reconnect_engine_destroy(engine) == RECONNECT_OK, "the end");

    config.turn_server_count = 1;
    config_refused(&config, "turn_servers", "a count without servers in a configuration");
    config = defaults();
    config.turn_ca_path = "";
    config_refused(&config, "turn_ca_path", "an empty path");
}

static void set_timers(reconnect_engine_t engine, reconnect_timers_t given, const char *word, const char *what) {
    char detail[256] = "";
    reconnect_engine_config_t config = defaults();
    reconnect_status_t status = reconnect_engine_set_timers(engine, &given, detail, sizeof detail);
    config.timers = &given;
    if (word == NULL) {
        check(status == RECONNECT_OK, "%s: %s %s", what, reconnect_status_name(status), detail);
        config_allowed(&config, what);
    } else {
        refused(status, detail, word, what);
        config_refused(&config, word, what);
    }
}

static void all_timers(void) {
    reconnect_engine_t engine;
    reconnect_engine_config_t config = defaults();
    reconnect_timers_t given;
    char detail[256];
    if (!check(reconnect_engine_create(NULL, &engine, NULL, 0) == RECONNECT_OK, "an engine")) {
        return;
    }
    check(reconnect_engine_set_timers(engine, NULL, detail, sizeof detail) == RECONNECT_OK, "back to the defaults");
    set_timers(engine, timers(), NULL, "zeros: the defaults");
    given = timers();
    given.check_interval_ms = 4;
    set_timers(engine, given, "check_interval_ms", "checks every 4 ms");
    given.check_interval_ms = 5;
    set_timers(engine, given, NULL, "checks every 5 ms");
    given = timers();
    given.heartbeat_ms = 5000;
    set_timers(engine, given, "heartbeat_ms", "a heartbeat as slow as the silence before \"disconnected\"");
    given.heartbeat_ms = 4999;
    set_timers(engine, given, NULL, "a faster one");
    given.heartbeat_ms = 6000;
    given.disconnect_timeout_ms = 7000;
    set_timers(engine, given, NULL, "a slow one with more patience");
    given = timers();
    given.consent_interval_ms = 30000;
    set_timers(engine, given, "consent_interval_ms", "consent asked for too late");
    given.failed_timeout_ms = 60000;
    set_timers(engine, given, NULL, "and in time");
    given = timers();
    given.disconnect_timeout_ms = 30001;
    set_timers(engine, given, "disconnect_timeout_ms", "given up before disconnected");
    given = timers();
    given.failed_timeout_ms = 4000;
    set_timers(engine, given, "failed_timeout_ms", "likewise");
    given = timers();
    given.restart_min_ms = 3001;
    set_timers(engine, given, "restart_min_ms", "the shortest pause is longer than the longest");
    given.restart_max_ms = 3001;
    set_timers(engine, given, NULL, "they are equal");
    given = timers();
    given.restart_max_ms = 249;
    set_timers(engine, given, "restart_max_ms", "the longest pause is shorter than the shortest");
    given = timers();
    given.standby_interval_ms = given.restart_attempts = given.suspect_ms = given.patience_ms =
        given.restart_timeout_ms = given.restart_max_ms = given.check_interval_ms = given.connect_timeout_ms =
        given.failed_timeout_ms = given.disconnect_timeout_ms = UINT32_MAX;
    set_timers(engine, given, NULL, "the largest values");
    given = timers();
    given.struct_size = 7;
    set_timers(engine, given, "struct_size", "a wrong struct_size");
    given.struct_size = UINT32_MAX;
    set_timers(engine, given, "struct_size", "a struct_size of 4 GiB");
    /* As a host would call it that knows only the first members. */
    given = timers();
    given.struct_size = offsetof(reconnect_timers_t, heartbeat_ms);
    given.heartbeat_ms = UINT32_MAX;
    set_timers(engine, given, NULL, "a struct that ends before the heartbeat");
    check(reconnect_engine_destroy(engine) == RECONNECT_OK, "the end");

    /* The configuration's own timeouts count for what the timers leave open. */
    given = timers();
    given.heartbeat_ms = 2000;
    config.timers = &given;
    config.disconnect_timeout_ms = 1500;
    config_refused(&config, "heartbeat_ms", "a heartbeat slower than the configuration allows");
    config.disconnect_timeout_ms = 0;
    config.ice_mode = RECONNECT_ICE_LITE;
    given.heartbeat_ms = 7999;
    config_allowed(&config, "ICE Lite waits 8 s");
}

static void policies(void) {
    reconnect_engine_config_t config = defaults();
    reconnect_engine_t engine;
    reconnect_peer_config_t peer;
    reconnect_peer_t made = {42};
    const char *patterns[34];
    static const char *const right[] = {"eth0", "wlan*", "*", "192.0.2.0/24", "2001:db8::/32", "10.0.0.0/8", "eth0.100"};
    static const char *const wrong[] = {"", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0/", "/24", "192.0.2.0/x",
                                        "a name that is too long", "e*h", "eth 0", "192.0.2.0/24/24", "eth0/24"};
    size_t index;
    for (config.ice_policy = 0; config.ice_policy < 3; config.ice_policy++) {
        config_allowed(&config, "a known policy");
    }
    config_refused(&config, "ice_policy", "an unknown policy");
    config = defaults();
    config.tcp = RECONNECT_TCP_ACTIVE | RECONNECT_TCP_PASSIVE;
    config_allowed(&config, "TCP");
    config.tcp = 4;
    config_refused(&config, "tcp", "an unknown bit of it");

    for (index = 0; index < sizeof patterns / sizeof *patterns; index++) {
        patterns[index] = "192.0.2.0/24"; /* one that cannot leave the engine without addresses */
    }
    config = defaults();
    config.denied_interfaces = patterns;
    config.denied_interface_count = 32;
    config_allowed(&config, "32 patterns");
    config.denied_interface_count = 33;
    config_refused(&config, "denied_interfaces", "33 patterns");
    config.denied_interface_count = 1;
    for (index = 0; index < sizeof wrong / sizeof *wrong; index++) {
        patterns[0] = wrong[index];
        config_refused(&config, "denied_interfaces", wrong[index]);
    }
    patterns[0] = NULL;
    config_refused(&config, "denied_interfaces", "no text among the patterns");
    config.denied_interfaces = NULL;
    config_refused(&config, "denied_interfaces", "a count without patterns");
    config = defaults();
    config.allowed_interfaces = patterns;
    config.allowed_interface_count = 1;
    patterns[0] = "eth0/";
    config_refused(&config, "allowed_interfaces", "a network without a length");
    for (index = 0; index < sizeof right / sizeof *right; index++) {
        /* What cannot be there may leave nothing to offer; it is understood all the same. */
        char detail[256] = "";
        reconnect_status_t status;
        patterns[0] = right[index];
        status = reconnect_engine_create(&config, &engine, detail, sizeof detail);
        check(status == RECONNECT_OK || status == RECONNECT_NO_ADDRESS, "%s: %s %s", right[index],
              reconnect_status_name(status), detail);
        if (status == RECONNECT_OK) {
            reconnect_engine_destroy(engine);
        }
    }

    if (!check(reconnect_engine_create(NULL, &engine, NULL, 0) == RECONNECT_OK, "an engine")) {
        return;
    }
    memset(&peer, 0, sizeof peer);
    peer.struct_size = sizeof peer;
    peer.ice_policy = 3;
    check(reconnect_peer_create(engine, &peer, &made) == RECONNECT_INVALID_ARGUMENT && made.id == 42,
          "a peer of an unknown policy");
    peer.ice_policy = RECONNECT_ICE_POLICY_RELAY;
    peer.negotiation = 3;
    check(reconnect_peer_create(engine, &peer, &made) == RECONNECT_INVALID_ARGUMENT && made.id == 42,
          "a peer of an unknown negotiation");
    for (peer.negotiation = 0; peer.negotiation < 3; peer.negotiation++) {
        check(reconnect_peer_create(engine, &peer, &made) == RECONNECT_OK && reconnect_peer_close(made) == RECONNECT_OK,
              "a peer of negotiation %u", (unsigned)peer.negotiation);
    }
    /* Peers whose first exchange is another's affair. */
    static const char offer[] = "{\"type\":\"offer\",\"sdp\":\"v=0\"}";
    char detail[256] = "";
    reconnect_connector_config_t connector;
    reconnect_connector_t connecting;
    peer.negotiation = RECONNECT_NEGOTIATION_POLITE;
    refused(reconnect_answer(engine, offer, sizeof offer - 1, &peer, 1, &made, detail, sizeof detail), detail,
            "negotiation", "an answer by a peer that negotiates by itself");
    memset(&connector, 0, sizeof connector);
    connector.struct_size = sizeof connector;
    connector.peer = &peer;
    refused(reconnect_connector_create(engine, &connector, &connecting, detail, sizeof detail), detail, "negotiation",
            "a connector's peer that does");
    config = defaults();
    config.returning_peer = &peer;
    config_refused(&config, "negotiation", "and one that comes back");
    check(reconnect_engine_destroy(engine) == RECONNECT_OK, "the end");
}

static void credentials(void) {
    char username[300], password[300], user[512], small[28];
    uint64_t now = (uint64_t)time(NULL), expiry;
    reconnect_status_t status;
    status = reconnect_turn_credentials("north", "ann", 3600000, username, sizeof username, password, sizeof password);
    expiry = strtoull(username, NULL, 10);
    check(status == RECONNECT_OK && strstr(username, ":ann") != NULL && expiry >= now + 3600 && expiry <= now + 3660,
          "they are good for an hour: %s", username);
    check(strlen(password) == 28 && password[27] == '=', "the password is 20 bytes in base64");
    check(reconnect_turn_credentials("north", NULL, 0, username, sizeof username, password, sizeof password) ==
                  RECONNECT_OK &&
              strspn(username, "0123456789") == strlen(username) && strtoull(username, NULL, 10) >= now + 86400,
          "without a user, for a day: %s", username);
    check(reconnect_turn_credentials("north", "", 1, username, sizeof username, password, sizeof password) ==
                  RECONNECT_OK &&
              strspn(username, "0123456789") == strlen(username) && strtoull(username, NULL, 10) > now,
          "for a millisecond: a second");
    memset(user, 'u', sizeof user);
    user[256] = 0;
    check(reconnect_turn_credentials("north", user, 0, username, sizeof username, password, sizeof password) ==
              RECONNECT_OK,
          "300 bytes do for a user of 256");
    check(strlen(username) == 267 && strcmp(username + 11, user) == 0, "who is in it as a whole");

    strcpy(username, "unchanged");
    strcpy(password, "unchanged");
    user[256] = 'u';
    user[495] = 0;
    check(reconnect_turn_credentials("north", user, 0, username, sizeof username, password, sizeof password) ==
              RECONNECT_TOO_SMALL,
          "a user of 495 bytes needs more");
    check(reconnect_turn_credentials("north", "ann", 0, username, sizeof username, small, sizeof small) ==
              RECONNECT_TOO_SMALL,
          "28 bytes are too few for the password with its NUL");
    check(reconnect_turn_credentials("north", "ann", 0, username, 14, password, sizeof password) ==
              RECONNECT_TOO_SMALL,
          "14 are for the name");
    check(reconnect_turn_credentials("north", "ann", 0, NULL, sizeof username, password, sizeof password) ==
                  RECONNECT_INVALID_ARGUMENT &&
              reconnect_turn_credentials("north", "ann", 0, username, sizeof username, NULL, sizeof password) ==
                  RECONNECT_INVALID_ARGUMENT,
          "no place to write to");
    check(reconnect_turn_credentials(NULL, "ann", 0, username, sizeof username, password, sizeof password) ==
                  RECONNECT_INVALID_ARGUMENT &&
              reconnect_turn_credentials("", "ann", 0, username, sizeof username, password, sizeof password) ==
                  RECONNECT_INVALID_ARGUMENT &&
              reconnect_turn_credentials(of_length(513), "ann", 0, username, sizeof username, password,
                                         sizeof password) == RECONNECT_INVALID_ARGUMENT,
          "no secret, an empty one, one that is too long");
    check(reconnect_turn_credentials("north", "a\rb", 0, username, sizeof username, password, sizeof password) ==
                  RECONNECT_INVALID_ARGUMENT &&
              reconnect_turn_credentials("north", "\xff", 0, username, sizeof username, password, sizeof password) ==
                  RECONNECT_INVALID_ARGUMENT &&
              reconnect_turn_credentials("north", of_length(496), 0, username, sizeof username, password,
                                         sizeof password) == RECONNECT_INVALID_ARGUMENT,
          "a user of two lines, one that is not UTF-8, one that is too long");
    check(strcmp(username, "unchanged") == 0 && strcmp(password, "unchanged") == 0, "failures write nothing");
}

/* A host that was compiled for 1.2: its structs end earlier, and what lies behind them is none of the library's. */
static void older_hosts(void) {
    char detail[256] = "";
    exchange_t exchange;
    exchange_wait_t wait;
    reconnect_engine_config_t config = defaults();
    reconnect_peer_config_t peer;
    reconnect_channel_config_t channel;
    const char *address = "127.0.0.1";
    const uint32_t engine_size = offsetof(reconnect_engine_config_t, turn_servers);
    const uint32_t peer_size = offsetof(reconnect_peer_config_t, ice_policy);
    check(sizeof(void *) != 8 || (engine_size == 240 && peer_size == 32), "the sizes of 1.2");
    memset(&config, 0x5A, sizeof config);
    memset(&config, 0, engine_size);
    config.struct_size = engine_size;
    config.addresses = &address;
    config.address_count = 1;
    memset(&channel, 0, sizeof channel);
    channel.struct_size = sizeof channel;
    channel.negotiated = 1;
    channel.id = 3;
    channel.tag = 1;
    memset(&peer, 0x5A, sizeof peer);
    memset(&peer, 0, peer_size);
    peer.struct_size = peer_size;
    peer.channels = &channel;
    peer.channel_count = 1;
    config.returning_peer = &peer;
    memset(&exchange, 0, sizeof exchange);
    if (!check(reconnect_engine_create(&config, &exchange.offerer, detail, sizeof detail) == RECONNECT_OK &&
                   reconnect_engine_create(&config, &exchange.answerer, detail, sizeof detail) == RECONNECT_OK,
               "two engines: %s", detail)) {
        return;
    }
    check(reconnect_peer_create(exchange.offerer, &peer, &exchange.offering) == RECONNECT_OK, "a peer that offers");
    check(reconnect_peer_restart(exchange.offering) == RECONNECT_WRONG_STATE, "it does not negotiate by itself");
    check(reconnect_peer_offer(exchange.offering, 1) == RECONNECT_OK &&
              exchange_expect(exchange.offerer, RECONNECT_EVENT_OFFER, 1, 0, &wait),
          "its offer");
    check(reconnect_answer(exchange.answerer, (const char *)wait.data, wait.event.size, &peer, 2, &exchange.answering,
                           detail, sizeof detail) == RECONNECT_OK,
          "a peer that answers: %s", detail);
    free(wait.data);
    check(exchange_expect(exchange.answerer, RECONNECT_EVENT_ANSWER, 2, 0, &wait) &&
              reconnect_peer_accept(exchange.offering, (const char *)wait.data, wait.event.size, 3, detail,
                                    sizeof detail) == RECONNECT_OK,
          "its answer: %s", detail);
    free(wait.data);
    check(exchange_expect(exchange.offerer, RECONNECT_EVENT_CHANNEL_OPEN, 1, 0, &wait), "they connect");
    exchange.local = wait.event.channel;
    free(wait.data);
    check(exchange_expect(exchange.answerer, RECONNECT_EVENT_CHANNEL_OPEN, 1, 0, &wait), "on both sides");
    exchange.remote = wait.event.channel;
    free(wait.data);
    exchange_echo(&exchange, RECONNECT_TEXT, 100);
    check(reconnect_peer_query_statistics(exchange.offering, 9) == RECONNECT_OK &&
              exchange_expect(exchange.offerer, RECONNECT_EVENT_STATISTICS, 9, 0, &wait),
          "statistics");
    if (wait.data != NULL) {
        /* What such a host takes of them. */
        struct {
            unsigned char known[offsetof(reconnect_peer_statistics_t, local_type)];
        } figures;
        uint32_t size;
        check(wait.event.size >= sizeof figures, "they are no shorter than they were");
        memcpy(&figures, wait.data, sizeof figures);
        memcpy(&size, wait.data, sizeof size);
        check(size == wait.event.size, "they say how long they are: %u bytes", (unsigned)size);
        check(strncmp((const char *)figures.known + offsetof(reconnect_peer_statistics_t, remote_address), "127.0.0.1:",
                      10) == 0,
              "the addresses are where they were");
        free(wait.data);
    }
    check(reconnect_engine_destroy(exchange.offerer) == RECONNECT_OK &&
              reconnect_engine_destroy(exchange.answerer) == RECONNECT_OK,
          "the end");
}

static void signal_is(reconnect_peer_t peer, const char *message, reconnect_status_t expected, const char *what) {
    char detail[256];
    reconnect_status_t status;
    memset(detail, 0x7f, sizeof detail);
    status = reconnect_peer_signal(peer, message, message == NULL ? 5 : strlen(message), detail, sizeof detail);
    check(status == expected, "%s: %s", what, reconnect_status_name(status));
    if (status != RECONNECT_OK) {
        check(memchr(detail, 0, sizeof detail) != NULL && strlen(detail) >= 5, "the detail: %.200s", detail);
    }
}

/* What is refused at once, and what belongs to the other way of negotiating. */
static void signals(void) {
    reconnect_engine_t engine;
    reconnect_peer_config_t config;
    reconnect_peer_t manual, polite;
    static const char *const malformed[] = {
        "", "{", "[]", "\xff", "{\"type\":\"offer\"}", "{\"type\":\"offer\",\"sdp\":5}", "{\"type\":\"pranswer\"}",
        "{\"candidate\":5}", "{\"candidate\":{\"candidate\":\"a\\u0001\"}}", "{}"};
    size_t index;
    if (!check(reconnect_engine_create(NULL, &engine, NULL, 0) == RECONNECT_OK, "an engine")) {
        return;
    }
    memset(&config, 0, sizeof config);
    config.struct_size = sizeof config;
    check(reconnect_peer_create(engine, &config, &manual) == RECONNECT_OK, "a peer whose host negotiates");
    signal_is(manual, "{\"candidate\":null}", RECONNECT_WRONG_STATE, "a message for it");
    check(reconnect_peer_restart(manual) == RECONNECT_WRONG_STATE, "a restart of it");
    config.negotiation = RECONNECT_NEGOTIATION_POLITE;
    check(reconnect_peer_create(engine, &config, &polite) == RECONNECT_OK, "a peer that negotiates by itself");
    check(reconnect_peer_offer(polite, 1) == RECONNECT_WRONG_STATE, "its host does not ask for the offer");
    check(reconnect_peer_accept(polite, "{}", 2, 1, NULL, 0) == RECONNECT_WRONG_STATE, "nor hand in an answer as such");
    for (index = 0; index < sizeof malformed / sizeof *malformed; index++) {
        signal_is(polite, malformed[index], RECONNECT_MALFORMED_JSON, malformed[index]);
    }
    signal_is(polite, "{\"type\":\"offer\",\"sdp\":\"v=0\"}", RECONNECT_MALFORMED_SDP, "half a description");
    signal_is(polite, "{\"type\":\"answer\",\"sdp\":\"nonsense\"}", RECONNECT_MALFORMED_SDP, "no description");
    signal_is(polite, NULL, RECONNECT_INVALID_ARGUMENT, "NULL of 5 bytes");
    signal_is(polite, "{\"candidate\":null}", RECONNECT_OK, "the end of candidates");
    signal_is(polite, "{\"candidate\":{\"candidate\":\"candidate:1 1 udp 1 192.0.2.1 9 typ host\",\"sdpMid\":\"0\"}}",
              RECONNECT_OK, "a candidate before any description");
    check(reconnect_peer_close(polite) == RECONNECT_OK && reconnect_peer_close(manual) == RECONNECT_OK, "their end");
    check(reconnect_engine_destroy(engine) == RECONNECT_OK, "the end");
    signal_is(polite, "{\"candidate\":null}", RECONNECT_INVALID_HANDLE, "a message for a peer that is gone");
    check(reconnect_peer_restart(polite) == RECONNECT_INVALID_HANDLE, "a restart of it");
}

/* Two peers that negotiate by themselves; the test carries their messages. Numbered ones run both ways meanwhile. */
enum { MESSAGES = 400 };

typedef struct side {
    reconnect_engine_t engine;
    reconnect_peer_t peer, other;
    reconnect_channel_t channel;
    int sent, received, disorder, signals, offers, paths, started, recovered, closed, refused;
    char type[8];
} side_t;

static void take(side_t *side, const reconnect_event_t *event) {
    char text[32] = "", expected[32];
    reconnect_status_t status;
    switch (event->type) {
    case RECONNECT_EVENT_PEER_SIGNAL:
        side->signals++;
        side->offers += memmem(event->data, event->size, "\"offer\"", 7) != NULL;
        if (event->peer.id != side->peer.id || event->tag != 77) {
            check(0, "the message is of the peer, with its tag");
        }
        status = reconnect_peer_signal(side->other, (const char *)event->data, event->size, NULL, 0);
        if (status != RECONNECT_OK) {
            check(0, "%s: %.*s", reconnect_status_name(status), (int)event->size, (const char *)event->data);
        }
        break;
    case RECONNECT_EVENT_CHANNEL_OPEN: side->channel = event->channel; break;
    case RECONNECT_EVENT_MESSAGE:
        memcpy(text, event->data, event->size < sizeof text ? event->size : sizeof text - 1);
        snprintf(expected, sizeof expected, "%d", side->received++);
        side->disorder += strcmp(text, expected) != 0;
        break;
    case RECONNECT_EVENT_PATH:
        side->paths++;
        if (event->number != side->paths || event->peer.id != side->peer.id || event->tag != 77 ||
            memmem(event->data, event->size, " typ ", 5) == NULL ||
            memmem(event->extra, event->extra_size, " typ ", 5) == NULL) {
            check(0, "a path has a number and two candidates");
        }
        break;
    case RECONNECT_EVENT_RESTART:
        side->started += event->number == RECONNECT_RESTART_STARTED;
        side->recovered += event->number == RECONNECT_RESTART_RECOVERED;
        printf("# restart %lld, attempt %u: %.*s\n", (long long)event->number, (unsigned)event->kind, (int)event->size,
               (const char *)event->data);
        break;
    case RECONNECT_EVENT_RESULT: side->refused += event->status != RECONNECT_OK; break;
    case RECONNECT_EVENT_PEER_STATE: side->closed += event->number == RECONNECT_PEER_CLOSED; break;
    default: break;
    }
}

/* Serves both sides until a number of messages has arrived at each, and so many restarts have recovered. */
static int serve(side_t sides[2], int received, int recovered) {
    const int64_t end = exchange_milliseconds() + 30000;
    reconnect_event_t events[32];
    size_t count, index;
    int each;
    while (sides[0].received < received || sides[1].received < received || sides[0].channel.id == 0 ||
           sides[1].channel.id == 0 || sides[0].recovered < recovered || sides[1].recovered < recovered) {
        for (each = 0; each < 2; each++) {
            if (reconnect_poll(sides[each].engine, events, 32, 2, &count) != RECONNECT_OK || count == 0) {
                continue;
            }
            for (index = 0; index < count; index++) {
                take(&sides[each], &events[index]);
            }
            reconnect_release(sides[each].engine, events[0].batch);
        }
        if (sides[0].closed != 0 || sides[1].closed != 0 || exchange_milliseconds() > end) {
            return 0;
        }
    }
    return 1;
}

static void send_up_to(side_t sides[2], int number) {
    char text[32];
    int each;
    for (each = 0; each < 2; each++) {
        while (sides[each].sent < number) {
            snprintf(text, sizeof text, "%d", sides[each].sent++);
            if (reconnect_send(sides[each].channel, RECONNECT_TEXT, text, strlen(text)) != RECONNECT_OK) {
                check(0, "message %s of side %d is taken", text, each);
            }
        }
    }
}

static void negotiation(void) {
    side_t sides[2];
    reconnect_channel_config_t channel;
    reconnect_peer_config_t config;
    exchange_wait_t wait;
    int each, begin;
    for (begin = 1; begin <= 3; begin++) { /* the polite one, the other one, both at once */
        memset(sides, 0, sizeof sides);
        memset(&channel, 0, sizeof channel);
        channel.struct_size = sizeof channel;
        channel.negotiated = 1;
        channel.id = 1;
        memset(&config, 0, sizeof config);
        config.struct_size = sizeof config;
        config.channels = &channel;
        config.channel_count = 1;
        config.tag = 77;
        for (each = 0; each < 2; each++) {
            config.negotiation = each == 0 ? RECONNECT_NEGOTIATION_POLITE : RECONNECT_NEGOTIATION_IMPOLITE;
            if (!check(exchange_engine("127.0.0.1", 0, &sides[each].engine) == RECONNECT_OK &&
                           reconnect_peer_create(sides[each].engine, &config, &sides[each].peer) == RECONNECT_OK,
                       "an engine with a peer of negotiation %u", (unsigned)config.negotiation)) {
                return;
            }
        }
        sides[0].other = sides[1].peer;
        sides[1].other = sides[0].peer;
        for (each = 0; each < 2; each++) {
            if ((begin & (1 << each)) != 0) {
                check(reconnect_peer_restart(sides[each].peer) == RECONNECT_OK, "side %d begins", each);
            }
        }
        if (!check(serve(sides, 0, 0), "they connect")) {
            return;
        }
        send_up_to(sides, MESSAGES / 4);
        check(reconnect_peer_restart(sides[0].peer) == RECONNECT_OK, "a restart by one side");
        send_up_to(sides, MESSAGES / 2);
        check(serve(sides, MESSAGES / 4, 1), "it succeeds, and both know it");
        check(reconnect_peer_restart(sides[0].peer) == RECONNECT_OK &&
                  reconnect_peer_restart(sides[1].peer) == RECONNECT_OK,
              "a restart by both at once");
        send_up_to(sides, MESSAGES);
        check(serve(sides, MESSAGES, 2), "it succeeds");
        for (each = 0; each < 2; each++) {
            check(sides[each].received == MESSAGES && sides[each].disorder == 0,
                  "side %d got %d messages, %d out of order", each, sides[each].received, sides[each].disorder);
            check(sides[each].refused == 0 && sides[each].paths >= 1, "nothing was refused; %d paths, %d messages",
                  sides[each].paths, sides[each].signals);
            if (check(reconnect_peer_query_statistics(sides[each].peer, 5) == RECONNECT_OK &&
                          exchange_expect(sides[each].engine, RECONNECT_EVENT_STATISTICS, 5, 0, &wait),
                      "its figures")) {
                reconnect_peer_statistics_t figures;
                memset(&figures, 0, sizeof figures);
                memcpy(&figures, wait.data, wait.event.size < sizeof figures ? wait.event.size : sizeof figures);
                check(figures.generation >= 2 && figures.restarts >= 2 && strcmp(figures.transport, "udp") == 0 &&
                          figures.local_type[0] != 0 && figures.remote_type[0] != 0 && figures.relay_address[0] == 0,
                      "generation %u, %llu restarts, %s from %s to %s", (unsigned)figures.generation,
                      (unsigned long long)figures.restarts, figures.transport, figures.local_type, figures.remote_type);
                check(figures.packets_sent > 0 && figures.packets_received > 0 && figures.checks_sent > 0 &&
                          figures.checks_received > 0 && figures.path_changes >= 1,
                      "%llu packets sent, %llu received; %llu checks sent, %llu received; %llu paths",
                      (unsigned long long)figures.packets_sent, (unsigned long long)figures.packets_received,
                      (unsigned long long)figures.checks_sent, (unsigned long long)figures.checks_received,
                      (unsigned long long)figures.path_changes);
                free(wait.data);
            }
        }
        for (each = 0; each < 2; each++) {
            check(reconnect_engine_destroy(sides[each].engine) == RECONNECT_OK, "the end");
        }
    }
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"servers", servers},
    {"timers", all_timers},
    {"policies", policies},
    {"credentials", credentials},
    {"older-hosts", older_hosts},
    {"signals", signals},
    {"negotiation", negotiation},
};

int main(int count, char **arguments) {
    size_t index;
    for (index = 0; count == 2 && index < sizeof cases / sizeof *cases; index++) {
        if (strcmp(arguments[1], "--list") == 0) {
            printf("%s\n", cases[index].name);
        } else if (strcmp(arguments[1], cases[index].name) == 0) {
            cases[index].run();
            return finish();
        }
    }
    return count == 2 && strcmp(arguments[1], "--list") == 0 ? 0 : 2;
}
