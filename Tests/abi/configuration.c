/* Engines on machines and with configurations that do not allow them: each gives a status that says why.
   usage: configuration --list | CASE        one case per process, since some give up rights or limits */
#define _GNU_SOURCE

#include "exchange.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char folder[64]; /* of this case, removed by main */

static reconnect_engine_config_t defaults(void) {
    reconnect_engine_config_t config;
    memset(&config, 0, sizeof config);
    config.struct_size = sizeof config;
    return config;
}

typedef reconnect_status_t create_t(const reconnect_engine_config_t *, reconnect_engine_t *, char *, size_t);

/* Creates an engine, which must end as `expected` (or as `other`); says why in a sentence with `word` in it. */
static void expect_of(create_t *create, const reconnect_engine_config_t *config, reconnect_status_t expected,
                      reconnect_status_t other, const char *what, const char *word) {
    char detail[256];
    reconnect_engine_t engine = {42};
    memset(detail, 0x7f, sizeof detail);
    reconnect_status_t status = create(config, &engine, detail, sizeof detail);
    check(status == expected || status == other, "%s: %s", what, reconnect_status_name(status));
    if (status == RECONNECT_OK) {
        check(reconnect_engine_destroy(engine) == RECONNECT_OK, "and its end");
        return;
    }
    check(engine.id == 42, "no handle was written");
    check(memchr(detail, 0, sizeof detail) != NULL && strlen(detail) >= 10 && strstr(detail, word) != NULL,
          "the detail: %.200s", detail);
}

static void expect(const reconnect_engine_config_t *config, reconnect_status_t expected, reconnect_status_t other,
                   const char *what) {
    expect_of(reconnect_engine_create, config, expected, other, what, "");
}

/* A wrong value of a member that the detail names. */
static void refuses(const reconnect_engine_config_t *config, const char *word, const char *what) {
    expect_of(reconnect_engine_create, config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT, what, word);
}

static void allows(const reconnect_engine_config_t *config, const char *what) {
    expect(config, RECONNECT_OK, RECONNECT_OK, what);
}

static void skip(const char *what, const char *why) {
    tap_count++;
    printf("ok %d - %s # SKIP %s\n", tap_count, what, why);
}

static int descriptors(void) {
    int count = 0;
    DIR *entries = opendir("/proc/self/fd");
    if (entries == NULL) {
        return -1;
    }
    while (readdir(entries) != NULL) {
        count++;
    }
    closedir(entries);
    return count;
}

static int write_file(const char *path, const char *text, mode_t mode) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    if (file < 0) {
        return 0;
    }
    int good = write(file, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(file, mode) == 0;
    return close(file) == 0 && good;
}

static const char *in_folder(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* A network namespace of its own with its loopback up. */
static int own_network(void) {
    if (unshare(CLONE_NEWNET) != 0) {
        return 0;
    }
    struct ifreq request;
    int control = socket(AF_INET, SOCK_DGRAM, 0);
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    int good = ioctl(control, SIOCSIFFLAGS, &request) == 0;
    close(control);
    return good;
}

static int give_up_rights(void) { return setgid(65534) == 0 && setuid(65534) == 0; }

/* From here on this process's sockets of one family do not exist, as with a kernel built without it. */
static int without_family(int family) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)family, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* ------------------------------------------------------------------ cases */

