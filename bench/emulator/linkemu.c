// A link between two network namespaces with delay, jitter, loss, rate and a
// bounded queue, for kernels without netem. One TUN device is created in each
// namespace; every IPv4 or IPv6 packet read from one is written to the other
// when its time has come. Run with --help for the options.
//
// Memory is fixed at start: --slots packets of --mtu bytes for each direction.
// The process ends on SIGTERM, SIGINT, after --lifetime seconds, and, with
// --control, when its standard input closes; it then prints its counters.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS_PER_SECOND 1000000000ull
#define NANOSECONDS_PER_MILLISECOND 1000000.0
#define READ_BATCH 64

// MARK: Configuration of one direction, changeable while running

struct shape {
    double delay_ms;       // one way
    double jitter_ms;      // uniform in [0, jitter_ms], added to the delay
    double loss;           // probability 0...1
    double rate_kbps;      // 0: unlimited
    double queue_bytes;    // waiting for the rate limit; more is dropped
    bool reorder;          // false: jitter never lets a packet overtake
};

struct counters {
    uint64_t received, received_bytes;
    uint64_t delivered, delivered_bytes;
    uint64_t lost;             // by the loss probability
    uint64_t queue_full;       // by the rate limit's queue
    uint64_t slots_full;       // more packets in flight than --slots
    uint64_t write_failed;     // the receiving device refused the packet
    uint64_t lateness_max_ns;  // delivered after the due time
    uint64_t lateness_sum_ns;
};

struct waiting {
    uint64_t due_ns;
    uint64_t order;  // arrival number: packets due together keep their order
    uint32_t slot;
    uint32_t length;
};

struct direction {
    struct shape shape;
    struct counters counters;
    uint64_t random_state;
    uint64_t next_order;
    uint64_t last_due_ns;       // of the latest packet, for order under jitter
    uint64_t line_free_ns;      // when the rate-limited line is idle again
    int from_fd, to_fd;
    struct waiting *heap;       // by (due_ns, order)
    uint32_t heap_count;
    uint32_t *free_slots;
    uint32_t free_count;
    uint8_t *slots;
};

struct options {
    const char *device_spec[2];
    struct shape shape[2];
    uint64_t seed;
    uint32_t mtu;
    uint32_t slot_count;
    double lifetime_s;
    bool control;
};

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("linkemu: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * NANOSECONDS_PER_SECOND + (uint64_t)time.tv_nsec;
}

// SplitMix64: every seed gives a full-period, well mixed sequence.
static uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static double next_unit(uint64_t *state) { return (double)(next_random(state) >> 11) * 0x1.0p-53; }

// MARK: TUN devices

static void enter_namespace(const char *name) {
    if (strcmp(name, "-") == 0) return;
    char path[256];
    int written;
    if (strchr(name, '/')) written = snprintf(path, sizeof path, "%s", name);
    else written = snprintf(path, sizeof path, "/run/netns/%s", name);
    if (written < 0 || (size_t)written >= sizeof path) fail("the namespace name is too long");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("cannot open namespace %s: %s", path, strerror(errno));
    if (setns(fd, CLONE_NEWNET) != 0) fail("cannot enter namespace %s: %s", path, strerror(errno));
    close(fd);
}

// SPEC is NETNS:DEVICE; the device belongs to the namespace it is created in
// and disappears with this process.
static int open_device(const char *spec, uint32_t mtu) {
    const char *colon = strrchr(spec, ':');
    if (!colon || colon == spec) fail("'%s' is not NETNS:DEVICE", spec);
    size_t name_length = strlen(colon + 1);
    if (name_length == 0 || name_length >= IFNAMSIZ) fail("'%s' is not a device name", colon + 1);
    char *name = strndup(spec, (size_t)(colon - spec));
    if (!name) fail("out of memory");
    enter_namespace(name);
    free(name);

    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) fail("cannot open /dev/net/tun: %s", strerror(errno));
    struct ifreq request = {0};
    memcpy(request.ifr_name, colon + 1, name_length);
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (ioctl(fd, TUNSETIFF, &request) != 0) fail("cannot create device %s: %s", colon + 1, strerror(errno));

    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0) fail("socket: %s", strerror(errno));
    request.ifr_mtu = (int)mtu;
    if (ioctl(control, SIOCSIFMTU, &request) != 0) fail("cannot set the MTU: %s", strerror(errno));
    if (ioctl(control, SIOCGIFFLAGS, &request) != 0) fail("cannot read the flags: %s", strerror(errno));
    request.ifr_flags |= IFF_UP;
    if (ioctl(control, SIOCSIFFLAGS, &request) != 0) fail("cannot bring the device up: %s", strerror(errno));
    close(control);
    return fd;
}

