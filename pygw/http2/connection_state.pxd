# connection_state.pxd: what both directions of a connection share: its streams and how they end, its windows for
# receiving, its output, its own end (RFC 9113 §5.1, §5.2, §5.4, §6.8). The contract is connection.pxd.
#
# Rule for lifetimes. A hook may end any stream, and the connection. So every function that calls hooks runs
# between enter() and leave(): a Stream that ends meanwhile goes to the list `ended` and back to the pool only when
# the outermost leave() runs. Until then its memory stays what it is, and `state` tells; after a hook nothing of a
# Stream but `state` is looked at unless that is STREAM_LIVE.

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from .buffer cimport Buffer
from .connection_hooks cimport CloseCause, ConnectionHooks
from .connection_options cimport ConnectionOptions
from .frame_reader cimport FrameReader
from .hpack_decoder cimport HpackDecoder
from .hpack_encoder cimport HpackEncoder
from .limits cimport Budgets
from .message cimport RunHead
from .stream cimport Stream, StreamPool
from .stream_table cimport ResetStreams, StreamTable

cdef class ConnectionState(ConnectionHooks):
    cdef:
        readonly ConnectionOptions options
        StreamPool pool
        HpackDecoder decoder
        HpackEncoder encoder
        Buffer out                   # frames for the next flush
        readonly bint is_client
        readonly bint failed         # a connection error was sent or received, or lost() was called
        bint write_blocked           # set by the subclass while the transport is full: DATA waits, other frames do not
        const char* error            # why it failed (static text), or NULL
        uint32_t error_code
        const char* stream_error     # why a stream was reset by us for the peer's fault last (static text), or NULL

        # ===== streams =====
        readonly Py_ssize_t stream_count             # open ones, both directions counted
        uint32_t last_peer_stream_id
        uint32_t next_stream_id                      # client end: of the next open_stream()
        # Client end: HEADERS of streams from this id on have not left, as far as the owner, who sets it, knows. When
        # the connection goes, these are CLOSED_UNSENT.
        uint32_t unsent_id
        readonly bint goaway_sent
        readonly bint goaway_received
        Stream* waiting_first                        # streams with something pending that could be sent but for the
        Stream* waiting_last                         # connection window or write_blocked
        bint is_holding                              # DATA waits in some stream, or did when end_stalled() last looked

        # ===== the peer's settings (§6.5.2), defaults until it sends them =====
        readonly bint settings_received
        readonly bint settings_acknowledged          # ... and ours by it
        uint32_t peer_max_concurrent_streams         # 2**32 - 1: no limit
        uint32_t peer_initial_window
        uint32_t peer_max_frame_size
        uint32_t peer_max_header_list_size           # 2**32 - 1: no limit

        int64_t send_window          # of the connection
        int64_t receive_window
        uint32_t uncredited
        int64_t window_growth        # by how much the windows of the open streams exceed options.stream_window, in all
        uint64_t data_received       # DATA octets, for metrics and the flood budgets
        uint64_t data_sent
        uint32_t refused_streams     # beyond max_concurrent_streams; the owner may set it back to 0
        # Octets of other frames that were taken by take_output() while write_blocked and have not drained: where
        # this grows, stop reading from the peer; over Limits.max_blocked_output the connection fails.
        readonly int64_t blocked_output

        # ===== private =====
        RunHead last_run
        FrameReader reader
        StreamTable table
        ResetStreams resets
        Budgets budgets
        Stream* doomed               # to get their on_closed(), linked by next
        Stream* ended                # to be given back by leave()
        uint32_t depth               # of enter()
        bint settings_sent
        bint output_announced        # on_output() was called since take_output()
        bint stream_available        # on_stream_available() is due
        bint credit_at_receipt       # options.credit_at_receipt
        bint data_dropped            # the current DATA frame's stream was gone when it began: it is credited already
        uint16_t epoch               # counts replenish()
        uint32_t ignore_above        # streams of the peer that the last final_goaway() excludes; 2**32 - 1: none
        uint32_t skipped_first       # the newest gap in the peer's stream ids: never used, so idle by their number
        uint32_t skipped_last        # but closed by §5.1.1
        Py_ssize_t block_start       # where in `out` the open header block's frame begins; -1: none

    # ===== life =====
    # The transport is gone: on_closed(CLOSED_CONNECTION) for every stream. Idempotent.
    cdef int lost(self) except -1
    # Client end: the output that was to carry HEADERS of the streams from unsent_id on is lost. They are CLOSED_UNSENT;
    # the connection must not be written to again (§4.3: its HPACK state is ahead of the peer's).
    cdef int drop_unsent(self) except -1
    cdef bytes take_output(self)
    # GOAWAY with the last stream id 2**31 - 1 (§6.8): the peer should open no more; all go on.
    cdef int announce_goaway(self) except -1
    # The second GOAWAY, with the true last stream id: later streams are ignored.
    cdef int final_goaway(self, uint32_t error_code=*) except -1
    cdef int ping(self, uint64_t payload) except -1
    # A connection error of our own making: GOAWAY(error_code, reason as debug data), on_closed for all, on_failed.
    cdef int fail(self, uint32_t error_code, const char* reason) except -1
    # To be called about once a second, or before receive() with the seconds since the last call: gives a share of
    # the flood budgets back.
    cdef void replenish(self, uint32_t seconds=*) noexcept

    # ===== windows for receiving =====
    # The owner has drained `octets` of DATA of this stream: gives windows back, lazily (at half the window).
    cdef int credit(self, Stream* stream, Py_ssize_t octets) except -1

    # ===== private =====
    # Our SETTINGS, where they have not gone out: they come before any other frame (§3.4).
    cdef int write_settings(self) except -1
    cdef int settle(self) except -1
    cdef int return_window(self, int64_t octets) except -1
    cdef int return_stream_window(self, Stream* stream, int64_t octets) except -1
    cdef Stream* add_stream(self, uint32_t stream_id) except NULL
    cdef void link_waiting(self, Stream* stream) noexcept
    cdef void unlink_waiting(self, Stream* stream) noexcept
    cdef void release_stream(self, Stream* stream) noexcept
    cdef void bury(self, Stream* stream) noexcept
    cdef int close_stream(self, Stream* stream, CloseCause cause, uint32_t code) except -1
    cdef void doom(self, Stream** place, CloseCause cause, uint32_t code) noexcept
    cdef void doom_streams(self, uint32_t above, CloseCause cause, uint32_t code) noexcept
    cdef int close_doomed(self) except -1
    cdef void doom_all(self, uint32_t code) noexcept
    cdef int end_all(self, uint32_t error_code, const char* reason) except -1

# The reference keeps the connection itself alive where a hook drops the owner's last one.
cdef inline void enter(ConnectionState self) noexcept:
    Py_INCREF(self)
    self.depth += 1

cdef void leave(ConnectionState self) noexcept

cdef enum:
    ENDED_BY_OWNER = 0xff        # Stream.close_cause of a doomed one that its owner has reset in the meantime
