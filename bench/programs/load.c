/* load.c: gRPC calls, closed or open loop, and connections that are only held. Every answer is checked (h2.h: PATTERN).
 *
 *     load port=PORT [NAME=VALUE]...
 *
 *     connections=1 streams=1    so many connections, so many streams open on each
 *     calls=N seconds=S          ends after N calls, or begins none after S seconds, whichever is first
 *     rate=R                     open loop: R calls a second on a fixed schedule; latency counts from when a call was
 *                                due, so that a stall is not hidden by the calls that it prevented
 *     request=16 response=16     octets of a message, prefix not counted (a request has 8 or more)
 *     uploads=1 messages=1       messages in each request, in each answer
 *     pings=N                    instead: N messages each way in one call, each sent when the one before was answered
 *     authority=A path=P field=NAME:VALUE...   headers, the same in every call
 *     metadata=1                 ten more fields, three of them new in every call
 *     hold=idle hold=open        one call on each connection, or `streams` calls that stay open; says "ready" when the
 *                                other end has handled it all, and holds them until standard input ends
 *     until=1                    repeats the call on every connection until it succeeds there
 *
 * Prints one JSON object: calls (done), failed, seconds, p50_us, p99_us, p999_us, max_us (of a call; of a message each
 * way with pings), ended (CLOCK_MONOTONIC). A call is good when it ended with trailers and each octet of the answer was
 * as it should be. The status in the trailers is not decoded: what a gateway answers itself has no message.
 */
#include <stdarg.h>
#include <sys/timerfd.h>

#include "h2.h"

enum { MAX_FIELDS = 32, MAX_BLOCK = 4096 };

struct call {
    uint32_t stream; /* 0: none */
    int good;
    int64_t window;
    uint64_t sent, received, started; /* started: microseconds */
    uint32_t uncredited;
};

struct connection {
    int fd, writing, indexed, pinged, succeeded;
    uint32_t next_stream, limit, open, uncredited, ending;
    int64_t window, initial_window;
    struct call *calls;
    struct queue out, in;
};

