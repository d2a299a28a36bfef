# client_peer.pyx: a client's connection up to HTTP/2. See client_peer.pxd.

import logging
import ssl

from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcmp, memset, strlen

from ..field cimport FieldMemo
from ..http2.buffer cimport Buffer, buffer_append, buffer_free
from ..http2.message cimport RequestHead
from .call_metrics cimport LIMIT_MAX_CONCURRENT_STREAMS, LIMIT_MAX_HANDSHAKES
from .client_address cimport ADDRESS_TEXT_MAX, Address, TrustedProxies, format_address, parse_address
from .client_hello cimport (
    CLIENT_HELLO_MAX,
    HELLO_INCOMPLETE,
    HELLO_NOT_TLS,
    HELLO_WHOLE,
    ClientHello,
    parse_client_hello,
)
from .peer cimport Peer
from .proxy_protocol cimport PROXY_HEADER_MAX, ProxyHeader, parse_proxy_header
from .snapshot cimport Snapshot
from .tls_stream cimport TlsStream

from .tls import find_listener

logger = logging.getLogger(__name__)

cdef const char* NEED_HTTP2 = (
    "HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain; charset=utf-8\r\n"
    "content-length: 93\r\nconnection: close\r\n\r\n"
    "This port serves gRPC over HTTP/2 only (cleartext, with prior knowledge). Use a gRPC client.\n"
)
cdef const char* NEED_TLS = (
    "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
    "content-length: 64\r\nconnection: close\r\n\r\n"
    "This port serves gRPC over TLS, and got a request in cleartext.\n"
)

# Alerts (RFC 8446 §6.2), each a whole record: they come before there is a session.
cdef bytes ALERT_DECODE_ERROR = b"\x15\x03\x03\x00\x02\x02\x32"
cdef bytes ALERT_INTERNAL_ERROR = b"\x15\x03\x03\x00\x02\x02\x50"
cdef bytes ALERT_UNRECOGNIZED_NAME = b"\x15\x03\x03\x00\x02\x02\x70"
cdef bytes ALERT_NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"


