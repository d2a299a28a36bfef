/* load.c: gRPC calls as fast as they are answered, for machines without h2load, and with headers that change.
 *
 *     load PORT CONNECTIONS STREAMS CALLS REQUEST_OCTETS RESPONSE_OCTETS AUTHORITY PATH VARY
 *
 * CONNECTIONS keep STREAMS calls open each until CALLS are done. A call sends one message of REQUEST_OCTETS and is
 * good if it ends with RESPONSE_OCTETS of DATA and no reset. VARY 1 adds a grpc-timeout, a traceparent and a request
 * id that are new in every call, as real clients send them; h2load repeats its headers exactly, the best case for
 * HPACK. Prints one JSON object: calls, failed, seconds, p50_us, p99_us.
 */
#include <fcntl.h>
#include <time.h>

#include "h2.h"

struct call {
    uint32_t stream; /* 0: none */
    int64_t window;
    size_t left, received;
    uint64_t started;
};

struct connection {
    int fd, writing, indexed;
    uint32_t next_stream, limit, open, uncredited, ending;
    int64_t window, initial_window;
    struct call *calls;
    struct queue out;
    struct input in;
};

static int streams, vary;
static size_t calls, begun, done, failed, request_octets, response_octets;
static uint32_t *latencies;
static const char *authority, *path;
static uint64_t random_state = 88172645463325252u;

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

/* A literal field; `form` 0x40 adds it to the dynamic table, 0 does not. Texts are shorter than 127 octets. */
static uint8_t *literal(uint8_t *at, uint8_t form, int index, const char *name, const char *value) {
    if (index > 0)
        *at++ = (uint8_t)(form | index);
    else {
        *at++ = form;
        *at++ = (uint8_t)strlen(name);
        at = (uint8_t *)stpcpy((char *)at, name);
    }
    *at++ = (uint8_t)strlen(value);
    return (uint8_t *)stpcpy((char *)at, value);
}

static void put_headers(struct connection *c, uint32_t stream) {
    uint8_t block[2048], *at = block;
    char text[80];
    *at++ = 0x83; /* :method POST */
    *at++ = 0x86; /* :scheme http */
    if (!c->indexed) {
        at = literal(at, 0x40, 4, NULL, path);
        at = literal(at, 0x40, 1, NULL, authority);
        at = literal(at, 0x40, 31, NULL, "application/grpc");
        at = literal(at, 0x40, 0, "te", "trailers");
        at = literal(at, 0x40, 58, NULL, "pygw-bench/1");
        c->indexed = 1;
    } else
        for (int index = 66; index >= 62; index--)
            *at++ = (uint8_t)(0x80 | index);
    if (vary) {
        snprintf(text, sizeof text, "%um", 5000 + (unsigned)(next_random() % 1000));
        at = literal(at, 0, 0, "grpc-timeout", text);
        snprintf(text, sizeof text, "00-%016llx%016llx-%016llx-01", (unsigned long long)next_random(),
                 (unsigned long long)next_random(), (unsigned long long)next_random());
        at = literal(at, 0, 0, "traceparent", text);
        snprintf(text, sizeof text, "%016llx", (unsigned long long)next_random());
        at = literal(at, 0, 0, "x-request-id", text);
    }
    memcpy(frame(&c->out, (uint32_t)(at - block), HEADERS, END_HEADERS, stream), block, (size_t)(at - block));
}

static void send_data(struct connection *c, struct call *call) {
    while (call->left > 0) {
        int64_t room = c->window < call->window ? c->window : call->window;
        size_t n = call->left < MAX_FRAME ? call->left : MAX_FRAME;
        uint8_t *at;
        if (room <= 0)
            return;
        if ((int64_t)n > room)
            n = (size_t)room;
        at = frame(&c->out, (uint32_t)n, DATA, n == call->left ? END_STREAM : 0, call->stream);
        memset(at, 0, n);
        if (call->left == request_octets)
            put32(at + 1, (uint32_t)request_octets - 5);
        call->left -= n;
        call->window -= (int64_t)n;
        c->window -= (int64_t)n;
    }
}

static void begin_calls(struct connection *c) {
    for (int i = 0; i < streams && begun < calls && c->open < c->limit; i++) {
        struct call *call = &c->calls[i];
        if (call->stream)
            continue;
        *call = (struct call){c->next_stream, c->initial_window, request_octets, 0, now_us()};
        c->next_stream += 2;
        c->open++;
        begun++;
        put_headers(c, call->stream);
        send_data(c, call);
    }
}

static struct call *find(struct connection *c, uint32_t stream) {
    for (int i = 0; i < streams; i++)
        if (c->calls[i].stream == stream)
            return &c->calls[i];
    return NULL;
}

static void end(struct connection *c, uint32_t stream, int good) {
    struct call *call = stream ? find(c, stream) : NULL;
    if (!call)
        return;
    if (!good || call->received != response_octets)
        failed++;
    latencies[done++] = (uint32_t)(now_us() - call->started);
    if (call->left > 0) /* answered before it was all sent */
        put32(frame(&c->out, 4, RST_STREAM, 0, stream), 8);
    call->stream = 0;
    c->open--;
    begin_calls(c);
}