static int port, streams = 1, connections = 1, metadata, until;
static size_t calls = SIZE_MAX, begun, done, failed, recorded, latency_capacity;
static double seconds = 1e9, rate;
static uint32_t request = 16, response = 16, pings;
static uint64_t uploads = 1, answers = 1, began;
static uint32_t *latencies;
static const char *authority = "bench.example.com", *path = "/bench.Echo/Call", *hold;
static struct {
    int index; /* in the static table; 0: its name is not there */
    const char *name, *value;
} fields[MAX_FIELDS];
static int field_count;
static struct shape request_shape, response_shape;
static uint64_t random_state = 88172645463325252u;
static struct connection **all;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static unsigned long long next_random(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static void record(uint64_t since) {
    if (recorded == latency_capacity) {
        latency_capacity = 2 * latency_capacity + 65536;
        latencies = realloc(latencies, latency_capacity * sizeof *latencies);
        if (!latencies)
            die("realloc");
    }
    latencies[recorded++] = (uint32_t)(now_us() - since);
}

/* ===== headers ===== */

static void add_field(int index, const char *name, const char *value) {
    if (field_count == MAX_FIELDS || strlen(name) > 126 || strlen(value) > 126)
        fail("too many or too long fields: %s", name);
    fields[field_count].index = index;
    fields[field_count].name = name;
    fields[field_count++].value = value;
}

static void choose_fields(void) {
    add_field(4, ":path", path); /* pseudo-header fields come first (RFC 9113 §8.3) */
    add_field(1, ":authority", authority);
    add_field(31, "content-type", "application/grpc");
    add_field(0, "te", "trailers");
    add_field(58, "user-agent", "pygw-bench/1");
}

static void choose_metadata(void) {
    add_field(0, "x-tenant-id", "tenant-4711");
    add_field(0, "x-client-version", "2.41.0");
    add_field(0, "x-region", "eu-central-1");
    add_field(0, "x-environment", "production");
    add_field(0, "x-session", "c2Vzc2lvbi0wMTIzNDU2Nzg5");
    add_field(0, "accept-language", "en-US");
    add_field(23, "authorization", "Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4");
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
    uint8_t block[MAX_BLOCK], *at = block;
    char text[80];
    *at++ = 0x83; /* :method POST */
    *at++ = 0x86; /* :scheme http */
    for (int i = 0; i < field_count; i++)
        if (c->indexed)
            *at++ = (uint8_t)(0x80 | (62 + field_count - 1 - i));
        else
            at = literal(at, 0x40, fields[i].index, fields[i].name, fields[i].value);
    c->indexed = 1;
    if (metadata) {
        snprintf(text, sizeof text, "%um", 60000 + (unsigned)(next_random() % 10000));
        at = literal(at, 0, 0, "grpc-timeout", text);
        snprintf(text, sizeof text, "00-%016llx%016llx-%016llx-01", next_random(), next_random(), next_random());
        at = literal(at, 0, 0, "traceparent", text);
        snprintf(text, sizeof text, "%016llx", next_random());
        at = literal(at, 0, 0, "x-request-id", text);
    }
    memcpy(frame(&c->out, (uint32_t)(at - block), HEADERS, END_HEADERS, stream), block, (size_t)(at - block));
}

/* ===== calls ===== */

static uint64_t request_total(void) { return uploads * (PREFIX + request); }

/* Octets of the request that may be sent by now: all, or with pings one message more than were answered. */
static uint64_t request_due(const struct call *call) {
    uint64_t due = (call->received / (PREFIX + response) + 1) * (PREFIX + request);
    return !pings || due > request_total() ? request_total() : due;
}

static void send_data(struct connection *c, struct call *call) {
    uint64_t due = request_due(call);
    while (call->sent < due) {
        int64_t room = c->window < call->window ? c->window : call->window;
        uint64_t n = due - call->sent < MAX_FRAME ? due - call->sent : MAX_FRAME;
        if (room <= 0 || pending(&c->out) > MAX_OUTPUT)
            return;
        if ((int64_t)n > room)
            n = (uint64_t)room;
        messages(&request_shape, call->sent,
                 frame(&c->out, (uint32_t)n, DATA, call->sent + n == request_total() ? END_STREAM : 0, call->stream), n,
                 0);
        call->sent += n;
        call->window -= (int64_t)n;
        c->window -= (int64_t)n;
    }
}

static void send_waiting(struct connection *c) {
    if (hold && *hold == 'o')
        return;
    for (int i = 0; i < streams; i++)
        if (c->calls[i].stream)
            send_data(c, &c->calls[i]);
}

/* Begins a call where there is room; whether there was. */
static int begin_call(struct connection *c, uint64_t started) {
    if (c->open >= c->limit)
        return 0;
    for (int i = 0; i < streams; i++) {
        struct call *call = &c->calls[i];
        if (call->stream)
            continue;
        *call = (struct call){.stream = c->next_stream, .good = 1, .window = c->initial_window, .started = started};
        c->next_stream += 2;
        c->open++;
        begun++;
        put_headers(c, call->stream);
        if (!hold || *hold != 'o')
            send_data(c, call);
        return 1;
    }
    return 0;
}

static int may_begin(struct connection *c) {
    if (hold)
        return c->next_stream < 2 * (*hold == 'o' ? (uint32_t)streams : 1);
    return !c->succeeded && begun < calls && (double)(now_us() - began) < seconds * 1e6;
}

static struct call *find(struct connection *c, uint32_t stream) {
    for (int i = 0; i < streams && stream; i++)
        if (c->calls[i].stream == stream)
            return &c->calls[i];
    return NULL;
}

static void end(struct connection *c, struct call *call, int good) {
    good = good && call->good && call->received == answers * (PREFIX + response);
    done++;
    failed += !good;
    if (until)
        c->succeeded |= good;
    if (!pings)
        record(call->started);
    if (call->sent < request_total()) /* answered before it was all sent */
        put32(frame(&c->out, 4, RST_STREAM, 0, call->stream), 8);
    call->stream = 0;
    c->open--;
    if (rate == 0)
        while (may_begin(c) && begin_call(c, now_us()))
            continue;
}

/* Begins what is due by the schedule; sets the timer for what is due next. */
static void begin_scheduled(int timer) {
    static int turn;
    uint64_t due = 0;
    while (may_begin(all[0])) {
        int tries = 0;
        due = began + (uint64_t)((double)begun / rate * 1e6);
        if (due > now_us())
            break;
        while (tries < connections && !begin_call(all[(turn + tries) % connections], due))
            tries++;
        if (tries == connections) /* none has room: as soon as one has */
            break;
        turn = (turn + tries + 1) % connections;
    }
    for (int i = 0; i < connections; i++)
        if (!all[i]->writing && flush(all[i]->fd, &all[i]->out) < 0)
            fail("a connection was closed");
    if (due <= now_us())
        due = now_us() + 200;
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &(struct itimerspec){
        .it_value = {(time_t)(due / 1000000), (long)(due % 1000000) * 1000}}, NULL);
}

