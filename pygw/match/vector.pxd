# vector.pxd: a growing array of fixed-size records.

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

cdef struct Vector:
    uint8_t* data
    size_t count                 # records in use
    size_t capacity
    size_t width                 # octets of a record


# `more` zeroed records at the end; the pointer lives until the next push.
cdef inline void* vector_push(Vector* self, size_t more) except NULL:
    cdef size_t needed = self.count + more
    cdef size_t capacity = self.capacity
    cdef uint8_t* grown
    if needed > capacity:
        capacity = capacity * 2 if capacity * 2 > needed else needed + 16
        grown = <uint8_t*>realloc(self.data, capacity * self.width)
        if grown == NULL:
            raise MemoryError()
        self.data = grown
        self.capacity = capacity
    grown = self.data + self.count * self.width
    memset(grown, 0, more * self.width)
    self.count = needed
    return grown


cdef inline void vector_free(Vector* self) noexcept:
    free(self.data)
    self.data = NULL
    self.count = 0
    self.capacity = 0