static void wrong_values(void) {
    reconnect_engine_config_t config = defaults();
    const char *names[] = {"localhost", NULL};
    const char *good[] = {"127.0.0.1", "::1"};

    expect(NULL, RECONNECT_OK, RECONNECT_OK, "no configuration: defaults");
    expect(&config, RECONNECT_OK, RECONNECT_OK, "a configuration of zeros: defaults");
    config.struct_size = 0;
    expect(&config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT, "no struct_size");
    config.struct_size = UINT32_MAX;
    expect(&config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT, "a struct_size of 4 GiB");
    config = defaults();
    config.ice_mode = 7;
    expect(&config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT, "an unknown ICE mode");
    config = defaults();
    config.log_level = 99;
    expect(&config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT, "an unknown log level");
    config = defaults();
    config.max_message_size = 16777217;
    expect(&config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT, "messages of more than 16 MiB");
    config = defaults();
    config.bind_address = "example.org";
    expect(&config, RECONNECT_NO_ADDRESS, RECONNECT_NO_ADDRESS, "a name to bind to");
    config.bind_address = "127.0.0.1:80";
    expect(&config, RECONNECT_NO_ADDRESS, RECONNECT_NO_ADDRESS, "an address and port to bind to");
    config.bind_address = "203.0.113.77";
    expect(&config, RECONNECT_NO_ADDRESS, RECONNECT_SYSTEM, "an address of another machine to bind to");
    config = defaults();
    config.addresses = names;
    config.address_count = 1;
    expect(&config, RECONNECT_NO_ADDRESS, RECONNECT_NO_ADDRESS, "a name to offer");
    config.address_count = 2;
    names[0] = "127.0.0.1";
    expect(&config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT, "no text among the addresses");
    config.addresses = NULL;
    expect(&config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT, "a count without addresses");
    config.addresses = good;
    expect(&config, RECONNECT_OK, RECONNECT_OK, "two good addresses");
}

static void stores(void) {
    static const char *const wrong[] = {"", "memory", "./sessions", "sqlite:", "ftp://127.0.0.1", "redis://",
                                        "redis://127.0.0.1:99999", "redis://127.0.0.1:x", "redis://127.0.0.1/x",
                                        "redis+unix:"};
    reconnect_engine_config_t config = defaults();
    char url[160];
    struct stat status;
    for (size_t index = 0; index < sizeof wrong / sizeof *wrong; index++) {
        config = defaults();
        config.session_store = wrong[index];
        refuses(&config, "session_store", wrong[index]);
    }
    config.session_store = "sqlite:\xff";
    refuses(&config, "session_store", "a store that is not UTF-8");
    snprintf(url, sizeof url, "sqlite:%s", in_folder("sessions.db"));
    config.session_store = url;
    allows(&config, "sessions in a file");
    check(stat(in_folder("sessions.db"), &status) == 0 && (status.st_mode & 07777) == 0600, "its mode is 0600");
    allows(&config, "in the same file again");
    config.session_store = "redis://user:secret@127.0.0.1:1/3";
    config.session_prefix = "test:";
    config.store_timeout_ms = 10;
    allows(&config, "a Redis server that is away");
    config.session_prefix = "\xff";
    refuses(&config, "session_prefix", "a prefix that is not UTF-8");
}

static void tickets(void) {
    static const unsigned char secret[257] = {1, 2, 3};
    reconnect_engine_config_t config = defaults();
    static const size_t sizes[] = {1, 31, 32, 256, 257};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++) {
        for (int old = 0; old < 2; old++) {
            config = defaults();
            config.ticket_secret = secret;
            config.ticket_secret_size = 32;
            if (old) {
                config.old_ticket_secret = secret;
                config.old_ticket_secret_size = sizes[index];
            } else {
                config.ticket_secret_size = sizes[index];
            }
            if (sizes[index] >= 32 && sizes[index] <= 256) {
                allows(&config, "a secret of a good size");
            } else {
                refuses(&config, old ? "old_ticket_secret" : "ticket_secret", "a secret of a bad size");
            }
        }
    }
    config = defaults();
    config.ticket_secret_size = 32;
    refuses(&config, "ticket_secret", "a size without a secret");
    config = defaults();
    config.disable_tickets = 1;
    allows(&config, "no tickets");

    reconnect_channel_config_t channel = {.struct_size = sizeof channel, .negotiated = 1, .id = 1, .label = "echo"};
    reconnect_peer_config_t peer = {.struct_size = sizeof peer, .channels = &channel, .channel_count = 1, .tag = 7};
    config = defaults();
    config.returning_peer = &peer;
    allows(&config, "a channel of those who come back");
    channel.id = 65535;
    refuses(&config, "id", "one with a stream that does not exist");
    channel.id = 1;
    peer.channels = NULL;
    refuses(&config, "channels", "a count without channels");
    peer.channel_count = 0;
    peer.struct_size = 3;
    refuses(&config, "struct_size", "a peer of a wrong size");
}

