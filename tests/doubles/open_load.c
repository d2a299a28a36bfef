/* open_load.c: gRPC calls at a given rate, whether they are answered or not, as a crowd of clients sends them.
 *
 *     open_load PORT CONNECTIONS OCTETS AUTHORITY PATH PHASE...
 *
 * A PHASE is RATE:SECONDS, or =OPEN:SECONDS, which keeps OPEN calls open instead: so capacity is measured. A call has
 * the field x-load with OCTETS octets "a", one octet on the wire from the second call on: what a gateway does with it
 * costs us nothing. Its latency counts from when it was due. Prints a JSON object a phase: offered, good (answered with DATA), shed (answered without), failed
 * (reset), p50_us and p99_us of the good ones, last_shed_ms (when the last one was shed, from the begin; -1: none).
 */
#include "h2.h"

/* SLOTS: more than a connection may have open. MAX_OCTETS: what fits into a table of 4,096 beside the other fields. */
enum { SLOTS = 1 << 16, MAX_CONNECTIONS = 64, MAX_OCTETS = 3500, ANSWER = 16 };

struct connection {
    int fd, indexed;
    uint32_t next_stream, limit, open, uncredited;
    int64_t window;
    struct {
        uint64_t due;
        size_t received;
        uint8_t phase;
    } calls[SLOTS]; /* by stream id / 2 */
    struct queue out, kept;
};

static struct phase {
    double rate, seconds;
    uint32_t keep_open;
    uint64_t begun, last_shed;
    size_t offered, good, shed, failed;
    uint32_t *latencies;
    size_t capacity;
} phases[8];

static int connections, octets, current, unfinished;
static const char *authority, *path;

/* A literal field that goes into the dynamic table (RFC 7541 6.2.1). */
static uint8_t *literal(uint8_t *at, int index, const char *name, const char *value) {
    size_t length = strlen(value);
    *at++ = (uint8_t)(0x40 | index);
    if (!index) {
        *at++ = (uint8_t)strlen(name);
        at = (uint8_t *)stpcpy((char *)at, name);
    }
    if (length < 127)
        *at++ = (uint8_t)length;
    else {
        *at++ = 127;
        for (length -= 127; length >= 128; length /= 128)
            *at++ = (uint8_t)(length % 128 + 128);
        *at++ = (uint8_t)length;
    }
    return (uint8_t *)stpcpy((char *)at, value);
}

static void begin(struct connection *c, uint64_t due) {
    static char value[MAX_OCTETS + 1];
    uint8_t block[2 * MAX_OCTETS], *at = block, *body;
    uint32_t stream = c->next_stream;
    *at++ = 0x83; /* :method POST */
    *at++ = 0x86; /* :scheme http */
    if (!c->indexed) {
        at = literal(at, 4, NULL, path);
        at = literal(at, 1, NULL, authority);
        at = literal(at, 31, NULL, "application/grpc");
        at = literal(at, 0, "te", "trailers");
        memset(value, 'a', (size_t)octets);
        at = literal(at, 0, "x-load", value);
        c->indexed = 1;
    } else
        for (int index = 66; index >= 62; index--)
            *at++ = (uint8_t)(0x80 | index);
    memcpy(frame(&c->out, (uint32_t)(at - block), HEADERS, END_HEADERS, stream), block, (size_t)(at - block));
    body = frame(&c->out, PREFIX + ORDER, DATA, END_STREAM, stream);
    body[0] = 0;
    put32(body + 1, ORDER);
    put32(body + PREFIX, ANSWER);
    put32(body + PREFIX + 4, 1);
    c->window -= PREFIX + ORDER;
    c->next_stream += 2;
    c->open++;
    unfinished++;
    c->calls[stream / 2 % SLOTS].due = due;
    c->calls[stream / 2 % SLOTS].received = 0;
    c->calls[stream / 2 % SLOTS].phase = (uint8_t)current;
}

static void end(struct connection *c, uint32_t stream, int reset) {
    struct phase *phase = &phases[c->calls[stream / 2 % SLOTS].phase];
    uint64_t now = now_us();
    if (!c->calls[stream / 2 % SLOTS].due) /* RST_STREAM (NO_ERROR) behind an answer that came before the request's end */
        return;
    unfinished--;
    if (reset)
        phase->failed++;
    else if (!c->calls[stream / 2 % SLOTS].received) {
        phase->shed++;
        phase->last_shed = now;
    } else {
        if (phase->good == phase->capacity) {
            phase->capacity = phase->capacity ? 2 * phase->capacity : 1 << 16;
            phase->latencies = realloc(phase->latencies, phase->capacity * sizeof *phase->latencies);
            if (!phase->latencies)
                die("realloc");
        }
        phase->latencies[phase->good++] = (uint32_t)(now - c->calls[stream / 2 % SLOTS].due);
    }
    c->calls[stream / 2 % SLOTS].due = 0;
    c->open--;
}

