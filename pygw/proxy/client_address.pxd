# client_address.pxd: whose call is it? Trusted proxies, x-forwarded-for and x-forwarded-proto.
#
# The rule. What a backend gets in x-forwarded-for always ends with the address of our peer.
# * Peer not in a trusted network: whatever it sent in x-forwarded-for and x-forwarded-proto is dropped.
# * Peer in a trusted network: `hops` proxies are trusted, the peer being the nearest; each of them appended the
#   address that it saw. So the last `hops` entries of what came are kept and those before them, which the client
#   could have made up, are dropped. An entry that is no IP address (a port may follow) is dropped with all before it.
# The client's address is the first entry of the result. Example, hops = 2, peer 10.0.0.2 trusted:
#     came:  x-forwarded-for: 6.6.6.6, 203.0.113.9, 10.0.0.1
#     goes:  x-forwarded-for: 203.0.113.9, 10.0.0.1, 10.0.0.2          the client is 203.0.113.9
# x-forwarded-proto: the same entry, where it is http or https; else the scheme of the peer's connection.

from libc.stdint cimport uint8_t
from ..field cimport Field

cdef enum:
    ADDRESS_TEXT_MAX = 46        # INET6_ADDRSTRLEN
    FORWARDED_FOR_MAX = 1024     # octets that suffice in practice; the oldest entries are left out where they do not

cdef struct Address:             # of IP, in network order
    uint8_t family               # 4, 6; 0: none
    uint8_t[16] octets           # the first 4 of them with family 4

# Reads an IP address, unmapped (see below), without its zone (%eth0). False: it is none.
cdef bint parse_address(const uint8_t* text, Py_ssize_t length, Address* out) noexcept
# ::ffff:a.b.c.d, as a socket for both families shows IPv4 peers, becomes a.b.c.d.
cdef void unmap(Address* address) noexcept
# Writes the text of an address (at most ADDRESS_TEXT_MAX octets, no NUL counted) and returns its length.
cdef Py_ssize_t format_address(const Address* address, uint8_t* out) noexcept

cdef struct Network:
    uint8_t family
    uint8_t prefix               # bits
    uint8_t[16] octets

cdef class TrustedProxies:
    cdef:
        Network* networks
        Py_ssize_t network_count
        readonly int hops

    cdef bint is_trusted(self, const Address* address) noexcept
    # Writes the value of x-forwarded-for for a request whose whole section is `fields`; returns its length (0: there
    # is nothing to say, the peer has no address). `peer` is the text of the peer's address.
    cdef Py_ssize_t forwarded_for(
        self, const uint8_t* peer, Py_ssize_t peer_length, bint trusted, const Field* fields, Py_ssize_t count,
        uint8_t* out, Py_ssize_t capacity,
    ) noexcept
    # "http" or "https" (static text) for x-forwarded-proto.
    cdef const char* forwarded_proto(
        self, bint peer_is_tls, bint trusted, const Field* fields, Py_ssize_t count,
    ) noexcept

# The client's address, which is what a forwarded_for() value begins with; brackets and port are left out.
cdef const uint8_t* client_address(
    const uint8_t* forwarded_for, Py_ssize_t length, Py_ssize_t* client_length,
) noexcept