static void network(void) {
    const char *texts[34] = {NULL};
    reconnect_engine_config_t config = defaults();
    static const char *const servers[] = {"", "stun:", ":3478", "127.0.0.1:x", "127.0.0.1:70000", "a b:1"};
    static const char *const publics[] = {"", "localhost", "203.0.113.5:70000", "203.0.113.5:x", "0.0.0.0",
                                          "224.0.0.1", "[2001:db8::1"};
    config.stun_servers = texts;
    config.stun_server_count = 1;
    refuses(&config, "stun_servers", "no text among the servers");
    for (size_t index = 0; index < sizeof servers / sizeof *servers; index++) {
        texts[0] = servers[index];
        refuses(&config, "STUN", servers[index]);
    }
    texts[0] = "stun:127.0.0.1:1";
    texts[1] = "127.0.0.1:2";
    texts[2] = "[::1]:3";
    config.stun_server_count = 3;
    allows(&config, "three servers that do not answer");
    config.stun_server_count = 34;
    refuses(&config, "stun_servers", "too many servers");
    config.stun_servers = NULL;
    refuses(&config, "stun_servers", "a count without servers");

    config = defaults();
    config.public_addresses = texts;
    config.public_address_count = 1;
    for (size_t index = 0; index < sizeof publics / sizeof *publics; index++) {
        texts[0] = publics[index];
        expect(&config, RECONNECT_NO_ADDRESS, RECONNECT_INVALID_ARGUMENT, publics[index]);
    }
    texts[0] = "203.0.113.5";
    texts[1] = "203.0.113.5:4000";
    texts[2] = "[2001:db8::1]:4000";
    config.public_address_count = 3;
    allows(&config, "three public addresses");
    config.public_addresses = NULL;
    refuses(&config, "public_addresses", "a count without addresses");

    config = defaults();
    config.interfaces = 15;
    allows(&config, "all kinds of interfaces");
    config.interfaces = 16;
    refuses(&config, "interfaces", "an unknown kind");
}

static void limits(void) {
    reconnect_engine_config_t config = defaults();
    config.trip_failure_percent = 101;
    refuses(&config, "trip_failure_percent", "more than all fail");
    config = defaults();
    config.trip_unstable_percent = UINT32_MAX;
    refuses(&config, "trip_unstable_percent", "more than all are unstable");
    config = defaults();
    config.certificate_days = config.fast_timeout_ms = config.trip_window_ms = config.trip_min_attempts =
        config.trip_rearm_ms = config.store_timeout_ms = config.disable_trip = UINT32_MAX;
    config.trip_failure_percent = config.trip_unstable_percent = 100;
    allows(&config, "the largest values");
    /* A host that was built for the ABI before 1.1. */
    config = defaults();
    config.struct_size = offsetof(reconnect_engine_config_t, session_store);
    config.interfaces = UINT32_MAX;
    allows(&config, "a struct that ends before the new members");
}

static void environment(void) {
    static const struct {
        const char *name, *wrong, *right;
    } variables[] = {{"ENABLE_FAST_RELOAD", "perhaps", "partial"},
                     {"STUN_URLS", "stun:127.0.0.1:1,stun:127.0.0.1:x", "stun:127.0.0.1:1, 127.0.0.1:2"},
                     {"REDIS_URL", "http://127.0.0.1", "redis://127.0.0.1:1"},
                     {"ICE_MODE", "lite", "turn-only"},
                     {"TURN_URLS", "turn:127.0.0.1:1,stun:127.0.0.1:1", "turn:127.0.0.1:1, turns:127.0.0.1:2"}};
    reconnect_engine_config_t config = defaults();
    expect_of(reconnect_engine_create_from_env, NULL, RECONNECT_OK, RECONNECT_OK, "an empty environment", "");
    for (size_t index = 0; index < sizeof variables / sizeof *variables; index++) {
        const char *name = variables[index].name;
        setenv(name, variables[index].wrong, 1);
        expect_of(reconnect_engine_create_from_env, &config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT,
                  name, name);
        allows(&config, "who does not ask for the environment does not see it");
        setenv(name, variables[index].right, 1);
        expect_of(reconnect_engine_create_from_env, &config, RECONNECT_OK, RECONNECT_OK, name, "");
        unsetenv(name);
    }
    /* The configuration is stronger. */
    const char *server = "127.0.0.1:1";
    setenv("STUN_URLS", "nonsense:x", 1);
    setenv("REDIS_URL", "nonsense", 1);
    setenv("ENABLE_FAST_RELOAD", "nonsense", 1);
    setenv("ICE_MODE", "nonsense", 1);
    setenv("TURN_URLS", "nonsense", 1);
    setenv("TURN_USERNAME", "who has no password", 1);
    char url[160];
    reconnect_turn_server_t relay = {.struct_size = sizeof relay, .url = "turn:127.0.0.1:1"};
    snprintf(url, sizeof url, "sqlite:%s", in_folder("sessions.db"));
    config.stun_servers = &server;
    config.stun_server_count = 1;
    config.session_store = url;
    config.disable_fast_reload = 1;
    config.ice_policy = RECONNECT_ICE_POLICY_ALL;
    config.turn_servers = &relay;
    config.turn_server_count = 1;
    expect_of(reconnect_engine_create_from_env, &config, RECONNECT_OK, RECONNECT_OK, "all is configured", "");
    config.turn_server_count = 0;
    setenv("TURN_URLS", "turn:127.0.0.1:1", 1);
    expect_of(reconnect_engine_create_from_env, &config, RECONNECT_INVALID_ARGUMENT, RECONNECT_INVALID_ARGUMENT,
              "half of the credentials", "TURN_USERNAME");
    setenv("TURN_PASSWORD", "hunter2", 1);
    expect_of(reconnect_engine_create_from_env, &config, RECONNECT_OK, RECONNECT_OK, "all of them", "");
}

