"""Which certificate a client gets, and what an endpoint must show: TLS settings of one snapshot, in a worker.

The listener is chosen by the server name (SNI): exact, then the longest wildcard, then the listener for any. Among its
certificates those that fit the name best are used. SSLContexts are made when first needed, and kept from snapshot to
snapshot while their settings are the same; a connection keeps the one it began with, so rotation ends no connection.
Knows no sockets and no calls; the octets pass through tls_stream.pyx.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pygw.model import Certificate, ClientValidation, TlsConfig, TlsUpstream
from pygw.tls_context import ALPN, client_context, server_context
from pygw.tls_snapshot import TlsSnapshot

_ServerKey = tuple[tuple[Certificate, ...], ClientValidation | None]
UpstreamKey = tuple[TlsUpstream, Certificate | None]


def suffixes(name: str) -> Iterator[str]:
    """The hostnames that stand for a name, the most specific first: itself, its wildcards, any ("")."""
    if name:
        yield name
    rest = name
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    yield ""


@dataclass(slots=True)
class Contexts:
    """The SSLContexts in use, by what they are made of."""

    servers: dict[_ServerKey, ssl.SSLContext] = field(default_factory=dict)
    clients: dict[UpstreamKey, UpstreamTls] = field(default_factory=dict)

    def server(self, certificates: tuple[Certificate, ...], validation: ClientValidation | None) -> ssl.SSLContext:
        """A context for client connections; raises ssl.SSLError where a certificate cannot be loaded."""
        key = certificates, validation
        if key not in self.servers:
            self.servers[key] = server_context(certificates, validation)
        return self.servers[key]

    def client(self, upstream: TlsUpstream, certificate: Certificate | None) -> UpstreamTls:
        """What connections to endpoints with these settings share."""
        key = upstream, certificate
        if key not in self.clients:
            self.clients[key] = UpstreamTls(upstream, certificate)
        return self.clients[key]


@dataclass(slots=True)
class ServerTls:
    """A listener's TLS on one site."""

    hostname: str
    config: TlsConfig
    contexts: Contexts = field(repr=False)

    def context(self, name: str) -> ssl.SSLContext:
        """The context for a client that asks for `name` ("": for none)."""
        chosen = choose_certificates(self.config.certificates, name)
        return self.contexts.server(chosen, self.config.validation)

    def admits_as(self, other: ServerTls) -> bool:
        """Whether it takes the same clients as another one: then what came through that may go on."""
        return self.config.validation == other.config.validation


class TlsSites:
    """The TLS settings of one snapshot."""

    def __init__(self, snapshot: TlsSnapshot, previous: TlsSites | None = None) -> None:
        self.snapshot = snapshot
        self.contexts = Contexts()
        if previous is not None:
            self._keep(previous.contexts)
        self._sites: dict[tuple[str, int], dict[str, ServerTls]] = {
            site: {name: ServerTls(name, config, self.contexts) for name, config in hostnames.items()}
            for site, hostnames in snapshot.sites.items()
        }

    def _keep(self, contexts: Contexts) -> None:
        """Take over what is still of use."""
        snapshot = self.snapshot
        configs = {config for hostnames in snapshot.sites.values() for config in hostnames.values()}
        certificates = {certificate for config in configs for certificate in config.certificates}
        validations = {config.validation for config in configs}
        clients = {*snapshot.client_certificates, None}
        upstreams = set(snapshot.upstreams.values())
        self.contexts.servers = {
            key: context
            for key, context in contexts.servers.items()
            if certificates.issuperset(key[0]) and key[1] in validations
        }
        self.contexts.clients = {
            key: tls for key, tls in contexts.clients.items() if key[0] in upstreams and key[1] in clients
        }

    def site(self, address: str, port: int) -> Mapping[str, ServerTls] | None:
        """The listeners of a site by hostname; None: it is cleartext. `address` "" means the shared addresses."""
        return self._sites.get((address, port))

    def upstream(self, backend: str, certificate: Certificate | None) -> UpstreamTls | None:
        """How a backend's endpoints are spoken to; None: in cleartext."""
        upstream = self.snapshot.upstreams.get(backend)
        return None if upstream is None else self.contexts.client(upstream, certificate)


def find_listener(hostnames: Mapping[str, ServerTls], name: str) -> ServerTls | None:
    """The listener for a server name; None: none is."""
    return next((hostnames[suffix] for suffix in suffixes(name) if suffix in hostnames), None)


def choose_certificates(certificates: Iterable[Certificate], name: str) -> tuple[Certificate, ...]:
    """Those that fit a server name best, the first of each algorithm; where none fits, as if all did."""
    certificates = tuple(certificates)
    fitting: list[Certificate] = []
    for suffix in suffixes(name):
        # In a certificate a wildcard stands for exactly one label (RFC 9525 §6.3).
        if suffix.count(".") == name.count("."):
            fitting = [certificate for certificate in certificates if suffix in certificate.names]
        if fitting:
            break
    by_algorithm: dict[str, Certificate] = {}
    for certificate in fitting or certificates:
        by_algorithm.setdefault(certificate.algorithm, certificate)
    return tuple(by_algorithm.values())


class UpstreamTls:
    """TLS to the endpoints of a backend. One object for each distinct setting: endpoints are told apart by it."""

    def __init__(self, upstream: TlsUpstream, certificate: Certificate | None) -> None:
        self.server_name = upstream.server_name
        self._upstream = upstream
        self._certificate = certificate
        self._context: ssl.SSLContext | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """Made when first needed; raises ssl.SSLError where the certificate cannot be loaded."""
        if self._context is None:
            self._context = client_context(self._upstream, self._certificate)
        return self._context

    def fault(self, session: Any) -> str:
        """Why a finished handshake is not good enough; "" if it is. `session` is an ssl.SSLObject."""
        if session.selected_alpn_protocol() != ALPN:
            return "the endpoint did not agree on HTTP/2 (ALPN h2)"
        wanted = self._upstream.names
        shown = session.getpeercert().get("subjectAltName", ()) if wanted else ()
        if wanted and not any(_is_named(kind, name, shown) for kind, name in wanted):
            names = ", ".join(name for _, name in wanted)
            return f"the endpoint's certificate has none of the names {names}"
        return ""


def _is_named(kind: str, name: str, shown: Iterable[tuple[str, str]]) -> bool:
    accepted = {name}
    if kind == "DNS":
        name = name.lower()
        rest = name.partition(".")[2]
        # A wildcard stands for one label, and not right under the top (as OpenSSL has it for host names).
        accepted = {name, f"*.{rest}"} if "." in rest else {name}
    values = (value.lower() if kind == "DNS" else value for shown_kind, value in shown if shown_kind == kind)
    return not accepted.isdisjoint(values)
