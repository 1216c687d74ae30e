/* A room in the terminal, whose members can be cut off and come back complete. Two of them with one Redis share it.
   usage: room-c [--store URL] [--room NAME] [--window N] */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <getopt.h>
#include <poll.h>
#include <reconnect.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: room-c [--store URL] [--room NAME] [--window N]\n"
    "\n"
    "  --store URL    redis://HOST:PORT, sqlite:PATH (default: in memory)\n"
    "  --room NAME    (default lobby)\n"
    "  --window N     messages kept (default 50)\n"
    "\n"
    "Then, line by line:\n"
    "\n"
    "  NAME: TEXT     NAME says something to the others; who is not there joins\n"
    "  /cut NAME      the connection of NAME ends\n"
    "  /back NAME     NAME comes back\n"
    "  /leave NAME    NAME is gone for good\n";

enum { MOST_MEMBERS = 64, LONGEST_NAME = 64, LONGEST_LINE = 4096 };

/* What a client knows, and what the host knows of its connection. In a real host the two are on different machines. */
struct member {
    char name[LONGEST_NAME];
    int is_connected;
    uint64_t generation, last;
    char position[64], token[64];
    size_t position_size, token_size;
};

static struct member members[MOST_MEMBERS];
static size_t member_count;
static reconnect_replay_t replay;
static const char *room = "lobby";

static const char *const verdicts[] = {"", "fresh", "recovered", "recovered-empty", "lost"};
static const char *const reasons[] = {"", "epoch", "trimmed", "expired", "limit", "store", "degraded"};
static const char *const stores[] = {"away", "present", "probed"};

_Noreturn static void fail(const char *what, reconnect_status_t status, const char *detail) {
    fprintf(stderr, "room-c: %s: %s\n", what, *detail ? detail : reconnect_status_text(status));
    exit(1);
}

static struct member *find(const char *name, size_t size) {
    for (size_t i = 0; i < member_count; i++) {
        if (strlen(members[i].name) == size && memcmp(members[i].name, name, size) == 0) return &members[i];
    }
    return NULL;
}

static void show(const struct member *member, const char *how, const void *data, size_t size) {
    printf("%s %s %.*s\n", member->name, how, (int)size, (const char *)data);
}

static void keep(char *text, size_t *size, const char *given, size_t given_size) {
    if (given_size == 0 || given_size > sizeof members->position) return;
    memcpy(text, given, given_size);
    *size = given_size;
}

/* A live message goes to each connection that it is for and that does not have it already. */
static void live(const reconnect_replay_event_t *event) {
    for (size_t i = 0; i < member_count; i++) {
        struct member *member = &members[i];
        if (!member->is_connected || member->last >= event->sequence) continue;
        member->last = event->sequence;
        keep(member->position, &member->position_size, event->position, event->position_size);
        int is_own = strlen(member->name) == event->user_size && !memcmp(member->name, event->user, event->user_size);
        if (!is_own) show(member, "<", event->data, event->size);
    }
}

/* The outcome of a join or a recover, and a connection that the store took over. */
static void connected(struct member *member, const reconnect_replay_event_t *event) {
    member->is_connected = event->status == RECONNECT_OK;
    if (event->status != RECONNECT_OK) {
        printf("%s: %s\n", member->name, reconnect_status_name(event->status));
        return;
    }
    if (event->generation) member->generation = event->generation;
    member->last = event->sequence;
    keep(member->position, &member->position_size, event->position, event->position_size);
    keep(member->token, &member->token_size, event->token, event->token_size);
    printf("%s: %s", member->name, event->verdict <= RECONNECT_LOST ? verdicts[event->verdict] : "?");
    if (event->reason) printf(" (%s)", event->reason <= RECONNECT_LOST_DEGRADED ? reasons[event->reason] : "?");
    printf("\n");
    for (size_t i = 0; i < event->message_count; i++) {
        show(member, "<<", event->messages[i].data, event->messages[i].size);
    }
}

static void handle(const reconnect_replay_event_t *event);

/* Takes events, in order, up to the outcome with this tag; 0: those that are there. */
static void take(uint64_t tag) {
    static int missing; /* rooms with a gap: recovered when the batch is done */
    for (int is_done = 0; !is_done;) {
        reconnect_replay_event_t events[64];
        size_t count = 0;
        reconnect_status_t status = reconnect_replay_poll(replay, events, sizeof *events, 64, tag ? -1 : 0, &count);
        if (status != RECONNECT_OK) fail("poll", status, "");
        is_done = count == 0;
        for (size_t i = 0; i < count; i++) {
            handle(&events[i]);
            missing |= events[i].type == RECONNECT_REPLAY_EVENT_GAP;
            if (tag && events[i].tag == tag && events[i].type < RECONNECT_REPLAY_EVENT_MESSAGE) is_done = 1;
        }
        if (count) reconnect_replay_release(replay, events[0].batch);
    }
    if (!missing) return;
    missing = 0;
    for (size_t i = 0; i < member_count; i++) {
        struct member *member = &members[i];
        if (!member->is_connected) continue;
        reconnect_replay_operation_t operation = {.type = RECONNECT_REPLAY_RECOVER, .tag = i + 1};
        operation.room = room, operation.room_size = strlen(room);
        operation.user = member->name, operation.user_size = strlen(member->name);
        operation.generation = member->generation;
        operation.position = member->position, operation.position_size = member->position_size;
        member->is_connected = 0; /* it gets nothing until the outcome, which has it all */
        if (!reconnect_replay_submit(replay, &operation, sizeof operation, 1, NULL, NULL, 0)) take(i + 1);
    }
}