cdef class ClientPeer(Peer):

    def connection_made(self, transport):
        """A client has connected."""
        cdef Snapshot snapshot = self.gate.snapshot
        self.context.counters.downstream_connections += 1
        self.context.counters.downstream_connections_open += 1
        socket = transport.get_extra_info("socket")
        has_room = self.gate.enter(self, -1 if socket is None else socket.fileno())
        if self.site_address in ("", "0.0.0.0", "::"):
            local = transport.get_extra_info("sockname")
            self.site_address = local[0].split("%")[0] if local else ""
        if snapshot is not None and snapshot.secured_at(self.current_site(snapshot)) is not None:
            self.is_sealed = self.awaits_hello = self.is_shaking = True
            self.is_stale = False        # it is what this site wants: there was nothing to compare it with yet
            self.gate.handshakes += 1
        Peer.connection_made(self, transport)
        if self.is_shaking and self.gate.handshakes > self.context.max_handshakes:
            self.context.counters.limit_hits[<int>LIMIT_MAX_HANDSHAKES] += 1
            has_room = False
        self.client.is_tls = self.is_sealed
        self.set_client(self.address)
        self.awaits_proxy_header = self.gate.proxy_senders is not None and self.is_from(self.gate.proxy_senders)
        if not has_room:
            self.abort()
        elif not self.awaits_proxy_header:
            self.limit_address()

    def connection_lost(self, exception):
        """The client is gone."""
        self.context.counters.downstream_connections_open -= 1
        self.gate.leave(self)
        if self.address_key is not None:
            self.gate.forget_address(self.address_key)
        self.end_shaking()
        buffer_free(&self.early)
        Peer.connection_lost(self, exception)

    # ===== whose connection it is =====

    cdef int set_client(self, bytes address) except -1:
        cdef Address parsed
        cdef uint8_t[ADDRESS_TEXT_MAX] text
        if parse_address(address, len(address), &parsed):
            # One spelling: a dual-stack socket shows 10.0.0.1 as ::ffff:10.0.0.1.
            address = text[:format_address(&parsed, text)]
        self.address = address
        self.client.address = address
        self.client.address_length = len(address)
        memset(&self.client.address_memo, 0, sizeof(FieldMemo))
        self.client.is_trusted = self.is_from(self.gate.trusted)
        return 0

    # A trusted proxy speaks for many clients, so only what is known of one of them counts.
    cdef int limit_address(self) except -1:
        cdef Address address
        if self.gate.max_per_address == 0 or self.client.is_trusted:
            return 0
        if not parse_address(self.client.address, self.client.address_length, &address):
            return 0
        self.address_key = self.gate.count_address(&address)
        if self.address_key is None:
            self.abort()
        return 0

    cdef bint is_from(self, TrustedProxies networks) except -1:
        cdef Address address
        return (
            parse_address(self.client.address, self.client.address_length, &address)
            and networks.is_trusted(&address)
        )

    cdef int on_octets(self, const uint8_t* data, Py_ssize_t length) except -1:
        cdef ProxyHeader header
        cdef Buffer rest
        cdef int used
        if not self.awaits_proxy_header:
            self.take(data, length)
            if self.refused_streams > 0:
                self.context.counters.limit_hits[<int>LIMIT_MAX_CONCURRENT_STREAMS] += self.refused_streams
                self.refused_streams = 0
            return 0
        buffer_append(&self.early, data, length)
        used = parse_proxy_header(self.early.data, self.early.length, &header)
        if used == 0 and self.early.length < PROXY_HEADER_MAX:
            return 0
        if used <= 0:
            # Whoever is trusted to send it must: else its clients would pass for the proxy itself.
            self.context.counters.downstream_proxy_errors += 1
            self.abort()
            return 0
        self.awaits_proxy_header = False
        if header.source_text_length > 0:
            self.set_client(header.source_text[:header.source_text_length])
            self.limit_address()
        rest = self.early
        memset(&self.early, 0, sizeof(Buffer))
        try:
            return self.take(rest.data + used, rest.length - used)
        finally:
            buffer_free(&rest)

    cdef int on_bad_preface(self, const uint8_t* data, Py_ssize_t length) except -1:
        # HTTP/1.x asks in words; anything else (TLS on a cleartext port, noise) is closed without an answer.
        if looks_like_http1(data, length):
            self.context.counters.downstream_http1 += 1
            buffer_append(&self.out, NEED_HTTP2, <Py_ssize_t>strlen(NEED_HTTP2))
        return 0

    cdef int current_site(self, Snapshot snapshot) except? -2:
        if self.site_generation != self.gate.generation:
            self.site = snapshot.table.site(self.site_address, self.site_port)
            self.site_generation = self.gate.generation
            self.check_admission(snapshot)
        return self.site

    # ===== TLS =====

    cdef int take(self, const uint8_t* data, Py_ssize_t length) except -1:
        if not self.awaits_hello:
            return Peer.take(self, data, length)
        if self.failed or self.closing:
            return 0
        buffer_append(&self.early, data, length)
        return self.choose_listener()

    cdef int choose_listener(self) except -1:
        cdef ClientHello hello
        cdef Snapshot snapshot = self.gate.snapshot
        cdef dict hostnames = snapshot.secured_at(self.current_site(snapshot))
        result = parse_client_hello(self.early.data, min(self.early.length, <Py_ssize_t>CLIENT_HELLO_MAX), &hello)
        if result == HELLO_INCOMPLETE and self.early.length < CLIENT_HELLO_MAX:
            return 0
        if result == HELLO_NOT_TLS:
            if not looks_like_http1(self.early.data, min(self.early.length, 256)):
                return self.refuse_hello(b"", "not TLS")
            self.context.counters.downstream_http1 += 1
            return self.refuse_hello(NEED_TLS, "HTTP/1 in cleartext")
        if result != HELLO_WHOLE:
            return self.refuse_hello(ALERT_DECODE_ERROR, "malformed ClientHello")
        name = hello.server_name[:hello.server_name_length].decode()
        if not hello.offers_h2:
            return self.refuse_hello(ALERT_NO_APPLICATION_PROTOCOL, "the client does not offer HTTP/2 (ALPN h2)")
        self.listener_tls = None if hostnames is None else find_listener(hostnames, name)
        if self.listener_tls is None:
            return self.refuse_hello(ALERT_UNRECOGNIZED_NAME, f"no listener for server name {name!r}")
        try:
            self.tls = TlsStream(self.listener_tls.context(name), True)
        except (ssl.SSLError, ValueError) as error:
            # The control process has loaded it, so this is no fault of the user's.
            logger.error("cannot use a certificate", extra={"server_name": name, "reason": str(error)})
            return self.refuse_hello(ALERT_INTERNAL_ERROR, "the certificate cannot be loaded")
        self.awaits_hello = False
        self.server_name = name.encode()
        self.check_admission(snapshot)
        try:
            return Peer.take(self, self.early.data, self.early.length)
        finally:
            buffer_free(&self.early)

    cdef int refuse_hello(self, bytes answer, str text) except -1:
        if answer and self.write is not None:
            self.write(answer)
        return self.on_tls_failed(text)

    cdef int end_shaking(self) except -1:
        if self.is_shaking:
            self.is_shaking = False
            self.gate.handshakes -= 1
        return 0

    cdef str on_secured(self):
        self.end_shaking()
        self.context.counters.downstream_tls_handshakes += 1
        return None

    cdef int on_tls_failed(self, str text) except -1:
        self.context.counters.downstream_tls_errors += 1
        logger.debug("TLS failed", extra={"address": self.address.decode(), "reason": text})
        return Peer.on_tls_failed(self, text)

    cdef int check_admission(self, Snapshot snapshot) except -1:
        cdef dict hostnames = snapshot.secured_at(self.site)
        if self.site < 0 or self.awaits_hello:
            return 0
        if not self.is_sealed:
            self.is_stale = hostnames is not None
            return 0
        present = None if hostnames is None else find_listener(hostnames, self.server_name.decode())
        self.is_stale = present is None or not present.admits_as(self.listener_tls)
        self.named_listener = snapshot.table.listener_at(
            self.site, <const uint8_t*>self.server_name, len(self.server_name)
        )
        return 0

    # Gateway API, Listener.hostname: 421 where the :authority belongs to another listener than the server name.
    cdef Admission admission(self, Snapshot snapshot, const RequestHead* head) except ADMISSION_FAILED:
        cdef int site = self.current_site(snapshot)
        cdef const uint8_t* authority = NULL
        cdef Py_ssize_t length = 0
        cdef int32_t listener
        if self.is_stale:
            return STALE
        if not self.is_sealed:
            return ADMITTED
        if head.authority != NULL:
            authority = head.authority.value
            length = head.authority.value_length
        if length == len(self.server_name) and memcmp(authority, <const char*>self.server_name, <size_t>length) == 0:
            return ADMITTED
        listener = snapshot.table.listener_at(site, authority, length)
        if listener == self.named_listener or listener < 0:
            return ADMITTED
        self.context.counters.downstream_misdirected += 1
        return MISDIRECTED


# Does it begin like an HTTP/1.x request line ("GET / HTTP/1.1")?
cdef bint looks_like_http1(const uint8_t* data, Py_ssize_t length) noexcept:
    cdef Py_ssize_t i
    for i in range(length - 8):
        if data[i] == b"\r" or data[i] == b"\n":
            return False
        if memcmp(data + i, b" HTTP/1.", 8) == 0:
            return True
    return False
