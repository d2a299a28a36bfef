# peer.pxd: an HTTP/2 connection on a uvloop transport, either end. No calls, no routes.
#
# uvloop drives any object with get_buffer() as a BufferedProtocol: reads land in the Context's one buffer.
# Output is written once per loop turn (Context.flush).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from ..http2.connection cimport Connection
from .context cimport Context
from .timer_wheel cimport Timer
from .tls_stream cimport TlsStream

cdef class Peer(Connection):
    cdef:
        Context context
        readonly object transport            # None before connection_made and after connection_lost
        object write                         # transport.write
        bint is_dirty
        bint closing                         # close the transport once `out` is written
        bint is_sealed                       # TLS is spoken on it, from the first octet on
        TlsStream tls                        # None: cleartext, or TLS that has not begun
        bint ping_open                       # our keepalive PING is not answered yet
        uint64_t last_read_us
        uint64_t replenished_us              # when the flood budgets got their share last
        Timer handshake_timer                # later the keepalive's
        Timer idle_timer
        # Each is armed when there is something to watch and it is not armed: once in its time, however busy.
        Timer frame_timer
        Timer write_timer
        Timer stall_timer
        uint32_t frame_seen                  # FrameReader.begun when frame_timer was armed
        uint64_t written                     # octets given to the transport
        uint64_t taken                       # ... of these acknowledged by the other end's TCP when looked last
        uint64_t taken_us                    # when that had grown
        readonly bytes address               # text of the other end's IP address

    # ===== for subclasses =====
    cdef int on_octets(self, const uint8_t* data, Py_ssize_t length) except -1   # default: take()
    # Octets of the transport, what stands before TLS and HTTP/2 already taken off.
    cdef int take(self, const uint8_t* data, Py_ssize_t length) except -1
    # The TLS handshake is done. Returns why that is not good enough; None: it is.
    cdef str on_secured(self)
    # TLS went wrong; `text` says how. The connection closes.
    cdef int on_tls_failed(self, str text) except -1
    cdef int on_idle(self) except -1                 # the idle timer fired
    cdef double keepalive_seconds(self) noexcept     # 0: none
    # Nothing was heard of the other end since then (turn_us): a PING finds out whether it lives.
    cdef int doubt(self, uint64_t since_us) except -1
    cdef int probe(self) except -1
    # Counts the limit that ended the connection, where one of http2/limits did; the one that a header list is over.
    cdef int count_broken_limit(self) except -1
    cdef int count_large_headers(self) except -1
    # Of the header list that came last: it is over max_header_list_size; else, where it is over a limit at all, it is
    # max_header_fields.
    cdef bint is_list_too_large(self) noexcept
    # The other end has not read for so long that no more calls should be begun here.
    cdef bint is_choked(self) noexcept
    cdef int watch_frame(self) except -1
    cdef int watch_writes(self) except -1
    cdef int on_stall(self) except -1
    cdef int mark_dirty(self) except -1
    cdef int flush(self) except -1
    # Gives octets to the transport.
    cdef int write_out(self, bytes data) except -1
    # The client end's first step, or the server end's after the ClientHello was chosen for.
    cdef int shake_hands(self) except -1
    cdef bytes sealed_output(self)
    # What is in `out` goes to the transport.
    cdef int write_output(self) except -1
    # Writes what is in `out`, then closes.
    cdef int close_after_flush(self) except -1
    # Closes the transport once it has written what it was given.
    cdef int close_now(self) except -1
    # It stays so long, at most.
    cdef void linger(self, double seconds) noexcept

# Context.flush_peer.
cdef int flush_peer(object peer) except -1
