# stream.pyx: copies of fields that wait, and the pool of Streams. See stream.pxd.

import os

from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_REFCNT
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from .buffer cimport OUTPUT_BLOCK, Buffer, Py_XDECREF, _PyBytes_New, _PyBytes_Octets

cdef enum:
    CHUNK_STREAMS = 64
    CHUNKS_KEPT = 4              # when no stream is in use any more, memory beyond these goes back


cdef FieldBlock* copy_fields(const Field* fields, Py_ssize_t count) except NULL:
    cdef size_t octets = 0
    cdef Py_ssize_t i
    cdef FieldBlock* block
    cdef Field* field
    cdef uint8_t* at
    for i in range(count):
        octets += <size_t>fields[i].name_length + fields[i].value_length
    octets += sizeof(FieldBlock) + <size_t>count * sizeof(Field)
    block = <FieldBlock*>malloc(octets)
    if block == NULL:
        raise MemoryError()
    block.size = octets
    block.references = 1
    block.count = count
    block.fields = <Field*>(block + 1)
    at = <uint8_t*>(block.fields + count)
    for i in range(count):
        field = block.fields + i
        field[0] = fields[i]
        # The slot lives in a table entry that may be evicted before this copy is sent.
        field.memo = NULL
        memcpy(at, field.name, field.name_length)
        field.name = at
        at += field.name_length
        memcpy(at, field.value, field.value_length)
        field.value = at
        at += field.value_length
    return block


cdef void free_fields(FieldBlock* block) noexcept:
    free(block)


cdef class StreamPool:

    def __cinit__(self, bint isolated=False):
        self.isolated = isolated
        self.multiplier = <uint32_t>int.from_bytes(os.urandom(4), "big") | 1

    def __dealloc__(self):
        # Connections hold a reference to their pool and give back what they have; but the cycle collector may
        # have taken that reference away before, so whatever streams still hold is freed here.
        cdef Py_ssize_t i, j
        for i in range(self.chunk_count):
            for j in range(CHUNK_STREAMS):
                free_contents(self.chunks[i] + j)
            free(self.chunks[i])
        free(self.chunks)
        Py_XDECREF(self.spare_block)

    cdef Stream* take(self) except NULL:
        cdef Stream* stream
        if self.isolated:
            stream = <Stream*>calloc(1, sizeof(Stream))
            if stream == NULL:
                raise MemoryError()
        else:
            if self.free_list == NULL:
                self.grow()
            stream = self.free_list
            self.free_list = stream.next
            memset(stream, 0, sizeof(Stream))
        stream.state = STREAM_LIVE
        self.used += 1
        return stream

    cdef void give(self, Stream* stream) noexcept:
        free_contents(stream)
        self.used -= 1
        if self.isolated:
            free(stream)
            return
        stream.state = STREAM_FREE
        stream.owner = NULL
        stream.id = 0
        stream.next = self.free_list
        self.free_list = stream
        if self.used == 0 and self.chunk_count > CHUNKS_KEPT:
            self.shrink()

    cdef int widen(self, Buffer* out) except -1:
        cdef PyObject* block = self.spare_block
        if out.capacity >= OUTPUT_BLOCK:
            return 0
        self.spare_block = NULL
        if block == NULL:
            block = _PyBytes_New(NULL, OUTPUT_BLOCK)
            if block == NULL:
                raise MemoryError()
        if out.length > 0:
            memcpy(_PyBytes_Octets(block), out.data, <size_t>out.length)
        Py_XDECREF(out.owner)
        out.owner = block
        out.data = <uint8_t*>_PyBytes_Octets(block)
        out.capacity = OUTPUT_BLOCK
        return 0

    cdef void recycle(self, bytes data, Py_ssize_t capacity) noexcept:
        # The references: our caller's and that of the argument list are one and the same.
        if capacity == OUTPUT_BLOCK and self.spare_block == NULL and Py_REFCNT(data) == 1 and (
            PyBytes_GET_SIZE(data) >= OUTPUT_BLOCK // 4
        ):
            Py_INCREF(data)
            self.spare_block = <PyObject*>data

    cdef int grow(self) except -1:
        cdef Stream* chunk
        cdef Py_ssize_t i
        cdef Stream** chunks = <Stream**>realloc(self.chunks, <size_t>(self.chunk_count + 1) * sizeof(Stream*))
        if chunks == NULL:
            raise MemoryError()
        self.chunks = chunks
        chunk = <Stream*>calloc(CHUNK_STREAMS, sizeof(Stream))
        if chunk == NULL:
            raise MemoryError()
        self.chunks[self.chunk_count] = chunk
        self.chunk_count += 1
        for i in range(CHUNK_STREAMS - 1, -1, -1):
            chunk[i].next = self.free_list
            self.free_list = chunk + i
        return 0

    cdef void shrink(self) noexcept:
        cdef Py_ssize_t i, j
        for i in range(CHUNKS_KEPT, self.chunk_count):
            free(self.chunks[i])
        self.chunk_count = CHUNKS_KEPT
        self.free_list = NULL
        for i in range(self.chunk_count):
            for j in range(CHUNK_STREAMS):
                self.chunks[i][j].next = self.free_list
                self.free_list = self.chunks[i] + j
