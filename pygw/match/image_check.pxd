# image_check.pxd: is this an image, and does every index and Span in it lie inside? Asked once, when it is opened.

from libc.stdint cimport uint8_t, uint32_t
from .image_layout cimport ImageHeader

cdef struct Proof:
    const uint8_t* base
    const ImageHeader* header
    int phase                    # what is proven next: the records of a section, then the slots of a table, then scopes
    uint32_t place               # of the next record in it
    uint32_t free_slots          # found in the table so far

# The proof of an image, in steps, so that a large one never holds a worker up. Keeps the image's buffer.
cdef class ImageProof:
    cdef:
        object image
        Py_buffer buffer
        Proof proof
        readonly bint is_done

    # After the last step: no read by a record of the image can leave it.
    cdef const uint8_t* base(self) noexcept
