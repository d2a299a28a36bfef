# upstream.pyx: the HTTP/2 connection to an Endpoint (client end). See upstream.pxd.
#
# It takes calls only after the peer's SETTINGS came (RFC 9113 §3.4): then its stream limit is known, and what
# never spoke HTTP/2 is found out before a call is lost on it.

from libc.stdint cimport uint8_t, uint32_t

from ..field cimport Field
from ..http2.connection cimport (
    CLOSED_BY_ERROR,
    CLOSED_BY_PEER,
    CLOSED_CONNECTION,
    CLOSED_STALLED,
    CLOSED_TOO_LARGE,
    CLOSED_UNPROCESSED,
    CloseCause,
    Connection,
)
from ..http2.constants cimport ENHANCE_YOUR_CALM
from ..http2.message cimport ResponseHead
from ..http2.stream cimport STREAM_HEAD_RECEIVED, Stream
from .call_failure cimport call_upstream_gone
from .call_metrics cimport LIMIT_MAX_INTERIM_RESPONSES, LIMIT_STREAM_STALL_TIMEOUT
from .call_record cimport Call
from .call_request cimport call_request_drained
from .call_response cimport call_response, call_response_data, call_response_trailers
from .context cimport TIMER_HEED, Context
from .endpoint cimport Endpoint
from .endpoint_health cimport note_call_failure
from .peer cimport Peer
from .tls_stream cimport TlsStream


cdef extern from *:
    """
    #include <poll.h>
    #ifndef POLLRDHUP
    #define POLLRDHUP 0          /* Linux's */
    #endif
    /* The other end has closed or reset the connection, whether or not what it had sent before has been read. */
    static int is_hung_up(int descriptor) {
        struct pollfd one = {.fd = descriptor, .events = POLLRDHUP};
        return poll(&one, 1, 0) > 0 && (one.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
    }
    """
    bint is_hung_up(int descriptor) noexcept

cdef enum:
    USELESS_US = 1000000         # a connection that ends sooner and has taken no call is as good as none
    QUIET_US = 1000              # a connection that was read from later than that would have shown its end


