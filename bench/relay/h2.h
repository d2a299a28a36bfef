/* h2.h: as much HTTP/2 (RFC 9113) as the bench programs need: octet queues, frames, sockets. No HPACK decoder.
 *
 * The programs are measuring tools: peers are trusted, errors end the program or the connection.
 */
#ifndef BENCH_H2_H
#define BENCH_H2_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum { HEADER_TABLE_SIZE = 1, MAX_CONCURRENT_STREAMS = 3, INITIAL_WINDOW_SIZE = 4 };
enum { READ_SIZE = 1 << 18, MAX_FRAME = 16384, STREAM_WINDOW = 1 << 24, CONNECTION_WINDOW = 1 << 30 };

#define UNUSED __attribute__((unused)) /* not every program needs every function */

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* ===== octets that wait to be sent ===== */

struct queue {
    uint8_t *octets;
    size_t start, end, capacity;
};

UNUSED static uint8_t *reserve(struct queue *q, size_t more) {
    if (q->start == q->end)
        q->start = q->end = 0;
    if (q->end + more > q->capacity) {
        q->capacity = 2 * (q->end + more);
        q->octets = realloc(q->octets, q->capacity);
        if (!q->octets)
            die("realloc");
    }
    q->end += more;
    return q->octets + q->end - more;
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
    return 0;
}

/* ===== octets that came ===== */

struct input {
    uint8_t octets[READ_SIZE];
    size_t length;
};

/* Reads once: 1 something came, 0 nothing now, -1 the end. */
UNUSED static int fill(int fd, struct input *in) {
    ssize_t n = recv(fd, in->octets + in->length, READ_SIZE - in->length, 0);
    if (n > 0)
        in->length += (size_t)n;
    return n > 0 ? 1 : n < 0 && errno == EAGAIN ? 0 : -1;
}

UNUSED static void consume(struct input *in, size_t octets) {
    in->length -= octets;
    memmove(in->octets, in->octets + octets, in->length);
}

/* ===== sockets ===== */

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

UNUSED static void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Listens on a port of the loopback interface (0: any) and prints which. */
UNUSED static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = loopback(port);
    socklen_t length = sizeof address;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 1024))
        die("listen");
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

UNUSED static int connect_to(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback(port);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
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
