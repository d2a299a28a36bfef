# hpack_decoder.pxd: HPACK header block -> Field array (RFC 7541). No frames, no gRPC.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from ..field cimport Field
from .hpack_table cimport DecoderTable

cdef enum DecodeResult:
    DECODED = 0
    DECODED_TOO_LARGE = 1        # over max_list_size (or max_fields): the table is in step, fields are dropped
    DECODE_ERROR = -1            # COMPRESSION_ERROR: the connection is lost (RFC 9113 §4.3)
    DECODE_ABUSE = -2            # so far over the limit that decoding on only feeds an attack

cdef enum:
    RUN_OCTETS = 64

cdef class HpackDecoder:
    cdef:
        DecoderTable table
        Field* fields            # the block decoded last; borrowed from table and scratch until the next decode()
        Py_ssize_t field_count
        uint32_t list_size       # its size by RFC 9113 §6.5.2 (name + value + 32 each)
        uint32_t max_list_size   # what SETTINGS_MAX_HEADER_LIST_SIZE promises
        uint32_t max_fields
        const char* error        # static text, why decode() refused; NULL otherwise
        # The run: the fields that came by index at the start of the block. Most blocks of a connection begin with the
        # same octets, and mean the same while the table is the same: they are not decoded again. Two blocks whose runs
        # have the same number (no other decoder's has it) begin with the same fields, at the same place in `fields`;
        # 0: none.
        uint64_t run_number
        Py_ssize_t run_fields    # so many Fields

        # ===== private =====
        uint64_t total           # list_size so far, not cut to 32 bits
        Py_ssize_t seen          # fields so far, the dropped ones too
        Py_ssize_t capacity      # of `fields`
        uint8_t* scratch         # octets of literals that did not join the table; does not move during a block
        Py_ssize_t scratch_used
        Py_ssize_t scratch_capacity
        uint32_t allowed_table_size
        uint32_t update_bound    # what the next block's first size update may say at most (RFC 7541 §4.2)
        bint update_required
        uint32_t run_length      # octets of `run`; 0: none
        uint32_t run_total       # what its fields add to list_size
        uint32_t run_insertions  # of the table, when it was decoded
        uint32_t run_count
        uint32_t run_misses      # blocks since one began with the run
        uint8_t[RUN_OCTETS] run

    # Decodes one whole header block. Returns a DecodeResult; raises only MemoryError (-3). The block itself is
    # not borrowed from.
    cdef int decode(self, const uint8_t* block, Py_ssize_t length) except -3
    # The bound announced by SETTINGS_HEADER_TABLE_SIZE and acknowledged (RFC 7541 §4.2).
    cdef void allow_table_size(self, uint32_t size) noexcept
    # Ends the borrowing early and frees what an idle connection should not hold. Optional: decode() does it too.
    cdef void release(self) noexcept
    # No block is expected soon: frees all but the table.
    cdef void rest(self) noexcept
