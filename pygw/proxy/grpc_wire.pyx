# grpc_wire.pyx: grpc-timeout, grpc-message and message prefixes. See grpc_wire.pxd.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset


cdef int64_t parse_timeout(const uint8_t* text, Py_ssize_t length) noexcept:
    cdef int64_t value = 0
    cdef Py_ssize_t i
    cdef uint8_t digit, unit
    if length < 2 or length > TIMEOUT_LENGTH:
        return -1
    for i in range(length - 1):
        digit = <uint8_t>(text[i] - <uint8_t>b"0")
        if digit > 9:
            return -1
        value = value * 10 + digit
    # 8 digits of hours are 3.6e17 microseconds: no unit overflows.
    unit = text[length - 1]
    if unit == b"n":
        return (value + 999) // 1000
    if unit == b"u":
        return value
    if unit == b"m":
        return value * 1000
    if unit == b"S":
        return value * 1000000
    if unit == b"M":
        return value * 60000000
    if unit == b"H":
        return value * 3600000000
    return -1


cdef Py_ssize_t format_timeout(int64_t microseconds, uint8_t* out) noexcept:
    cdef int64_t value = microseconds
    cdef uint8_t unit = b"u"
    cdef uint8_t[8] digits
    cdef Py_ssize_t length = 0, i
    if value <= 0:
        out[0] = b"1"
        out[1] = b"n"
        return 2
    # The finest unit in which 8 digits hold it: the least is lost by rounding down.
    if value > 99999999:
        value //= 1000
        unit = b"m"
        if value > 99999999:
            value //= 1000
            unit = b"S"
            if value > 99999999:
                value //= 60
                unit = b"M"
                if value > 99999999:
                    value //= 60
                    unit = b"H"
                    if value > 99999999:
                        value = 99999999
    while value > 0:
        digits[length] = <uint8_t>(48 + value % 10)
        value //= 10
        length += 1
    for i in range(length):
        out[i] = digits[length - 1 - i]
    out[length] = unit
    return length + 1


cdef Py_ssize_t percent_encode(const uint8_t* text, Py_ssize_t length, uint8_t* out) noexcept:
    cdef const char* hexadecimal = "0123456789ABCDEF"
    cdef Py_ssize_t i, used = 0
    cdef uint8_t octet
    for i in range(length):
        octet = text[i]
        # §Responses: all but %x20-7E, and the percent sign itself, are encoded; so is a space at either end, where RFC
        # 9113 §8.2.1 allows none.
        if 0x20 < octet <= 0x7E and octet != 0x25 or octet == 0x20 and 0 < i < length - 1:
            out[used] = octet
            used += 1
        else:
            out[used] = 0x25
            out[used + 1] = <uint8_t>hexadecimal[octet >> 4]
            out[used + 2] = <uint8_t>hexadecimal[octet & 15]
            used += 3
    return used


cpdef bytes percent_encode_message(bytes text):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, 3 * PyBytes_GET_SIZE(text))
    cdef Py_ssize_t used = percent_encode(
        <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), <uint8_t*>PyBytes_AS_STRING(out)
    )
    return out[:used]


# ===== for Python: tests =====

def parse_grpc_timeout(bytes text):
    return parse_timeout(<const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


def format_grpc_timeout(int64_t microseconds):
    cdef uint8_t[TIMEOUT_LENGTH] out
    cdef Py_ssize_t length = format_timeout(microseconds, out)
    return out[:length]


def follow_messages(chunks):
    cdef MessageTracker tracker
    cdef bytes chunk
    memset(&tracker, 0, sizeof(tracker))
    for chunk in chunks:
        track(&tracker, <const uint8_t*>PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk))
    return tracker.messages, at_boundary(&tracker)
