# client_hello.pyx: what a TLS client asks for. See client_hello.pxd.
#
# Every octet is hostile: each length is checked against what encloses it, each loop ends with the octets. OpenSSL reads
# the same octets again afterwards and checks all the rest.

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

cdef enum:
    RECORD_HANDSHAKE = 22
    RECORD_HEADER = 5
    RECORD_MAX = 16384
    CLIENT_HELLO = 1
    EXTENSION_SERVER_NAME = 0
    EXTENSION_ALPN = 16
    HOST_NAME = 0

cdef struct Reader:
    const uint8_t* data
    Py_ssize_t left
    bint failed                  # something was longer than what encloses it


cdef Py_ssize_t read_number(Reader* reader, int octets) noexcept:
    cdef Py_ssize_t number = 0
    cdef int i
    if reader.failed or reader.left < octets:
        reader.failed = True
        return 0
    for i in range(octets):
        number = number << 8 | reader.data[i]
    reader.data += octets
    reader.left -= octets
    return number


# The next `length` octets as a Reader of their own; an empty one where there are not so many.
cdef Reader read_part(Reader* reader, Py_ssize_t length) noexcept:
    cdef Reader part
    part.failed = reader.failed or reader.left < length
    part.data = reader.data
    part.left = 0
    if part.failed:
        reader.failed = True
        return part
    part.left = length
    reader.data += length
    reader.left -= length
    return part


# A vector with its length in front, in so many octets.
cdef Reader read_vector(Reader* reader, int octets) noexcept:
    return read_part(reader, read_number(reader, octets))


# Joins the handshake octets of all records. `message_length` becomes how many of the message are there.
cdef HelloResult join_records(
    const uint8_t* data, Py_ssize_t length, uint8_t* message, Py_ssize_t* message_length
) noexcept:
    cdef Py_ssize_t place = 0
    cdef Py_ssize_t size, fragment, needed
    message_length[0] = 0
    while True:
        if length - place >= 1 and data[place] != RECORD_HANDSHAKE:
            return HELLO_NOT_TLS if place == 0 else HELLO_MALFORMED
        if length - place >= 2 and data[place + 1] != 3:
            return HELLO_NOT_TLS if place == 0 else HELLO_MALFORMED
        if length - place < RECORD_HEADER:
            return HELLO_INCOMPLETE
        size = data[place + 3] << 8 | data[place + 4]
        if size == 0 or size > RECORD_MAX:
            return HELLO_MALFORMED
        fragment = min(size, length - place - RECORD_HEADER)
        memcpy(message + message_length[0], data + place + RECORD_HEADER, <size_t>fragment)
        message_length[0] += fragment
        if message_length[0] >= 1 and message[0] != CLIENT_HELLO:
            return HELLO_MALFORMED
        if message_length[0] >= 4:
            needed = 4 + (message[1] << 16 | message[2] << 8 | message[3])
            if needed > CLIENT_HELLO_MAX:
                return HELLO_MALFORMED
            if message_length[0] >= needed:
                message_length[0] = needed
                return HELLO_WHOLE
        if fragment < size:
            return HELLO_INCOMPLETE
        place += RECORD_HEADER + size


cdef HelloResult parse_client_hello(const uint8_t* data, Py_ssize_t length, ClientHello* hello) noexcept:
    cdef uint8_t[CLIENT_HELLO_MAX] message
    cdef Py_ssize_t message_length
    cdef HelloResult result
    cdef Reader body, extensions, extension
    cdef Py_ssize_t kind
    hello.server_name_length = 0
    hello.offers_alpn = hello.offers_h2 = False
    if length > CLIENT_HELLO_MAX:
        return HELLO_MALFORMED
    result = join_records(data, length, message, &message_length)
    if result != HELLO_WHOLE:
        return result
    body.data = message + 4
    body.left = message_length - 4
    body.failed = False
    read_part(&body, 2 + 32)         # legacy_version, random
    read_vector(&body, 1)            # legacy_session_id
    read_vector(&body, 2)            # cipher_suites
    read_vector(&body, 1)            # legacy_compression_methods
    if body.failed:
        return HELLO_MALFORMED
    if body.left == 0:
        return HELLO_WHOLE           # TLS 1.2 without extensions
    extensions = read_vector(&body, 2)
    while extensions.left > 0:
        kind = read_number(&extensions, 2)
        extension = read_vector(&extensions, 2)
        if kind == EXTENSION_SERVER_NAME and not read_server_name(&extension, hello):
            return HELLO_MALFORMED
        if kind == EXTENSION_ALPN and not read_alpn(&extension, hello):
            return HELLO_MALFORMED
    return HELLO_MALFORMED if body.failed or extensions.failed else HELLO_WHOLE


# RFC 6066 §3: a list with at most one name of each type, and there is but one type.
cdef bint read_server_name(Reader* extension, ClientHello* hello) noexcept:
    cdef Reader names = read_vector(extension, 2)
    cdef Reader name
    cdef Py_ssize_t kind, i
    cdef uint8_t octet
    if hello.server_name_length > 0:
        return False                 # a second extension of this kind
    kind = read_number(&names, 1)
    name = read_vector(&names, 2)
    if names.failed or kind != HOST_NAME or names.left > 0 or not 0 < name.left <= SERVER_NAME_MAX:
        return False
    for i in range(name.left):
        octet = name.data[i]
        if b"A" <= octet <= b"Z":
            octet |= 0x20
        elif not (b"a" <= octet <= b"z" or b"0" <= octet <= b"9" or octet == b"." or octet == b"-" or octet == b"_"):
            return False             # internationalized names come as A-labels
        hello.server_name[i] = octet
    hello.server_name_length = name.left
    return True


# RFC 7301 §3.1.
cdef bint read_alpn(Reader* extension, ClientHello* hello) noexcept:
    cdef Reader protocols = read_vector(extension, 2)
    cdef Reader protocol
    hello.offers_alpn = True
    while protocols.left > 0:
        protocol = read_vector(&protocols, 1)
        if protocol.left == 2 and memcmp(protocol.data, b"h2", 2) == 0:
            hello.offers_h2 = True
    return not protocols.failed


# ===== for tests =====

def read_client_hello(bytes data):
    """What parse_client_hello() finds: ("whole", server name, whether h2 is offered), or another result's name."""
    cdef ClientHello hello
    cdef HelloResult result = parse_client_hello(<const uint8_t*>data, len(data), &hello)
    if result == HELLO_WHOLE:
        return "whole", hello.server_name[:hello.server_name_length].decode(), hello.offers_h2
    return {HELLO_INCOMPLETE: "incomplete", HELLO_NOT_TLS: "not TLS", HELLO_MALFORMED: "malformed"}[result], "", False
