/* backend.c: the cheapest gRPC server to measure a relay against. One thread, h2c, one answer for all calls.
 *
 *     backend RESPONSE_OCTETS [PORT]
 *
 * Prints its port. Each call is answered, when its END_STREAM has come, with one message of RESPONSE_OCTETS (its
 * prefix included) and grpc-status 0. Header blocks are not decoded; our own are indexed as real servers do it.
 */
#include <fcntl.h>

#include "h2.h"

struct waiting { /* an answer that windows hold back */
    uint32_t stream;
    int64_t window;
    size_t left;
};

struct connection {
    int fd, preface_seen, writing, indexed, update_owed;
    uint32_t ending; /* HEADERS with END_STREAM whose CONTINUATION is to come */
    int64_t window, initial_window;
    uint32_t uncredited;
    struct waiting *waiting;
    size_t waiting_count, waiting_capacity;
    struct queue out;
    struct input in;
};

static size_t response_octets;

/* Our header blocks. `indexed` of a connection says what its dynamic table holds: nothing, content-type, grpc-status
 * too. NO_TABLE is for peers that allow none (nginx); its first block is the size update that they are owed. */
#define CONTENT_TYPE "\x10" "application/grpc"
#define GRPC_STATUS "\x0bgrpc-status\x01" "0"
enum { NO_TABLE = 3 };
static const struct block {
    const char *octets;
    size_t length;
} SIZE_UPDATE = {"\x20", 1}, BLOCKS[][2] = {
#define BLOCK(text) {text, sizeof text - 1}
    {BLOCK("\x88\x5f" CONTENT_TYPE), BLOCK("\x40" GRPC_STATUS)},
    {BLOCK("\x88\xbe"), BLOCK("\x40" GRPC_STATUS)},
    {BLOCK("\x88\xbf"), BLOCK("\xbe")},
    {BLOCK("\x88\x0f\x10" CONTENT_TYPE), BLOCK("\0" GRPC_STATUS)},
};

static void put_block(struct connection *c, uint32_t stream, int trailers) {
    struct block block = BLOCKS[c->indexed][trailers];
    size_t update = c->update_owed ? SIZE_UPDATE.length : 0;
    uint8_t *at = frame(&c->out, (uint32_t)(update + block.length), HEADERS,
                        trailers ? END_HEADERS | END_STREAM : END_HEADERS, stream);
    memcpy(at, SIZE_UPDATE.octets, update);
    memcpy(at + update, block.octets, block.length);
    c->update_owed = 0;
    if (c->indexed < 1 + trailers)
        c->indexed = 1 + trailers;
}

/* Sends what the windows allow; 1 when the answer is complete. */
static int send_answer(struct connection *c, struct waiting *answer) {
    while (answer->left > 0) {
        int64_t room = c->window < answer->window ? c->window : answer->window;
        size_t n = answer->left < MAX_FRAME ? answer->left : MAX_FRAME;
        uint8_t *at;
        if (room <= 0)
            return 0;
        if ((int64_t)n > room)
            n = (size_t)room;
        at = frame(&c->out, (uint32_t)n, DATA, 0, answer->stream);
        memset(at, 0, n);
        if (answer->left == response_octets)
            put32(at + 1, (uint32_t)response_octets - 5); /* n >= 5: no peer starts with so small a window */
        answer->left -= n;
        answer->window -= (int64_t)n;
        c->window -= (int64_t)n;
    }
    put_block(c, answer->stream, 1);
    return 1;
}

static void answer(struct connection *c, uint32_t stream) {
    struct waiting answer = {stream, c->initial_window, response_octets};
    put_block(c, stream, 0);
    if (send_answer(c, &answer))
        return;
    if (c->waiting_count == c->waiting_capacity) {
        c->waiting_capacity = 2 * c->waiting_capacity + 16;
        c->waiting = realloc(c->waiting, c->waiting_capacity * sizeof *c->waiting);
        if (!c->waiting)
            die("realloc");
    }
    c->waiting[c->waiting_count++] = answer;
}

static void resume(struct connection *c) {
    size_t kept = 0;
    for (size_t i = 0; i < c->waiting_count; i++)
        if (!send_answer(c, &c->waiting[i]))
            c->waiting[kept++] = c->waiting[i];
    c->waiting_count = kept;
}

