# context.pyx: what all connections and calls of one worker share. See context.pxd.

import logging
import os

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, realloc

from ..field cimport Field
from ..http2.connection cimport ConnectionOptions
from ..http2.stream cimport StreamPool
from .call_metrics cimport LIMIT_CONNECT_TIMEOUT, LIMIT_OVERLOAD_LAG
from .overload cimport ADMIT_ALL, NO_LIMIT, begin_turn, end_turn, is_alert, note_read, note_short_turn, watch_turn
from .timer_wheel cimport Timer, TimerWheel

cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    /* Output of a bulk stream comes in buffers of 100 KiB and more. By default glibc maps each anew and gives it
       back at once: a page fault for every 4 KiB relayed. */
    static void keep_large_buffers(void) {
        mallopt(M_MMAP_THRESHOLD, 4 << 20);
        mallopt(M_TRIM_THRESHOLD, 8 << 20);
    }
    #else
    static void keep_large_buffers(void) {}
    #endif
    """
    void keep_large_buffers() noexcept

cdef enum:
    WARN_PERIOD_US = 60_000_000      # between two lines that say we are overloaded
    LONE_READS = 16                  # that many, and it is expected that the next one has the turn to itself too

cdef struct Released:            # how a Call begins
    Released* next

logger = logging.getLogger(__name__)


cdef class Context(TimerWheel):

    def __init__(self, loop, settings, metrics, access_log=None):
        keep_large_buffers()
        self.settings = settings
        self.buffer = bytearray(READ_BUFFER)
        self.view = memoryview(self.buffer)
        self.octets = <uint8_t*>PyByteArray_AS_STRING(self.buffer)
        self.pool = StreamPool()
        self.metrics = metrics
        self.access_log = access_log
        self.dirty = []
        self.flushed = []
        self.random_state = int.from_bytes(os.urandom(8), "little") | 1
        self.downstream_options = connection_options(settings, False)
        self.upstream_options = connection_options(settings, True)
        self.connect_patience = settings.connect_patience
        self.connect_timeout = settings.connect_timeout
        self.handshake_timeout = settings.handshake_timeout
        self.frame_timeout = settings.frame_timeout
        self.write_timeout = settings.write_timeout
        self.stream_stall_timeout = settings.stream_stall_timeout
        self.goaway_linger = settings.goaway_linger
        self.keepalive_time = settings.keepalive_time
        self.keepalive_timeout = settings.keepalive_timeout
        self.upstream_keepalive_time = settings.upstream_keepalive_time
        self.max_connection_idle = settings.max_connection_idle
        self.max_connection_age = settings.max_connection_age
        self.max_connection_age_grace = settings.max_connection_age_grace
        self.upstream_idle = settings.upstream_idle
        self.pending_timeout = settings.pending_timeout
        self.refused_wait = settings.refused_wait
        self.unserved_wait = settings.unserved_wait
        self.overload.limit_us = <uint64_t>(settings.overload_lag * 1e6) or <uint64_t>NO_LIMIT
        self.overload.admitted = ADMIT_ALL
        self.overload_pushback = settings.overload_pushback
        self.max_calls = settings.max_calls or <Py_ssize_t>(1 << 62)
        self.max_handshakes = settings.max_handshakes
        self.pending_calls = settings.pending_calls
        self.max_upstream_connections = settings.max_upstream_connections
        self.eject_failures = settings.eject_failures
        self.eject_panic = settings.eject_panic
        self.eject_time = settings.eject_time
        self.eject_time_max = settings.eject_time_max
        self.retry_buffer = settings.retry_buffer
        self.retry_memory = settings.retry_memory
        self.max_mirror_calls = settings.max_mirror_calls
        self.mirror_buffer = settings.mirror_buffer
        self.write_high_water = settings.write_high_water
        self.x_forwarded = settings.x_forwarded

    def __dealloc__(self):
        free(self.scratch)

    cdef int expired(self, Timer* timer) except -1:
        # Rare, and so by Python calls: the wheel must not know what a connection or a call is.
        if timer.kind >= TIMER_DEADLINE:
            self.call_timer(<size_t>timer.owner, timer.kind)
        else:
            (<object>timer.owner).on_timer(timer.kind)
        return 0

    cdef int add_dirty(self, object peer) except -1:
        if self.loop is None:
            # After stop(): connections are being aborted, nothing more is sent.
            return 0
        self.dirty.append(peer)
        if not self.flush_scheduled and not self.is_reading:
            begin_turn(&self.overload, self.time_us(), NO_LIMIT)
            self.schedule_flush()
        return 0

    cdef void begin_read(self, uint64_t now, uint64_t interval) noexcept:
        self.turn_us = now
        self.is_reading = True
        if not self.flush_scheduled:
            begin_turn(&self.overload, now, interval)
        else:
            note_read(&self.overload, now, interval)
        if self.call_count > 1:
            self.lone_reads = 0

    # With one call at a time, no other read of this turn is likely to add to what is written, so it is written at once:
    # it spares what the loop does to call us again at the end of the turn (docs/performance.md).
    cdef int end_read(self) except -1:
        self.is_reading = False
        if self.call_count > 1 or is_alert(&self.overload, self.turn_us):
            self.lone_reads = 0
        elif self.lone_reads < LONE_READS:
            self.lone_reads += 1
        elif not self.flush_scheduled:
            self.flush_dirty()
            note_short_turn(&self.overload)
            return 0
        if not self.flush_scheduled and len(self.dirty) > 0:
            self.schedule_flush()
        return 0

    cdef int schedule_flush(self) except -1:
        self.loop.call_soon(self.flush)
        self.flush_scheduled = True
        return 0

    def flush(self):
        """Let every connection with output write once. Called by the loop at the end of a turn."""
        self.flush_scheduled = False
        self.flush_dirty()
        self.measure_turn()

    cdef int flush_dirty(self) except -1:
        cdef list dirty = self.dirty
        cdef object peer
        self.reclaim_calls()
        # What flushing makes dirty is for the next flush.
        self.dirty = self.flushed
        self.flushed = dirty
        for peer in dirty:
            try:
                self.flush_peer(peer)
            except Exception:
                # Whatever it is, a fault of ours or no memory: it costs one connection, and the others write.
                logger.exception("flush failed")
                peer.abort()
        dirty.clear()
        return 0

    cdef int measure_turn(self) except -1:
        cdef uint64_t now = self.time_us()
        return self.note_overload(now) if end_turn(&self.overload, now) else 0

    cdef int watch_overload(self, uint64_t now) except -1:
        return self.note_overload(now) if watch_turn(&self.overload, now) else 0

    cdef int note_overload(self, uint64_t now) except -1:
        self.counters.limit_hits[<int>LIMIT_OVERLOAD_LAG] += 1
        if now - self.warned_us >= WARN_PERIOD_US:
            self.warned_us = now
            logger.warning(
                "overloaded: new calls are shed until it keeps up again",
                extra={"limit": "overload_lag", "lag": round((now - self.overload.began_us) / 1e6, 3)},
            )
        return 0

    cdef void reclaim_calls(self) noexcept:
        cdef Released* call = <Released*>self.released_calls
        if call == NULL:
            return
        if ISOLATED_CALLS:
            while call != NULL:
                self.released_calls = call.next
                free(call)
                call = <Released*>self.released_calls
            return
        (<Released*>self.last_released_call).next = <Released*>self.free_calls
        self.free_calls = call
        self.released_calls = NULL

    def count_connect_timeout(self):
        """An endpoint did not accept within connect_timeout."""
        self.counters.limit_hits[<int>LIMIT_CONNECT_TIMEOUT] += 1

    cdef uint64_t random(self) noexcept:
        cdef uint64_t x = self.random_state
        x ^= x << 13
        x ^= x >> 7
        x ^= x << 17
        self.random_state = x
        return x

    cdef int reserve_scratch(self, Py_ssize_t count) except -1:
        cdef Field* grown
        if count > self.scratch_capacity:
            grown = <Field*>realloc(self.scratch, <size_t>(count + 32) * sizeof(Field))
            if grown == NULL:
                raise MemoryError()
            self.scratch = grown
            self.scratch_capacity = count + 32
        self.scratch_used = 0
        return 0


cdef ConnectionOptions connection_options(object settings, bint is_client):
    cdef ConnectionOptions options = ConnectionOptions()
    options.is_client = is_client
    # Endpoints may push nothing and open no streams; the number is for clients.
    options.max_concurrent_streams = settings.max_concurrent_streams
    options.stream_window = settings.stream_window if is_client else settings.request_window
    options.stream_window_max = settings.stream_window_max
    options.window_growth_total = settings.window_growth_total
    options.connection_window = settings.connection_window
    options.credit_at_receipt = is_client
    options.max_header_list_size = settings.max_header_list_size
    options.max_header_fields = settings.max_header_fields
    options.header_table_size = settings.header_table_size
    options.encoder_table_size = settings.encoder_table_size
    options.limits = settings
    return options