/* ===== frames ===== */

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
    send_waiting(c);
}

static void data(struct connection *c, struct call *call, const uint8_t *octets, uint32_t length) {
    uint64_t before = call->received / (PREFIX + response);
    credit_window(&c->out, 0, CONNECTION_WINDOW, &c->uncredited, length);
    credit_window(&c->out, call->stream, STREAM_WINDOW, &call->uncredited, length);
    call->good &= messages(&response_shape, call->received, (uint8_t *)octets, length, 1);
    call->received += length;
    if (pings && call->received / (PREFIX + response) > before) {
        record(call->started);
        call->started = now_us();
        send_data(c, call);
    }
}

static int handle(struct connection *c, uint8_t type, uint8_t flags, uint32_t stream, const uint8_t *payload,
                  uint32_t length) {
    struct call *call = find(c, stream);
    switch (type) {
    case HEADERS:
        if (flags & END_STREAM && !(flags & END_HEADERS))
            c->ending = stream;
        else if (flags & END_STREAM && call)
            end(c, call, 1);
        break;
    case CONTINUATION:
        if (flags & END_HEADERS && c->ending == stream && call) {
            c->ending = 0;
            end(c, call, 1);
        }
        break;
    case DATA:
        if (call)
            data(c, call, payload, length);
        if (call && flags & END_STREAM)
            end(c, call, 0);
        break;
    case RST_STREAM:
        if (call)
            end(c, call, 0);
        break;
    case SETTINGS:
        if (!(flags & ACK))
            settings(c, payload, length);
        break;
    case PING:
        if (flags & ACK)
            c->pinged = 2;
        else
            memcpy(frame(&c->out, 8, PING, ACK, 0), payload, 8);
        break;
    case WINDOW_UPDATE:
        if (stream == 0)
            c->window += get32(payload);
        else if (call)
            call->window += get32(payload);
        send_waiting(c);
        break;
    case GOAWAY:
        return -1;
    }
    return 0;
}

static int receive(struct connection *c) {
    size_t at = 0;
    ssize_t length = fill(c->fd, &c->in);
    if (length <= 0)
        return (int)length;
    while ((size_t)length - at >= 9) {
        uint8_t *head = read_buffer + at;
        uint32_t size = get32(head) >> 8;
        if (size > MAX_FRAME || (size_t)length - at < 9 + size)
            break;
        if (handle(c, head[3], head[4], get32(head + 5) & 0x7fffffff, head + 9, size))
            return -1;
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
        if (pending(&c->out) > 0)
            return 0;
        send_waiting(c);
        if (pending(&c->out) == 0)
            return 0;
    }
}

/* ===== the whole ===== */

static struct connection *start(int epoll) {
    struct connection *c = calloc(1, sizeof *c);
    if (!c)
        die("calloc");
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
    while (rate == 0 && may_begin(c) && begin_call(c, now_us()))
        continue;
    flush(c->fd, &c->out);
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
    return c;
}

/* With hold: asks each connection once it has done its part; whether all have answered. */
static int all_held(void) {
    int held = 1;
    for (int i = 0; i < connections; i++) {
        struct connection *c = all[i];
        int settled = *hold == 'o' ? !may_begin(c) : c->open == 0;
        while (*hold == 'o' && may_begin(c) && begin_call(c, now_us()))
            continue;
        if (settled && !c->pinged) {
            memset(frame(&c->out, 8, PING, 0, 0), 0, 8);
            c->pinged = 1;
            flush(c->fd, &c->out);
        }
        held &= c->pinged == 2;
    }
    return held;
}

