# context.pxd: what all connections and calls of one worker share. No protocol, no routes.
#
# The read buffer, the stream pool, the timer wheel (the Context is one), the list of connections with
# something to send, counters, and the settings as C numbers. One per worker, made by Relay.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from ..field cimport Field
from ..http2.connection cimport ConnectionOptions
from ..http2.stream cimport StreamPool
from .access_log cimport AccessLog
from .call_metrics cimport CallMetrics, RelayCounters
from .overload cimport Overload
from .timer_wheel cimport Timer, TimerWheel

# With AddressSanitizer each Call is an allocation of its own, so that its use after its end is seen.
cdef extern from *:
    """
    #ifndef PYGW_ISOLATED_CALLS
    #ifdef __SANITIZE_ADDRESS__
    #define PYGW_ISOLATED_CALLS 1
    #else
    #define PYGW_ISOLATED_CALLS 0
    #endif
    #endif
    """
    bint ISOLATED_CALLS "PYGW_ISOLATED_CALLS"

cdef enum:
    READ_BUFFER = 262144         # octets; one for the whole worker, valid during buffer_updated()
    SCRATCH_OCTETS = 20480       # texts made for one header section (timeout, addresses, joined values)

# Timer.kind: whose memory Timer.owner is follows from it.
cdef enum TimerKind:
    TIMER_HANDSHAKE = 1          # a Peer (as all below up to TIMER_LINGER): SETTINGS must have come
    TIMER_KEEPALIVE = 2
    TIMER_IDLE = 3
    TIMER_AGE = 4
    TIMER_GRACE = 5
    TIMER_LINGER = 6             # closed, but for octets that the other end does not take
    TIMER_FRAME = 7              # a Peer, too: what has begun to come must be whole
    TIMER_WRITE = 8              # ... what was written must be taken
    TIMER_STALL = 9              # ... DATA must not wait for a window for ever
    TIMER_HEED = 10              # an Upstream: what an endpoint has refused may be tried again
    TIMER_CONNECT = 11           # an Endpoint: wants a connection, or waits long for one
    TIMER_DEADLINE = 12          # a Call: grpc-timeout has passed
    TIMER_PENDING = 13           # a Call: has waited too long for a connection
    TIMER_UNSERVED = 14          # a Call: not gRPC, and not whole in time

ctypedef int (*FlushPeer)(object peer) except -1

cdef class Context(TimerWheel):
    cdef:
        readonly object settings
        object buffer                        # the read buffer: a bytearray, what get_buffer() returns
        readonly object view                 # memoryview of it
        uint8_t* octets                      # its octets
        readonly StreamPool pool
        readonly ConnectionOptions downstream_options
        readonly ConnectionOptions upstream_options
        readonly CallMetrics metrics
        AccessLog access_log                 # None: off
        RelayCounters counters
        object call_timer                    # callable(address of the Call, kind)

        list dirty                           # connections with output for the next flush
        list flushed                         # the other one of two lists: empty but for during a flush
        FlushPeer flush_peer                 # writes what a connection on the list has
        bint flush_scheduled
        bint is_reading                      # within begin_read() and end_read()
        int lone_reads                       # reads in a row around which there was no more than one call
        Overload overload
        uint64_t warned_us                   # when overload was logged last

        # ===== calls (call_life.pyx) =====
        void* free_calls
        void* released_calls                 # since the last flush: free from the next one on
        void* last_released_call
        void* calls                          # all open ones, newest first
        readonly Py_ssize_t call_count
        readonly Py_ssize_t mirror_count

        # ===== the header section under construction (request_head.pyx) =====
        Field* scratch
        Py_ssize_t scratch_capacity
        uint8_t[SCRATCH_OCTETS] scratch_text
        Py_ssize_t scratch_used

        uint64_t turn_us                     # CLOCK_MONOTONIC when the present read began
        uint64_t random_state                # xorshift: for choices, never for secrets
        bint draining                        # first GOAWAY sent: new connections get it with their first request
        bint closing                         # second one

        # ===== settings.py as C numbers =====
        double connect_timeout
        double connect_patience
        double handshake_timeout
        double frame_timeout
        double write_timeout
        double stream_stall_timeout
        double goaway_linger
        double keepalive_time
        double keepalive_timeout
        double upstream_keepalive_time
        double max_connection_idle
        double max_connection_age
        double max_connection_age_grace
        double upstream_idle
        double pending_timeout
        double refused_wait
        double unserved_wait
        double overload_pushback
        Py_ssize_t max_calls
        Py_ssize_t max_handshakes
        Py_ssize_t pending_calls
        Py_ssize_t max_upstream_connections
        int eject_failures
        int eject_panic
        double eject_time
        double eject_time_max
        Py_ssize_t retry_buffer
        int64_t retry_memory
        Py_ssize_t max_mirror_calls
        Py_ssize_t mirror_buffer
        Py_ssize_t write_high_water
        bint x_forwarded

    # Puts a connection on the list that is worked off at the end of this loop turn: one write each.
    cdef int add_dirty(self, object peer) except -1
    # Before and after what a read sets going. `now` is turn_us from then on; the connection was read `interval` ago.
    cdef void begin_read(self, uint64_t now, uint64_t interval) noexcept
    cdef int end_read(self) except -1
    cdef int schedule_flush(self) except -1
    cdef int flush_dirty(self) except -1
    cdef int measure_turn(self) except -1
    # In the middle of a turn.
    cdef int watch_overload(self, uint64_t now) except -1
    cdef int note_overload(self, uint64_t now) except -1
    cdef void reclaim_calls(self) noexcept
    cdef uint64_t random(self) noexcept
    # Room for `count` Fields at `scratch`; contents are lost.
    cdef int reserve_scratch(self, Py_ssize_t count) except -1