cdef class Upstream(Peer):

    def __init__(self, Context context, Endpoint endpoint, on_settled):
        Connection.__init__(self, context.upstream_options, context.pool)
        self.context = context
        self.endpoint = endpoint
        self.on_settled = on_settled
        self.unsent_id = self.next_stream_id
        self.descriptor = -1
        if endpoint.tls is not None:
            self.is_sealed = True
            # Raises ssl.SSLError, which the Dialer reports, where our own certificate cannot be loaded.
            self.tls = TlsStream(endpoint.tls.context, False, endpoint.tls.server_name)

    def connection_made(self, transport):
        """The TCP connection stands."""
        self.context.counters.upstream_connections_open += 1
        self.descriptor = transport.get_extra_info("socket").fileno()
        Peer.connection_made(self, transport)
        if self.is_sealed:
            self.shake_hands()

    def connection_lost(self, exception):
        """The transport is gone: calls on it end, calls that wait get another connection."""
        self.context.counters.upstream_connections_open -= 1
        if not self.is_ready and self.failure is None:
            if self.error != NULL:
                self.failure = b"not an HTTP/2 server: " + self.error
            else:
                self.failure = str(exception).encode() if exception else b"closed before it sent HTTP/2 SETTINGS"
        self.descriptor = -1
        self.context.disarm(&self.heed_timer)
        self.unlist()
        Peer.connection_lost(self, exception)
        self.tell_dialer()

    cdef int unlist(self) except -1:
        if self.is_ready:
            self.is_ready = False
            self.endpoint.remove_upstream(
                self, self.next_stream_id == 1 and not self.retired and (
                    self.context.time_us() - self.ready_us < USELESS_US or self.endpoint.load.queue.count > 0
                )
            )
        return 0

    cdef int tell_dialer(self) except -1:
        on_settled = self.on_settled
        if on_settled is not None:
            self.on_settled = None
            on_settled(self)
        return 0

    def retire(self):
        """Take no more calls, close when the last has ended."""
        self.retired = True
        self.unlist()
        if self.stream_count == 0:
            self.final_goaway()
            self.close_after_flush()

    def resume_writing(self):
        """The transport has drained: also calls that waited for that go on."""
        Peer.resume_writing(self)
        if self.is_ready:
            self.endpoint.serve_queue()

    def eof_received(self):
        """The endpoint sends no more: uvloop closes the connection, and no call may come to it before it does."""
        self.unlist()
        return None

    cdef int close_after_flush(self) except -1:
        self.unlist()
        return Peer.close_after_flush(self)

    # ===== requests that do not leave =====

    # An endpoint may have closed the connection just now: what is written into it then is lost without a trace. So
    # requests are looked after until it is sure that they have left.
    cdef int write_out(self, bytes data) except -1:
        if self.next_stream_id == self.unsent_id:
            self.write(data)
            return 0
        if self.may_be_stale() and is_hung_up(self.descriptor):
            return self.fall_silent()
        if not self.transport.is_closing():
            self.write(data)
            # uvloop writes at once; where that fails, none of `data` has left, and it closes the transport.
            if not self.transport.is_closing():
                self.unsent_id = self.next_stream_id
                return 0
        return self.fall_silent()

    # Its end would not have been seen: no other streams are open on it, or it was not read from for a while.
    cdef bint may_be_stale(self) noexcept:
        return self.descriptor >= 0 and (
            self.context.turn_us - self.last_read_us > QUIET_US
            or <uint32_t>self.stream_count * 2 <= self.next_stream_id - self.unsent_id
        )

    # What was to be written is lost, so nothing may follow. What the endpoint has sent is still read, up to its end.
    cdef int fall_silent(self) except -1:
        self.write = None
        self.unlist()
        return self.drop_unsent()

    cdef double keepalive_seconds(self) noexcept:
        return self.context.upstream_keepalive_time

    # ===== TLS =====

    cdef str on_secured(self):
        fault = self.endpoint.tls.fault(self.tls.session)
        return fault if fault else None

    cdef int on_tls_failed(self, str text) except -1:
        self.context.counters.upstream_tls_errors += 1
        self.explain(f"TLS: {text}")
        return Peer.on_tls_failed(self, text)

    # The first reason why it went is the one to tell.
    cdef int explain(self, str text) except -1:
        if self.failure is None and not self.is_ready:
            self.failure = text.encode()
        return 0

    # ===== hooks of the connection =====

    cdef int on_ready(self) except -1:
        Peer.on_ready(self)
        self.is_ready = True
        self.ready_us = self.context.time_us()
        self.tell_dialer()
        self.endpoint.add_upstream(self)
        if self.endpoint.users == 0:
            # Nobody lists the endpoint any more. Only calls that waited for this connection are served.
            self.retire()
        self.arm_idle()
        return 0

    cdef int on_settings(self) except -1:
        if self.peer_max_concurrent_streams != self.heeded_limit:
            # A new one of its own.
            self.announced_limit = 0
        if self.is_ready:
            self.endpoint.serve_queue()
        return 0

    cdef int on_stream_available(self) except -1:
        if self.is_ready and self.endpoint.load.queue.count > 0:
            self.endpoint.serve_queue()
        if self.stream_count == 0:
            if self.retired or self.goaway_received:
                self.close_after_flush()
            else:
                self.arm_idle()
        return 0

    cdef int on_goaway(self, uint32_t last_stream_id, uint32_t code) except -1:
        # Streams up to last_stream_id go on; new calls need another connection (§6.8).
        self.unlist()
        if self.stream_count == 0:
            self.close_after_flush()
        return 0

    cdef int on_failed(self) except -1:
        self.context.counters.upstream_connection_errors += 1
        self.count_broken_limit()
        self.unlist()
        return self.close_after_flush()

    cdef int arm_idle(self) except -1:
        if self.context.upstream_idle > 0 and not self.idle_timer.armed:
            self.context.arm(&self.idle_timer, self.context.upstream_idle)
        return 0

    cdef int on_idle(self) except -1:
        cdef double silent = (self.context.turn_us - self.last_read_us) / 1e6
        if self.stream_count > 0:
            return 0
        if silent < self.context.upstream_idle:
            self.context.arm(&self.idle_timer, self.context.upstream_idle - silent)
            return 0
        self.retire()
        return 0

    # ===== hooks of a stream =====

    cdef int on_response(self, Stream* stream, ResponseHead* head, Field* fields, Py_ssize_t count,
                         bint end_stream) except -1:
        if stream.owner != NULL:
            call_response(<Call*>stream.owner, head, fields, count, end_stream)
        return 0

    cdef int on_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1:
        if stream.owner != NULL:
            call_response_data(<Call*>stream.owner, data, length, end_stream)
        return 0

    cdef int on_trailers(self, Stream* stream, Field* fields, Py_ssize_t count, Field* grpc_status) except -1:
        if stream.owner != NULL:
            call_response_trailers(<Call*>stream.owner, fields, count, grpc_status)
        return 0

    cdef int on_drained(self, Stream* stream, Py_ssize_t octets) except -1:
        if stream.owner != NULL:
            call_request_drained(<Call*>stream.owner, octets)
        return 0

    # Whether a stream without a response says something against the endpoint. GOAWAY does not, and a connection that
    # breaks is one failure, however many calls were on it.
    cdef bint is_failure(self, CloseCause cause) noexcept:
        if cause == CLOSED_CONNECTION:
            if self.is_lost:
                return False
            self.is_lost = True
            return True
        return cause == CLOSED_BY_PEER or cause == CLOSED_BY_ERROR or (
            cause == CLOSED_UNPROCESSED and not self.goaway_received
        )

    # An endpoint at its stream limit (§5.1.2) may count a stream for a moment longer than we do: grpc-core ends one
    # when its last frame is written, and we may have opened the next one by then. That is refused, and would be again
    # in the same moment. So for refused_wait no stream more is opened here than there are.
    cdef int heed_refusal(self) except -1:
        if self.context.refused_wait > 0 and <uint32_t>self.stream_count < self.peer_max_concurrent_streams:
            if self.announced_limit == 0:
                self.announced_limit = self.peer_max_concurrent_streams
            self.peer_max_concurrent_streams = self.heeded_limit = <uint32_t>self.stream_count
            self.heed_timer.owner = <void*>self
            self.heed_timer.kind = TIMER_HEED
            self.context.arm(&self.heed_timer, self.context.refused_wait)
        return 0

    cdef int forget_refusal(self) except -1:
        if self.announced_limit > 0:
            self.peer_max_concurrent_streams = self.announced_limit
            self.announced_limit = 0
        if self.is_ready:
            self.endpoint.serve_queue()
        return 0

    def on_timer(self, int kind):
        """One of this connection's timers has fired."""
        if kind == TIMER_HEED:
            self.context.turn_us = self.context.time_us()
            self.forget_refusal()
        else:
            Peer.on_timer(self, kind)

    cdef int on_closed(self, Stream* stream, CloseCause cause, uint32_t code) except -1:
        if cause == CLOSED_BY_PEER:
            self.context.counters.upstream_resets_received += 1
        elif cause == CLOSED_BY_ERROR:
            self.context.counters.upstream_malformed += 1
            if code == ENHANCE_YOUR_CALM:
                self.context.counters.limit_hits[<int>LIMIT_MAX_INTERIM_RESPONSES] += 1
        elif cause == CLOSED_TOO_LARGE:
            self.count_large_headers()
        elif cause == CLOSED_STALLED:
            self.context.counters.limit_hits[<int>LIMIT_STREAM_STALL_TIMEOUT] += 1
        elif cause == CLOSED_UNPROCESSED and not self.goaway_received:
            self.heed_refusal()
        if not stream.flags & STREAM_HEAD_RECEIVED and self.is_failure(cause):
            note_call_failure(self.context, &self.endpoint.load.health)
        if stream.owner != NULL:
            call_upstream_gone(<Call*>stream.owner, cause, code)
        return 0
