/* backend.c: the cheapest gRPC server to measure a relay against. One thread, h2c; the request says what it wants.
 *
 *     backend
 *
 * Prints its port. Each call is answered as its ORDER (h2.h) says, and with grpc-status 0; a request whose octets are
 * not what a client of ours sent is reset (INTERNAL_ERROR), so that the client counts it as failed. Header blocks are
 * not decoded; our own are indexed as real servers do it.
 */
#include "h2.h"

struct stream {
    uint32_t id; /* 0: none */
    int ended, answering;
    uint8_t start[PREFIX + ORDER];
    struct shape request, answer;
    uint64_t received, wanted, sent; /* octets of messages; wanted: so far */
    int64_t window;
    uint32_t uncredited;
};

struct connection {
    int fd, preface_seen, writing, indexed, update_owed;
    int held_back;   /* some answer waits for a window or for room in the output */
    uint32_t ending; /* HEADERS with END_STREAM whose CONTINUATION is to come */
    int64_t window, initial_window;
    uint32_t uncredited;
    struct stream *streams; /* by id / 2 modulo their number, which doubles when two would meet */
    uint32_t stream_count;
    struct queue out, in;
};

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

static struct stream *find(struct connection *c, uint32_t id) {
    struct stream *s = c->stream_count ? &c->streams[id / 2 % c->stream_count] : NULL;
    return s && s->id == id && id ? s : NULL;
}

static struct stream *open_stream(struct connection *c, uint32_t id) {
    struct stream *s;
    while (c->stream_count == 0 || c->streams[id / 2 % c->stream_count].id) {
        struct stream *old = c->streams;
        uint32_t old_count = c->stream_count;
        c->stream_count = old_count ? 2 * old_count : 2;
        c->streams = calloc(c->stream_count, sizeof *s);
        if (!c->streams)
            die("calloc");
        for (uint32_t i = 0; i < old_count; i++)
            if (old[i].id)
                c->streams[old[i].id / 2 % c->stream_count] = old[i];
        free(old);
    }
    s = &c->streams[id / 2 % c->stream_count];
    *s = (struct stream){.id = id, .window = c->initial_window};
    return s;
}

static void reset(struct connection *c, struct stream *s) {
    put32(frame(&c->out, 4, RST_STREAM, 0, s->id), 2);
    s->id = 0;
}

/* Sends what is wanted and allowed, and the trailers behind the last of it. */
static void send_answer(struct connection *c, struct stream *s) {
    if (!s->answering && (s->wanted > 0 || s->ended)) {
        s->answering = 1;
        put_block(c, s->id, 0);
    }
    while (s->sent < s->wanted) {
        int64_t room = c->window < s->window ? c->window : s->window;
        uint64_t n = s->wanted - s->sent < MAX_FRAME ? s->wanted - s->sent : MAX_FRAME;
        if (room <= 0 || pending(&c->out) > MAX_OUTPUT) {
            c->held_back = 1;
            return;
        }
        if ((int64_t)n > room)
            n = (uint64_t)room;
        messages(&s->answer, s->sent, frame(&c->out, (uint32_t)n, DATA, 0, s->id), n, 0);
        s->sent += n;
        s->window -= (int64_t)n;
        c->window -= (int64_t)n;
    }
    if (s->ended) {
        put_block(c, s->id, 1);
        s->id = 0;
    }
}

static void resume(struct connection *c) {
    if (!c->held_back)
        return;
    c->held_back = 0;
    for (uint32_t i = 0; i < c->stream_count; i++)
        if (c->streams[i].id && (c->streams[i].answering || c->streams[i].ended))
            send_answer(c, &c->streams[i]);
}

static uint32_t order_of(const struct stream *s, int which) { return get32(s->start + PREFIX + 4 * which); }

static struct shape answer_shape(const struct stream *s) {
    uint32_t size = order_of(s, 0);
    if (s->start[PREFIX] == BYTES_FIELD_1) {
        size &= 0xffff;
        if (size >= FIELD_HEAD && size - FIELD_HEAD <= MAX_FIELD)
            return shape_of(size, (uint8_t[]){BYTES_FIELD_1, (uint8_t)(size - FIELD_HEAD)}, FIELD_HEAD);
    }
    return shape_of(size, NULL, 0);
}

/* What is to be answered to what has come. */
static void want(struct stream *s) {
    uint64_t count = order_of(s, 1);
    if (count == 0)
        count = s->received / (PREFIX + s->request.size);
    s->wanted = count * (PREFIX + s->answer.size);
}

/* The end of the request. */
static void end(struct connection *c, struct stream *s) {
    s->ended = 1;
    if (s->received < sizeof s->start || s->received % (PREFIX + s->request.size)) {
        reset(c, s);
        return;
    }
    want(s);
    send_answer(c, s);
}

