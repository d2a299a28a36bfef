# client_hello.pxd: what a TLS client asks for, read before anything is answered (RFC 8446 §4.1.2, RFC 6066 §3,
# RFC 7301). No keys, no OpenSSL.
#
# The ssl module tells the server name only after the SSLContext is chosen, and then changes the certificate but neither
# the verification of clients nor the key of the session tickets (CVE-2025-23419 is what comes of that). Here the
# context is chosen first, and what cannot be served is refused for the price of reading a few octets.

from libc.stdint cimport uint8_t

cdef enum:
    # Records and handshake header included. Clients send 250 to 2,000 octets, with post-quantum key shares and many
    # extensions up to 4 KiB; each connection may hold this much before it has shown anything.
    CLIENT_HELLO_MAX = 16384
    SERVER_NAME_MAX = 255        # a DNS name has at most 253 octets

cdef enum HelloResult:
    HELLO_INCOMPLETE             # more octets are needed
    HELLO_WHOLE
    HELLO_NOT_TLS                # the octets are something else
    HELLO_MALFORMED

cdef struct ClientHello:
    uint8_t server_name[SERVER_NAME_MAX]     # lower case; letters, digits, "-", "_" and "." alone
    Py_ssize_t server_name_length            # 0: none given
    bint offers_alpn
    bint offers_h2

# Reads `data`, all that has come so far. Fills `hello` where the result is HELLO_WHOLE.
cdef HelloResult parse_client_hello(const uint8_t* data, Py_ssize_t length, ClientHello* hello) noexcept
