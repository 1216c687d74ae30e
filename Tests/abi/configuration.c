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

/* Creates an engine, which must end as `expected` (or as `other`); says why in a sentence. */
static void expect(const reconnect_engine_config_t *config, reconnect_status_t expected, reconnect_status_t other,
                   const char *what) {
    char detail[256];
    reconnect_engine_t engine = {42};
    memset(detail, 0x7f, sizeof detail);
    reconnect_status_t status = reconnect_engine_create(config, &engine, detail, sizeof detail);
    check(status == expected || status == other, "%s: %s", what, reconnect_status_name(status));
    if (status == RECONNECT_OK) {
        check(reconnect_engine_destroy(engine) == RECONNECT_OK, "and its end");
        return;
    }
    check(engine.id == 42, "no handle was written");
    check(memchr(detail, 0, sizeof detail) != NULL && strlen(detail) >= 10, "the detail: %.200s", detail);
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
