# grpc_wire.pxd: the octets that gRPC adds to HTTP/2 (gRPC over HTTP2, PROTOCOL-HTTP2.md). No calls, no streams.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    TIMEOUT_LENGTH = 9           # the longest grpc-timeout: 8 digits and the unit

# grpc-timeout as microseconds (nanoseconds are rounded up); -1: malformed.
cdef int64_t parse_timeout(const uint8_t* text, Py_ssize_t length) noexcept
# Writes a grpc-timeout (at most TIMEOUT_LENGTH octets) and returns its length. Rounds down, never to
# more than given; what is zero or less becomes "1n", for 0 is not a positive integer.
cdef Py_ssize_t format_timeout(int64_t microseconds, uint8_t* out) noexcept

# Percent-encodes a grpc-message into `out`, which has room for 3 * length octets; returns what it took.
cdef Py_ssize_t percent_encode(const uint8_t* text, Py_ssize_t length, uint8_t* out) noexcept
# The same as an object, for texts made in advance.
cpdef bytes percent_encode_message(bytes text)

# Follows the 5-octet prefixes of length-prefixed messages through DATA that is cut anywhere. Set to
# zeroes it stands before the first message.
cdef struct MessageTracker:
    uint64_t messages            # whole ones seen
    uint32_t remaining           # octets of the present message that are yet to come
    uint8_t prefix_length        # octets of the present prefix seen, 0..4
    uint8_t[5] prefix

# Costs O(messages), not O(octets).
cdef inline void track(MessageTracker* self, const uint8_t* data, Py_ssize_t length) noexcept:
    cdef Py_ssize_t needed
    while length > 0:
        if self.remaining > 0:
            if <uint64_t>length < self.remaining:
                self.remaining -= <uint32_t>length
                return
            data += self.remaining
            length -= self.remaining
            self.remaining = 0
            self.messages += 1
            continue
        needed = 5 - self.prefix_length
        if length < needed:
            memcpy(self.prefix + self.prefix_length, data, <size_t>length)
            self.prefix_length += <uint8_t>length
            return
        memcpy(self.prefix + self.prefix_length, data, <size_t>needed)
        data += needed
        length -= needed
        self.prefix_length = 0
        # The first octet is the compressed flag; the length is big-endian.
        self.remaining = (
            (<uint32_t>self.prefix[1] << 24) | (<uint32_t>self.prefix[2] << 16)
            | (<uint32_t>self.prefix[3] << 8) | <uint32_t>self.prefix[4]
        )
        if self.remaining == 0:
            self.messages += 1

# May trailers come now without cutting a message short?
cdef inline bint at_boundary(const MessageTracker* self) noexcept:
    return self.remaining == 0 and self.prefix_length == 0
