/* h2.h: as much HTTP/2 (RFC 9113) as the bench programs need: octet queues, frames, sockets. No HPACK decoder.
 *
 * The programs are measuring tools: peers are trusted, errors end the program or the connection.
 *
 * What is asked of the backend is said by the request itself, so that one backend serves every scenario: the payload
 * of each request message begins with an ORDER, two numbers of 32 bits. All else in a message is PATTERN, by which
 * both ends see that nothing was lost, repeated or mixed up.
 *   octets of the answer's messages, without their prefix of 5
 *   how many of them when the request has ended; 0: one for each message of the request, as it comes (ping-pong)
 * A client that insists on protobuf (ghz) sends messages with one field, number 1, of bytes. Their first octets are
 * the field's tag and length, and the size of the answer is what is left of the ORDER's first number: its lower
 * 16 bits. The answer begins with such a field too.
 */
#ifndef BENCH_H2_H
#define BENCH_H2_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum { HEADER_TABLE_SIZE = 1, MAX_CONCURRENT_STREAMS = 3, INITIAL_WINDOW_SIZE = 4 };
enum { READ_SIZE = 1 << 18, MAX_FRAME = 16384, STREAM_WINDOW = 1 << 22, CONNECTION_WINDOW = 1 << 30 };
enum { MAX_OUTPUT = 1 << 18 }; /* octets that one connection has waiting before DATA stops being made */
enum { PREFIX = 5, ORDER = 8, MAX_MESSAGE = 1 << 20 };
enum { BYTES_FIELD_1 = 0x0a, FIELD_HEAD = 2, MAX_FIELD = 127 }; /* protobuf's wire format: tag, length in one octet */

#define UNUSED __attribute__((unused)) /* not every program needs every function */

UNUSED static void die(const char *what) {
    perror(what);
    exit(1);
}

UNUSED static void put32(uint8_t *at, uint32_t value) {
    value = htonl(value);
    memcpy(at, &value, 4);
}

UNUSED static uint32_t get32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return ntohl(value);
}

UNUSED static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ===== octets that wait to be sent ===== */

struct queue {
    uint8_t *octets;
    size_t start, end, capacity;
};

UNUSED static size_t pending(const struct queue *q) { return q->end - q->start; }

UNUSED static uint8_t *reserve(struct queue *q, size_t more) {
    if (q->start == q->end)
        q->start = q->end = 0;
    if (q->end + more > q->capacity && q->start > 0) {
        memmove(q->octets, q->octets + q->start, pending(q));
        q->end -= q->start;
        q->start = 0;
    }
    if (q->end + more > q->capacity) {
        q->capacity = 2 * (q->end + more);
        q->octets = realloc(q->octets, q->capacity);
        if (!q->octets)
            die("realloc");
    }
    q->end += more;
    return q->octets + q->end - more;
}

/* Appends a frame's head and returns where its payload goes. */
UNUSED static uint8_t *frame(struct queue *q, uint32_t length, uint8_t type, uint8_t flags, uint32_t stream) {
    uint8_t *at = reserve(q, 9 + length);
    put32(at, length << 8 | type);
    at[4] = flags;
    put32(at + 5, stream);
    return at + 9;
}

UNUSED static void window_update(struct queue *q, uint32_t stream, uint32_t octets) {
    put32(frame(q, 4, WINDOW_UPDATE, 0, stream), octets);
}

/* So many octets of DATA were read: gives them back when they have come to half of the window. */
UNUSED static void credit_window(struct queue *q, uint32_t stream, uint32_t window, uint32_t *uncredited,
                                 uint32_t length) {
    *uncredited += length;
    if (*uncredited > window / 2) {
        window_update(q, stream, *uncredited);
        *uncredited = 0;
    }
}

