# image_writer.pxd: an image (image_layout.pxd) while it is written: a heap of texts, and a growing array a section.
#
# What goes in is decided by image_builder.pyx and http_image.pyx. Pointers into a section live until its next push.

from libc.stdint cimport uint32_t
from .image_layout cimport SECTION_COUNT, Span
from .siphash cimport SipKey
from .vector cimport Vector

cdef class ImageWriter:
    cdef:
        SipKey key
        Vector heap              # with room for the header in front, so that its offsets are those of the image
        Vector[SECTION_COUNT] sections
        dict texts               # str -> Span as one number
        dict names               # header name -> index
        dict regexes             # pattern -> index

    cdef void* push(self, int section) except NULL
    cdef uint32_t count(self, int section) except? 0xffffffff
    cdef Span text(self, str value) except *
    cdef Span fresh_text(self, str value) except *
    cdef uint32_t name(self, str name) except? 0xffffffff
    cdef uint32_t regex(self, str pattern) except? 0xffffffff
    cdef int push_span(self, Span span) except -1
    # The whole, with its hash tables.
    cdef bytes image(self, uint32_t backend_count)
