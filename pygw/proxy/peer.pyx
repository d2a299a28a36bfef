# peer.pyx: an HTTP/2 connection on a uvloop transport, either end. See peer.pxd.

import logging
import socket
import ssl

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ..http2.connection cimport Connection
from ..http2.constants cimport ENHANCE_YOUR_CALM
from ..http2.frame_reader cimport FrameReader, is_halfway, is_in_passing
from ..http2.limits cimport Budgets
from .context cimport (
    TIMER_FRAME,
    TIMER_HANDSHAKE,
    TIMER_IDLE,
    TIMER_KEEPALIVE,
    TIMER_LINGER,
    TIMER_STALL,
    TIMER_WRITE,
    Context,
)
from .call_metrics cimport (
    LIMIT_FLOOD_CONTROL_FRAMES,
    LIMIT_FLOOD_PROVOKED_RESETS,
    LIMIT_FLOOD_RAPID_RESETS,
    LIMIT_FLOOD_REFUSED_STREAMS,
    LIMIT_FLOOD_SETTINGS_FRAMES,
    LIMIT_FRAME_TIMEOUT,
    LIMIT_HANDSHAKE_TIMEOUT,
    LIMIT_KEEPALIVE_TIMEOUT,
    LIMIT_MAX_BLOCKED_OUTPUT,
    LIMIT_MAX_CONTINUATIONS,
    LIMIT_MAX_HEADER_BLOCK,
    LIMIT_MAX_HEADER_FIELDS,
    LIMIT_MAX_HEADER_LIST_SIZE,
    LIMIT_WRITE_TIMEOUT,
    Limit,
)
from .tls_stream cimport TlsStream

logger = logging.getLogger(__name__)

cdef extern from *:
    """
    #include <sys/ioctl.h>
    /* Octets that the kernel holds for the other end: not sent, or not acknowledged. */
    static int octets_in_kernel(int descriptor) {
        int octets = 0;
        return descriptor >= 0 && ioctl(descriptor, TIOCOUTQ, &octets) == 0 ? octets : 0;
    }
    """
    int octets_in_kernel(int descriptor) noexcept

cdef enum:
    KEEPALIVE_PAYLOAD = 0x70796777       # "pygw": told apart from a drain's PING
    STALL_LOOKS = 3                      # half of stream_stall_timeout lies between two of them


