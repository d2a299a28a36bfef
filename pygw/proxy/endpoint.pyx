# endpoint.pyx: one address of a backend. See endpoint.pxd.

from libc.stdint cimport uint64_t

from .call_failure cimport call_failed
from .call_life cimport enqueue_call, unqueue_call
from .call_metrics cimport LIMIT_MAX_UPSTREAM_CONNECTIONS, LIMIT_PENDING_CALLS
from .call_record cimport Call
from .call_request cimport join_call
from .context cimport TIMER_PENDING, Context
from .held_request cimport forget_last_section
from .peer cimport Peer

cdef enum:
    # After a failed connect other endpoints come first for 0.1 s, doubled with each failure in a row, up to 10 s:
    # long enough to be cheap, short enough that a restarted backend is back before anyone notices.
    AVOID_FIRST_US = 100000
    AVOID_DOUBLINGS = 7


cdef class Endpoint:

    def __cinit__(self, Context context, str host, int port, dialer, tls=None):
        self.context = context
        self.host = host
        self.port = port
        self.label = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
        self.dialer = dialer
        self.tls = tls
        self.upstreams = []
        self.load.label = self.label
        self.load.label_length = len(self.label)
        self.load.pending_gauge = &context.counters.upstream_pending

    def __dealloc__(self):
        if self.context is not None:
            forget_last_section(self.context, &self.load)

    # ===== for Backend and Downstream =====

    cdef Peer ready_upstream(self, uint64_t but):
        cdef Peer upstream, second = None
        for item in self.upstreams:
            upstream = <Peer>item
            if upstream.can_open() and not upstream.is_choked() and upstream.encoder.id != but:
                if upstream.waiting_first == NULL and not upstream.write_blocked:
                    return upstream
                if second is None:
                    second = upstream
        return second

    cdef bint is_avoided(self) noexcept:
        return self.failures > 0 and self.context.turn_us < self.avoided_until_us

    cdef bint wait(self, Call* call) except -1:
        cdef Context context = self.context
        if self.load.queue.count >= context.pending_calls:
            context.counters.limit_hits[<int>LIMIT_PENDING_CALLS] += 1
            return False
        enqueue_call(call, &self.load)
        call.pending.owner = call
        call.pending.kind = TIMER_PENDING
        context.arm(&call.pending, context.pending_timeout)
        self.dial_if_useful()
        return True

    cdef bint take(self, Call* call) except -1:
        cdef Peer upstream = self.ready_upstream(call.refused_by)
        if upstream is not None and self.load.queue.count == 0 and join_call(call, upstream, NULL, 0):
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
        if len(self.upstreams) >= self.context.max_upstream_connections:
            self.context.counters.limit_hits[<int>LIMIT_MAX_UPSTREAM_CONNECTIONS] += 1
            return False
        self.dialing += 1
        self.context.counters.upstream_connects += 1
        self.dialer.dial(self)
        return True

    def dial_failed(self, str text):
        """A connection could not be opened; `text` says why. Calls that wait go elsewhere or get UNAVAILABLE."""
        self.dialing -= 1
        self.context.counters.upstream_connect_failures += 1
        self.avoid()
        if not self.upstreams:
            self.refuse_queue(text)
        else:
            # It is not dead, only full: those that wait may still get their turn on what is there.
            self.make_do()

    # Other endpoints come first for a while.
    cdef int avoid(self) except -1:
        self.failures += 1
        self.context.turn_us = self.context.time_us()
        self.avoided_until_us = self.context.turn_us + (
            <uint64_t>AVOID_FIRST_US << min(self.failures - 1, AVOID_DOUBLINGS)
        ) * (50 + self.context.random() % 51) // 100
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

    cdef int add_upstream(self, Peer upstream) except -1:
        self.failures = 0
        self.upstreams.append(upstream)
        return self.serve_queue()

    cdef int remove_upstream(self, Peer upstream) except -1:
        if upstream in self.upstreams:
            self.upstreams.remove(upstream)
        if self.load.queue.count == 0:
            return 0
        if upstream.next_stream_id == 1 and not self.upstreams:
            # It never took a call, and so might the next one not: dialling at once again would be a loop.
            self.avoid()
            return self.refuse_queue("connections close before they take a call")
        self.dial_if_useful()
        return 0

    cdef int serve_queue(self) except -1:
        cdef Peer upstream
        cdef Call* call
        while self.load.queue.first != NULL:
            call = self.load.queue.first
            upstream = self.ready_upstream(call.refused_by)
            if upstream is not None:
                if not join_call(call, upstream, NULL, 0):
                    return 0
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
            for upstream in list(self.upstreams):
                upstream.retire()

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