/* SETTINGS with large windows, so that nobody waits for us. */
UNUSED static void send_settings(struct queue *q) {
    uint8_t *at = frame(q, 6, SETTINGS, 0, 0);
    at[0] = 0;
    at[1] = INITIAL_WINDOW_SIZE;
    put32(at + 2, STREAM_WINDOW);
    window_update(q, 0, CONNECTION_WINDOW - 65535);
}

/* Sends what it can; -1: the connection is broken. */
UNUSED static int flush(int fd, struct queue *q) {
    while (q->start < q->end) {
        ssize_t n = send(fd, q->octets + q->start, q->end - q->start, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        q->start += (size_t)n;
    }
    if (q->capacity > 4 * MAX_OUTPUT) {
        free(q->octets);
        *q = (struct queue){0};
    }
    return 0;
}

/* ===== octets that came ===== */

/* One buffer for all connections; a connection keeps only the beginning of a frame whose rest has not come. */
UNUSED static uint8_t read_buffer[READ_SIZE];

/* Reads once, behind what was kept: the octets in read_buffer, 0 nothing now, -1 the end. */
UNUSED static ssize_t fill(int fd, struct queue *kept) {
    size_t before = pending(kept);
    ssize_t n;
    if (before > 0)
        memcpy(read_buffer, kept->octets + kept->start, before);
    n = recv(fd, read_buffer + before, READ_SIZE - before, 0);
    if (n <= 0)
        return n < 0 && errno == EAGAIN ? 0 : -1;
    free(kept->octets);
    *kept = (struct queue){0};
    return (ssize_t)before + n;
}

UNUSED static void keep(struct queue *kept, size_t from, size_t to) {
    if (from < to)
        memcpy(reserve(kept, to - from), read_buffer + from, to - from);
}

/* ===== messages ===== */

UNUSED static uint8_t pattern[PREFIX + MAX_MESSAGE];

UNUSED static void make_pattern(void) {
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i * 131 + (i >> 8) * 17);
}

/* What all messages of one kind look like: the octets before PATTERN. */
struct shape {
    uint32_t size; /* octets of a message, without its prefix */
    uint8_t head[PREFIX + ORDER];
    uint32_t head_length;
};

/* Messages of `size` octets that begin with the `length` octets at `start`: an ORDER, a field's head, or nothing. */
UNUSED static struct shape shape_of(uint32_t size, const uint8_t *start, uint32_t length) {
    struct shape shape = {.size = size, .head_length = PREFIX + length};
    put32(shape.head + 1, size);
    if (length > 0)
        memcpy(shape.head + PREFIX, start, length);
    return shape;
}

/* Calls for each contiguous piece of the octets [from, from + n) of an endless sequence of such messages: writes it
 * (check 0) or compares it (check 1); returns whether all were as they should be. */
UNUSED static int messages(const struct shape *shape, uint64_t from, uint8_t *at, size_t n, int check) {
    size_t period = PREFIX + shape->size, offset = from % period;
    while (n > 0) {
        const uint8_t *source = offset < shape->head_length ? shape->head + offset : pattern + offset;
        size_t piece = (offset < shape->head_length ? shape->head_length : period) - offset;
        if (piece > n)
            piece = n;
        if (!check)
            memcpy(at, source, piece);
        else if (memcmp(at, source, piece))
            return 0;
        at += piece;
        n -= piece;
        offset = (offset + piece) % period;
    }
    return 1;
}

/* ===== sockets ===== */

UNUSED static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

UNUSED static void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* As many descriptors as the machine lets us have: some scenarios hold 10,000 connections. */
UNUSED static void raise_descriptor_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Listens on a free port of the loopback interface and prints which. */
UNUSED static int listen_and_tell(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 4096))
        die("listen");
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

UNUSED static int connect_to(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback(port);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        die("connect");
    no_delay(fd);
    return fd;
}

UNUSED static void watch(int epoll, int operation, int fd, uint32_t events, void *data) {
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll, operation, fd, &event))
        die("epoll_ctl");
}

#endif
