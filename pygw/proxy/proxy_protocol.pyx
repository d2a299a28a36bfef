# proxy_protocol.pyx: PROXY protocol headers, v1 and v2. See proxy_protocol.pxd; § means the specification's.
#
# Rule: the answer never depends on octets behind the header, and 0 ("needs more") never comes with PROXY_HEADER_MAX
# octets or more.

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memchr, memcmp, memcpy, memset

from .client_address cimport ADDRESS_TEXT_MAX, Address, format_address, parse_address, unmap

cdef const char* V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"   # §2.2
cdef const char* V1_START = b"PROXY "


cdef int parse_proxy_header(const uint8_t* data, Py_ssize_t length, ProxyHeader* out) noexcept:
    cdef Py_ssize_t known
    memset(out, 0, sizeof(ProxyHeader))
    if length == 0:
        return 0
    if data[0] == b"P":
        known = length if length < 6 else 6
        if memcmp(data, V1_START, <size_t>known) != 0:
            return -1
        return parse_v1(data, length, out)
    known = length if length < 12 else 12
    if memcmp(data, V2_SIGNATURE, <size_t>known) != 0:
        return -1
    return parse_v2(data, length, out)


cdef void set_source_text(ProxyHeader* out) noexcept:
    out.source_text_length = <uint8_t>format_address(&out.source, out.source_text)


# ===== v1 (§2.1): PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 CRLF =====

cdef int parse_v1(const uint8_t* data, Py_ssize_t length, ProxyHeader* out) noexcept:
    cdef Py_ssize_t bound = length if length < PROXY_V1_MAX else PROXY_V1_MAX
    cdef Py_ssize_t end, place = 6
    cdef const uint8_t* newline = <const uint8_t*>memchr(data, b"\n", <size_t>bound)
    if newline == NULL:
        # A CR that is not the last octet so far would have had its LF.
        newline = <const uint8_t*>memchr(data, b"\r", <size_t>bound)
        if length >= PROXY_V1_MAX or (newline != NULL and newline != data + bound - 1):
            return -1
        return 0
    end = newline - data - 1
    if data[end] != b"\r" or memchr(data, b"\r", <size_t>end) != NULL:
        return -1
    out.version = 1
    if starts_with(data, end, place, b"UNKNOWN", 7):
        # "the receiver must ignore anything presented before the CRLF"
        return <int>end + 2 if end == place + 7 or data[place + 7] == b" " else -1
    if starts_with(data, end, place, b"TCP4 ", 5):
        out.source.family = 4
    elif starts_with(data, end, place, b"TCP6 ", 5):
        out.source.family = 6
    else:
        return -1
    place += 5
    if not read_v1_addresses(data, end, place, out):
        memset(out, 0, sizeof(ProxyHeader))
        return -1
    set_source_text(out)
    return <int>end + 2


cdef bint starts_with(const uint8_t* data, Py_ssize_t end, Py_ssize_t place, const char* text, Py_ssize_t n) noexcept:
    return end - place >= n and memcmp(data + place, text, <size_t>n) == 0


cdef bint read_v1_addresses(const uint8_t* data, Py_ssize_t end, Py_ssize_t place, ProxyHeader* out) noexcept:
    cdef uint8_t family = out.source.family
    cdef Py_ssize_t space = find_space(data, place, end)
    if space < 0 or not read_v1_address(data + place, space - place, family, &out.source):
        return False
    place = space + 1
    space = find_space(data, place, end)
    if space < 0 or not read_v1_address(data + place, space - place, family, &out.destination):
        return False
    place = space + 1
    space = find_space(data, place, end)
    return (
        space >= 0
        and read_port(data + place, space - place, &out.source_port)
        and read_port(data + space + 1, end - space - 1, &out.destination_port)
    )


cdef Py_ssize_t find_space(const uint8_t* data, Py_ssize_t place, Py_ssize_t end) noexcept:
    cdef Py_ssize_t i
    for i in range(place, end):
        if data[i] == b" ":
            return i
    return -1


# The family that the line names decides how its addresses must be written.
cdef bint read_v1_address(const uint8_t* text, Py_ssize_t length, uint8_t family, Address* out) noexcept:
    if (memchr(text, b":", <size_t>length) != NULL) != (family == 6) or memchr(text, b"%", <size_t>length) != NULL:
        return False
    return parse_address(text, length, out)


# 0..65535, without leading zeros.
cdef bint read_port(const uint8_t* text, Py_ssize_t length, uint16_t* port) noexcept:
    cdef unsigned int value = 0
    cdef Py_ssize_t i
    if not 1 <= length <= 5 or (text[0] == b"0" and length > 1):
        return False
    for i in range(length):
        if not b"0" <= text[i] <= b"9":
            return False
        value = value * 10 + text[i] - 48
    if value > 65535:
        return False
    port[0] = <uint16_t>value
    return True


# ===== v2 (§2.2): signature, version and command, family and protocol, length, addresses, TLVs =====

cdef inline uint16_t big_endian(const uint8_t* data) noexcept:
    return <uint16_t>((data[0] << 8) | data[1])


cdef int parse_v2(const uint8_t* data, Py_ssize_t length, ProxyHeader* out) noexcept:
    cdef uint8_t command, family, protocol
    cdef int total
    if length < 13:
        return 0
    command = data[12] & 0x0F
    if data[12] >> 4 != 2 or command > 1:
        return -1
    if length < 14:
        return 0
    family = data[13] >> 4
    protocol = data[13] & 0x0F
    # "Receivers must drop connections presenting unexpected values here"; with LOCAL they are ignored.
    if command == 1 and (family > 3 or protocol > 2):
        return -1
    if length < 16:
        return 0
    total = 16 + big_endian(data + 14)
    if total > PROXY_V2_MAX:
        return -1
    if command == 1 and family != 0 and protocol != 0 and total - 16 < address_length(family):
        return -1
    if length < total:
        return 0
    out.version = 2
    if command == 1 and protocol != 0:
        read_v2_addresses(data + 16, family, out)
    return total


cdef inline int address_length(uint8_t family) noexcept:
    return 12 if family == 1 else 36 if family == 2 else 216


cdef void read_v2_addresses(const uint8_t* data, uint8_t family, ProxyHeader* out) noexcept:
    cdef int n
    if family == 1:
        n = 4
    elif family == 2:
        n = 16
    else:
        return                   # UNSPEC and unix sockets: no IP address
    out.source.family = out.destination.family = 4 if n == 4 else 6
    memcpy(out.source.octets, data, <size_t>n)
    memcpy(out.destination.octets, data + n, <size_t>n)
    unmap(&out.source)
    unmap(&out.destination)
    out.source_port = big_endian(data + 2 * n)
    out.destination_port = big_endian(data + 2 * n + 2)
    set_source_text(out)


# ===== for Python: tests =====

def parse(bytes data):
    cdef ProxyHeader header
    cdef uint8_t[ADDRESS_TEXT_MAX] text
    cdef int consumed = parse_proxy_header(<const uint8_t*>data, len(data), &header)
    if consumed <= 0:
        return consumed, None
    return consumed, {
        "version": header.version,
        "source": header.source_text[:header.source_text_length].decode(),
        "source_port": header.source_port,
        "destination": text[:format_address(&header.destination, text)].decode(),
        "destination_port": header.destination_port,
    }