// MARK: The packets on their way: a binary heap by due time

static bool is_before(const struct waiting *left, const struct waiting *right) {
    if (left->due_ns != right->due_ns) return left->due_ns < right->due_ns;
    return left->order < right->order;
}

static void heap_push(struct direction *direction, struct waiting entry) {
    uint32_t child = direction->heap_count++;
    while (child > 0) {
        uint32_t parent = (child - 1) / 2;
        if (!is_before(&entry, &direction->heap[parent])) break;
        direction->heap[child] = direction->heap[parent];
        child = parent;
    }
    direction->heap[child] = entry;
}

static struct waiting heap_pop(struct direction *direction) {
    struct waiting first = direction->heap[0];
    struct waiting last = direction->heap[--direction->heap_count];
    uint32_t parent = 0;
    for (;;) {
        uint32_t child = 2 * parent + 1;
        if (child >= direction->heap_count) break;
        if (child + 1 < direction->heap_count && is_before(&direction->heap[child + 1], &direction->heap[child]))
            child++;
        if (!is_before(&direction->heap[child], &last)) break;
        direction->heap[parent] = direction->heap[child];
        parent = child;
    }
    direction->heap[parent] = last;
    return first;
}

static void make_direction(struct direction *direction, const struct options *options, int from_fd, int to_fd, uint64_t seed) {
    direction->from_fd = from_fd;
    direction->to_fd = to_fd;
    direction->random_state = seed;
    direction->heap = calloc(options->slot_count, sizeof *direction->heap);
    direction->free_slots = calloc(options->slot_count, sizeof *direction->free_slots);
    direction->slots = calloc(options->slot_count, options->mtu);
    if (!direction->heap || !direction->free_slots || !direction->slots) fail("out of memory");
    for (uint32_t index = 0; index < options->slot_count; index++)
        direction->free_slots[direction->free_count++] = options->slot_count - 1 - index;
}

// MARK: Forwarding

// When a packet that arrived at `now` leaves the link, or 0 if the link
// drops it.
static uint64_t due_time(struct direction *direction, uint32_t length, uint64_t now) {
    const struct shape *shape = &direction->shape;
    if (shape->loss > 0 && next_unit(&direction->random_state) < shape->loss) {
        direction->counters.lost++;
        return 0;
    }
    uint64_t sent = now;
    if (shape->rate_kbps > 0) {
        double nanoseconds_per_byte = 8e6 / shape->rate_kbps;
        uint64_t start = direction->line_free_ns > now ? direction->line_free_ns : now;
        double backlog_bytes = (double)(start - now) / nanoseconds_per_byte;
        if (shape->queue_bytes > 0 && backlog_bytes + length > shape->queue_bytes) {
            direction->counters.queue_full++;
            return 0;
        }
        sent = start + (uint64_t)(length * nanoseconds_per_byte);
        direction->line_free_ns = sent;
    }
    double travel_ms = shape->delay_ms;
    if (shape->jitter_ms > 0) travel_ms += shape->jitter_ms * next_unit(&direction->random_state);
    uint64_t due = sent + (uint64_t)(travel_ms * NANOSECONDS_PER_MILLISECOND);
    if (!shape->reorder && due < direction->last_due_ns) due = direction->last_due_ns;
    if (due > direction->last_due_ns) direction->last_due_ns = due;
    return due;
}

