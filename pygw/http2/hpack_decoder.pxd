# hpack_decoder.pxd: HPACK header block -> Field array (RFC 7541). No frames, no gRPC.

from libc.stdint cimport uint8_t, uint32_t
from ..field cimport Field
from .hpack_table cimport DecoderTable

cdef enum DecodeResult:
    DECODED = 0
    DECODED_TOO_LARGE = 1        # over max_list_size (or max_fields): the table is in step, fields are dropped
    DECODE_ERROR = -1            # COMPRESSION_ERROR: the connection is lost (RFC 9113 §4.3)
    DECODE_ABUSE = -2            # so far over the limit that decoding on only feeds an attack

cdef class HpackDecoder:
    cdef:
        DecoderTable table
        Field* fields            # the block decoded last; borrowed from table and scratch until the next decode()
        Py_ssize_t field_count
        uint32_t list_size       # its size by RFC 9113 §6.5.2 (name + value + 32 each)
        uint32_t max_list_size   # what SETTINGS_MAX_HEADER_LIST_SIZE promises
        uint32_t max_fields
        const char* error        # static text, why decode() refused; NULL otherwise

    # Decodes one whole header block. Returns a DecodeResult; raises only MemoryError (-3).
    cdef int decode(self, const uint8_t* block, Py_ssize_t length) except -3
    # The bound announced by SETTINGS_HEADER_TABLE_SIZE and acknowledged (RFC 7541 §4.2).
    cdef void allow_table_size(self, uint32_t size) noexcept
