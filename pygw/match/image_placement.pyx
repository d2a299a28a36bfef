# image_placement.pyx: see image_placement.pxd.

cimport cython
from libc.stdint cimport uint32_t
from .image_layout cimport NONE


# Only tuples of texts inside: nothing for the cycle collector, which would go through 10,000 of them.
@cython.no_gc
cdef class Placement:
    pass


cdef tuple method_rank(tuple key):
    # Exact, then longer patterns, then none.
    cdef object method = key[2]
    cdef object length = 0 if method is None else -len(method)
    if method is None:
        return (2, length)
    return (1, length) if key[3] else (0, 0)


cdef bint is_segment(str term) except -1:
    return len(term) > 0 and "/" not in term


cdef tuple placement_order(Placement self):
    return (-<int>self.header_count, self.number)


cdef list reachable(list placements):
    cdef Placement placement
    cdef Py_ssize_t i
    if len(placements) > 1:
        placements.sort(key=placement_order)
        for i, placement in enumerate(placements):
            if not placement.has_patterns:
                return placements[:i + 1]
    return placements


cdef uint32_t sole_winner(list placements) except? 0xffffffff:
    cdef Placement placement = placements[0]
    return placement.number if len(placements) == 1 and placement.header_count == 0 else NONE