static void take_in(struct direction *direction, uint32_t mtu) {
    static uint8_t scratch[65536];
    for (int batch = 0; batch < READ_BATCH; batch++) {
        bool has_slot = direction->free_count > 0;
        uint32_t slot = has_slot ? direction->free_slots[direction->free_count - 1] : 0;
        uint8_t *buffer = has_slot ? direction->slots + (size_t)slot * mtu : scratch;
        ssize_t length = read(direction->from_fd, buffer, has_slot ? mtu : sizeof scratch);
        if (length <= 0) return;  // EAGAIN, or EIO/EBADFD while the device is down
        direction->counters.received++;
        direction->counters.received_bytes += (uint64_t)length;
        if (!has_slot) {
            direction->counters.slots_full++;
            continue;
        }
        uint64_t due = due_time(direction, (uint32_t)length, now_ns());
        if (due == 0) continue;
        direction->free_count--;
        heap_push(direction, (struct waiting){.due_ns = due, .order = direction->next_order++, .slot = slot, .length = (uint32_t)length});
    }
}

static void deliver_due(struct direction *direction, uint32_t mtu) {
    while (direction->heap_count > 0) {
        uint64_t now = now_ns();
        if (direction->heap[0].due_ns > now) return;
        struct waiting packet = heap_pop(direction);
        uint64_t lateness = now - packet.due_ns;
        direction->counters.lateness_sum_ns += lateness;
        if (lateness > direction->counters.lateness_max_ns) direction->counters.lateness_max_ns = lateness;
        ssize_t written = write(direction->to_fd, direction->slots + (size_t)packet.slot * mtu, packet.length);
        direction->free_slots[direction->free_count++] = packet.slot;
        if (written == (ssize_t)packet.length) {
            direction->counters.delivered++;
            direction->counters.delivered_bytes += packet.length;
        } else {
            direction->counters.write_failed++;
        }
    }
}

static void arm_timer(int timer_fd, const struct direction directions[2]) {
    uint64_t due = 0;
    for (int side = 0; side < 2; side++) {
        if (directions[side].heap_count == 0) continue;
        uint64_t first = directions[side].heap[0].due_ns;
        if (due == 0 || first < due) due = first;
    }
    static uint64_t armed;
    if (due == armed && due == 0) return;
    armed = due;
    struct itimerspec setting = {.it_value = {.tv_sec = (time_t)(due / NANOSECONDS_PER_SECOND),
                                              .tv_nsec = (long)(due % NANOSECONDS_PER_SECOND)}};
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &setting, NULL);
}

// MARK: Options and control lines

static double parse_number(const char *name, const char *text, double minimum, double maximum, bool *valid) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    *valid = errno == 0 && end != text && *end == '\0' && isfinite(value) && value >= minimum && value <= maximum;
    if (!*valid) fprintf(stderr, "linkemu: %s must be a number from %g to %g\n", name, minimum, maximum);
    return value;
}

// NAME is delay-ms, jitter-ms, loss, rate-kbps, queue-bytes or reorder, with
// "-ab" or "-ba" appended for one direction only.
static bool set_shape(struct shape *ab, struct shape *ba, const char *name, const char *text) {
    static const struct {
        const char *name;
        size_t offset;
        double maximum;
    } numbers[] = {
        {"delay-ms", offsetof(struct shape, delay_ms), 60000},
        {"jitter-ms", offsetof(struct shape, jitter_ms), 60000},
        {"loss", offsetof(struct shape, loss), 1},
        {"rate-kbps", offsetof(struct shape, rate_kbps), 1e9},
        {"queue-bytes", offsetof(struct shape, queue_bytes), 1e9},
        {"reorder", 0, 1},
    };
    char stem[32];
    size_t length = strlen(name);
    bool to_b = true, to_a = true;
    if (length > 3 && strcmp(name + length - 3, "-ab") == 0) to_a = false;
    if (length > 3 && strcmp(name + length - 3, "-ba") == 0) to_b = false;
    if (!to_a || !to_b) length -= 3;
    if (length >= sizeof stem) return false;
    memcpy(stem, name, length);
    stem[length] = '\0';
    for (size_t index = 0; index < sizeof numbers / sizeof numbers[0]; index++) {
        if (strcmp(stem, numbers[index].name) != 0) continue;
        bool valid;
        double value = parse_number(name, text, 0, numbers[index].maximum, &valid);
        if (!valid) return false;
        for (int side = 0; side < 2; side++) {
            struct shape *shape = side == 0 ? ab : ba;
            if (side == 0 ? !to_b : !to_a) continue;
            if (strcmp(stem, "reorder") == 0) shape->reorder = value != 0;
            else memcpy((char *)shape + numbers[index].offset, &value, sizeof value);
        }
        return true;
    }
    fprintf(stderr, "linkemu: there is no setting %s\n", name);
    return false;
}

