# stream.pxd: one HTTP/2 stream (RFC 9113 §5) as a C struct, and the pool that lends them. No frames, no IO.
#
# Streams live in chunks owned by a StreamPool (one per worker) and return to its freelist. A Stream is
# valid from open_stream()/on_request until Connection.on_closed() for it has returned; nobody keeps a
# pointer longer.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from ..field cimport Field
from .buffer cimport Buffer

cdef enum StreamFlag:
    STREAM_END_RECEIVED = 0x01   # the peer has half-closed
    STREAM_END_SENT = 0x02       # we have half-closed (END_STREAM is in the output, not only queued)
    STREAM_HEAD_RECEIVED = 0x04  # request or final response header section seen: what comes next is trailers
    STREAM_HEAD_SENT = 0x08
    STREAM_END_QUEUED = 0x10     # END_STREAM follows `pending`
    STREAM_TRAILERS_QUEUED = 0x20  # `trailers` follow `pending` (they carry END_STREAM)
    STREAM_WAITING = 0x40        # linked into Connection.waiting
    STREAM_RESET_QUEUED = 0x80   # RST_STREAM follows `pending` (finish_with_reset)

cdef struct FieldBlock:          # copied fields in one allocation: `count` Fields, their octets behind them
    Py_ssize_t count
    Field* fields

cdef struct Stream:
    Stream* next                 # hash chain of its connection, or the freelist
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

cdef FieldBlock* copy_fields(const Field* fields, Py_ssize_t count) except NULL
cdef void free_fields(FieldBlock* block) noexcept

cdef class StreamPool:
    cdef:
        Stream* free_list
        Stream** chunks
        Py_ssize_t chunk_count
        readonly Py_ssize_t used
    cdef Stream* take(self) except NULL            # zeroed
    cdef void give(self, Stream* stream) noexcept  # frees what it holds (pending, trailers)