static void settings(struct connection *c, const uint8_t *payload, uint32_t length) {
    for (; length >= 6; payload += 6, length -= 6) {
        if (payload[1] == HEADER_TABLE_SIZE && get32(payload + 2) < 256) {
            c->update_owed = c->indexed != NO_TABLE;
            c->indexed = NO_TABLE;
        }
        if (payload[1] == INITIAL_WINDOW_SIZE) {
            int64_t change = get32(payload + 2) - c->initial_window;
            c->initial_window += change;
            for (size_t i = 0; i < c->waiting_count; i++)
                c->waiting[i].window += change;
        }
    }
    frame(&c->out, 0, SETTINGS, ACK, 0);
    resume(c);
}

static void handle(struct connection *c, uint8_t type, uint8_t flags, uint32_t stream, const uint8_t *payload,
                   uint32_t length) {
    switch (type) {
    case HEADERS:
        if (flags & END_STREAM) {
            if (flags & END_HEADERS)
                answer(c, stream);
            else
                c->ending = stream;
        }
        break;
    case CONTINUATION:
        if (flags & END_HEADERS && c->ending == stream) {
            c->ending = 0;
            answer(c, stream);
        }
        break;
    case DATA:
        c->uncredited += length;
        if (c->uncredited > CONNECTION_WINDOW / 2) {
            window_update(&c->out, 0, c->uncredited);
            c->uncredited = 0;
        }
        if (flags & END_STREAM)
            answer(c, stream);
        break;
    case SETTINGS:
        if (!(flags & ACK))
            settings(c, payload, length);
        break;
    case PING:
        if (!(flags & ACK))
            memcpy(frame(&c->out, 8, PING, ACK, 0), payload, 8);
        break;
    case WINDOW_UPDATE:
        if (stream == 0)
            c->window += get32(payload);
        for (size_t i = 0; i < c->waiting_count; i++)
            if (c->waiting[i].stream == stream)
                c->waiting[i].window += get32(payload);
        resume(c);
        break;
    case RST_STREAM:
        for (size_t i = 0; i < c->waiting_count; i++)
            if (c->waiting[i].stream == stream)
                c->waiting[i] = c->waiting[--c->waiting_count];
        break;
    }
}

static int receive(struct connection *c) {
    size_t at = 0;
    int came = fill(c->fd, &c->in);
    if (came <= 0)
        return came;
    if (!c->preface_seen) {
        if (c->in.length < 24)
            return 0;
        c->preface_seen = 1;
        at = 24;
        send_settings(&c->out);
    }
    while (c->in.length - at >= 9) {
        uint8_t *head = c->in.octets + at;
        uint32_t length = get32(head) >> 8;
        if (length > MAX_FRAME)
            return -1;
        if (c->in.length - at < 9 + length)
            break;
        handle(c, head[3], head[4], get32(head + 5) & 0x7fffffff, head + 9, length);
        at += 9 + length;
    }
    consume(&c->in, at);
    return flush(c->fd, &c->out);
}

int main(int argc, char **argv) {
    struct epoll_event events[64];
    int epoll = epoll_create1(0), listener;
    if (argc < 2 || (response_octets = strtoul(argv[1], NULL, 10)) < 5) {
        fprintf(stderr, "usage: backend RESPONSE_OCTETS [PORT]   (RESPONSE_OCTETS: 5 or more)\n");
        return 2;
    }
    listener = listen_on(argc > 2 ? atoi(argv[2]) : 0);
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        int n = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            int blocked;
            if (!c) {
                int fd = accept(listener, NULL, NULL);
                if (fd < 0)
                    continue;
                fcntl(fd, F_SETFL, O_NONBLOCK);
                no_delay(fd);
                c = calloc(1, sizeof *c);
                if (!c)
                    die("calloc");
                c->fd = fd;
                c->window = c->initial_window = 65535;
                watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
                continue;
            }
            if ((events[i].events & EPOLLOUT && flush(c->fd, &c->out) < 0)
                || (events[i].events & ~(uint32_t)EPOLLOUT && receive(c) < 0)) {
                close(c->fd);
                free(c->out.octets);
                free(c->waiting);
                free(c);
                continue;
            }
            blocked = c->out.start < c->out.end;
            if (blocked != c->writing) {
                c->writing = blocked;
                watch(epoll, EPOLL_CTL_MOD, c->fd, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, c);
            }
        }
    }
}
