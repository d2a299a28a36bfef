# image_check.pxd: is this an image, and does every index and Span in it lie inside? Asked once, when it is opened.

from libc.stdint cimport uint8_t
from .image_layout cimport ImageHeader

# NULL, or what is wrong. After NULL, no read by a record of the image can leave it.
cdef const char* check_image(const uint8_t* base, Py_ssize_t length) noexcept
