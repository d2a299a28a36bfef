# regex_cache.pxd: "does this value match that pattern?", decided by RE2 and remembered.
#
# RE2 is a Python library, about 1.5 us a question; a remembered answer costs some 30 ns and makes no object. Clients
# choose the values, so memory is bounded whatever they send: 16 octets an entry, because a value is
# remembered by a keyed 127-bit digest (siphash.pxd) and not by its octets. A client that never repeats a value
# costs itself a question of RE2, linear in the value, and pushes out others' entries: no more.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from .siphash cimport Digest128, SipKey

# The answers of one worker, kept from one configuration to the next. Sets of four, each with the latest used first.
cdef class DecisionCache:
    cdef:
        SipKey key
        Digest128* entries       # the lowest bit of `low` is the answer; all zero: free. NULL until first used
        readonly uint32_t size   # entries; 0: nothing is remembered
        uint32_t mask            # number of sets - 1
        readonly uint64_t hits
        readonly uint64_t misses

    cdef int find(self, Digest128 digest) noexcept
    cdef int remember(self, Digest128 digest, int answer) except -1

# The patterns of one image.
cdef class RegexSet:
    cdef:
        readonly DecisionCache cache
        list patterns            # bytes, by number in the image
        list matchers            # functions of pygw.regex; None: not yet compiled; False: invalid, matches nothing
        dict known               # pattern -> function, shared with the next image's set
        Digest128* digests       # of the patterns: what a value's digest starts with

    # 1 or 0. `number` is the pattern's place in the image.
    cdef int matches(self, uint32_t number, const uint8_t* value, Py_ssize_t length) except -1
    cdef int ask(self, uint32_t number, bytes value) except -1
    cdef object compiled(self, bytes pattern)
