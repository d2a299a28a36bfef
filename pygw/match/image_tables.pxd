# image_tables.pxd: fills the hash tables of an image that is being written.

from libc.stdint cimport uint8_t
from .image_layout cimport ListRef
from .siphash cimport SipKey
from .vector cimport Vector

# Appends the table's Slots to the section of Slots. `sections` are all of the image's, `base` is where Spans count
# from. Raises ValueError where there would be too many.
cdef ListRef add_table(const SipKey* key, const uint8_t* base, Vector* sections, int table) except *
