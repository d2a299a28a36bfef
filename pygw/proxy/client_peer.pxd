# client_peer.pxd: a client's connection up to HTTP/2: its site, TLS, and whether its requests belong there.
#
# Whether a site speaks TLS is asked when a connection comes, so that a port can change without being bound anew. The
# listener is chosen by the server name before OpenSSL is asked (client_hello.pxd). No routes, no calls.

from libc.stdint cimport int32_t, uint8_t, uint64_t

from ..http2.buffer cimport Buffer
from ..http2.message cimport RequestHead
from .peer cimport Peer
from .snapshot cimport Snapshot

cdef enum Admission:
    ADMITTED
    MISDIRECTED                  # the :authority belongs to another listener than the server name
    STALE                        # as things are now, the connection would not have been admitted as it was
    ADMISSION_FAILED = -1        # an exception was raised

cdef class Gate:
    """What the client connections of one Relay share: where new calls go."""
    cdef:
        Snapshot snapshot            # the present one; None: nothing to serve yet
        uint64_t generation          # counts snapshots
        object trusted               # TrustedProxies
        object proxy_senders         # TrustedProxies: who must send a PROXY header; None: nobody
        set connections
        Py_ssize_t handshakes        # TLS handshakes that are not done

cdef class ClientPeer(Peer):
    cdef:
        Gate gate
        readonly str site_address    # the site's local address; where the listener binds all, the connection's own
        readonly int site_port
        # The Gate.generation that `site`, `is_stale` and `named_listener` belong to. No reference: an idle connection
        # would keep an old snapshot.
        uint64_t site_generation
        int site
        Buffer early                 # octets before the PROXY header, then before the ClientHello was whole
        # ===== TLS =====
        bint awaits_hello
        bint is_shaking              # counted in Gate.handshakes
        bint is_stale
        bytes server_name            # SNI, lower case; b"": none
        object listener_tls          # tls.ServerTls of the listener that admitted it
        int32_t named_listener       # that of the server name

    # The site of this connection in the present snapshot, looked up once for each.
    cdef int current_site(self, Snapshot snapshot) except? -2
    # Whether a request may be served here.
    cdef Admission admission(self, Snapshot snapshot, const RequestHead* head) except ADMISSION_FAILED
    cdef int choose_listener(self) except -1
    cdef int refuse_hello(self, bytes answer, str text) except -1
    cdef int end_shaking(self) except -1
    cdef int check_admission(self, Snapshot snapshot) except -1

# Does it begin like an HTTP/1.x request line ("GET / HTTP/1.1")?
cdef bint looks_like_http1(const uint8_t* data, Py_ssize_t length) noexcept