static void connector_refuses(reconnect_engine_t engine, const reconnect_connector_config_t *config, const char *word,
                              const char *what) {
    char detail[256] = "";
    reconnect_connector_t connector = {42};
    reconnect_status_t status = reconnect_connector_create(engine, config, &connector, detail, sizeof detail);
    check(status == RECONNECT_INVALID_ARGUMENT && connector.id == 42, "%s: %s", what, reconnect_status_name(status));
    check(strlen(detail) >= 10 && strstr(detail, word) != NULL, "the detail: %.200s", detail);
}

static void connector_allows(reconnect_engine_t engine, const reconnect_connector_config_t *config, const char *what) {
    char detail[256] = "";
    reconnect_connector_t connector = {0};
    exchange_wait_t wait;
    reconnect_status_t status = reconnect_connector_create(engine, config, &connector, detail, sizeof detail);
    if (!check(status == RECONNECT_OK, "%s: %s %s", what, reconnect_status_name(status), detail)) {
        return;
    }
    char buffer[16] = "x";
    size_t length = 42;
    check(reconnect_connector_cache(connector, buffer, sizeof buffer, &length) == RECONNECT_OK && length == 0 &&
              buffer[0] == 0,
          "nothing is known of the server");
    check(reconnect_connector_forget(connector) == RECONNECT_OK, "nothing is forgotten");
    check(reconnect_connector_message(connector, 1, "{", 1, NULL, 0) == RECONNECT_MALFORMED_JSON, "half a message");
    check(reconnect_connector_close(connector) == RECONNECT_OK, "its end");
    check(exchange_expect(engine, RECONNECT_EVENT_CONNECTOR, config ? config->tag : 0, RECONNECT_CONNECTOR_CLOSED,
                          &wait) && wait.event.connector.id == connector.id,
          "is told");
    free(wait.data);
    check(reconnect_connector_connect(connector) == RECONNECT_INVALID_HANDLE, "and its handle invalid");
}