static void print_counters(const struct direction directions[2]) {
    static const char *const names[2] = {"ab", "ba"};
    putchar('{');
    for (int side = 0; side < 2; side++) {
        const struct counters *counters = &directions[side].counters;
        uint64_t attempts = counters->delivered + counters->write_failed;
        printf("%s\"%s\":{\"received\":%" PRIu64 ",\"received_bytes\":%" PRIu64 ",\"delivered\":%" PRIu64
               ",\"delivered_bytes\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"queue_full\":%" PRIu64 ",\"slots_full\":%" PRIu64
               ",\"write_failed\":%" PRIu64 ",\"in_flight\":%" PRIu32 ",\"lateness_mean_us\":%.1f,\"lateness_max_us\":%.1f}",
               side ? "," : "", names[side], counters->received, counters->received_bytes, counters->delivered,
               counters->delivered_bytes, counters->lost, counters->queue_full, counters->slots_full, counters->write_failed,
               directions[side].heap_count, attempts ? (double)counters->lateness_sum_ns / (double)attempts / 1000.0 : 0.0,
               (double)counters->lateness_max_ns / 1000.0);
    }
    puts("}");
    fflush(stdout);
}

// One line: "NAME VALUE [NAME VALUE...]", "seed N" or "counters". The answer
// is one line: "ok", "error" or the counters.
static void obey(char *line, struct direction directions[2]) {
    char *rest;
    char *name = strtok_r(line, " \t\r", &rest);
    if (!name) return;
    if (strcmp(name, "counters") == 0) {
        print_counters(directions);
        return;
    }
    struct shape ab = directions[0].shape, ba = directions[1].shape;
    bool valid = true;
    for (; name && valid; name = strtok_r(NULL, " \t\r", &rest)) {
        char *value = strtok_r(NULL, " \t\r", &rest);
        if (!value) valid = false;
        else if (strcmp(name, "seed") == 0) {
            uint64_t seed = strtoull(value, NULL, 0);
            directions[0].random_state = next_random(&seed);
            directions[1].random_state = next_random(&seed);
        } else valid = set_shape(&ab, &ba, name, value);
    }
    if (valid) {
        directions[0].shape = ab;
        directions[1].shape = ba;
    }
    puts(valid ? "ok" : "error");
    fflush(stdout);
}

// False at the end of the input.
static bool read_control(struct direction directions[2]) {
    static char buffer[1024];
    static size_t used;
    ssize_t length = read(STDIN_FILENO, buffer + used, sizeof buffer - used);
    if (length < 0) return errno == EAGAIN || errno == EINTR;
    if (length == 0) return false;
    used += (size_t)length;
    char *newline;
    while ((newline = memchr(buffer, '\n', used))) {
        *newline = '\0';
        obey(buffer, directions);
        size_t consumed = (size_t)(newline - buffer) + 1;
        memmove(buffer, buffer + consumed, used - consumed);
        used -= consumed;
    }
    return used < sizeof buffer;  // a line that long is not ours
}

static void print_usage(void) {
    puts("usage: linkemu --a NETNS:DEVICE --b NETNS:DEVICE [options]\n"
         "NETNS is a name of `ip netns`, a path, or - for the current namespace.\n"
         "Each of these takes -ab or -ba appended for one direction only:\n"
         "  --delay-ms MS        one-way delay (0)\n"
         "  --jitter-ms MS       added delay, uniform in [0, MS] (0)\n"
         "  --loss P             probability from 0 to 1 (0)\n"
         "  --rate-kbps N        line rate; 0 is unlimited (0)\n"
         "  --queue-bytes N      waiting for the line; more is dropped (256000)\n"
         "  --reorder 0|1        whether jitter may let packets overtake (0)\n"
         "Others:\n"
         "  --seed N             of the loss and jitter sequences (1)\n"
         "  --mtu N              of both devices (1500)\n"
         "  --slots N            packets in flight for each direction (4096)\n"
         "  --lifetime S         ends after S seconds at the latest (3600)\n"
         "  --control            reads 'NAME VALUE ...', 'seed N' and 'counters' lines from\n"
         "                       standard input; ends when it closes\n"
         "Prints 'ready' when both devices are up and its counters as JSON at the end.");
}

