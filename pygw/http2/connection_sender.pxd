# connection_sender.pxd: sending on streams (RFC 9113 §5.2, §6.1, §6.2, §6.4). The contract is connection.pxd.
#
# All goes straight into `out`. Only DATA may have to wait, in Stream.pending, for a window or for the transport;
# END_STREAM, trailers and finish_with_reset() keep their place behind it. Streams that could send but for the
# connection take turns, DATA_CHUNK octets each.

from libc.stdint cimport uint8_t, uint32_t

from ..field cimport Field
from .connection_state cimport ConnectionState
from .stream cimport Stream

cdef enum:
    DATA_CHUNK = 16384           # what every peer takes in one frame (§4.2), and the turn of a waiting stream

cdef enum:
    OUTPUT_FULL = 262144         # octets of output for on_output_full()

cdef class ConnectionSender(ConnectionState):
    # Client end: a new stream, or NULL (no exception) where the peer allows none now (limit reached, GOAWAY
    # received, ids used up, failed). It counts at once; HEADERS must follow before any other stream is opened.
    cdef Stream* open_stream(self, void* owner) except? NULL
    cdef bint can_open(self) noexcept
    # A header block: begin, then encoder.encode_field(&self.out, ...) for each field, then end. Nothing else may
    # be sent on this connection between the two. end_headers() frames the block (HEADERS and CONTINUATION).
    cdef int begin_headers(self, Stream* stream) except -1
    cdef int end_headers(self, Stream* stream, bint end_stream) except -1
    # DATA: what windows and the transport allow goes into `out` at once, the rest waits in stream.pending.
    # Returns how many octets went out now; on_drained() reports the others when they go. (All of them where the
    # stream or the connection is gone: nothing waits for anybody then.)
    cdef Py_ssize_t send_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1
    # Trailers end the stream; behind pending DATA they wait (copied), encoded when they go.
    cdef int send_trailers(self, Stream* stream, const Field* fields, Py_ssize_t count) except -1
    # RST_STREAM now; what is pending is dropped, the Stream given back, no on_closed().
    cdef int reset_stream(self, Stream* stream, uint32_t error_code) except -1
    # Server end: RST_STREAM(error_code) right after everything queued (END_STREAM included) has gone, as §8.1 has
    # it for an early response. No hook is called for the stream from now on but on_closed.
    cdef int finish_with_reset(self, Stream* stream, uint32_t error_code) except -1
    # DATA octets of `stream` that wait here.
    cdef Py_ssize_t pending_octets(self, Stream* stream) noexcept
    # Sends what waits for the transport; the subclass calls it after clearing write_blocked.
    cdef int resume(self) except -1
    # To be called from time to time while `is_holding`. A stream whose DATA waits for a window at so many looks in a
    # row, and of which none went in between, is reset with CANCEL; on_closed() follows. (Also one whose owner has
    # called finish_with_reset(), or has sent all that it had.)
    cdef int end_stalled(self, uint8_t looks) except -1

    # ===== private =====
    cdef int check_sendable(self, Stream* stream) except -1
    cdef int open_block(self) except -1
    cdef int frame_block(self, Stream* stream, bint end_stream) except -1
    cdef int write_trailers(self, Stream* stream, const Field* fields, Py_ssize_t count) except -1
    cdef Py_ssize_t write_data(
        self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream
    ) except -1
    cdef int make_room(self, Py_ssize_t length) except -1
    cdef int queue_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length) except -1
    cdef int pump(self) except -1
    cdef bint has_stalled(self, Stream* stream, uint8_t looks) noexcept
    cdef int send_pending(self, Stream* stream) except -1
    # What follows the last octet of DATA: trailers, RST_STREAM, the end of the stream.
    cdef int send_queued_end(self, Stream* stream) except -1
    cdef int write_reset(self, Stream* stream, uint32_t error_code) except -1
