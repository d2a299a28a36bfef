# tls_stream.pyx: the TLS session of one connection. See tls_stream.pxd.

import ssl

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t

cdef enum:
    # What a peer may send without any octet of HTTP/2 coming of it, once the session is open: one record that is not
    # whole yet (16 KiB and some), and the key updates of a very long session. A flood of these is work without end.
    UNREAD_MAX = 65536

cdef object WantRead = ssl.SSLWantReadError
cdef object WantWrite = ssl.SSLWantWriteError


cdef class TlsStream:

    def __init__(self, context, server_side, server_name=None):
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_side, server_name)

    cdef int feed(self, const uint8_t* data, Py_ssize_t length) except -1:
        self.incoming.write(PyMemoryView_FromMemory(<char*>data, length, PyBUF_READ))
        self.unread += length
        return 0

    cdef bint shake_hands(self) except -1:
        try:
            self.session.do_handshake()
        except (WantRead, WantWrite):
            return False
        self.is_open = True
        self.unread = self.incoming.pending
        return True

    cdef Py_ssize_t read(self, object view) except -1:
        cdef Py_ssize_t length
        if self.incoming.pending == 0 and self.session.pending() == 0:
            return 0
        try:
            length = self.session.read(len(view), view)
        except (WantRead, WantWrite):
            if self.unread > UNREAD_MAX:
                raise ssl.SSLError("too many octets without data")
            return 0
        if length == 0:
            return -2
        self.unread = 0
        return length

    cdef bint has_sealed(self) except -1:
        return self.outgoing.pending > 0

    cdef bytes seal(self, bytes data):
        cdef Py_ssize_t written
        if data:
            try:
                # All at once: a memory BIO takes what it is given.
                written = self.session.write(data)
                while written < len(data):
                    written += self.session.write(data[written:])
            except ssl.SSLError:
                # The session is broken, which read() has told.
                pass
        return self.outgoing.read()

    cdef bytes seal_end(self):
        if self.is_open:
            try:
                self.session.unwrap()
            except ssl.SSLError:
                # Our close_notify is written; that of the peer is not waited for (RFC 8446 §6.1).
                pass
        return self.outgoing.read()