static struct options parse_options(int count, char **arguments) {
    struct options options = {.seed = 1, .mtu = 1500, .slot_count = 4096, .lifetime_s = 3600};
    options.shape[0].queue_bytes = options.shape[1].queue_bytes = 256000;
    for (int index = 1; index < count; index++) {
        const char *name = arguments[index];
        if (strcmp(name, "--help") == 0) {
            print_usage();
            exit(0);
        }
        if (strcmp(name, "--control") == 0) {
            options.control = true;
            continue;
        }
        if (strncmp(name, "--", 2) != 0 || index + 1 >= count) fail("%s: see --help", name);
        const char *value = arguments[++index];
        name += 2;
        bool valid = true;
        if (strcmp(name, "a") == 0) options.device_spec[0] = value;
        else if (strcmp(name, "b") == 0) options.device_spec[1] = value;
        else if (strcmp(name, "seed") == 0) options.seed = strtoull(value, NULL, 0);
        else if (strcmp(name, "mtu") == 0) options.mtu = (uint32_t)parse_number(name, value, 576, 65535, &valid);
        else if (strcmp(name, "slots") == 0) options.slot_count = (uint32_t)parse_number(name, value, 1, 65536, &valid);
        else if (strcmp(name, "lifetime") == 0) options.lifetime_s = parse_number(name, value, 0.01, 86400, &valid);
        else valid = set_shape(&options.shape[0], &options.shape[1], name, value);
        if (!valid) exit(1);
    }
    if (!options.device_spec[0] || !options.device_spec[1]) fail("--a and --b are needed; see --help");
    return options;
}

// MARK: Main loop

static void watch(int epoll_fd, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl: %s", strerror(errno));
}

int main(int count, char **arguments) {
    struct options options = parse_options(count, arguments);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int lifetime_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (signal_fd < 0 || timer_fd < 0 || lifetime_fd < 0 || epoll_fd < 0) fail("no descriptors: %s", strerror(errno));
    struct itimerspec lifetime = {.it_value = {.tv_sec = (time_t)options.lifetime_s,
                                               .tv_nsec = (long)(fmod(options.lifetime_s, 1.0) * 1e9)}};
    timerfd_settime(lifetime_fd, 0, &lifetime, NULL);

    // Both make timers more exact on a busy machine; neither is essential. A
    // nice value would not do: it counts only within the session's own group.
    prctl(PR_SET_TIMERSLACK, 1ul);
    (void)!sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1});

    // "-" means the namespace at start, for either device.
    int home_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int device_fd[2];
    for (int side = 0; side < 2; side++) {
        device_fd[side] = open_device(options.device_spec[side], options.mtu);
        if (home_fd >= 0 && setns(home_fd, CLONE_NEWNET) != 0) fail("cannot return to the first namespace: %s", strerror(errno));
    }
    if (home_fd >= 0) close(home_fd);

    struct direction directions[2] = {0};
    uint64_t seed = options.seed;
    for (int side = 0; side < 2; side++) {
        make_direction(&directions[side], &options, device_fd[side], device_fd[1 - side], next_random(&seed));
        directions[side].shape = options.shape[side];
        watch(epoll_fd, device_fd[side]);
    }
    watch(epoll_fd, signal_fd);
    watch(epoll_fd, timer_fd);
    watch(epoll_fd, lifetime_fd);
    if (options.control) {
        fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
        watch(epoll_fd, STDIN_FILENO);
    }
    puts("ready");
    fflush(stdout);

    bool running = true;
    while (running) {
        struct epoll_event events[8];
        int ready = epoll_wait(epoll_fd, events, 8, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
        for (int index = 0; index < ready; index++) {
            int fd = events[index].data.fd;
            if (fd == signal_fd || fd == lifetime_fd) running = false;
            else if (fd == timer_fd) {
                uint64_t expirations;
                (void)!read(timer_fd, &expirations, sizeof expirations);
            } else if (fd == device_fd[0]) take_in(&directions[0], options.mtu);
            else if (fd == device_fd[1]) take_in(&directions[1], options.mtu);
            else if (!read_control(directions)) running = false;
        }
        deliver_due(&directions[0], options.mtu);
        deliver_due(&directions[1], options.mtu);
        arm_timer(timer_fd, directions);
    }
    print_counters(directions);
    return 0;
}
