# tls_stream.pxd: the TLS session of one connection: octets of the transport on one side, octets of HTTP/2 on the other.
#
# OpenSSL by the ssl module, over memory: no sockets here. uvloop could drive TLS itself (create_server(ssl=...)), but
# with one context for all names, 256 KiB for each connection, before any PROXY header, and with its own write buffer
# in front of the transport's, so that write_high_water would mean little.

from libc.stdint cimport uint8_t

cdef class TlsStream:
    cdef:
        readonly object session              # ssl.SSLObject
        object incoming                      # ssl.MemoryBIO: from the transport
        object outgoing                      # to the transport
        readonly bint is_open                # the handshake is done
        Py_ssize_t unread                    # octets that came since the last octet of HTTP/2

    # Takes octets of the transport.
    cdef int feed(self, const uint8_t* data, Py_ssize_t length) except -1
    # One step of the handshake; True: done. Raises ssl.SSLError (ssl.SSLCertVerificationError) where it failed; then
    # take_sealed() has the alert.
    cdef bint shake_hands(self) except -1
    # Octets of HTTP/2 into `view`: how many; 0: none are whole yet; -2: the peer has closed the session. Raises
    # ssl.SSLError, also where a peer sends only octets that mean nothing.
    cdef Py_ssize_t read(self, object view) except -1
    # Whether there is something for the transport.
    cdef bint has_sealed(self) except -1
    # What is for the transport, after `data` went into the session (b"": nothing does).
    cdef bytes seal(self, bytes data)
    # The same, with the session's end.
    cdef bytes seal_end(self)
