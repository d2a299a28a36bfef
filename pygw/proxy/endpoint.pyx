# endpoint.pyx: one address of a backend. See endpoint.pxd.

cimport cython
from libc.stdint cimport uint64_t

from .call_failure cimport call_failed
from .call_life cimport enqueue_call, unqueue_call
from .call_metrics cimport LIMIT_MAX_UPSTREAM_CONNECTIONS, LIMIT_PENDING_CALLS
from .call_record cimport CALL_RETRIED, Call
from .call_request cimport join_call
from .context cimport TIMER_CONNECT, TIMER_PENDING, Context
from .endpoint_health cimport Health, is_ejected, is_flawless, note_connect_failure
from .held_request cimport forget_last_section
from .peer cimport Peer
from .queue_delay cimport note_left, refuses_wait
from .timer_wheel cimport TICK_MICROSECONDS


# Endpoints and their connections hold each other, so the collector ends them; the context must live until __dealloc__.
@cython.no_gc_clear
cdef class Endpoint:

    def __cinit__(self, Context context, str host, int port, dialer, tls=None):
        self.context = context
        self.host = host
        self.port = port
        self.label = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
        self.dialer = dialer
        self.tls = tls
        self.upstreams = []
        self.delay.target_us = <uint64_t>(context.settings.pending_lag * 1e6)
        self.load.label = self.label
        self.load.label_length = len(self.label)
        self.load.pending_gauge = &context.counters.upstream_pending

    def __dealloc__(self):
        # None where __cinit__ has failed.
        if self.context is not None:
            forget_last_section(self.context, &self.load)

    # ===== for Backend and Downstream =====

    cdef Peer ready_upstream(self, uint64_t but):
        cdef Peer upstream, second = None
        for item in self.upstreams:
            upstream = <Peer>item
            if upstream.can_open() and not upstream.is_choked() and upstream.encoder.id != but:
                if upstream.waiting_first == NULL and not upstream.write_blocked and not upstream.ping_open:
                    return upstream
                if second is None:
                    second = upstream
        return second

    cdef bint is_fit(self, bint panic) noexcept:
        if is_flawless(&self.load.health):
            return True
        if is_ejected(self.context, &self.load.health) and not panic:
            return False
        return len(self.upstreams) > 0 or self.load.health.connect_failures == 0 or (
            self.dialing == 0 and self.context.turn_us >= self.load.health.connect_after_us
        )

    cdef bint is_at_hand(self, bint panic) noexcept:
        return (len(self.upstreams) > 0 or self.dialing == 0) and self.is_fit(panic)

    cdef bint wait(self, Call* call) except -1:
        cdef Context context = self.context
        if self.load.queue.count >= context.pending_calls:
            context.counters.limit_hits[<int>LIMIT_PENDING_CALLS] += 1
            return False
        enqueue_call(call, &self.load, call.flags & CALL_RETRIED)
        call.pending.owner = call
        call.pending.kind = TIMER_PENDING
        context.arm(&call.pending, context.pending_timeout)
        self.dial_if_useful()
        return True

    cdef bint is_late(self) noexcept:
        cdef const Call* first = self.load.queue.first
        if len(self.upstreams) == 0 or self.dialing > 0:
            return False
        return refuses_wait(
            &self.delay, self.context.turn_us, <uint64_t>self.load.queue.count,
            0 if first == NULL else self.waited_us(first),
        )

    # Of a call in the queue, by its timer.
    cdef uint64_t waited_us(self, const Call* call) noexcept:
        cdef uint64_t since = call.pending.due * TICK_MICROSECONDS - <uint64_t>(self.context.pending_timeout * 1e6)
        return self.context.turn_us - since if since < self.context.turn_us else 0

    cdef bint take(self, Call* call) except -1:
        cdef Peer upstream = self.ready_upstream(call.refused_by)
        if upstream is not None and self.load.queue.count == 0 and join_call(call, upstream):
            return True
        if not self.wait(call):
            return False
        self.serve_queue()
        return True

    # ===== connections =====

    cdef bint dial_if_useful(self) except -1:
        # One at a time: whether a second one is needed shows when the first tells its stream limit.
        if self.dialing > 0:
            return True
        if len(self.upstreams) > 0 and self.context.turn_us < self.load.health.connect_after_us:
            # It takes no more of them now, and calls have what there is.
            return False
        if len(self.upstreams) >= self.context.max_upstream_connections:
            self.context.counters.limit_hits[<int>LIMIT_MAX_UPSTREAM_CONNECTIONS] += 1
            return False
        self.dialing += 1
        if len(self.upstreams) == 0:
            self.start_connect_timer(self.context.connect_patience)
        self.context.counters.upstream_connects += 1
        self.dialer.dial(self)
        return True

    def dial_failed(self, str text):
        """A connection could not be opened; `text` says why. Calls that wait go elsewhere or get UNAVAILABLE."""
        self.dialing -= 1
        self.context.disarm(&self.connect_timer)
        self.context.counters.upstream_connect_failures += 1
        self.avoid()
        if not self.upstreams:
            self.refuse_queue(text)
        else:
            # It is not dead, only full: those that wait may still get their turn on what is there.
            self.make_do()

    # It cannot be connected: other endpoints come first for a while, then it is tried again.
    cdef int avoid(self) except -1:
        cdef Health* health = &self.load.health
        note_connect_failure(self.context, health)
        return self.connect_later((health.connect_after_us - self.context.turn_us) / 1e6)

    # An endpoint that had calls lately gets its connection back before the next one comes.
    cdef int connect_later(self, double seconds) except -1:
        cdef double unused = (self.context.turn_us - self.load.used_us) / 1e6
        if self.users > 0 and self.load.used_us > 0 and (
            self.context.upstream_idle == 0 or unused < self.context.upstream_idle
        ):
            self.start_connect_timer(seconds)
        return 0

    cdef int start_connect_timer(self, double seconds) except -1:
        self.connect_timer.owner = <void*>self
        self.connect_timer.kind = TIMER_CONNECT
        self.context.arm(&self.connect_timer, seconds)
        return 0

    def on_timer(self, int kind):
        """It is time to be connected; or that takes long."""
        self.context.turn_us = self.context.time_us()
        if self.dialing > 0:
            self.move_queue()
        elif not self.upstreams:
            self.dial_if_useful()

    # Calls that wait go to endpoints that have a connection, as far as there are such. Each time the first one, which
    # goes last where it stays: what one call does may end others.
    cdef int move_queue(self) except -1:
        cdef Py_ssize_t left = self.load.queue.count
        cdef Call* call
        while left > 0 and self.load.queue.first != NULL:
            left -= 1
            call = self.load.queue.first
            if not (<object>call.backend).move(<size_t>call, True):
                unqueue_call(call)
                enqueue_call(call, &self.load, False)
        if self.load.queue.count > 0:
            self.start_connect_timer(self.context.connect_patience)
        return 0

    # No other connection can be had now: calls that one refused may try it again.
    cdef int make_do(self) except -1:
        cdef Call* call = self.load.queue.first
        while call != NULL:
            call.refused_by = 0
            call = call.queue_next
        return self.serve_queue() if self.ready_upstream(0) is not None else 0

    # Calls that wait go elsewhere or get UNAVAILABLE. Each time the first one: what one call does may end others.
    cdef int refuse_queue(self, str text) except -1:
        cdef bytes message = f"{self.label.decode()}: {text}".encode()
        cdef Call* call
        while self.load.queue.first != NULL:
            call = self.load.queue.first
            unqueue_call(call)
            if not (<object>call.backend).move(<size_t>call):
                call_failed(call, 14, message, len(message), "backend unreachable")
        return 0

    def dial_done(self):
        """A connection was opened and has shown its SETTINGS, or went before; add_upstream() was told."""
        self.dialing -= 1
        self.context.disarm(&self.connect_timer)

    cdef int add_upstream(self, Peer upstream) except -1:
        self.upstreams.append(upstream)
        return self.serve_queue()

    cdef int remove_upstream(self, Peer upstream, bint is_useless) except -1:
        if upstream in self.upstreams:
            self.upstreams.remove(upstream)
        if self.upstreams:
            self.serve_queue()
        elif is_useless:
            # And so might the next one be: dialling at once again would be a loop.
            self.avoid()
            self.refuse_queue("connections close before they take a call")
        elif self.load.queue.count > 0:
            self.dial_if_useful()
        elif upstream.next_stream_id > 1:
            self.connect_later(self.context.eject_time * <double>(self.context.random() % 1000) / 1000)
        return 0

    cdef int serve_queue(self) except -1:
        cdef Peer upstream
        cdef Call* call
        cdef uint64_t waited
        cdef bint is_retried
        while self.load.queue.first != NULL:
            call = self.load.queue.first
            upstream = self.ready_upstream(call.refused_by)
            if upstream is not None:
                waited = self.waited_us(call)
                is_retried = call.flags & CALL_RETRIED
                if not join_call(call, upstream):
                    return 0
                if not is_retried:           # it did not wait for its turn
                    note_left(&self.delay, self.context.turn_us, waited)
            elif self.dial_if_useful() or call.refused_by == 0:
                return 0
            else:
                # There will be no other connection.
                call.refused_by = 0
        return 0

    # ===== membership =====

    def use(self):
        """A Backend lists this endpoint."""
        self.users += 1

    def leave(self):
        """A Backend lists it no more: without any, connections finish their calls and close."""
        self.users -= 1
        if self.users == 0:
            self.context.disarm(&self.connect_timer)
            for upstream in list(self.upstreams):
                upstream.retire()

    @property
    def failures(self):
        """In a row: connections that did not come about, or calls that it failed."""
        return max(self.load.health.connect_failures, self.load.health.call_failures)

    @property
    def ejected(self):
        """Whether it is left out until it answers a call."""
        return self.load.health.ejections > 0

    @property
    def active(self):
        """Calls joined to one of its connections."""
        return self.load.active

    @property
    def pending(self):
        """Calls that wait for a connection."""
        return self.load.queue.count

    @property
    def connections(self):
        """The ready connections, oldest first (a copy)."""
        return list(self.upstreams)
