# connection.pxd: one HTTP/2 connection, either end (RFC 9113). No IO, no gRPC, no routes.
#
# Feed octets with receive(); it calls the on_*() hooks, which subclasses fill. What is to be sent collects
# in `out`; the subclass takes it with take_output() once per loop turn (on_output() tells it when the first
# octets came). Pointers passed to a hook are borrowed: they die when the hook returns.
#
# Rules that keep it correct:
# * The engine checks everything RFC 9113 says of frames, streams, windows and messages (§8, by message.pyx,
#   content-length against DATA included). A hook sees only well-formed messages.
# * Every stream announced by on_request() or made by open_stream() ends with exactly one on_closed(), unless
#   the owner itself ended it with reset_stream() (then none follows). The Stream is given back right after.
# * Hooks may call any sending function, on this and on other connections, for any stream.
# * Functions `except -1` raise only what Python raises (MemoryError, a bug in a hook). What the peer does
#   wrong never raises: it becomes RST_STREAM (§5.4.2) or GOAWAY (§5.4.1, then on_failed()).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from ..field cimport Field
from .buffer cimport Buffer
from .hpack_decoder cimport HpackDecoder
from .hpack_encoder cimport HpackEncoder
from .message cimport RequestHead, ResponseHead
from .stream cimport FieldBlock, Stream, StreamPool

cdef enum CloseCause:
    CLOSED_COMPLETE = 0          # both sides sent END_STREAM
    CLOSED_BY_PEER = 1           # RST_STREAM came; `code` is its error code
    CLOSED_BY_ERROR = 2          # the peer broke a rule on this stream and we reset it with `code`
    CLOSED_UNPROCESSED = 3       # GOAWAY's last stream id is lower, or REFUSED_STREAM: safe to retry (§8.7)
    CLOSED_CONNECTION = 4        # the connection is gone or failed
    CLOSED_TOO_LARGE = 5         # client end only: the response's header section is over our limit; reset with CANCEL

cdef class ConnectionOptions:
    """What a connection of one end is made with; shared by all of them. Defaults: see Settings."""
    cdef:
        public bint is_client
        public uint32_t max_concurrent_streams     # what we allow the peer (server end)
        public uint32_t stream_window              # SETTINGS_INITIAL_WINDOW_SIZE that we announce
        public uint32_t stream_window_max          # credit() lets receive_target grow to this
        public uint32_t connection_window          # raised to this by a WINDOW_UPDATE behind the preface
        public bint credit_at_receipt              # give the *connection* window back at receipt (client end: one
                                                   # stalled stream must not stall the others of a shared
                                                   # connection), else in credit()
        public uint32_t max_header_list_size
        public uint32_t max_header_fields
        public uint32_t header_table_size
        public uint32_t encoder_table_size
        # budgets against floods, per connection (limits.pxd): see Settings for names and reasons
        public object limits                       # any object with the int attributes limits.pxd reads

