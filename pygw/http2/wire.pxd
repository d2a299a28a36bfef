# wire.pxd: big-endian integers (network byte order), as RFC 9113 has them in frames. Leaf functions.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef inline uint16_t load_16(const uint8_t* at) noexcept:
    return <uint16_t>((at[0] << 8) | at[1])

cdef inline uint32_t load_24(const uint8_t* at) noexcept:
    return (<uint32_t>at[0] << 16) | (<uint32_t>at[1] << 8) | at[2]

cdef inline uint32_t load_32(const uint8_t* at) noexcept:
    return (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]

# A stream id or a window increment: the first bit is reserved (§4.1, §6.9).
cdef inline uint32_t load_31(const uint8_t* at) noexcept:
    return load_32(at) & 0x7fffffff

cdef inline uint64_t load_64(const uint8_t* at) noexcept:
    return (<uint64_t>load_32(at) << 32) | load_32(at + 4)

cdef inline void store_16(uint8_t* at, uint32_t value) noexcept:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>value

cdef inline void store_24(uint8_t* at, uint32_t value) noexcept:
    at[0] = <uint8_t>(value >> 16)
    at[1] = <uint8_t>(value >> 8)
    at[2] = <uint8_t>value

cdef inline void store_32(uint8_t* at, uint32_t value) noexcept:
    at[0] = <uint8_t>(value >> 24)
    at[1] = <uint8_t>(value >> 16)
    at[2] = <uint8_t>(value >> 8)
    at[3] = <uint8_t>value

cdef inline void store_64(uint8_t* at, uint64_t value) noexcept:
    store_32(at, <uint32_t>(value >> 32))
    store_32(at + 4, <uint32_t>value)
