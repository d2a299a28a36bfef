# regex_cache.pyx: see regex_cache.pxd.

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from .siphash cimport Digest128, SipKey, siphash128

from pygw.regex import matcher

cdef enum:
    WAYS = 4


cdef class DecisionCache:

    def __cinit__(self, entries):
        cdef bytes seed = os.urandom(sizeof(SipKey))
        memcpy(&self.key, PyBytes_AS_STRING(seed), sizeof(SipKey))
        self.size = 0
        if entries > 0:
            self.size = WAYS
            while self.size < <uint32_t>min(entries, 1 << 24):
                self.size *= 2
            self.mask = self.size // WAYS - 1

    def __dealloc__(self):
        free(self.entries)

    # The remembered answer, or -1.
    cdef int find(self, Digest128 digest) noexcept:
        cdef Digest128* entry
        cdef Digest128 found
        cdef int i, k
        if self.entries == NULL:
            return -1
        entry = &self.entries[(<uint32_t>digest.high & self.mask) * WAYS]
        for i in range(WAYS):
            if entry[i].high == digest.high and (entry[i].low | 1) == (digest.low | 1):
                found = entry[i]
                for k in range(i, 0, -1):
                    entry[k] = entry[k - 1]
                entry[0] = found
                self.hits += 1
                return <int>(found.low & 1)
        return -1

    cdef int remember(self, Digest128 digest, int answer) except -1:
        cdef Digest128* entry
        cdef int k
        self.misses += 1
        if self.size == 0:
            return 0
        if self.entries == NULL:
            self.entries = <Digest128*>calloc(self.size, sizeof(Digest128))
            if self.entries == NULL:
                raise MemoryError()
        entry = &self.entries[(<uint32_t>digest.high & self.mask) * WAYS]
        for k in range(WAYS - 1, 0, -1):
            entry[k] = entry[k - 1]
        entry[0].high = digest.high
        entry[0].low = (digest.low & ~<uint64_t>1) | <uint64_t>answer
        return 0


cdef class RegexSet:

    def __cinit__(self, list patterns, DecisionCache cache, RegexSet previous=None):
        cdef Digest128 nothing
        cdef bytes pattern
        cdef Py_ssize_t i
        memset(&nothing, 0, sizeof(nothing))
        self.cache = cache
        self.patterns = patterns
        self.matchers = [None] * len(patterns)
        self.known = {}
        if previous is not None:
            # Only what this image still asks for: a pattern that is gone is forgotten.
            for pattern in patterns:
                if pattern in previous.known:
                    self.known[pattern] = previous.known[pattern]
        self.digests = <Digest128*>calloc(len(patterns) + 1, sizeof(Digest128))
        if self.digests == NULL:
            raise MemoryError()
        for i, pattern in enumerate(patterns):
            self.digests[i] = siphash128(
                &cache.key, &nothing, <const uint8_t*>PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern)
            )

    def __dealloc__(self):
        free(self.digests)

    cdef int matches(self, uint32_t number, const uint8_t* value, Py_ssize_t length) except -1:
        cdef Digest128 digest = siphash128(&self.cache.key, &self.digests[number], value, length)
        cdef int answer = self.cache.find(digest)
        if answer < 0:
            answer = self.ask(number, PyBytes_FromStringAndSize(<const char*>value, length))
            self.cache.remember(digest, answer)
        return answer

    cdef int ask(self, uint32_t number, bytes value) except -1:
        cdef object match = self.matchers[number]
        if match is None:
            match = self.compiled(self.patterns[number])
            self.matchers[number] = match
        return match is not False and bool(match(value))

    cdef object compiled(self, bytes pattern):
        match = self.known.get(pattern)
        if match is None:
            try:
                match = matcher(pattern)
            except ValueError:
                # The control plane has left such rules out and reported them; here it only must not match.
                match = False
            self.known[pattern] = match
        return match

    def decide(self, number, bytes value):
        if not 0 <= number < len(self.patterns):
            raise IndexError(number)
        return bool(self.matches(number, <const uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)))