cdef class Connection:
    cdef:
        readonly ConnectionOptions options
        StreamPool pool
        HpackDecoder decoder
        HpackEncoder encoder
        Buffer out                   # frames for the next flush
        readonly bint is_client
        readonly bint failed         # a connection error was sent or received, or connection_lost() was called
        bint write_blocked           # set by the subclass while the transport is full: DATA waits, other frames do not
        const char* error            # why it failed (static text), or NULL
        uint32_t error_code

        # ===== streams =====
        readonly Py_ssize_t stream_count             # open ones, both directions counted
        uint32_t last_peer_stream_id
        uint32_t next_stream_id                      # client end: of the next open_stream()
        readonly bint goaway_sent
        readonly bint goaway_received
        Stream* waiting_first                        # streams with something pending that could be sent but for the
        Stream* waiting_last                         # connection window or write_blocked

        # ===== the peer's settings (§6.5.2), defaults until it sends them =====
        readonly bint settings_received
        uint32_t peer_max_concurrent_streams         # 2**32 - 1: no limit
        uint32_t peer_initial_window
        uint32_t peer_max_frame_size
        uint32_t peer_max_header_list_size           # 2**32 - 1: no limit

        int64_t send_window          # of the connection
        int64_t receive_window
        uint32_t uncredited
        uint64_t data_received       # DATA octets, for metrics and the flood budgets
        uint64_t data_sent
        # (the implementation's own fields follow)

    # ===== life =====
    # Writes the preface (client end: with the magic octets) with our SETTINGS. Call once, before receive().
    cdef int start(self) except -1
    # Takes everything; keeps what is not whole yet. Does nothing once `failed`.
    cdef int receive(self, const uint8_t* data, Py_ssize_t length) except -1
    # The transport is gone: on_closed(CLOSED_CONNECTION) for every stream. Idempotent.
    cdef int connection_lost(self) except -1
    cdef bytes take_output(self)
    # Sends what waits for the transport; the subclass calls it after clearing write_blocked.
    cdef int resume(self) except -1
    # GOAWAY with the last stream id 2**31 - 1 (§6.8): the peer should open no more; all go on.
    cdef int announce_goaway(self) except -1
    # The second GOAWAY, with the true last stream id: later streams are ignored.
    cdef int final_goaway(self, uint32_t error_code=*) except -1
    cdef int ping(self, uint64_t payload) except -1
    # A connection error of our own making: GOAWAY(error_code, reason as debug data), on_closed for all, on_failed.
    cdef int fail(self, uint32_t error_code, const char* reason) except -1

    # ===== sending on a stream =====
    # Client end: a new stream, or NULL (no exception) where the peer allows none now (limit reached, GOAWAY
    # received, ids used up, failed). It counts at once; HEADERS must follow before any other stream is opened.
    cdef Stream* open_stream(self, void* owner) except? NULL
    cdef bint can_open(self) noexcept
    # A header block: begin, then encoder.encode_field(&self.out, ...) for each field, then end. Nothing else may
    # be sent on this connection between the two. end_headers() frames the block (HEADERS and CONTINUATION).
    cdef int begin_headers(self, Stream* stream) except -1
    cdef int end_headers(self, Stream* stream, bint end_stream) except -1
    # DATA: what windows and the transport allow goes into `out` at once, the rest waits in stream.pending.
    # Returns how many octets went out now; on_drained() reports the others when they go.
    cdef Py_ssize_t send_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1
    # Trailers end the stream; behind pending DATA they wait (copied), encoded when they go.
    cdef int send_trailers(self, Stream* stream, const Field* fields, Py_ssize_t count) except -1
    # RST_STREAM now; what is pending is dropped, the Stream given back, no on_closed().
    cdef int reset_stream(self, Stream* stream, uint32_t error_code) except -1
    # Server end: RST_STREAM(error_code) right after everything queued (END_STREAM included) has gone, as §8.1 has
    # it for an early response. No hook is called for the stream from now on but on_closed.
    cdef int finish_with_reset(self, Stream* stream, uint32_t error_code) except -1
    # The owner has drained `octets` of DATA of this stream: gives windows back, lazily (at half the window).
    cdef int credit(self, Stream* stream, Py_ssize_t octets) except -1
    # DATA octets of `stream` that wait here.
    cdef Py_ssize_t pending_octets(self, Stream* stream) noexcept

    # ===== hooks, for subclasses =====
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
    cdef int on_data(self, Stream* stream, const uint8_t* data, Py_ssize_t length, bint end_stream) except -1
    cdef int on_trailers(self, Stream* stream, Field* fields, Py_ssize_t count, Field* grpc_status) except -1
    cdef int on_drained(self, Stream* stream, Py_ssize_t octets) except -1
    cdef int on_closed(self, Stream* stream, CloseCause cause, uint32_t code) except -1
    cdef int on_stream_available(self) except -1          # client end: a stream ended or the limit rose
    cdef int on_goaway(self, uint32_t last_stream_id, uint32_t code) except -1
    cdef int on_ping_ack(self, uint64_t payload) except -1
    cdef int on_failed(self) except -1                    # flush `out` (it holds GOAWAY) and close the transport