cdef class Peer(Connection):

    # ===== uvloop's side =====

    def connection_made(self, transport):
        """The transport is open: start the HTTP/2 connection (RFC 9113 §3.4)."""
        self.transport = transport
        self.write = transport.write
        peer = transport.get_extra_info("peername")
        self.address = peer[0].split("%")[0].encode() if peer else b""
        transport.set_write_buffer_limits(high=self.context.write_high_water)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.handshake_timer.owner = <void*>self
        self.handshake_timer.kind = TIMER_HANDSHAKE
        self.context.arm(&self.handshake_timer, self.context.handshake_timeout)
        self.idle_timer.owner = <void*>self
        self.idle_timer.kind = TIMER_IDLE
        self.frame_timer.owner = <void*>self
        self.frame_timer.kind = TIMER_FRAME
        self.write_timer.owner = <void*>self
        self.write_timer.kind = TIMER_WRITE
        self.stall_timer.owner = <void*>self
        self.stall_timer.kind = TIMER_STALL
        self.start()

    def get_buffer(self, Py_ssize_t hint):
        """Where the next read goes."""
        return self.context.buffer

    def buffer_updated(self, Py_ssize_t length):
        """Octets were read into the shared buffer."""
        cdef Context context = self.context
        cdef uint64_t now = context.time_us()
        context.begin_read(now, now - self.last_read_us)
        self.last_read_us = now
        if now - self.replenished_us >= 1000000:
            self.replenish(<uint32_t>min((now - self.replenished_us) // 1000000, 60))
            self.replenished_us = now
        try:
            if self.failed and self.closing and not self.is_dirty:
                # One last read, which took what was on its way.
                self.close_now()
            else:
                self.on_octets(context.octets, length)
            if not self.frame_timer.armed and is_halfway(&self.reader):
                self.watch_frame()
        except Exception:
            # A fault of ours, or no memory: it costs this connection and nothing else.
            logger.exception("connection failed", extra={"address": self.address.decode()})
            self.abort()
        context.end_read()

    def eof_received(self):
        """The other end sends no more: there is no half-open HTTP/2 connection."""
        return None

    def connection_lost(self, exception):
        """The transport is gone."""
        self.transport = None
        self.write = None
        self.context.disarm(&self.handshake_timer)
        self.context.disarm(&self.idle_timer)
        self.context.disarm(&self.frame_timer)
        self.context.disarm(&self.write_timer)
        self.context.disarm(&self.stall_timer)
        self.context.turn_us = self.context.time_us()
        try:
            self.lost()
        except Exception:
            # As in buffer_updated(), but the transport is gone already.
            logger.exception("cleaning up a connection failed", extra={"address": self.address.decode()})

    def pause_writing(self):
        """The transport holds more than write_high_water: DATA waits in its streams from now on."""
        self.write_blocked = True

    def resume_writing(self):
        """The transport has drained."""
        self.write_blocked = False
        self.context.turn_us = self.context.time_us()
        try:
            self.resume()
        except Exception:
            # As in buffer_updated().
            logger.exception("connection failed", extra={"address": self.address.decode()})
            self.abort()

    cdef bint is_choked(self) noexcept:
        return self.write_blocked and (
            self.blocked_output + self.out.length > self.options.values.max_blocked_output // 2
        )

    # ===== output =====

    # Writes what has collected; called once per loop turn.
    cdef int flush(self) except -1:
        self.is_dirty = False
        if self.write is None:
            return 0
        self.write_output()
        if self.closing and self.transport is not None:
            if self.failed and self.error_code != ENHANCE_YOUR_CALM and self.context.goaway_linger > 0:
                # What it was still sending would reset a connection that is closed, and GOAWAY be lost with it. (Of a
                # flood nothing more is read.)
                self.linger(self.context.goaway_linger)
            else:
                self.close_now()
        return 0

    cdef int close_now(self) except -1:
        if self.transport is None or self.transport.is_closing():
            return 0
        self.transport.close()
        if self.transport is not None and self.transport.get_write_buffer_size() > 0:
            # The transport waits until the other end has read all, which may be never.
            self.linger(self.context.keepalive_timeout)
        return 0

    cdef void linger(self, double seconds) noexcept:
        self.handshake_timer.kind = TIMER_LINGER
        self.context.arm(&self.handshake_timer, seconds)

    cdef int write_output(self) except -1:
        cdef Py_ssize_t capacity = self.out.capacity
        cdef bytes data = self.sealed_output() if self.is_sealed else self.take_output()
        if data:
            self.written += <uint64_t>len(data)
            self.write_out(data)
            if not self.write_timer.armed:
                self.watch_writes()
            if not self.is_sealed:
                self.pool.recycle(data, capacity)
        return 0

    cdef int write_out(self, bytes data) except -1:
        self.write(data)
        return 0

    def abort(self):
        """Close at once, whatever is unsent."""
        if self.transport is not None:
            self.transport.abort()

    cdef int mark_dirty(self) except -1:
        if not self.is_dirty:
            self.is_dirty = True
            self.context.add_dirty(self)
        return 0

    cdef int close_after_flush(self) except -1:
        self.closing = True
        return self.mark_dirty()

    cdef int on_octets(self, const uint8_t* data, Py_ssize_t length) except -1:
        return self.take(data, length)

    cdef int on_output(self) except -1:
        return self.mark_dirty()

    cdef int on_output_full(self) except -1:
        # Whatever ails this connection is not the other one's whose receive() we are in.
        if self.write is not None:
            try:
                self.write_output()
            except Exception:
                # As in buffer_updated().
                logger.exception("write failed", extra={"address": self.address.decode()})
                self.abort()
        return 0

    cdef int on_failed(self) except -1:
        return self.close_after_flush()

    # ===== limits of the engine =====

    # It says ENHANCE_YOUR_CALM for each of them and for nothing else (limits.pxd). One ends the connection, so one
    # budget at most is below 0.
    cdef int count_broken_limit(self) except -1:
        cdef Budgets* budgets = &self.budgets
        cdef Limit limit
        if self.error_code != ENHANCE_YOUR_CALM:
            return 0
        if self.reader.error != NULL:
            limit = broken_block_limit(&self.reader)
        elif self.decoder.error != NULL:
            return self.count_large_headers()
        elif budgets.control_frames < 0:
            limit = LIMIT_FLOOD_CONTROL_FRAMES
        elif budgets.settings_frames < 0:
            limit = LIMIT_FLOOD_SETTINGS_FRAMES
        elif budgets.rapid_resets < 0:
            limit = LIMIT_FLOOD_RAPID_RESETS
        elif budgets.provoked_resets < 0:
            limit = LIMIT_FLOOD_PROVOKED_RESETS
        elif budgets.refused_streams < 0:
            limit = LIMIT_FLOOD_REFUSED_STREAMS
        else:
            limit = LIMIT_MAX_BLOCKED_OUTPUT
        self.context.counters.limit_hits[<int>limit] += 1
        return 0

    cdef int count_large_headers(self) except -1:
        cdef Limit limit = LIMIT_MAX_HEADER_LIST_SIZE if self.is_list_too_large() else LIMIT_MAX_HEADER_FIELDS
        self.context.counters.limit_hits[<int>limit] += 1
        return 0

    cdef bint is_list_too_large(self) noexcept:
        return self.decoder.total > self.decoder.max_list_size

    # ===== TLS =====

    cdef int take(self, const uint8_t* data, Py_ssize_t length) except -1:
        cdef TlsStream tls = self.tls
        cdef Py_ssize_t got = 1
        if not self.is_sealed:
            return self.receive(data, length)
        if tls is None or self.failed:
            return 0
        tls.feed(data, length)
        if not tls.is_open:
            self.shake_hands()
        try:
            # The shared buffer is free again: what it held is in the session. A record at a time.
            while tls.is_open and got > 0 and not self.failed:
                got = tls.read(self.context.view)
                if got > 0:
                    self.receive(self.context.octets, got)
        except ssl.SSLError as error:
            return self.on_tls_failed(tls_reason(error))
        if tls.has_sealed():
            self.mark_dirty()
        return self.close_after_flush() if got == -2 else 0

    cdef int shake_hands(self) except -1:
        cdef TlsStream tls = self.tls
        try:
            if not tls.shake_hands():
                return self.mark_dirty()
        except ssl.SSLError as error:
            return self.on_tls_failed(tls_reason(error))
        # What HTTP/2 has written until now goes out with the end of the handshake.
        self.mark_dirty()
        fault = self.on_secured()
        return 0 if fault is None else self.on_tls_failed(fault)

    cdef bytes sealed_output(self):
        cdef TlsStream tls = self.tls
        cdef bytes data
        if tls is None:
            return b""
        if not tls.is_open:
            return tls.seal(b"")
        data = tls.seal(self.take_output())
        return data + tls.seal_end() if self.closing else data

    cdef str on_secured(self):
        return None

    cdef int on_tls_failed(self, str text) except -1:
        if not self.failed:
            self.fail(0, "TLS failed")
        return self.close_after_flush()

    # ===== timers =====

    def on_timer(self, int kind):
        """One of this connection's timers has fired."""
        self.context.turn_us = self.context.time_us()
        if kind == TIMER_HANDSHAKE:
            self.on_handshake_timeout()
        elif kind == TIMER_KEEPALIVE:
            self.on_keepalive()
        elif kind == TIMER_IDLE:
            self.on_idle()
        elif kind == TIMER_FRAME:
            self.on_frame_timeout()
        elif kind == TIMER_WRITE:
            self.on_write_timeout()
        elif kind == TIMER_STALL:
            self.on_stall()
        elif kind == TIMER_LINGER and self.transport is not None and not self.transport.is_closing():
            self.close_now()
        elif kind == TIMER_LINGER:
            self.context.counters.limit_hits[<int>LIMIT_KEEPALIVE_TIMEOUT] += 1
            self.abort()

    def on_handshake_timeout(self):
        """The other end did not finish the HTTP/2 handshake in time."""
        if not self.settings_received:
            self.context.counters.limit_hits[<int>LIMIT_HANDSHAKE_TIMEOUT] += 1
            self.fail(0, "no HTTP/2 handshake in time")

    # ===== frames that stay half-sent, and output that nobody takes =====

    # (Before the other end's SETTINGS are whole, handshake_timeout is the limit.)
    cdef int watch_frame(self) except -1:
        if self.settings_received and self.context.frame_timeout > 0 and not self.failed:
            self.frame_seen = self.reader.begun
            self.context.arm(&self.frame_timer, self.context.frame_timeout)
        return 0

    def on_frame_timeout(self):
        """Is what was half-sent then still so? DATA may be slow but must move: it is relayed as it comes, and costs
        nothing while it does not. All else is held until it is whole, so it has no longer, however it trickles."""
        cdef double silent = (self.context.turn_us - self.last_read_us) / 1e6
        if self.failed or not is_halfway(&self.reader):
            return
        if self.reader.begun != self.frame_seen:
            self.watch_frame()
        elif is_in_passing(&self.reader) and silent < self.context.frame_timeout:
            self.context.arm(&self.frame_timer, self.context.frame_timeout - silent)
        else:
            self.context.counters.limit_hits[<int>LIMIT_FRAME_TIMEOUT] += 1
            self.fail(0, "a frame or header block was not whole within frame_timeout")

    cdef int watch_writes(self) except -1:
        if self.context.write_timeout > 0:
            self.taken_us = self.context.time_us()
            # What was taken until now does not matter: the first look finds another number, or nothing unsent.
            self.taken = 0
            self.context.arm(&self.write_timer, self.context.write_timeout / 2)
        return 0

    def on_write_timeout(self):
        """Does the other end take what we write? A connection that nothing waits for is not looked at again before
        its next write. What only the kernel holds is the kernel's to give up."""
        cdef uint64_t waiting, taken
        if self.transport is None:
            return
        waiting = <uint64_t>self.transport.get_write_buffer_size()
        if waiting == 0:
            return
        raw = self.transport.get_extra_info("socket")
        waiting += <uint64_t>octets_in_kernel(-1 if raw is None else raw.fileno())
        taken = self.written - min(waiting, self.written)
        if taken != self.taken:
            self.taken = taken
            self.taken_us = self.context.turn_us
        elif (self.context.turn_us - self.taken_us) / 1e6 >= self.context.write_timeout:
            self.context.counters.limit_hits[<int>LIMIT_WRITE_TIMEOUT] += 1
            self.fail(0, "nothing of the output was taken within write_timeout")
            # GOAWAY would wait behind the rest for ever.
            self.abort()
            return
        self.context.arm(&self.write_timer, self.context.write_timeout / 2)

    # ===== streams without a flow-control window =====

    cdef int on_holding(self) except -1:
        if self.context.stream_stall_timeout > 0:
            self.context.arm(&self.stall_timer, self.context.stream_stall_timeout / 2)
        return 0

    cdef int on_stall(self) except -1:
        self.end_stalled(STALL_LOOKS)
        return self.on_holding() if self.is_holding and not self.failed else 0

    cdef int on_ready(self) except -1:
        self.start_keepalive()
        return 0

    def start_keepalive(self):
        """From now on a silent connection with calls open is asked whether it still lives."""
        self.context.disarm(&self.handshake_timer)
        self.handshake_timer.kind = TIMER_KEEPALIVE
        if self.keepalive_seconds() > 0:
            self.context.arm(&self.handshake_timer, self.keepalive_seconds())

    def on_keepalive(self):
        """PING a silent connection (§6.7); close one that did not answer."""
        cdef double silent = (self.context.time_us() - self.last_read_us) / 1e6
        cdef double period = self.keepalive_seconds()
        if self.failed:
            return
        if self.ping_open and silent >= self.context.keepalive_timeout:
            self.context.counters.limit_hits[<int>LIMIT_KEEPALIVE_TIMEOUT] += 1
            self.fail(0, "keepalive PING not answered")
            return
        if self.stream_count > 0 and silent >= period:
            self.probe()
            return
        self.ping_open = False
        # Armed for when the silence would be long enough, so that a busy connection costs one wake a period.
        self.context.arm(&self.handshake_timer, period - silent if silent < period else period)

    cdef int doubt(self, uint64_t since_us) except -1:
        if self.last_read_us > since_us or self.ping_open or self.failed or not self.settings_received or (
            self.keepalive_seconds() == 0
        ):
            return 0
        return self.probe()

    cdef int probe(self) except -1:
        self.ping_open = True
        self.ping(KEEPALIVE_PAYLOAD)
        self.context.arm(&self.handshake_timer, self.context.keepalive_timeout)
        return 0

    cdef int on_ping_ack(self, uint64_t payload) except -1:
        if payload == KEEPALIVE_PAYLOAD and self.ping_open:
            self.ping_open = False
            self.context.arm(&self.handshake_timer, self.keepalive_seconds())
        return 0

    cdef int on_idle(self) except -1:
        return 0

    cdef double keepalive_seconds(self) noexcept:
        return 0


cdef Limit broken_block_limit(const FrameReader* reader) noexcept:
    if reader.block.length + <Py_ssize_t>reader.length <= <Py_ssize_t>reader.max_block:
        return LIMIT_MAX_CONTINUATIONS
    return LIMIT_MAX_HEADER_BLOCK


cdef int flush_peer(object peer) except -1:
    return (<Peer>peer).flush()


cdef str tls_reason(error):
    """What an ssl.SSLError says, without the place in OpenSSL's source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return (error.reason or str(error)).lower().replace("_", " ")
