# frame_reader.pxd: octets -> frames (RFC 9113 §3.4, §4, §6.1, §6.2, §6.10). Knows no streams, windows or HPACK.
#
# A pull parser: read_event() takes octets from the cursor and says what they were; call it until READ_MORE.
# DATA passes piecewise as it comes; all other frames are whole when they are reported, HEADERS together with
# its CONTINUATIONs and without padding. Nothing is copied but what a read has cut in two: a frame head, a
# frame other than DATA (at most 16,384 octets), a header block (at most max_block octets). Reported pointers
# are borrowed: they die at the next read_event().

from libc.stdint cimport uint8_t, uint32_t

from .buffer cimport Buffer, buffer_free

cdef enum ReadEvent:
    READ_MORE = 0                # the cursor is at the end
    READ_DATA_HEAD = 1           # a DATA frame begins: `length` counts for flow control, `data_left` are data
    READ_DATA = 2                # `payload`, never empty, of the current DATA frame; `data_left` more will come
    READ_BLOCK = 3               # a header block of stream `block_id`, with the flags of its HEADERS frame
    READ_FRAME = 4               # any other frame that is known: `type`, `flags`, `stream_id`, `payload`
    READ_UNKNOWN = 5             # a frame of unknown type; its payload is passed over (§5.5)
    READ_PREFACE = 6             # the client's magic octets are complete
    READ_BAD_PREFACE = 7         # something else came; `payload_length` octets before the cursor are as in the magic
    READ_ERROR = 8               # a connection error: `error_code`, `error`

cdef enum ReadState:
    AT_PREFACE
    AT_HEAD
    AT_PAD_LENGTH
    AT_DATA
    AT_PADDING                   # or any other octets to pass over
    AT_PAYLOAD

cdef struct FrameReader:
    uint8_t state                # ReadState
    uint8_t type
    uint8_t flags
    uint8_t head_length          # octets of `head` (or of the magic) that are there
    uint8_t[9] head
    bint settings_seen           # the peer's first frame, SETTINGS, has begun (§3.4)
    uint32_t begun               # frames whose head came; HEADERS and its CONTINUATIONs are one. Wraps around
    uint32_t stream_id
    uint32_t length              # of the current frame's payload
    uint32_t data_left
    uint32_t padding_left        # or of another payload that is passed over
    const uint8_t* payload
    Py_ssize_t payload_length

    uint32_t block_id            # stream of the open (or the reported) header block
    bint block_open              # HEADERS without END_HEADERS came: nothing but CONTINUATION may follow (§6.10)
    uint8_t block_flags
    bint self_dependent          # its priority names itself (RFC 7540 §5.3.1)
    uint32_t continuations
    uint32_t max_block
    uint32_t max_continuations

    bint release                 # what was reported last is in the buffers below: free them at the next call
    Buffer partial               # payload of a frame that is not whole yet
    Buffer block                 # fragments of the open header block

    uint32_t error_code
    const char* error            # static text

cdef void start_reader(FrameReader* self, bint expects_preface, uint32_t max_block, uint32_t max_continuations) noexcept
# Returns a ReadEvent; raises only MemoryError.
cdef int read_event(FrameReader* self, const uint8_t** cursor, const uint8_t* end) except -1

# Whether a frame or a header block has begun and is not whole.
cdef inline bint is_halfway(const FrameReader* self) noexcept:
    return self.state != AT_HEAD or self.head_length > 0 or self.block_open

# ... and it is one whose octets are passed on, or over, as they come.
cdef inline bint is_in_passing(const FrameReader* self) noexcept:
    return self.state == AT_DATA or self.state == AT_PADDING

cdef inline void free_reader(FrameReader* self) noexcept:
    buffer_free(&self.partial)
    buffer_free(&self.block)
