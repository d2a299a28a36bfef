# image_writer.pyx: see image_writer.pxd.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .image_layout cimport *
from .image_tables cimport add_table
from .siphash cimport SipKey
from .vector cimport Vector, vector_free, vector_push

cdef uint64_t LIMIT = 0xffffffff


cdef class ImageWriter:

    def __cinit__(self, seed):
        cdef int section
        memset(&self.heap, 0, sizeof(Vector))
        memset(self.sections, 0, sizeof(self.sections))
        self.heap.width = 1
        vector_push(&self.heap, sizeof(ImageHeader))
        for section in range(SECTION_COUNT):
            self.sections[section].width = record_size(section)
        if len(seed) != sizeof(SipKey):
            raise ValueError("a seed has 16 octets")
        memcpy(&self.key, PyBytes_AS_STRING(seed), sizeof(SipKey))
        self.texts = {}
        self.names = {}
        self.regexes = {}

    def __dealloc__(self):
        cdef int section
        vector_free(&self.heap)
        for section in range(SECTION_COUNT):
            vector_free(&self.sections[section])

    cdef void* push(self, int section) except NULL:
        return vector_push(&self.sections[section], 1)

    cdef uint32_t count(self, int section) except? 0xffffffff:
        cdef size_t count = self.sections[section].count
        if count >= LIMIT:
            raise ValueError("the configuration is too large: more than 2^32 records of one kind")
        return <uint32_t>count

    # A text that many records may share.
    cdef Span text(self, str value) except *:
        cdef Span span
        cdef object known = self.texts.get(value)
        cdef uint64_t packed
        if known is None:
            span = self.fresh_text(value)
            packed = (<uint64_t>span.offset << 32) | span.length
            self.texts[value] = packed
            return span
        packed = known
        span.offset = <uint32_t>(packed >> 32)
        span.length = <uint32_t>packed
        return span

    # Texts of one match lie side by side: a call that matches reads one cache line of them, not four.
    cdef Span fresh_text(self, str value) except *:
        # A lone surrogate can come from escapes in YAML; RE2 refuses it, and no octets of a request equal it.
        cdef bytes octets = value.encode("utf-8", "surrogatepass")
        cdef Span span
        if self.heap.count + PyBytes_GET_SIZE(octets) > LIMIT:
            raise ValueError("the configuration is too large: an image has at most 4 GiB")
        span.offset = <uint32_t>self.heap.count
        span.length = <uint32_t>PyBytes_GET_SIZE(octets)
        if span.length > 0:
            memcpy(vector_push(&self.heap, span.length), PyBytes_AS_STRING(octets), span.length)
        return span

    cdef uint32_t name(self, str name) except? 0xffffffff:
        cdef object index = self.names.get(name)
        if index is None:
            index = self.count(SECTION_NAMES)
            (<NameRecord*>self.push(SECTION_NAMES)).name = self.text(name)
            self.names[name] = index
        return index

    cdef uint32_t regex(self, str pattern) except? 0xffffffff:
        cdef object index = self.regexes.get(pattern)
        if index is None:
            index = self.count(SECTION_REGEXES)
            (<RegexRecord*>self.push(SECTION_REGEXES)).pattern = self.text(pattern)
            self.regexes[pattern] = index
        return index

    cdef int push_span(self, Span span) except -1:
        (<Span*>self.push(SECTION_SPANS))[0] = span
        return 0

    cdef bytes image(self, uint32_t backend_count):
        cdef ImageHeader header
        cdef uint64_t offset
        cdef uint64_t name_lengths = 0
        cdef const NameRecord* name
        cdef uint32_t i
        cdef int section
        cdef bytes octets
        cdef uint8_t* target
        memset(&header, 0, sizeof(header))
        memcpy(header.magic, b"pygw\r\n\x1a\n", 8)
        header.version = IMAGE_VERSION
        header.layout = layout_mark()
        header.key = self.key
        header.backend_count = backend_count
        for section in range(TABLE_COUNT):
            header.tables[section] = add_table(
                &self.key, self.heap.data, self.sections, section
            )
        for i in range(self.sections[SECTION_NAMES].count):
            name = <NameRecord*>self.sections[SECTION_NAMES].data + i
            name_lengths |= <uint64_t>1 << (name.name.length if name.name.length < 63 else 63)
        header.name_lengths = name_lengths
        offset = self.heap.count
        header.heap_end = <uint32_t>offset
        for section in range(SECTION_COUNT):
            offset = (offset + 7) & ~<uint64_t>7
            header.sections[section].offset = <uint32_t>offset
            header.sections[section].count = self.count(section)
            offset += self.sections[section].count * self.sections[section].width
            if offset > LIMIT:
                raise ValueError("the configuration is too large: an image has at most 4 GiB")
        header.length = <uint32_t>offset
        octets = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>offset)
        target = <uint8_t*>PyBytes_AS_STRING(octets)
        memset(target, 0, <size_t>offset)
        memcpy(target, self.heap.data, self.heap.count)
        memcpy(target, &header, sizeof(header))
        for section in range(SECTION_COUNT):
            if self.sections[section].count > 0:
                memcpy(
                    target + header.sections[section].offset,
                    self.sections[section].data,
                    self.sections[section].count * self.sections[section].width,
                )
        return octets