static int finished(void) {
    if (until) {
        for (int i = 0; i < connections; i++)
            if (!all[i]->succeeded)
                return 0;
        return 1;
    }
    return done == begun && !may_begin(all[0]);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t percentile(double part) {
    return recorded ? latencies[(size_t)((double)(recorded - 1) * part)] : 0;
}

static void report(void) {
    uint64_t ended = now_us();
    if (recorded)
        qsort(latencies, recorded, sizeof *latencies, compare);
    printf("{\"calls\": %zu, \"failed\": %zu, \"seconds\": %.6f, \"p50_us\": %u, \"p99_us\": %u, \"p999_us\": %u, "
           "\"max_us\": %u, \"ended\": %.6f}\n",
           done, failed, (double)(ended - began) / 1e6, percentile(0.5), percentile(0.99), percentile(0.999),
           percentile(1), (double)ended / 1e6);
}

static void take_argument(char *text) {
    char *value = strchr(text, '='), *colon;
    if (!value)
        fail("%s: not NAME=VALUE", text);
    *value++ = 0;
#define NUMBER(name, variable, convert) if (!strcmp(text, name)) variable = convert; else
    NUMBER("port", port, atoi(value))
    NUMBER("connections", connections, atoi(value))
    NUMBER("streams", streams, atoi(value))
    NUMBER("calls", calls, strtoul(value, NULL, 10))
    NUMBER("seconds", seconds, atof(value))
    NUMBER("rate", rate, atof(value))
    NUMBER("request", request, (uint32_t)atoi(value))
    NUMBER("response", response, (uint32_t)atoi(value))
    NUMBER("uploads", uploads, strtoul(value, NULL, 10))
    NUMBER("messages", answers, strtoul(value, NULL, 10))
    NUMBER("pings", pings, (uint32_t)atoi(value))
    NUMBER("authority", authority, value)
    NUMBER("path", path, value)
    NUMBER("metadata", metadata, atoi(value))
    NUMBER("hold", hold, value)
    NUMBER("until", until, atoi(value))
    if (!strcmp(text, "field") && (colon = strchr(value, ':'))) {
        *colon = 0;
        add_field(0, value, colon + 1);
    } else
        fail("%s: no such argument", text);
}

static void prepare(int argc, char **argv) {
    uint8_t order[ORDER];
    choose_fields();
    for (int i = 1; i < argc; i++)
        take_argument(argv[i]);
    fields[0].value = path;
    fields[1].value = authority;
    if (!port || request < ORDER || request > MAX_MESSAGE || response > MAX_MESSAGE || connections < 1 || streams < 1)
        fail("port= is needed; request= is 8 octets or more, request= and response= at most %d", MAX_MESSAGE);
    if (metadata)
        choose_metadata();
    put32(order, response);
    put32(order + 4, pings ? 0 : (uint32_t)answers);
    if (pings)
        uploads = answers = pings;
    make_pattern();
    request_shape = shape_of(request, order, ORDER);
    response_shape = shape_of(response, NULL, 0);
    raise_descriptor_limit();
}

int main(int argc, char **argv) {
    struct epoll_event events[256];
    int epoll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), told = 0;
    prepare(argc, argv);
    all = calloc((size_t)connections, sizeof *all);
    if (!all)
        die("calloc");
    began = now_us();
    for (int i = 0; i < connections; i++)
        all[i] = start(epoll);
    if (rate > 0)
        began = now_us(); /* no call is due before all connections are open */
    if (rate > 0)
        watch(epoll, EPOLL_CTL_ADD, timer, EPOLLIN | EPOLLET, &timer);
    if (hold)
        watch(epoll, EPOLL_CTL_ADD, 0, EPOLLIN, &hold);
    while (hold || !finished()) {
        int n;
        if (rate > 0)
            begin_scheduled(timer);
        n = epoll_wait(epoll, events, 256, told ? -1 : 10000);
        if (n == 0)
            fail("no answer for 10 s; %zu calls begun, %zu done", begun, done);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            int blocked;
            if (events[i].data.ptr == &timer)
                continue;
            if (events[i].data.ptr == &hold) /* standard input has ended */
                return 0;
            if ((events[i].events & ~(uint32_t)EPOLLOUT && receive(c) < 0) || write_out(c) < 0)
                fail("a connection was closed; %zu calls begun, %zu done", begun, done);
            blocked = pending(&c->out) > 0;
            if (blocked != c->writing) {
                c->writing = blocked;
                watch(epoll, EPOLL_CTL_MOD, c->fd, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, c);
            }
        }
        if (hold && !told && (*hold == 'o' || done == (size_t)connections) && all_held()) {
            told = 1;
            puts("ready");
            fflush(stdout);
        }
        if (until)
            usleep(500);
    }
    report();
    return 0;
}
