# proxy_protocol.pxd: the header that a TCP proxy puts before a connection's own octets (PROXY protocol, v1 and v2).
#
# After https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. Knows no sockets and trusts nobody: whether a
# source may send the header is for the caller to judge (client_address.pxd).

from libc.stdint cimport uint8_t, uint16_t
from .client_address cimport Address

cdef enum:
    PROXY_V1_MAX = 107           # §2.1: the longest line, CRLF included
    PROXY_V2_MAX = 4096          # 16 + addresses + TLVs. §2 designs for 536; certificates in TLVs take more
    PROXY_HEADER_MAX = PROXY_V2_MAX   # so many octets suffice to get an answer other than "needs more"

cdef struct ProxyHeader:
    # family 0: the header names no address (LOCAL, UNKNOWN, UNSPEC, unix sockets): those of the connection hold.
    Address source
    Address destination
    uint16_t source_port
    uint16_t destination_port
    uint8_t version              # 1 or 2
    uint8_t[46] source_text      # ADDRESS_TEXT_MAX
    uint8_t source_text_length   # 0 with family 0

# How many octets the header takes; 0: it is not whole yet; -1: malformed, or not a PROXY header.
cdef int parse_proxy_header(const uint8_t* data, Py_ssize_t length, ProxyHeader* out) noexcept
