/* tcp_relay.c: the floor. Copies octets between each accepted connection and one to a backend; one thread.
 *
 *     tcp_relay BACKEND_PORT
 *
 * Prints its port. What no relay of any protocol can do without: one receive and one send for each batch.
 */
#include "h2.h"

struct end {
    int fd, writing, closed;
    struct end *other, *next; /* next: closed in this round */
    struct queue out;
};

static uint8_t octets[READ_SIZE];

static struct end *make_end(int epoll, int fd) {
    struct end *end = calloc(1, sizeof *end);
    if (!end)
        die("calloc");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    no_delay(fd);
    end->fd = fd;
    watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, end);
    return end;
}

/* Reading stops while the other side is not taking: that is all the flow control there is. */
static void choose_events(int epoll, struct end *end) {
    int writing = end->out.start < end->out.end;
    uint32_t events = (writing ? EPOLLOUT : 0) | (end->other->out.start < end->other->out.end ? 0 : EPOLLIN);
    end->writing = writing;
    watch(epoll, EPOLL_CTL_MOD, end->fd, events, end);
}

static int copy(struct end *from) {
    ssize_t n = recv(from->fd, octets, sizeof octets, 0), sent;
    if (n <= 0)
        return n < 0 && errno == EAGAIN ? 0 : -1;
    sent = send(from->other->fd, octets, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return -1;
    if (sent < 0)
        sent = 0;
    if (sent < n)
        memcpy(reserve(&from->other->out, (size_t)(n - sent)), octets + sent, (size_t)(n - sent));
    return 0;
}

int main(int argc, char **argv) {
    struct epoll_event events[64];
    int epoll = epoll_create1(0), listener;
    if (argc < 2) {
        fprintf(stderr, "usage: tcp_relay BACKEND_PORT\n");
        return 2;
    }
    raise_descriptor_limit();
    listener = listen_and_tell();
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        struct end *closed = NULL;
        int n = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            struct end *end = events[i].data.ptr;
            int was_writing, other_was;
            if (!end) {
                int fd = accept(listener, NULL, NULL);
                if (fd < 0)
                    continue;
                end = make_end(epoll, fd);
                end->other = make_end(epoll, connect_to(atoi(argv[1])));
                end->other->other = end;
                continue;
            }
            if (end->closed)
                continue;
            was_writing = end->writing;
            other_was = end->other->writing;
            if ((events[i].events & EPOLLOUT && flush(end->fd, &end->out) < 0)
                || (events[i].events & ~(uint32_t)EPOLLOUT && copy(end) < 0)) {
                close(end->fd);
                close(end->other->fd);
                end->closed = end->other->closed = 1;
                end->next = closed; /* freed when no event of this round can name it any more */
                closed = end;
                continue;
            }
            if ((end->out.start < end->out.end) != was_writing
                || (end->other->out.start < end->other->out.end) != other_was) {
                choose_events(epoll, end);
                choose_events(epoll, end->other);
            }
        }
        while (closed) {
            struct end *next = closed->next;
            free(closed->out.octets);
            free(closed->other->out.octets);
            free(closed->other);
            free(closed);
            closed = next;
        }
    }
}
