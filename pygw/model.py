"""The plain data that the control plane gives the data plane: no Kubernetes objects, no sockets.

`control.resolve` makes a GatewayConfig, `tables` compiles its routes into one flat image, `supervisor`
hands image and backends to the workers. Everything here is frozen and comparable with ==, so that
"did anything change?" is one comparison. Imports nothing of pygw.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """One entry of matches[].headers; `name` is lower case."""

    name: str
    value: str
    is_regex: bool = False


@dataclass(frozen=True, slots=True)
class MatchConfig:
    """One GRPCRouteMatch. None means any; duplicate header names are already dropped (first counts)."""

    service: str | None = None
    service_is_regex: bool = False
    method: str | None = None
    method_is_regex: bool = False
    headers: tuple[HeaderMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpMatchConfig:
    """One HTTPRouteMatch. Duplicate names of headers and query parameters are already dropped (first counts)."""

    path: str = "/"
    path_type: str = "PathPrefix"  # Exact, PathPrefix or RegularExpression
    method: str | None = None
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[HeaderMatch, ...] = ()  # names as written: case counts


@dataclass(frozen=True, slots=True)
class RedirectConfig:
    """RequestRedirect: what it replaces in the URL of the request; None and 0 leave that part as it is."""

    status: int = 302
    scheme: str | None = None
    hostname: str | None = None
    port: int = 0
    full_path: str | None = None
    prefix: str | None = None  # in place of the prefix that matched


@dataclass(frozen=True, slots=True)
class HeaderModifier:
    """RequestHeaderModifier or ResponseHeaderModifier; names lower case, forbidden ones already left out.

    Applied as remove, then set, then add (a name stands in one of them only where the user wrote it so).
    """

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MirrorConfig:
    """RequestMirror with a valid backendRef: numerator of denominator calls are copied to `backend`."""

    backend: str
    numerator: int = 100
    denominator: int = 100


@dataclass(frozen=True, slots=True)
class BackendRefConfig:
    """One backendRef of a rule. `backend` is the key of a BackendConfig; invalid refs keep their weight."""

    backend: str
    namespace: str
    name: str
    port: int
    weight: int = 1
    reason: str | None = None  # why it is invalid (RefNotPermitted, BackendNotFound, ...); None: valid
    message: str = ""  # for grpc-message where reason is set
    request_headers: HeaderModifier | None = None
    response_headers: HeaderModifier | None = None
    mirrors: tuple[MirrorConfig, ...] = ()
    failure: str | None = None  # an unsupported filter on this backendRef: its calls get 14 with this text


@dataclass(frozen=True, slots=True)
class RuleConfig:
    """One rule of a route. `matches` of a GRPCRoute, or `http_matches` of an HTTPRoute, is never empty.

    A rule without matches has one that takes everything.
    """

    index: int  # its place in spec.rules (dropped rules leave gaps)
    matches: tuple[MatchConfig, ...]
    backends: tuple[BackendRefConfig, ...]
    name: str | None = None
    request_headers: HeaderModifier | None = None
    response_headers: HeaderModifier | None = None
    mirrors: tuple[MirrorConfig, ...] = ()
    # (grpc_status, message) that every call of this rule gets: unsupported filter 14, no backendRefs 12, ...
    # A request that is not gRPC gets 500 in its place (HTTPRouteRule.backendRefs).
    failure: tuple[int, str] | None = None
    http_matches: tuple[HttpMatchConfig, ...] = ()
    timeout: float = 0.0  # seconds for the whole request, however much of it is sent; 0: none
    redirect: RedirectConfig | None = None  # answers every request of the rule, so `backends` is empty


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """One GRPCRoute or HTTPRoute that at least one listener accepted."""

    namespace: str
    name: str
    hostnames: tuple[str, ...]  # lower case; empty: any
    rules: tuple[RuleConfig, ...]
    created: str = ""  # RFC 3339 creationTimestamp; "" counts as newer than any
    kind: str = "GRPCRoute"

    @property
    def key(self) -> str:
        """`kind/namespace/name`, unique in a GatewayConfig."""
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain and private key, checked: they fit, and can be loaded."""

    chain: str  # PEM, the certificate itself first
    private_key: str = field(repr=False)  # PEM, not encrypted
    names: tuple[str, ...] = ()  # its DNS names, lower case: which server names it is for
    algorithm: str = ""  # of its public key, as in "RSA": one of each can serve side by side


@dataclass(frozen=True, slots=True)
class ClientValidation:
    """Gateway spec.tls.frontend: what client certificates are checked against."""

    ca: str  # PEM, all trust anchors
    allow_insecure: bool = False  # AllowInsecureFallback: a client without a valid certificate is served too


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """How a listener speaks TLS."""

    certificates: tuple[Certificate, ...]  # never empty; where several fit a server name equally, the first counts
    validation: ClientValidation | None = None  # None: no client certificate is asked for


@dataclass(frozen=True, slots=True)
class TlsUpstream:
    """How endpoints of a backend are spoken to over TLS (BackendTLSPolicy)."""

    server_name: str  # sent as SNI; the certificate must be for it, unless there are `names`
    ca: str = ""  # PEM, all trust anchors; "": the system's
    names: tuple[tuple[str, str], ...] = ()  # ("DNS" | "URI", value): the certificate must have one of them


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """One listener that serves. Listeners of one address and port are merged by hostname in `tables`."""

    gateway: str  # namespace/name of the Gateway
    name: str
    port: int  # the listener's own port; --port-map changes only what is bound
    hostname: str = ""  # lower case, may start with "*."; "": any
    protocol: str = "HTTP"
    addresses: tuple[str, ...] = ()  # where its Gateway binds; empty: the shared addresses (--bind)
    routes: tuple[str, ...] = ()  # RouteConfig.key, sorted
    listener_set: str = ""  # namespace/name of the ListenerSet that it comes from; "": the Gateway itself
    tls: TlsConfig | None = None  # None: cleartext
    client_certificate: Certificate | None = None  # its Gateway's own, for backends that are spoken to over TLS

    @property
    def key(self) -> str:
        """`namespace/gateway/listener`, as metrics, explain and the access log name it.

        `namespace/gateway/namespace/listenerset/listener` for one of a ListenerSet, whose names are its own.
        """
        owner = f"{self.gateway}/{self.listener_set}" if self.listener_set else self.gateway
        return f"{owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """A Service port (or a --resolve target). Endpoints come from EndpointSlices or from DNS."""

    key: str  # "namespace/name:port"
    namespace: str
    name: str
    port: int
    endpoints: tuple[tuple[str, int], ...] = ()  # (IP address, port), ready ones, sorted
    dns: tuple[tuple[str, int], ...] = ()  # (host name, port) to try in order where there are no EndpointSlices
    protocol: str = "h2c"
    tls: TlsUpstream | None = None  # None: cleartext


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """All that the data plane must do."""

    listeners: tuple[ListenerConfig, ...] = ()
    routes: dict[str, RouteConfig] = field(default_factory=dict)  # by RouteConfig.key
    backends: dict[str, BackendConfig] = field(default_factory=dict)  # by BackendConfig.key