static void handle(const reconnect_replay_event_t *event) {
    struct member *member = event->tag && event->tag <= member_count ? &members[event->tag - 1] : NULL;
    switch (event->type) {
    case RECONNECT_REPLAY_EVENT_MESSAGE: live(event); break;
    case RECONNECT_REPLAY_EVENT_STORE:
        if (event->number >= 0 && event->number <= RECONNECT_STORE_PROBED) printf("store: %s\n", stores[event->number]);
        break;
    case RECONNECT_REPLAY_EVENT_RETURNED: member = find(event->user, event->user_size); /* fallthrough */
    case RECONNECT_REPLAY_JOIN:
    case RECONNECT_REPLAY_RECOVER:
        if (member) connected(member, event);
        break;
    case RECONNECT_REPLAY_PUBLISH:
    case RECONNECT_REPLAY_DROP:
    case RECONNECT_REPLAY_LEAVE:
    case RECONNECT_REPLAY_SUBSCRIBE:
        if (event->status != RECONNECT_OK) {
            printf("%s: %s\n", member ? member->name : room, reconnect_status_name(event->status));
        }
        break;
    default: break;
    }
}

/* One operation of a member, or of the room alone, and its outcome. */
static void perform(uint32_t type, struct member *member, const char *data, int resumes) {
    reconnect_replay_operation_t operation = {.type = type, .tag = MOST_MEMBERS + 1};
    operation.room = room, operation.room_size = strlen(room);
    if (member) {
        operation.tag = (uint64_t)(member - members) + 1;
        operation.user = member->name, operation.user_size = strlen(member->name);
        operation.generation = member->generation;
    }
    if (data) operation.data = data, operation.size = strlen(data);
    if (resumes) {
        operation.flags = RECONNECT_REPLAY_RESUME;
        operation.position = member->position, operation.position_size = member->position_size;
        operation.token = member->token, operation.token_size = member->token_size;
    }
    char detail[256] = "";
    reconnect_status_t status =
        reconnect_replay_submit(replay, &operation, sizeof operation, 1, NULL, detail, sizeof detail);
    if (status != RECONNECT_OK) {
        printf("%s: %s\n", reconnect_status_name(status), detail);
        return;
    }
    take(operation.tag);
}

static void say(char *line) {
    char *colon = strstr(line, ": ");
    size_t size = colon ? (size_t)(colon - line) : 0;
    if (size == 0 || size >= LONGEST_NAME) {
        printf("%s", usage);
        return;
    }
    struct member *member = find(line, size);
    if (!member || !member->token_size) {
        if (!member) {
            if (member_count == MOST_MEMBERS) {
                printf("the room is full\n");
                return;
            }
            member = &members[member_count++];
            memcpy(member->name, line, size);
        }
        perform(RECONNECT_REPLAY_JOIN, member, NULL, 0);
    }
    if (member->is_connected) perform(RECONNECT_REPLAY_PUBLISH, member, line, 0);
    else printf("%s: is not connected\n", member->name);
}

static void command(char *line) {
    char *name = strchr(line, ' ');
    struct member *member = name ? find(name + 1, strlen(name + 1)) : NULL;
    size_t size = name ? (size_t)(name - line) : 0;
    if (line[0] != '/') {
        if (line[0]) say(line);
    } else if (!member) {
        printf("%s", usage);
    } else if (size == 4 && !memcmp(line, "/cut", 4) && member->is_connected) {
        member->is_connected = 0;
        perform(RECONNECT_REPLAY_DROP, member, NULL, 0);
    } else if (size == 5 && !memcmp(line, "/back", 5) && !member->is_connected) {
        perform(RECONNECT_REPLAY_JOIN, member, NULL, 1);
    } else if (size == 6 && !memcmp(line, "/leave", 6) && member->token_size) {
        member->is_connected = 0, member->token_size = member->position_size = 0;
        perform(RECONNECT_REPLAY_LEAVE, member, NULL, 0);
    }
}

int main(int count, char **arguments) {
    static const struct option options[] = {
        {"store", required_argument, NULL, 's'}, {"room", required_argument, NULL, 'r'},
        {"window", required_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'}, {0}};
    reconnect_replay_config_t config = {.struct_size = sizeof config};
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        switch (option) {
        case 's': config.store = optarg; break;
        case 'r': room = optarg; break;
        case 'w': config.window = (uint32_t)strtoul(optarg, NULL, 10); break;
        default: fputs(usage, option == 'h' ? stdout : stderr); return option != 'h';
        }
    }
    char detail[256] = "";
    reconnect_status_t status = reconnect_replay_create(&config, &replay, detail, sizeof detail);
    if (status != RECONNECT_OK) fail("create", status, detail);
    int fd = -1;
    status = reconnect_replay_event_fd(replay, &fd);
    if (status != RECONNECT_OK) fail("event_fd", status, "");
    setlinebuf(stdout);
    perform(RECONNECT_REPLAY_SUBSCRIBE, NULL, NULL, 0); /* before the first join: nothing is in between */

    char line[LONGEST_LINE];
    size_t length = 0;
    for (;;) {
        struct pollfd waiting[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
        if (poll(waiting, 2, -1) < 0) continue;
        if (waiting[1].revents) take(0);
        if (!waiting[0].revents) continue;
        ssize_t got = read(STDIN_FILENO, line + length, sizeof line - 1 - length);
        if (got <= 0) break;
        length += (size_t)got;
        char *start = line;
        for (char *end; (end = memchr(start, '\n', length)); start = end + 1) {
            *end = 0;
            length -= (size_t)(end + 1 - start);
            command(start);
        }
        memmove(line, start, length);
        if (length == sizeof line - 1) length = 0; /* too long to be meant */
    }
    take(0);
    reconnect_replay_destroy(replay);
    return 0;
}
