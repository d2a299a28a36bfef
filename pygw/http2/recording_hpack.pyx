# recording_hpack.pyx: HPACK for Python: decoder and encoder that take and give Python objects, and the leaf
# functions below them. For tests, fuzzers and benchmarks; the engine does not use it.
#
# (The check takes differences of pointers for sums of integers, and hashes that wrap for mistakes.)
# cython: overflowcheck=False

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from ..field cimport FIELD_ADDED, FIELD_BAD_NAME, FIELD_BAD_VALUE, FIELD_INDEXED, FIELD_NEVER_INDEXED, Field
from .buffer cimport Buffer, buffer_free, buffer_reserve, buffer_take
from .hpack_decoder cimport DECODE_ABUSE, DECODE_ERROR, DECODED, DECODED_TOO_LARGE, HpackDecoder
from .hpack_encoder cimport HpackEncoder
from .hpack_table cimport classify_name, classify_value
from .hpack_table cimport hash_field as _hash_field
from .hpack_table cimport static_fields, STATIC_COUNT
from .hpack_table cimport token_of as _token_of
from .huffman cimport huffman_decode as _huffman_decode
from .huffman cimport huffman_decoded_bound
from .huffman cimport huffman_encode as _huffman_encode
from .huffman cimport huffman_length

from collections import namedtuple

NEVER_INDEXED = FIELD_NEVER_INDEXED
BAD_NAME = FIELD_BAD_NAME
BAD_VALUE = FIELD_BAD_VALUE
INDEXED = FIELD_INDEXED
ADDED = FIELD_ADDED

RecordedField = namedtuple("RecordedField", "name value flags token static_index hash has_memo")
DecodedBlock = namedtuple("DecodedBlock", "result fields list_size error")

cdef dict RESULTS = {
    DECODED: "decoded",
    DECODED_TOO_LARGE: "too large",
    DECODE_ERROR: "error",
    DECODE_ABUSE: "abuse",
}


# A copy at the very end of its allocation, so that sanitizers see every octet read beyond.
cdef uint8_t* exact_copy(bytes octets) except NULL:
    cdef uint8_t* copy = <uint8_t*>malloc(max(len(octets), 1))
    if copy == NULL:
        raise MemoryError()
    memcpy(copy, <const uint8_t*>octets, len(octets))
    return copy


cdef class RecordingDecoder(HpackDecoder):
    def decode_block(self, bytes block):
        cdef uint8_t* octets = exact_copy(block)
        try:
            result = self.decode(octets + (1 if len(block) == 0 else 0), len(block))
        finally:
            free(octets)
        return DecodedBlock(
            RESULTS[result],
            self.recorded_fields(),
            self.list_size,
            None if self.error == NULL else self.error.decode(),
        )

    def recorded_fields(self):
        cdef Py_ssize_t i
        return [record_field(self.fields + i) for i in range(self.field_count)]

    def acknowledge_table_size(self, uint32_t size):
        self.allow_table_size(size)

    def end_block(self):
        self.release()

    def table_entries(self):
        cdef uint32_t age
        return [
            record_field(&self.table.ring[(self.table.insertions - age) & self.table.mask].field)
            for age in range(self.table.count)
        ]

    @property
    def table_size(self):
        return self.table.size

    @property
    def table_max_size(self):
        return self.table.max_size

    @property
    def fields_seen(self):
        return self.seen

    @property
    def scratch_octets(self):
        return self.scratch_capacity

    @property
    def holds_memory(self):
        return self.fields != NULL or self.scratch != NULL or self.table.ring != NULL or self.table.memory.first != NULL

    def repeat_decode(self, bytes block, Py_ssize_t rounds):
        cdef Py_ssize_t _round
        cdef const uint8_t* octets = block
        cdef Py_ssize_t length = len(block)
        for _round in range(rounds):
            if self.decode(octets, length) != DECODED:
                raise ValueError(self.error.decode())


cdef record_field(const Field* field):
    return RecordedField(
        field.name[:field.name_length],
        field.value[:field.value_length],
        field.flags,
        field.token,
        field.static_index,
        field.hash,
        field.memo != NULL,
    )