static void connectors(void) {
    reconnect_engine_t engine;
    char key[258];
    char path[160];
    reconnect_connector_config_t config = {.struct_size = sizeof config};
    if (!check(reconnect_engine_create(NULL, &engine, NULL, 0) == RECONNECT_OK, "an engine")) {
        return;
    }
    connector_allows(engine, NULL, "no configuration: defaults");
    connector_allows(engine, &config, "a configuration of zeros: defaults");
    config.policy = 2;
    connector_refuses(engine, &config, "policy", "an unknown policy");
    config.policy = RECONNECT_FALLBACK;
    config.tag = 5;
    connector_allows(engine, &config, "a known one");
    memset(key, 'k', sizeof key);
    key[257] = 0;
    config.key = key;
    connector_refuses(engine, &config, "key", "a key of 257 bytes");
    key[256] = 0;
    connector_allows(engine, &config, "a key of 256 bytes");
    config.key = "";
    connector_refuses(engine, &config, "key", "an empty key");
    config.key = "\xff";
    connector_refuses(engine, &config, "key", "a key that is not UTF-8");
    config.key = NULL;
    config.cache_path = "";
    connector_refuses(engine, &config, "cache_path", "an empty path");
    strcpy(path, in_folder("cache.json"));
    config.cache_path = path;
    connector_allows(engine, &config, "a cache file");
    check(write_file(path, "{\"default\":[1,2", 0600), "a malformed file");
    connector_allows(engine, &config, "a malformed cache file is no error");
    config.cache_path = in_folder("no-such-folder/cache.json");
    connector_allows(engine, &config, "neither is a folder that does not exist");
    config.cache_path = folder;
    connector_allows(engine, &config, "nor a folder");
    config.struct_size = 5;
    connector_refuses(engine, &config, "struct_size", "a wrong struct_size");
    config = (reconnect_connector_config_t){.struct_size = sizeof config};
    reconnect_peer_config_t peer = {.struct_size = 1};
    config.peer = &peer;
    connector_refuses(engine, &config, "struct_size", "a peer of a wrong size");
    check(reconnect_engine_destroy(engine) == RECONNECT_OK, "the end");
}

static void port_taken(void) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int other = socket(AF_INET, SOCK_DGRAM, 0);
    reconnect_engine_config_t config = defaults();
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(bind(other, (struct sockaddr *)&address, sizeof address) == 0 &&
              getsockname(other, (struct sockaddr *)&address, &length) == 0,
          "another program has a port");
    config.port = ntohs(address.sin_port);
    config.bind_address = "127.0.0.1";
    expect(&config, RECONNECT_PORT_IN_USE, RECONNECT_PORT_IN_USE, "the same port and address");
    close(other);
    expect(&config, RECONNECT_OK, RECONNECT_OK, "the port is free again");

    reconnect_engine_t first, second;
    uint16_t port = 0;
    config = defaults();
    check(reconnect_engine_create(&config, &first, NULL, 0) == RECONNECT_OK &&
              reconnect_engine_port(first, &port) == RECONNECT_OK && port != 0,
          "an engine on any port");
    config.port = port;
    expect(&config, RECONNECT_PORT_IN_USE, RECONNECT_PORT_IN_USE, "an engine on the same one");
    check(reconnect_engine_destroy(first) == RECONNECT_OK, "the first engine's end");
    check(reconnect_engine_create(&config, &second, NULL, 0) == RECONNECT_OK, "its port can be used at once");
    check(reconnect_engine_destroy(second) == RECONNECT_OK, "the end");
}

static void no_permission(void) {
    reconnect_engine_config_t config = defaults();
    if (geteuid() != 0 || !own_network()) {
        skip("without rights", "only root can give up rights and make a network namespace");
        return;
    }
    char owned[128];
    strcpy(owned, in_folder("root.pem"));
    check(write_file(owned, "not readable\n", 0600), "a file of another user");
    check(chmod(folder, 0755) == 0 && give_up_rights(), "the rights are given up");
    config.port = 443;
    expect(&config, RECONNECT_NO_PERMISSION, RECONNECT_NO_PERMISSION, "port 443");
    config = defaults();
    config.certificate_path = owned;
    expect(&config, RECONNECT_NO_PERMISSION, RECONNECT_NO_PERMISSION, "a certificate that may not be read");
    config.certificate_path = in_folder("new.pem");
    expect(&config, RECONNECT_NO_PERMISSION, RECONNECT_STORAGE, "a certificate in a folder that may not be written");
}

