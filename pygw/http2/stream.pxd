# stream.pxd: one HTTP/2 stream (RFC 9113 §5) as a C struct, and the pool that lends them. No frames, no IO.
#
# Streams live in chunks owned by a StreamPool (one per worker) and return to its freelist. A Stream is
# valid from open_stream()/on_request until Connection.on_closed() for it has returned; nobody keeps a
# pointer longer. (The engine itself gives a Stream back only when its outermost call on that connection
# returns, so that an engine function may still look at `state` after any hook.)

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from ..field cimport Field
from .buffer cimport Buffer, buffer_free

cdef enum StreamFlag:
    STREAM_END_RECEIVED = 0x01   # the peer has half-closed
    STREAM_END_SENT = 0x02       # we have half-closed (END_STREAM is in the output, not only queued)
    STREAM_HEAD_RECEIVED = 0x04  # request or final response header section seen: what comes next is trailers
    STREAM_HEAD_SENT = 0x08
    STREAM_END_QUEUED = 0x10     # END_STREAM follows `pending`
    STREAM_TRAILERS_QUEUED = 0x20  # `trailers` follow `pending` (they carry END_STREAM)
    STREAM_WAITING = 0x40        # linked into Connection.waiting
    STREAM_RESET_QUEUED = 0x80   # RST_STREAM follows `pending` (finish_with_reset)

cdef enum StreamState:
    STREAM_FREE = 0              # in the pool
    STREAM_LIVE = 1              # in its connection's table; anything else below: sending functions do nothing
    STREAM_DOOMED = 2            # out of the table, on_closed() is to come
    STREAM_ENDED = 3             # on_closed() is under way or over, or the owner ended it

cdef struct FieldBlock:          # copied fields in one allocation: `count` Fields, their octets behind them
    Py_ssize_t count
    Field* fields
    size_t size                  # of the allocation
    Py_ssize_t references        # 1 at first; for its owner's use: free_fields() does not look

cdef struct Stream:
    Stream* next                 # hash chain of its connection, its list of doomed or ended ones, or the freelist
    Stream* waiting_next         # Connection.waiting: a doubly linked list, oldest first
    Stream* waiting_previous
    void* owner                  # for whoever uses the connection (the relay's Call); the engine never looks
    uint32_t id
    uint8_t flags                # StreamFlag
    uint32_t reset_code          # for STREAM_RESET_QUEUED
    int64_t send_window          # octets of DATA we may send (§6.9.2: may go negative)
    int64_t receive_window       # octets of DATA the peer may still send
    uint32_t receive_target      # the window we keep open for the peer; grows when drained fast (set by credit())
    uint32_t uncredited          # octets drained and not yet given back by WINDOW_UPDATE
    int64_t content_left         # content-length minus DATA received; -1: none given
    Buffer pending               # DATA that windows or the transport hold back
    Py_ssize_t pending_start     # octets of `pending` already sent
    FieldBlock* trailers

    # ===== private =====
    uint8_t state                # StreamState
    uint8_t close_cause          # of a doomed stream: a CloseCause; its code is in reset_code
    uint8_t stalls               # looks of end_stalled() since DATA of it went out, at each of which it had no window
    bint no_content              # client end: the owner may set it (HEAD): content-length announces nothing (§8.1.1)
    uint16_t epoch               # Connection.epoch when it was opened
    uint16_t growth_epoch        # ... when `growth` began to count
    uint32_t interim_responses
    uint32_t undrained           # octets given to on_data() and not yet to credit()
    uint32_t growth              # octets drained since the owner last lagged behind: see credit()

cdef inline Py_ssize_t pending_of(const Stream* stream) noexcept:
    return stream.pending.length - stream.pending_start

cdef FieldBlock* copy_fields(const Field* fields, Py_ssize_t count) except NULL
cdef void free_fields(FieldBlock* block) noexcept

cdef class StreamPool:
    cdef:
        Stream* free_list
        Stream** chunks
        Py_ssize_t chunk_count
        readonly Py_ssize_t used
        readonly uint32_t multiplier               # for StreamTables: odd, random
        PyObject* spare_block                      # a bytes object of OUTPUT_BLOCK octets, or NULL
        bint isolated                              # each Stream its own allocation: sanitizers see use after give()
    cdef Stream* take(self) except NULL            # zeroed but for state, which is STREAM_LIVE
    cdef void give(self, Stream* stream) noexcept  # frees what it holds (pending, trailers)
    # Moves what is in `out` to a block of OUTPUT_BLOCK octets, where it is in a smaller one.
    cdef int widen(self, Buffer* out) except -1
    # `data` was taken from a Buffer of that capacity, and written.
    cdef void recycle(self, bytes data, Py_ssize_t capacity) noexcept
    cdef int grow(self) except -1
    cdef void shrink(self) noexcept

# Frees what a stream holds beside itself.
cdef inline void free_contents(Stream* stream) noexcept:
    buffer_free(&stream.pending)
    stream.pending_start = 0
    free_fields(stream.trailers)
    stream.trailers = NULL
