# hpack_encoder.pyx: Field -> HPACK octets in a Buffer (RFC 7541). See hpack_encoder.pxd.
#
# What a relay repeats is what its peer repeats: a field that came as an index goes out as one, and joins our
# table when it does not hold it yet. A literal goes out as a literal, although the sender may have put it into
# its own table (many senders put everything there): values that change with each call would only push the
# useful entries out of a table that many clients share. Credentials and cookies follow the same rule, so nothing
# is indexed that its sender does not repeat; never-indexed fields stay so (§7.1.3).
#
# (The check takes differences of pointers for sums of integers, and hashes that wrap for mistakes.)
# cython: overflowcheck=False

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ..field cimport FIELD_INDEXED, FIELD_NEVER_INDEXED, Field, FieldMemo
from .buffer cimport Buffer, buffer_reserve
from .hpack_encoder_table cimport (
    add_encoded,
    find_encoded,
    find_encoded_name,
    free_encoder_table,
    resize_encoder_table,
)
from .hpack_integer cimport write_integer
from .hpack_table cimport (
    DEFAULT_TABLE_SIZE,
    ENTRY_OVERHEAD,
    FIRST_DYNAMIC_INDEX,
    find_static,
    find_static_name,
    hash_name,
    hash_value,
)
from .huffman cimport huffman_encode, huffman_length

cdef enum:
    MAX_INTEGER = 6              # octets of a 32-bit integer (§5.1)

# Numbers encoders, so that a memo of one that is gone can never be taken for another's at the same address.
cdef uint64_t encoders_made = 0


cdef class HpackEncoder:
    def __cinit__(self, uint32_t max_table_size):
        global encoders_made
        encoders_made += 1
        self.id = encoders_made
        self.own_max_size = max_table_size
        self.told_size = DEFAULT_TABLE_SIZE
        self.smallest_size = DEFAULT_TABLE_SIZE
        self.table.max_size = DEFAULT_TABLE_SIZE
        self.peer_table_size(DEFAULT_TABLE_SIZE)

    def __dealloc__(self):
        free_encoder_table(&self.table)

    cdef int start_block(self, Buffer* out) except -1:
        cdef uint8_t* start
        cdef uint8_t* p
        if self.smallest_size == self.told_size == self.table.max_size:
            return 0
        start = p = buffer_reserve(out, 2 * MAX_INTEGER)
        if self.smallest_size < min(self.told_size, self.table.max_size):
            p = write_integer(p, 0x20, 0x1f, self.smallest_size)
        p = write_integer(p, 0x20, 0x1f, self.table.max_size)
        out.length += p - start
        self.told_size = self.smallest_size = self.table.max_size
        return 0

    cdef int encode_field(self, Buffer* out, const Field* field, bint index=False) except -1:
        cdef FieldMemo* memo = field.memo
        cdef uint64_t name_hash = 0
        cdef uint64_t number
        cdef uint32_t hash, static_index
        if field.flags & FIELD_NEVER_INDEXED:
            return write_literal(self, out, field, hash_name(field.name, field.name_length), 0x10, 0x0f)
        if field.static_index:
            return write_index(out, field.static_index)
        if memo != NULL and memo.encoder == self.id and memo.insertion > self.table.evictions:
            return write_index(out, index_of(self, memo.insertion))
        hash = field.hash
        if hash == 0:
            name_hash = hash_name(field.name, field.name_length)
            hash = hash_value(name_hash, field.value, field.value_length)
        static_index = find_static(hash, field.name, field.name_length, field.value, field.value_length)
        if static_index:
            return write_index(out, static_index)
        number = find_encoded(&self.table, field, hash)
        if number:
            remember(self, field, number)
            return write_index(out, index_of(self, number))
        if name_hash == 0:
            name_hash = hash_name(field.name, field.name_length)
        if (index or field.flags & FIELD_INDEXED) and is_worth_a_place(self, field):
            write_literal(self, out, field, name_hash, 0x40, 0x3f)
            add_encoded(&self.table, field, name_hash, hash)
            remember(self, field, self.table.insertions)
            return 0
        return write_literal(self, out, field, name_hash, 0, 0x0f)

    cdef int encode_pair(self, Buffer* out, const uint8_t* name, uint32_t name_length,
                         const uint8_t* value, uint32_t value_length, bint index) except -1:
        cdef Field field
        field.name = name
        field.name_length = name_length
        field.value = value if value != NULL else name
        field.value_length = value_length
        field.hash = 0
        field.token = 0
        field.flags = 0
        field.static_index = 0
        field.memo = NULL
        return self.encode_field(out, &field, index)

    cdef void peer_table_size(self, uint32_t size) noexcept:
        cdef uint32_t chosen = min(size, self.own_max_size)
        self.smallest_size = min(self.smallest_size, chosen)
        if chosen != self.table.max_size:
            resize_encoder_table(&self.table, chosen)


cdef inline uint32_t index_of(HpackEncoder self, uint64_t number) noexcept:
    return <uint32_t>(FIRST_DYNAMIC_INDEX + (self.table.insertions - number))


# Lets the next use of the same table entry of the decoder find the index without a look-up.
cdef inline void remember(HpackEncoder self, const Field* field, uint64_t number) noexcept:
    if field.memo != NULL:
        field.memo.encoder = self.id
        field.memo.insertion = number


# Not where one field would push out half of what the others share.
cdef inline bint is_worth_a_place(HpackEncoder self, const Field* field) noexcept:
    return <uint64_t>field.name_length + field.value_length + ENTRY_OVERHEAD <= self.table.max_size // 2


cdef inline int write_index(Buffer* out, uint32_t index) except -1:
    cdef uint8_t* p = buffer_reserve(out, MAX_INTEGER)
    out.length += write_integer(p, 0x80, 0x7f, index) - p
    return 0


# A literal field (§6.2); `first` and `mask` tell its kind and the prefix of its name's index.
cdef int write_literal(
    HpackEncoder self, Buffer* out, const Field* field, uint64_t name_hash, uint8_t first, uint8_t mask
) except -1:
    cdef uint32_t index = find_static_name(name_hash, field.name, field.name_length)
    cdef uint64_t number
    cdef uint8_t* start
    cdef uint8_t* p
    if index == 0:
        number = find_encoded_name(&self.table, field, name_hash)
        if number:
            index = index_of(self, number)
    start = p = buffer_reserve(
        out, 3 * MAX_INTEGER + <Py_ssize_t>field.name_length + <Py_ssize_t>field.value_length
    )
    p = write_integer(p, first, mask, index)
    if index == 0:
        p = write_string(p, field.name, field.name_length)
    p = write_string(p, field.value, field.value_length)
    out.length += p - start
    return 0


# A string literal (§5.2), Huffman-coded where that is not longer (as long: so do the examples of Appendix C).
cdef inline uint8_t* write_string(uint8_t* p, const uint8_t* octets, uint32_t length) noexcept:
    cdef Py_ssize_t coded = huffman_length(octets, length)
    if 0 < coded <= length:
        return huffman_encode(octets, length, write_integer(p, 0x80, 0x7f, <uint32_t>coded))
    p = write_integer(p, 0, 0x7f, length)
    memcpy(p, octets, length)
    return p + length