cdef class RecordingEncoder(HpackEncoder):
    def encode_block(self, fields, bint index=False):
        cdef Buffer out
        cdef Field field
        cdef bytes name, value
        zero_buffer(&out)
        try:
            self.start_block(&out)
            for item in fields:
                name, value = item[0], item[1]
                field.name = <const uint8_t*>name
                field.name_length = <uint32_t>len(name)
                field.value = <const uint8_t*>value
                field.value_length = <uint32_t>len(value)
                field.flags = item[2] if len(item) > 2 else 0
                field.hash = 0
                field.token = 0
                field.static_index = 0
                field.memo = NULL
                self.encode_field(&out, &field, index)
            return buffer_take(&out)
        finally:
            buffer_free(&out)

    def encode_own(self, bytes name, bytes value, bint index):
        cdef Buffer out
        zero_buffer(&out)
        try:
            self.start_block(&out)
            self.encode_pair(
                &out, <const uint8_t*>name, <uint32_t>len(name), <const uint8_t*>value, <uint32_t>len(value), index
            )
            return buffer_take(&out)
        finally:
            buffer_free(&out)

    def relay_block(self, RecordingDecoder decoder):
        cdef Buffer out
        cdef Py_ssize_t i
        zero_buffer(&out)
        try:
            self.start_block(&out)
            for i in range(decoder.field_count):
                self.encode_field(&out, decoder.fields + i)
            return buffer_take(&out)
        finally:
            buffer_free(&out)

    def set_peer_table_size(self, uint32_t size):
        self.peer_table_size(size)

    @property
    def table_size(self):
        return self.table.size

    @property
    def table_max_size(self):
        return self.table.max_size

    @property
    def insertions(self):
        return self.table.insertions

    @property
    def evictions(self):
        return self.table.evictions

    @property
    def holds_memory(self):
        return self.table.ring != NULL or self.table.memory.first != NULL

    def repeat_relay(self, RecordingDecoder decoder, Py_ssize_t rounds):
        cdef Buffer out
        cdef Py_ssize_t i, _round
        zero_buffer(&out)
        try:
            for _round in range(rounds):
                out.length = 0
                self.start_block(&out)
                for i in range(decoder.field_count):
                    self.encode_field(&out, decoder.fields + i)
        finally:
            buffer_free(&out)


cdef inline void zero_buffer(Buffer* out) noexcept:
    out.owner = NULL
    out.data = NULL
    out.length = 0
    out.capacity = 0


def huffman_encode(bytes octets):
    cdef Buffer out
    cdef Py_ssize_t length = huffman_length(octets, len(octets))
    cdef uint8_t* target
    zero_buffer(&out)
    target = buffer_reserve(&out, max(length, 1))
    out.length = _huffman_encode(octets, len(octets), target) - target
    if out.length != length:
        raise AssertionError(f"huffman_length() said {length}, huffman_encode() wrote {out.length}")
    return buffer_take(&out)


def huffman_decode(bytes octets):
    cdef Py_ssize_t bound = huffman_decoded_bound(len(octets))
    cdef uint8_t* data = exact_copy(octets)
    cdef uint8_t* target = <uint8_t*>malloc(bound)
    cdef Py_ssize_t decoded
    try:
        if target == NULL:
            raise MemoryError()
        decoded = _huffman_decode(data, len(octets), target)
        if decoded < 0:
            raise ValueError("invalid Huffman code or padding (RFC 7541 5.2)")
        return target[:decoded]
    finally:
        free(data)
        free(target)


def repeat_huffman_decode(bytes octets, Py_ssize_t rounds):
    cdef uint8_t* target = <uint8_t*>malloc(huffman_decoded_bound(len(octets)))
    cdef Py_ssize_t _round
    if target == NULL:
        raise MemoryError()
    for _round in range(rounds):
        _huffman_decode(octets, len(octets), target)
    free(target)


def repeat_huffman_encode(bytes octets, Py_ssize_t rounds):
    cdef uint8_t* target = <uint8_t*>malloc(max(huffman_length(octets, len(octets)), 1))
    cdef Py_ssize_t _round
    if target == NULL:
        raise MemoryError()
    for _round in range(rounds):
        _huffman_encode(octets, len(octets), target)
    free(target)


def token_of(bytes name):
    return _token_of(name, len(name))


def hash_field(bytes name, bytes value):
    return _hash_field(name, len(name), value, len(value))


def classify(bytes name, bytes value):
    cdef uint16_t token
    cdef uint8_t* octets = exact_copy(value)
    try:
        return classify_name(name, len(name), &token) | classify_value(octets, len(value))
    finally:
        free(octets)


def static_table():
    return [record_field(static_fields() + index) for index in range(1, STATIC_COUNT + 1)]
