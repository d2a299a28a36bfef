# hpack_encoder.pxd: Field -> HPACK octets in a Buffer (RFC 7541). No frames, no gRPC.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from ..field cimport Field
from .buffer cimport Buffer
from .hpack_encoder_table cimport EncoderTable

cdef class HpackEncoder:
    cdef:
        readonly uint64_t id         # unique in the process, never 0: what FieldMemo.encoder holds
        EncoderTable table           # table.insertions is what FieldMemo.insertion holds

        # ===== private =====
        uint32_t own_max_size        # the bound that we set ourselves
        uint32_t smallest_size       # of the table since the last block: §4.2 wants it said
        uint32_t told_size           # what the peer's decoder was last told, or takes as given

    # To be called once before the fields of each block: writes pending table size updates (RFC 7541 §4.2).
    cdef int start_block(self, Buffer* out) except -1
    # Appends one field. Uses, in this order: static_index, memo, the dynamic table, a literal.
    # A literal joins the dynamic table only if the sender repeats it (FIELD_INDEXED) or `index` says so.
    cdef int encode_field(self, Buffer* out, const Field* field, bint index=*) except -1
    # Appends a field given by pointers (token optional); for fields that pygw makes itself.
    cdef int encode_pair(self, Buffer* out, const uint8_t* name, uint32_t name_length,
                         const uint8_t* value, uint32_t value_length, bint index) except -1
    # The peer's SETTINGS_HEADER_TABLE_SIZE; the table never grows over our own bound.
    cdef void peer_table_size(self, uint32_t size) noexcept