static void certificates(void) {
    static const char pem[] = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    reconnect_engine_config_t config = defaults();
    reconnect_engine_t engine;
    char first[256], second[256];
    size_t length = 0;
    struct stat status;

    config.certificate_path = in_folder("empty.pem");
    check(write_file(config.certificate_path, "", 0600), "an empty file");
    expect(&config, RECONNECT_CERTIFICATE_UNUSABLE, RECONNECT_CERTIFICATE_UNUSABLE, "an empty certificate file");
    config.certificate_path = in_folder("malformed.pem");
    check(write_file(config.certificate_path, pem, 0600), "a malformed file");
    expect(&config, RECONNECT_CERTIFICATE_UNUSABLE, RECONNECT_CERTIFICATE_UNUSABLE, "a malformed certificate");
    check(stat(config.certificate_path, &status) == 0 && status.st_size == (off_t)strlen(pem), "it stays as it was");
    config.certificate_path = folder;
    expect(&config, RECONNECT_CERTIFICATE_UNUSABLE, RECONNECT_STORAGE, "a folder");
    config.certificate_path = in_folder("no-such-folder/new.pem");
    expect(&config, RECONNECT_STORAGE, RECONNECT_STORAGE, "a folder that does not exist");
    if (getenv("OTHER_KEY") != NULL) {
        config.certificate_path = getenv("OTHER_KEY");
        expect(&config, RECONNECT_CERTIFICATE_UNUSABLE, RECONNECT_CERTIFICATE_UNUSABLE, "an RSA key");
    } else {
        skip("an RSA key", "there is no openssl command to make one");
    }
    if (access("/dev/full", W_OK) == 0) {
        config.certificate_path = "/dev/full";
        expect(&config, RECONNECT_CERTIFICATE_UNUSABLE, RECONNECT_STORAGE, "a device");
    }

    config.certificate_path = in_folder("new.pem");
    check(reconnect_engine_create(&config, &engine, NULL, 0) == RECONNECT_OK, "a new certificate file");
    check(stat(config.certificate_path, &status) == 0 && (status.st_mode & 07777) == 0600, "its mode is 0600");
    check(reconnect_engine_fingerprint(engine, RECONNECT_SHA256, NULL, 0, &length) == RECONNECT_TOO_SMALL &&
              length == strlen("sha-256 ") + 32 * 3,
          "its fingerprint needs %zu bytes", length);
    check(reconnect_engine_fingerprint(engine, RECONNECT_SHA256, first, sizeof first, &length) == RECONNECT_OK &&
              length == strlen(first) && strncmp(first, "sha-256 ", 8) == 0,
          "it is %s", first);
    check(reconnect_engine_fingerprint(engine, RECONNECT_SHA512, second, sizeof second, &length) == RECONNECT_OK &&
              length == strlen("sha-512 ") + 64 * 3 - 1,
          "and as SHA-512 %s", second);
    check(reconnect_engine_fingerprint(engine, 9, second, sizeof second, &length) == RECONNECT_INVALID_ARGUMENT,
          "an unknown hash");
    check(reconnect_engine_destroy(engine) == RECONNECT_OK, "the end");
    check(reconnect_engine_create(&config, &engine, NULL, 0) == RECONNECT_OK &&
              reconnect_engine_fingerprint(engine, RECONNECT_SHA256, second, sizeof second, &length) == RECONNECT_OK &&
              strcmp(first, second) == 0,
          "the next engine has the same one");
    check(reconnect_engine_destroy(engine) == RECONNECT_OK, "the end");
}

/* With room for 0, 1, 2, ... more descriptors: refused until there are enough, and none is left open. */
static void descriptor_limit(void) {
    reconnect_engine_config_t config = defaults();
    struct rlimit limit;
    reconnect_engine_t engine;
    char detail[256];
    int refused = 0, room;
    /* What a first engine opens for good is open then. */
    expect(&config, RECONNECT_OK, RECONNECT_OK, "an engine while there is room");
    int before = descriptors();
    int lowest = dup(0);
    close(lowest);
    getrlimit(RLIMIT_NOFILE, &limit);
    for (room = 0; room < 64; room++) {
        limit.rlim_cur = (rlim_t)(lowest + room);
        setrlimit(RLIMIT_NOFILE, &limit);
        detail[0] = 0;
        reconnect_status_t status = reconnect_engine_create(&config, &engine, detail, sizeof detail);
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        if (status == RECONNECT_OK) {
            check(reconnect_engine_destroy(engine) == RECONNECT_OK, "enough with room for %d", room);
            break;
        }
        refused++;
        check(status == RECONNECT_NO_DESCRIPTORS, "room for %d: %s: %s", room, reconnect_status_name(status), detail);
        check(descriptors() == before, "none is left open");
    }
    check(room < 64 && refused > 0, "it was refused %d times", refused);
    check(descriptors() == before, "none is left open at the end");
}

