# request_target.pxd: a request as the matcher reads it, and what a route matches of its :authority and :path.
#
# Hosts are compared in lower case without port (Gateway API, GRPCRouteSpec.hostnames); only /service/method
# is a gRPC call (gRPC over HTTP/2, Path), and it is compared as sent, never decoded: a gateway that is more
# lenient than the server behind it is a way around its routes (CVE-2026-33186).

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr
from ..field cimport Field
from .image_layout cimport LONGEST_HOST

cdef struct Request:             # what match() reads; borrowed
    const uint8_t* authority     # as on the wire; NULL with length 0: none
    Py_ssize_t authority_length
    const uint8_t* path
    Py_ssize_t path_length
    const Field* fields          # the whole section (pseudo-header fields are skipped by their token)
    Py_ssize_t field_count
    bint is_grpc
    const Field* method          # :method

cdef struct Host:                # :authority in lower case, without port
    uint8_t octets[LONGEST_HOST]
    Py_ssize_t length
    bint is_cut                  # longer than any hostname: `octets` are its end, which a wildcard may still match


# The length of an authority without ":port"; the port may be empty, as in "example.com:".
cdef inline Py_ssize_t length_without_port(const uint8_t* authority, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t end = length
    while end > 0 and b"0" <= authority[end - 1] <= b"9":
        end -= 1
    # In "[::1]" the last colon is followed by "]", so that an IPv6 address keeps all of its groups.
    return end - 1 if end > 0 and authority[end - 1] == b":" else length


cdef inline void read_host(Host* host, const uint8_t* authority, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint8_t c
    length = length_without_port(authority, length)
    host.is_cut = length > LONGEST_HOST
    if host.is_cut:
        authority += length - LONGEST_HOST
        length = LONGEST_HOST
    for i in range(length):
        c = authority[i]
        host.octets[i] = c | 0x20 if b"A" <= c <= b"Z" else c
    host.length = length


cdef inline bint is_dots(const uint8_t* segment, Py_ssize_t length) noexcept nogil:
    return segment[0] == b"." and (length == 1 or (length == 2 and segment[1] == b"."))


# Where the method begins in "/service/method"; 0 for any other path: it has other than two segments, an empty one,
# "." or "..", a query, a fragment, or a "/" in disguise.
cdef inline Py_ssize_t split_path(const uint8_t* path, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t slash = 0
    cdef Py_ssize_t i
    cdef uint8_t c
    if length < 4 or path[0] != b"/":
        return 0
    for i in range(1, length):
        c = path[i]
        if c == b"/":
            if slash != 0:
                return 0
            slash = i
        elif c == b"?" or c == b"#":
            return 0
        elif c == b"%" and i + 2 < length and path[i + 1] == b"2" and (path[i + 2] | 0x20) == b"f":
            return 0
    if slash < 2 or slash == length - 1:
        return 0
    if is_dots(path + 1, slash - 1) or is_dots(path + slash + 1, length - slash - 1):
        return 0
    return slash + 1