static void settings(struct connection *c, const uint8_t *payload, uint32_t length) {
    for (; length >= 6; payload += 6, length -= 6) {
        uint32_t value = get32(payload + 2);
        if (payload[1] == MAX_CONCURRENT_STREAMS)
            c->limit = value;
        if (payload[1] == INITIAL_WINDOW_SIZE) {
            for (int i = 0; i < streams; i++)
                c->calls[i].window += (int64_t)value - c->initial_window;
            c->initial_window = value;
        }
    }
    frame(&c->out, 0, SETTINGS, ACK, 0);
}

static void data(struct connection *c, uint8_t flags, uint32_t stream, uint32_t length) {
    struct call *call = find(c, stream);
    c->uncredited += length;
    if (c->uncredited > CONNECTION_WINDOW / 2) {
        window_update(&c->out, 0, c->uncredited);
        c->uncredited = 0;
    }
    if (call)
        call->received += length;
    if (flags & END_STREAM)
        end(c, stream, 1);
}

static int handle(struct connection *c, uint8_t type, uint8_t flags, uint32_t stream, const uint8_t *payload,
                  uint32_t length) {
    switch (type) {
    case HEADERS:
        if (flags & END_STREAM && !(flags & END_HEADERS))
            c->ending = stream;
        else if (flags & END_STREAM)
            end(c, stream, 1);
        break;
    case CONTINUATION:
        if (flags & END_HEADERS && c->ending == stream) {
            c->ending = 0;
            end(c, stream, 1);
        }
        break;
    case DATA:
        data(c, flags, stream, length);
        break;
    case RST_STREAM:
        end(c, stream, 0);
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
        for (int i = 0; i < streams; i++) {
            if (c->calls[i].stream && c->calls[i].stream == stream)
                c->calls[i].window += get32(payload);
            if (c->calls[i].stream && (stream == 0 || c->calls[i].stream == stream))
                send_data(c, &c->calls[i]);
        }
        break;
    case GOAWAY:
        return -1;
    }
    return 0;
}

static int receive(struct connection *c) {
    size_t at = 0;
    int came = fill(c->fd, &c->in);
    if (came <= 0)
        return came;
    while (c->in.length - at >= 9) {
        uint8_t *head = c->in.octets + at;
        uint32_t length = get32(head) >> 8;
        if (length > MAX_FRAME || c->in.length - at < 9 + length)
            break;
        if (handle(c, head[3], head[4], get32(head + 5) & 0x7fffffff, head + 9, length))
            return -1;
        at += 9 + length;
    }
    consume(&c->in, at);
    return flush(c->fd, &c->out);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void start(struct connection *c, int epoll, int port) {
    c->fd = connect_to(port);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->limit = (uint32_t)streams;
    c->next_stream = 1;
    c->window = c->initial_window = 65535;
    c->calls = calloc((size_t)streams, sizeof *c->calls);
    if (!c->calls)
        die("calloc");
    memcpy(reserve(&c->out, 24), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    send_settings(&c->out);
    begin_calls(c);
    flush(c->fd, &c->out);
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
}

int main(int argc, char **argv) {
    struct epoll_event events[64];
    int epoll = epoll_create1(0), connections;
    uint64_t began;
    if (argc != 10 || strtoul(argv[5], NULL, 10) < 5) {
        fprintf(stderr, "usage: load PORT CONNECTIONS STREAMS CALLS REQUEST_OCTETS RESPONSE_OCTETS AUTHORITY PATH VARY\n");
        return 2;
    }
    connections = atoi(argv[2]);
    streams = atoi(argv[3]);
    calls = strtoul(argv[4], NULL, 10);
    request_octets = strtoul(argv[5], NULL, 10);
    response_octets = strtoul(argv[6], NULL, 10);
    authority = argv[7];
    path = argv[8];
    vary = atoi(argv[9]);
    latencies = calloc(calls + 1, sizeof *latencies);
    began = now_us();
    for (int i = 0; i < connections; i++) {
        struct connection *c = calloc(1, sizeof *c);
        if (!c || !latencies)
            die("calloc");
        start(c, epoll, atoi(argv[1]));
    }
    while (done < calls) {
        int n = epoll_wait(epoll, events, 64, 10000);
        if (n == 0) {
            fprintf(stderr, "load: no answer for 10 s, %zu of %zu calls done\n", done, calls);
            return 1;
        }
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            int blocked;
            if ((events[i].events & EPOLLOUT && flush(c->fd, &c->out) < 0)
                || (events[i].events & ~(uint32_t)EPOLLOUT && receive(c) < 0)) {
                fprintf(stderr, "load: a connection was closed, %zu of %zu calls done\n", done, calls);
                return 1;
            }
            blocked = c->out.start < c->out.end;
            if (blocked != c->writing) {
                c->writing = blocked;
                watch(epoll, EPOLL_CTL_MOD, c->fd, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, c);
            }
        }
    }
    began = now_us() - began;
    qsort(latencies, done, sizeof *latencies, compare);
    printf("{\"calls\": %zu, \"failed\": %zu, \"seconds\": %.3f, \"p50_us\": %u, \"p99_us\": %u}\n", done, failed,
           (double)began / 1e6, latencies[done / 2], latencies[done * 99 / 100]);
    return 0;
}
