# connection_hooks.pxd: what a connection tells its owner. Subclasses of Connection fill these; each does nothing here.
#
# * Pointers passed to a hook are borrowed: they die when the hook returns.
# * Hooks may call any sending function, on this and on other connections, for any stream.
# * A sending function may call on_closed() (and on_output(), on_stream_available(), on_failed()) before it returns:
#   what ends a stream on both sides ends it at once.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from ..field cimport Field
from .message cimport RequestHead, ResponseHead
from .stream cimport Stream

cdef enum CloseCause:
    CLOSED_COMPLETE = 0          # both sides sent END_STREAM (or ours went out and finish_with_reset() followed)
    CLOSED_BY_PEER = 1           # RST_STREAM came; `code` is its error code
    CLOSED_BY_ERROR = 2          # the peer broke a rule on this stream and we reset it with `code`
    CLOSED_UNPROCESSED = 3       # GOAWAY's last stream id is lower, or REFUSED_STREAM: safe to retry (§8.7)
    CLOSED_CONNECTION = 4        # the connection is gone or failed
    CLOSED_TOO_LARGE = 5         # client end only: the response's header section is over our limit; reset with CANCEL
    CLOSED_UNSENT = 6            # client end: none of it left this end (ConnectionState.unsent_id)
    CLOSED_STALLED = 7           # end_stalled(): DATA waited too long for a window; reset with CANCEL

cdef class ConnectionHooks:
    cdef int on_output(self) except -1                    # `out` was empty and is not any more
    cdef int on_ready(self) except -1                     # the peer's first SETTINGS came
    cdef int on_settings(self) except -1                  # later SETTINGS came (stream limit may have changed)
    # Server end. `too_large`: the header list is over our limit (fields is empty then, head is not filled): the
    # owner answers on the stream.
    cdef int on_request(self, Stream* stream, RequestHead* head, Field* fields, Py_ssize_t count,
                        bint end_stream, bint too_large) except -1
    # Client end, 1xx included (head.status tells).
    cdef int on_response(self, Stream* stream, ResponseHead* head, Field* fields, Py_ssize_t count,
                         bint end_stream) except -1
    # So much output has collected that it is better written now, from the cache, than at the end of the turn. Never
    # in the middle of a header block, nor while write_blocked.
    cdef int on_output_full(self) except -1
    cdef int on_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1
    cdef int on_trailers(self, Stream* stream, Field* fields, Py_ssize_t count, Field* grpc_status) except -1
    cdef int on_drained(self, Stream* stream, Py_ssize_t octets) except -1
    cdef int on_closed(self, Stream* stream, CloseCause cause, uint32_t code) except -1
    # DATA has begun to wait in a stream, for a window or for the transport, where `is_holding` was not set.
    cdef int on_holding(self) except -1
    # Client end: a stream ended or the peer's limit rose. Server end: the last open stream ended.
    cdef int on_stream_available(self) except -1
    cdef int on_goaway(self, uint32_t last_stream_id, uint32_t code) except -1
    cdef int on_ping_ack(self, uint64_t payload) except -1
    # Server end: these octets, the first that came (at most 256 of them), are not HTTP/2's. Nothing has been sent
    # yet, so that an answer in the peer's own language can be appended to `out`; on_failed() follows, no GOAWAY.
    cdef int on_bad_preface(self, const uint8_t* data, Py_ssize_t length) except -1
    cdef int on_failed(self) except -1                    # flush `out` (it holds GOAWAY) and close the transport
