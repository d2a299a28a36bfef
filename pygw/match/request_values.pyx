# request_values.pyx: see request_values.pxd.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from ..field cimport TOKEN_AUTHORITY, TOKEN_UNKNOWN_PSEUDO, Field
from .image_index cimport Walk, hash_octets, span_is, walk_next, walk_start
from .image_layout cimport (
    NONE, SECTION_NAMES, SECTION_SLOTS, TABLE_NAMES, ImageHeader, ListRef, NameRecord, Slot,
)
from .request_target cimport Request


cdef RequestValues open_values(object owner, const uint8_t* base):
    cdef RequestValues opened = RequestValues.__new__(RequestValues)
    cdef uint32_t names
    opened.header = <const ImageHeader*>base
    opened.base = base
    names = opened.header.sections[<int>SECTION_NAMES].count
    opened.values = <HeaderValue*>calloc(names + 1, sizeof(HeaderValue))
    opened.present = <uint32_t*>calloc(names + 1, sizeof(uint32_t))
    if opened.values == NULL or opened.present == NULL:
        raise MemoryError()
    opened.owner = owner
    return opened


cdef class RequestValues:

    def __dealloc__(self):
        free(self.values)
        free(self.present)
        free(self.field_names)
        free(self.joined)

    cdef int collect(self, const Request* request) except -1:
        cdef const Field* field
        cdef HeaderValue* value
        cdef bint has_repeats = False
        cdef Py_ssize_t i
        cdef uint32_t name
        self.request_count += 1
        self.present_count = 0
        if request.field_count > self.field_capacity:
            self.grow_fields(request.field_count)
        for i in range(request.field_count):
            field = &request.fields[i]
            name = NONE
            if not TOKEN_AUTHORITY <= field.token <= TOKEN_UNKNOWN_PSEUDO:
                name = self.find_name(field.name, field.name_length)
            self.field_names[i] = name
            if name == NONE:
                continue
            value = &self.values[name]
            if value.request == self.request_count:
                value.repeats += 1
                value.length += 1 + field.value_length
                has_repeats = True
                continue
            value.request = self.request_count
            value.octets = field.value
            value.length = field.value_length
            value.repeats = 0
            value.is_hashed = False
            self.present[self.present_count] = name
            self.present_count += 1
        return self.join_repeated(request) if has_repeats else 0

    cdef int add_once(
        self, const uint8_t* name, Py_ssize_t name_length, const uint8_t* octets, Py_ssize_t length
    ) noexcept:
        cdef uint32_t number = self.find_name(name, name_length)
        cdef HeaderValue* value
        if number == NONE or self.values[number].request == self.request_count:
            return 0
        value = &self.values[number]
        value.request = self.request_count
        value.octets = octets
        value.length = length
        value.repeats = 0
        value.is_hashed = False
        return 0

    cdef int grow_fields(self, Py_ssize_t count) except -1:
        cdef void* grown = realloc(self.field_names, <size_t>(count + 64) * sizeof(uint32_t))
        if grown == NULL:
            raise MemoryError()
        self.field_names = <uint32_t*>grown
        self.field_capacity = count + 64
        return 0

    # Repeated metadata is one value, joined with ",": never longer than the section itself, which the decoder bounds.
    cdef int join_repeated(self, const Request* request) except -1:
        cdef const Field* field
        cdef HeaderValue* value
        cdef uint8_t* end
        cdef Py_ssize_t i
        self.reserve_joined()
        for i in range(request.field_count):
            if self.field_names[i] == NONE:
                continue
            value = &self.values[self.field_names[i]]
            if value.repeats == 0:
                continue
            field = &request.fields[i]
            end = <uint8_t*>value.octets + value.length + 1
            if value.length >= 0:
                (end - 1)[0] = b","
            if field.value_length > 0:
                memcpy(end, field.value, field.value_length)
            value.length += 1 + field.value_length
        return 0

    # A place for each repeated value; a length of -1 says that nothing has been written there yet.
    cdef int reserve_joined(self) except -1:
        cdef HeaderValue* value
        cdef Py_ssize_t total = 0
        cdef uint32_t i
        cdef void* grown
        cdef uint8_t* end
        for i in range(self.present_count):
            value = &self.values[self.present[i]]
            total += value.length if value.repeats > 0 else 0
        if total > self.joined_capacity:
            grown = realloc(self.joined, <size_t>total)
            if grown == NULL:
                raise MemoryError()
            self.joined = <uint8_t*>grown
            self.joined_capacity = total
        end = self.joined
        for i in range(self.present_count):
            value = &self.values[self.present[i]]
            if value.repeats > 0:
                value.octets = end
                end += value.length
                value.length = -1
        return 0

    cdef uint32_t find_name(self, const uint8_t* name, Py_ssize_t length) noexcept:
        cdef const NameRecord* names = (
            <const NameRecord*>(self.base + self.header.sections[<int>SECTION_NAMES].offset)
        )
        cdef ListRef table = self.header.tables[<int>TABLE_NAMES]
        cdef Walk walk
        cdef uint32_t entry
        if not (self.header.name_lengths >> (length if length < 63 else 63)) & 1:
            return NONE
        walk_start(
            &walk,
            <const Slot*>(self.base + self.header.sections[<int>SECTION_SLOTS].offset) + table.first,
            table.count,
            hash_octets(&self.header.key, name, length),
        )
        while True:
            entry = walk_next(&walk)
            if entry == 0:
                return NONE
            if span_is(self.base, names[entry - 1].name, name, length):
                return entry - 1
