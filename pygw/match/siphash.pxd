# siphash.pxd: SipHash (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), keyed.
#
# Who does not know the key cannot find inputs that collide: that is why the hash tables of an image and the
# cache of regex decisions use it. siphash13 (one round a word, three at the end) is for tables, where a collision
# costs a comparison; siphash128 is SipHash-2-4-128, for the cache, where the digest stands for the value.
# Digests never leave the process, so octets are read in the order of the machine.

cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef struct SipKey:
    uint64_t k0
    uint64_t k1

cdef struct SipState:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3

cdef struct Digest128:
    uint64_t low
    uint64_t high


@cython.overflowcheck(False)
cdef inline uint64_t sip_rotate(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


@cython.overflowcheck(False)
cdef inline void sip_round(SipState* s) noexcept nogil:
    s.v0 += s.v1
    s.v1 = sip_rotate(s.v1, 13) ^ s.v0
    s.v0 = sip_rotate(s.v0, 32)
    s.v2 += s.v3
    s.v3 = sip_rotate(s.v3, 16) ^ s.v2
    s.v0 += s.v3
    s.v3 = sip_rotate(s.v3, 21) ^ s.v0
    s.v2 += s.v1
    s.v1 = sip_rotate(s.v1, 17) ^ s.v2
    s.v2 = sip_rotate(s.v2, 32)


cdef inline void sip_start(SipState* s, const SipKey* key) noexcept nogil:
    s.v0 = key.k0 ^ 0x736f6d6570736575ULL
    s.v1 = key.k1 ^ 0x646f72616e646f6dULL
    s.v2 = key.k0 ^ 0x6c7967656e657261ULL
    s.v3 = key.k1 ^ 0x7465646279746573ULL


# The last word: what is left of the octets, and their number in the top octet.
@cython.overflowcheck(False)
cdef inline uint64_t sip_tail(const uint8_t* octets, Py_ssize_t left, Py_ssize_t total) noexcept nogil:
    cdef uint64_t word = 0
    memcpy(&word, octets, <size_t>left)
    return word | (<uint64_t>total << 56)


cdef inline uint64_t siphash13(const SipKey* key, const uint8_t* octets, Py_ssize_t length) noexcept nogil:
    cdef SipState s
    cdef uint64_t word
    cdef Py_ssize_t i = 0
    sip_start(&s, key)
    while i + 8 <= length:
        memcpy(&word, octets + i, 8)
        s.v3 ^= word
        sip_round(&s)
        s.v0 ^= word
        i += 8
    word = sip_tail(octets + i, length - i, length)
    s.v3 ^= word
    sip_round(&s)
    s.v0 ^= word
    s.v2 ^= 0xff
    sip_round(&s)
    sip_round(&s)
    sip_round(&s)
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3


cdef inline void sip_word24(SipState* s, uint64_t word) noexcept nogil:
    s.v3 ^= word
    sip_round(s)
    sip_round(s)
    s.v0 ^= word


# The digest of `prefix` (two words) followed by the octets.
cdef inline Digest128 siphash128(
    const SipKey* key, const Digest128* prefix, const uint8_t* octets, Py_ssize_t length
) noexcept nogil:
    cdef SipState s
    cdef Digest128 digest
    cdef uint64_t word
    cdef Py_ssize_t i = 0
    cdef int _
    sip_start(&s, key)
    s.v1 ^= 0xee
    sip_word24(&s, prefix.low)
    sip_word24(&s, prefix.high)
    while i + 8 <= length:
        memcpy(&word, octets + i, 8)
        sip_word24(&s, word)
        i += 8
    sip_word24(&s, sip_tail(octets + i, length - i, length + 16))
    s.v2 ^= 0xee
    for _ in range(4):
        sip_round(&s)
    digest.low = s.v0 ^ s.v1 ^ s.v2 ^ s.v3
    s.v1 ^= 0xdd
    for _ in range(4):
        sip_round(&s)
    digest.high = s.v0 ^ s.v1 ^ s.v2 ^ s.v3
    return digest
