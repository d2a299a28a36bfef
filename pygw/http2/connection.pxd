# connection.pxd: one HTTP/2 connection, either end (RFC 9113). No IO, no gRPC, no routes.
#
# Feed octets with receive(); it calls the on_*() hooks, which subclasses fill. What is to be sent collects
# in `out`; the subclass takes it with take_output() once per loop turn (on_output() tells it when the first
# octets came). Pointers passed to a hook are borrowed: they die when the hook returns.
#
# The contract, by file:
#   connection_hooks.pxd     what a connection tells its owner: on_request(), on_data(), on_closed(), ...
#   connection_options.pxd   what connections are made with
#   connection_state.pxd     fields; start, lost, take_output, goaways, ping, fail, replenish, credit
#   connection_sender.pxd    open_stream, header blocks, send_data, trailers, resets, resume, end_stalled
#   this file                receive() and what it does with frames
# All their names can be cimported from here.
#
# Rules that keep it correct:
# * The engine checks everything RFC 9113 says of frames, streams, windows and messages (§8, by message.pyx,
#   content-length against DATA included). A hook sees only well-formed messages.
# * Every stream announced by on_request() or made by open_stream() ends with exactly one on_closed(), unless
#   the owner itself ended it with reset_stream() (then none follows). The Stream is given back right after.
# * Hooks may call any sending function, on this and on other connections, for any stream. They do not call
#   receive() of the connection they come from.
# * A sending function may itself call on_closed(), on_drained() or on_failed() before it returns. Called for a
#   stream or a connection that has ended while a hook still runs, it does nothing.
# * Functions `except -1` raise only what Python raises (MemoryError, a bug in a hook; RuntimeError where a stream
#   is used behind its end). What the peer does wrong never raises: it becomes RST_STREAM (§5.4.2) or GOAWAY
#   (§5.4.1, then on_failed()).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ..field cimport Field
from .buffer cimport Buffer
from .connection_hooks cimport (
    CLOSED_BY_ERROR,
    CLOSED_BY_PEER,
    CLOSED_COMPLETE,
    CLOSED_CONNECTION,
    CLOSED_STALLED,
    CLOSED_TOO_LARGE,
    CLOSED_UNPROCESSED,
    CLOSED_UNSENT,
    CloseCause,
)
from .connection_options cimport ConnectionOptions
from .connection_sender cimport ConnectionSender
from .hpack_decoder cimport HpackDecoder
from .hpack_encoder cimport HpackEncoder
from .message cimport RequestHead, ResponseHead
from .stream cimport FieldBlock, Stream, StreamPool

cdef class Connection(ConnectionSender):
    # Call once, before receive(). Client end: writes the preface with our SETTINGS. Server end: they follow when the
    # client's preface is in, so that a peer that does not speak HTTP/2 can be told so in its own language.
    cdef int start(self) except -1
    # Takes everything; keeps what is not whole yet. Does nothing once `failed`.
    cdef int receive(self, const uint8_t* data, Py_ssize_t length) except -1

    # ===== private =====
    cdef int dispatch(self, const uint8_t* data, Py_ssize_t length) except -1
    cdef int take_frame(self) except -1
    cdef int refuse_preface(self, const uint8_t* rest, Py_ssize_t length) except -1
    # A frame that relays nothing.
    cdef int charge(self) except -1
    # RST_STREAM for the peer's fault; on_closed() follows.
    cdef int fail_stream(self, Stream* stream, uint32_t error_code, const char* reason) except -1
    cdef int reset_unannounced(
        self, uint32_t stream_id, bint end_stream, uint32_t error_code, const char* reason
    ) except -1
    cdef int charge_provoked(self) except -1
    cdef Stream* find(self, uint32_t stream_id) noexcept
    cdef bint is_idle(self, uint32_t stream_id) noexcept
    cdef int take_closed(self, uint32_t stream_id, int64_t data_octets) except -1

    cdef int begin_data(self, Stream* stream) except -1
    cdef const char* check_data(self, Stream* stream, uint32_t* error_code) noexcept
    cdef int deliver_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1
    cdef int end_received(self, Stream* stream) except -1

    cdef int take_block(self) except -1
    cdef int refuse_large_block(self, Stream* stream) except -1
    cdef int take_new_request(self, uint32_t stream_id, bint end_stream, bint too_large) except -1
    cdef int take_response(self, Stream* stream, bint end_stream) except -1
    cdef int take_trailers(self, Stream* stream, bint end_stream) except -1

    cdef int take_settings(self) except -1
    cdef const char* apply_setting(self, uint32_t setting, uint32_t value, uint32_t* window) noexcept
    cdef bint change_initial_window(self, uint32_t size) noexcept
    cdef int take_settings_ack(self) except -1
    cdef int take_window_update(self) except -1
    cdef int take_rst_stream(self) except -1
    cdef int take_priority(self) except -1
    cdef int take_goaway(self) except -1
