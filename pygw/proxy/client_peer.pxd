# client_peer.pxd: a client's connection up to HTTP/2: whose it is, its site, TLS, which of its requests belong there.
#
# Whether a site speaks TLS is asked when a connection comes, so that a port can change without being bound anew. The
# listener is chosen by the server name before OpenSSL is asked (client_hello.pxd). No routes, no calls.

from libc.stdint cimport int32_t, uint8_t, uint64_t

from ..http2.buffer cimport Buffer
from ..http2.message cimport RequestHead
from .client_address cimport TrustedProxies
from .gate cimport Gate
from .peer cimport Peer
from .request_section cimport Client
from .snapshot cimport Snapshot

cdef enum Admission:
    ADMITTED
    MISDIRECTED                  # the :authority belongs to another listener than the server name
    STALE                        # as things are now, the connection would not have been admitted as it was
    ADMISSION_FAILED = -1        # an exception was raised

cdef class ClientPeer(Peer):
    cdef:
        Gate gate
        readonly str site_address    # the site's local address; where the listener binds all, the connection's own
        readonly int site_port
        # The Gate.generation that `site`, `is_stale` and `named_listener` belong to. No reference: an idle connection
        # would keep an old snapshot.
        uint64_t site_generation
        int site
        Client client
        bytes address_key            # counted at the gate for its address; None: not
        bint awaits_proxy_header
        Buffer early                 # octets before the PROXY header, then before the ClientHello was whole
        # ===== TLS =====
        bint awaits_hello
        bint is_shaking              # counted in Gate.handshakes
        bint is_stale
        bytes server_name            # SNI, lower case; b"": none
        object listener_tls          # tls.ServerTls of the listener that admitted it
        int32_t named_listener       # that of the server name

    cdef int set_client(self, bytes address) except -1
    cdef int limit_address(self) except -1
    cdef bint is_from(self, TrustedProxies networks) except -1
    # The site of this connection in the present snapshot, looked up once for each.
    cdef int current_site(self, Snapshot snapshot) except? -2
    # Whether a request may be served here.
    cdef Admission admission(self, Snapshot snapshot, const RequestHead* head) except ADMISSION_FAILED
    cdef int choose_listener(self) except -1
    cdef int refuse_hello(self, bytes answer, str text) except -1
    cdef int end_shaking(self) except -1
    cdef int check_admission(self, Snapshot snapshot) except -1