static void credit(struct connection *c, struct stream *s, uint32_t length) {
    credit_window(&c->out, 0, CONNECTION_WINDOW, &c->uncredited, length);
    credit_window(&c->out, s->id, STREAM_WINDOW, &s->uncredited, length);
}

static void data(struct connection *c, struct stream *s, const uint8_t *octets, uint32_t length, int last) {
    uint32_t known = length;
    if (s->received < sizeof s->start) { /* the order is not complete yet */
        if (known > sizeof s->start - s->received)
            known = (uint32_t)(sizeof s->start - s->received);
        memcpy(s->start + s->received, octets, known);
        s->received += known;
        octets += known;
        if (s->received == sizeof s->start) {
            s->request = shape_of(get32(s->start + 1), s->start + PREFIX, ORDER);
            s->answer = answer_shape(s);
        }
        known = length - known;
    }
    if (known > 0 && !messages(&s->request, s->received, (uint8_t *)octets, known, 1)) {
        reset(c, s);
        return;
    }
    s->received += known;
    credit(c, s, length);
    if (last)
        end(c, s);
    else if (s->received >= sizeof s->start && order_of(s, 1) == 0) {
        want(s);
        send_answer(c, s);
    }
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
            for (uint32_t i = 0; i < c->stream_count; i++)
                c->streams[i].window += change;
        }
    }
    frame(&c->out, 0, SETTINGS, ACK, 0);
    resume(c);
}

static void handle(struct connection *c, uint8_t type, uint8_t flags, uint32_t id, const uint8_t *payload,
                   uint32_t length) {
    struct stream *s = find(c, id);
    switch (type) {
    case HEADERS:
        if (!s)
            s = open_stream(c, id);
        if (flags & END_STREAM && flags & END_HEADERS)
            end(c, s);
        else if (flags & END_STREAM)
            c->ending = id;
        break;
    case CONTINUATION:
        if (flags & END_HEADERS && c->ending == id && s) {
            c->ending = 0;
            end(c, s);
        }
        break;
    case DATA:
        if (s)
            data(c, s, payload, length, flags & END_STREAM);
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
        if (id == 0)
            c->window += get32(payload);
        else if (s)
            s->window += get32(payload);
        resume(c);
        break;
    case RST_STREAM:
        if (s)
            s->id = 0;
        break;
    }
}

/* Reads once and handles the whole frames; -1: the connection is over. */
static int receive(struct connection *c) {
    size_t at = 0;
    ssize_t length = fill(c->fd, &c->in);
    if (length <= 0)
        return (int)length;
    if (!c->preface_seen && length >= 24) {
        c->preface_seen = 1;
        at = 24;
        send_settings(&c->out);
    }
    while (c->preface_seen && (size_t)length - at >= 9) {
        uint8_t *head = read_buffer + at;
        uint32_t size = get32(head) >> 8;
        if (size > MAX_FRAME)
            return -1;
        if ((size_t)length - at < 9 + size)
            break;
        handle(c, head[3], head[4], get32(head + 5) & 0x7fffffff, head + 9, size);
        at += 9 + size;
    }
    keep(&c->in, at, (size_t)length);
    return 0;
}

/* Writes what there is, and what comes into being as room appears. */
static int write_out(struct connection *c) {
    for (;;) {
        if (flush(c->fd, &c->out) < 0)
            return -1;
        if (pending(&c->out) > 0 || !c->held_back)
            return 0;
        resume(c);
        if (pending(&c->out) == 0)
            return 0;
    }
}

static void accept_one(int epoll, int listener) {
    struct connection *c;
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        return;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    no_delay(fd);
    c = calloc(1, sizeof *c);
    if (!c)
        die("calloc");
    c->fd = fd;
    c->window = c->initial_window = 65535;
    watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
}

int main(void) {
    struct epoll_event events[64];
    int epoll = epoll_create1(0), listener;
    raise_descriptor_limit();
    make_pattern();
    listener = listen_and_tell();
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        int n = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            int blocked;
            if (!c) {
                accept_one(epoll, listener);
                continue;
            }
            if ((events[i].events & ~(uint32_t)EPOLLOUT && receive(c) < 0) || write_out(c) < 0) {
                close(c->fd);
                free(c->out.octets);
                free(c->in.octets);
                free(c->streams);
                free(c);
                continue;
            }
            blocked = pending(&c->out) > 0;
            if (blocked != c->writing) {
                c->writing = blocked;
                watch(epoll, EPOLL_CTL_MOD, c->fd, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, c);
            }
        }
    }
}
