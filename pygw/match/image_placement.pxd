# image_placement.pxd: a match on its way into an image: what it asks for, taken out of its MatchConfig once.
#
# A match goes into as many buckets as there are sets of routes that share a hostname with its own.

from libc.stdint cimport uint32_t
from .image_layout cimport Span

cdef class Placement:
    cdef:
        uint32_t number          # of the MatchRecord
        uint32_t header_count
        bint has_patterns
        tuple key                # (service, is regex, method, is regex); None: no request can match
        tuple names              # of its Exact headers, sorted
        tuple values
        Span service             # the Exact terms as they lie in the heap; empty: none, or a regex
        Span method
        uint32_t first_value     # of `values`, in Spans

# Precedence step 4 behind a regex service, for a Placement.key.
cdef tuple method_rank(tuple key)
# Whether a request can have this as its service or method.
cdef bint is_segment(str term) except -1
# Sorts Placements by precedence steps 5 to 8, and leaves out what can never win: all behind one that asks nothing more.
cdef list reachable(list placements)
# The match that wins among these whatever the headers are, or NONE.
cdef uint32_t sole_winner(list placements) except? 0xffffffff