static void no_ipv6_in_kernel(void) {
    if (!without_family(AF_INET6)) {
        skip("no IPv6 in the kernel", "system call filters are not allowed here");
        return;
    }
    check(socket(AF_INET6, SOCK_DGRAM, 0) < 0 && errno == EAFNOSUPPORT, "there is no IPv6");
    expect(NULL, RECONNECT_OK, RECONNECT_OK, "an engine with all defaults");
    exchange_run("127.0.0.1", 0);
    exchange_run("127.0.0.1", 1);
    reconnect_engine_config_t config = defaults();
    config.bind_address = "::1";
    expect(&config, RECONNECT_NO_ADDRESS, RECONNECT_SYSTEM, "IPv6 was asked for");
}

static void ipv6_switched_off(void) {
    if (geteuid() != 0 || !own_network()) {
        skip("IPv6 switched off", "only root can make a network namespace");
        return;
    }
    int setting = open("/proc/sys/net/ipv6/conf/all/disable_ipv6", O_WRONLY);
    if (setting < 0 || write(setting, "1", 1) != 1) {
        skip("IPv6 switched off", "there is no IPv6 on this machine, or its settings cannot be written");
        return;
    }
    close(setting);
    expect(NULL, RECONNECT_OK, RECONNECT_OK, "an engine with all defaults");
    exchange_run("127.0.0.1", 0);
    reconnect_engine_config_t config = defaults();
    config.bind_address = "::1";
    expect(&config, RECONNECT_NO_ADDRESS, RECONNECT_SYSTEM, "IPv6 was asked for");
}

/* A machine with no interface up at all: nothing can be offered, and that is said. */
static void no_network(void) {
    reconnect_engine_t engine;
    reconnect_peer_t peer;
    exchange_wait_t wait;
    if (geteuid() != 0 || unshare(CLONE_NEWNET) != 0) {
        skip("no network", "only root can make a network namespace");
        return;
    }
    reconnect_status_t status = reconnect_engine_create(NULL, &engine, NULL, 0);
    if (status == RECONNECT_NO_ADDRESS) {
        expect(NULL, RECONNECT_NO_ADDRESS, RECONNECT_NO_ADDRESS, "an engine without a network");
        return;
    }
    if (!check(status == RECONNECT_OK, "an engine without a network: %s", reconnect_status_name(status))) {
        return;
    }
    check(reconnect_peer_create(engine, NULL, &peer) == RECONNECT_OK &&
              reconnect_channel_open(peer, NULL, &(reconnect_channel_t){0}) == RECONNECT_OK,
          "a peer");
    status = reconnect_peer_offer(peer, 5);
    if (status == RECONNECT_OK && exchange_expect(engine, RECONNECT_EVENT_OFFER, 5, 0, &wait)) {
        status = wait.event.status;
        free(wait.data);
    }
    check(status == RECONNECT_NO_ADDRESS, "its offer: %s", reconnect_status_name(status));
    check(reconnect_engine_destroy(engine) == RECONNECT_OK, "the end");
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"wrong-values", wrong_values},
    {"stores", stores},
    {"tickets", tickets},
    {"network", network},
    {"limits", limits},
    {"environment", environment},
    {"connectors", connectors},
    {"port-taken", port_taken},
    {"no-permission", no_permission},
    {"certificates", certificates},
    {"descriptor-limit", descriptor_limit},
    {"no-ipv6-in-kernel", no_ipv6_in_kernel},
    {"ipv6-switched-off", ipv6_switched_off},
    {"no-network", no_network},
};

int main(int count, char **arguments) {
    const char *place = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : ".";
    for (size_t index = 0; count == 2 && index < sizeof cases / sizeof *cases; index++) {
        if (strcmp(arguments[1], "--list") == 0) {
            printf("%s\n", cases[index].name);
        } else if (strcmp(arguments[1], cases[index].name) == 0) {
            snprintf(folder, sizeof folder, "%.40s/abi-XXXXXX", place);
            if (mkdtemp(folder) == NULL) {
                perror(folder);
                return 3;
            }
            cases[index].run();
            return finish();
        }
    }
    return count == 2 && strcmp(arguments[1], "--list") == 0 ? 0 : 2;
}
