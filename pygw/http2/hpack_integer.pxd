# hpack_integer.pxd: the integers of HPACK (RFC 7541 §5.1), with a prefix of N bits. `mask` is 2**N - 1.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    # The octets that a 32-bit value takes behind its prefix. §5.1: what exceeds an implementation's limit, in
    # value or in octets (zeros may go on for ever), is a decoding error.
    MAX_CONTINUATION = 5

# Reads the integer that begins in at[0] (at < end) and moves `at` behind it. False: cut short or too large.
cdef inline bint read_integer(const uint8_t** at, const uint8_t* end, uint8_t mask, uint32_t* value) noexcept:
    cdef const uint8_t* p = at[0]
    cdef uint64_t result = p[0] & mask
    cdef int shift = 0
    p += 1
    if result == mask:
        while True:
            if p == end or shift == 7 * MAX_CONTINUATION:
                return False
            result += <uint64_t>(p[0] & 0x7f) << shift
            shift += 7
            p += 1
            if not (p - 1)[0] & 0x80:
                break
        if result > 0xffffffff:
            return False
    value[0] = <uint32_t>result
    at[0] = p
    return True

# Writes an integer behind the bits `first` of its first octet (6 octets at most); returns the end.
cdef inline uint8_t* write_integer(uint8_t* p, uint8_t first, uint8_t mask, uint32_t value) noexcept:
    if value < mask:
        p[0] = <uint8_t>(first | value)
        return p + 1
    p[0] = first | mask
    value -= mask
    p += 1
    while value >= 0x80:
        p[0] = <uint8_t>(value | 0x80)
        value >>= 7
        p += 1
    p[0] = <uint8_t>value
    return p + 1