static int handle(struct connection *c, uint8_t type, uint8_t flags, uint32_t stream, const uint8_t *payload,
                  uint32_t length) {
    if (type == SETTINGS && !(flags & ACK)) {
        for (; length >= 6; payload += 6, length -= 6)
            if (payload[1] == MAX_CONCURRENT_STREAMS)
                c->limit = get32(payload + 2);
        frame(&c->out, 0, SETTINGS, ACK, 0);
    } else if (type == PING && !(flags & ACK))
        memcpy(frame(&c->out, 8, PING, ACK, 0), payload, 8);
    else if (type == WINDOW_UPDATE && stream == 0)
        c->window += get32(payload);
    else if (type == DATA) {
        c->calls[stream / 2 % SLOTS].received += length;
        credit_window(&c->out, 0, CONNECTION_WINDOW, &c->uncredited, length);
    } else if (type == HEADERS && flags & END_STREAM)
        end(c, stream, 0);
    else if (type == RST_STREAM)
        end(c, stream, 1);
    return type == GOAWAY ? -1 : 0;
}

static int receive(struct connection *c) {
    size_t at = 0;
    ssize_t came = fill(c->fd, &c->kept);
    if (came <= 0)
        return (int)came;
    while ((size_t)came - at >= 9) {
        uint8_t *head = read_buffer + at;
        uint32_t length = get32(head) >> 8;
        if (length > MAX_FRAME || (size_t)came - at < 9 + length)
            break;
        if (handle(c, head[3], head[4], get32(head + 5) & 0x7fffffff, head + 9, length))
            return -1;
        at += 9 + length;
    }
    keep(&c->kept, at, (size_t)came);
    return 0;
}

/* Begins what is due, on one connection after the other, as far as their stream limits go. */
static void begin_due(struct connection **all) {
    static int turn;
    struct phase *phase = &phases[current];
    uint64_t now = now_us();
    for (;;) {
        uint64_t due = phase->keep_open ? now : phase->begun + (uint64_t)((double)phase->offered * 1e6 / phase->rate);
        int tried = 0;
        if (phase->keep_open ? (uint32_t)unfinished >= phase->keep_open : due > now)
            return;
        while (all[turn]->open >= all[turn]->limit || all[turn]->window < PREFIX + ORDER) {
            turn = (turn + 1) % connections;
            if (++tried == connections)
                return;
        }
        begin(all[turn], due);
        phase->offered++;
        turn = (turn + 1) % connections;
    }
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print(const struct phase *phase) {
    size_t n = phase->good;
    qsort(phase->latencies, n, sizeof *phase->latencies, compare);
    printf("{\"offered\": %zu, \"good\": %zu, \"shed\": %zu, \"failed\": %zu, \"p50_us\": %u, \"p99_us\": %u, "
           "\"last_shed_ms\": %lld}\n",
           phase->offered, n, phase->shed, phase->failed, n ? phase->latencies[n / 2] : 0,
           n ? phase->latencies[n * 99 / 100] : 0,
           phase->last_shed ? (long long)(phase->last_shed - phase->begun) / 1000 : -1);
}

static void start(struct connection *c, int epoll, int port) {
    c->fd = connect_to(port);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->limit = 100;
    c->next_stream = 1;
    c->window = 65535;
    memcpy(reserve(&c->out, 24), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    send_settings(&c->out);
    if (flush(c->fd, &c->out) < 0)
        die("flush");
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
}

int main(int argc, char **argv) {
    struct connection *all[MAX_CONNECTIONS];
    struct epoll_event events[MAX_CONNECTIONS];
    int epoll = epoll_create1(0), count = argc - 6;
    uint64_t give_up = 0;
    if (count < 1 || count > 8 || atoi(argv[2]) > MAX_CONNECTIONS || atoi(argv[3]) > MAX_OCTETS) {
        fprintf(stderr, "usage: open_load PORT CONNECTIONS OCTETS AUTHORITY PATH PHASE...\n");
        return 2;
    }
    connections = atoi(argv[2]);
    octets = atoi(argv[3]);
    authority = argv[4];
    path = argv[5];
    for (int i = 0; i < count; i++) {
        const char *text = argv[6 + i];
        if (*text == '=')
            phases[i].keep_open = (uint32_t)atoi(text + 1);
        else
            phases[i].rate = atof(text);
        phases[i].seconds = atof(strchr(text, ':') + 1);
    }
    for (int i = 0; i < connections; i++) {
        all[i] = calloc(1, sizeof *all[i]);
        if (!all[i])
            die("calloc");
        start(all[i], epoll, atoi(argv[1]));
    }
    phases[0].begun = now_us();
    while (current < count || unfinished > 0) {
        uint64_t now = now_us();
        int n;
        if (current < count && now - phases[current].begun >= (uint64_t)(phases[current].seconds * 1e6)) {
            if (++current < count)
                phases[current].begun = now;
            give_up = now + 10000000;
        }
        if (current < count)
            begin_due(all);
        else if (now > give_up)
            break;
        for (int i = 0; i < connections; i++)
            if (flush(all[i]->fd, &all[i]->out) < 0)
                die("a connection was closed");
        n = epoll_wait(epoll, events, MAX_CONNECTIONS, 1);
        for (int i = 0; i < n; i++)
            if (receive(events[i].data.ptr) < 0)
                die("a connection was closed");
    }
    for (int i = 0; i < count; i++)
        print(&phases[i]);
    return 0;
}
