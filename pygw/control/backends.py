"""backendRefs to Service ports, and Service ports to endpoints.

Two questions with two life times: "is this reference valid?" (`Targets`; kind, ReferenceGrant, Service, port,
appProtocol) makes conditions and rules, and "where does its traffic go?" (`backend_of`; EndpointSlices or DNS) makes
BackendConfigs. An endpoint that comes or goes changes only the second. Gateway API 2.3 of the rules: a valid Service
without a ready endpoint is still a valid reference.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pygw.control.backend_tls import Policies, Policy
from pygw.control.cluster_state import Object
from pygw.control.problems import Problem, object_name
from pygw.control.references import GATEWAY_GROUP, Grants
from pygw.control.topology import Place, near
from pygw.model import BackendConfig

Override = tuple[str, int]  # host name or IP address, port
Overrides = Mapping[tuple[str, str, int], Override]  # by (namespace, name, port) of the Service

# appProtocol values of servers that speak HTTP/2 without TLS (GEP-1911). Unset means "as the route needs it", which is
# HTTP/2 for a GRPCRoute and HTTP/1.1 for an HTTPRoute.
_H2C = frozenset({"kubernetes.io/h2c", "h2c", "grpc", "http2"})
# Those with TLS, which need a BackendTLSPolicy: what is not verified is not trusted. ALPN tells who speaks HTTP/2.
_TLS = frozenset({"", "https", "grpcs", "h2", "kubernetes.io/h2", "tls"})


@dataclass(frozen=True, slots=True)
class Target:
    """What one reference leads to. `reason` is set where it is invalid (the reasons of ResolvedRefs)."""

    namespace: str
    name: str
    port: int
    reason: str | None = None
    message: str = ""
    blocked: str = ""  # valid, but a BackendTLSPolicy that cannot be met forbids connections: the policy's reason

    @property
    def is_usable(self) -> bool:
        """Whether calls may go there."""
        return self.reason is None and not self.blocked

    @property
    def key(self) -> str:
        """BackendConfig.key."""
        return f"{self.namespace}/{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Targets:
    """Judges references against the Services and ReferenceGrants of one state."""

    services: Mapping[tuple[str, str], Object]
    grants: Grants
    overrides: Overrides
    allow_external_names: bool
    policies: Policies = field(default_factory=Policies)
    _found: dict[tuple[str, str, str, str, str, str, int], Target] = field(default_factory=dict, compare=False)

    def find(self, route_kind: str, route_namespace: str, reference: dict[str, Any]) -> Target:
        """The target of one backendRef (or of a mirror's) of a route; never raises."""
        group, kind = reference.get("group") or "", reference.get("kind") or "Service"
        namespace = reference.get("namespace") or route_namespace
        name, port = reference.get("name", ""), reference.get("port") or 0
        key = (route_kind, route_namespace, group, kind, namespace, name, port)
        found = self._found.get(key)  # thousands of rules refer to a few Services
        if found is None:
            found = self._found[key] = self._judge(*key)
        return found

    def _judge(
        self, route_kind: str, route_namespace: str, group: str, kind: str, namespace: str, name: str, port: int
    ) -> Target:
        if group or kind != "Service":
            what = f"{group}/{kind}" if group else kind
            return Target(namespace, name, port, "InvalidKind", f"{what} {name} is not a Service")
        source = (GATEWAY_GROUP, route_kind, route_namespace)
        if not self.grants.permit(source, ("", "Service"), namespace, name):
            return Target(
                namespace, name, port, "RefNotPermitted",
                f"no ReferenceGrant in namespace {namespace} lets a {route_kind} of namespace {route_namespace} "
                f"refer to Service {name}",
            )
        policy = self.policy(namespace, name, port)
        if (namespace, name, port) not in self.overrides:
            reason, message = self._judge_service(route_kind, namespace, name, port, policy is not None)
            if reason is not None:
                return Target(namespace, name, port, reason, message)
        if policy is not None and policy.tls is None:
            blocked, message = policy.fault
            return Target(namespace, name, port, None, message, blocked)
        return Target(namespace, name, port)

    def policy(self, namespace: str, name: str, port: int) -> Policy | None:
        """The BackendTLSPolicy that counts for a Service port."""
        service = self.services.get((namespace, name))
        entry = service_port(service, port) if service is not None else None
        return self.policies.find(namespace, name, (entry or {}).get("name") or "")

    def _judge_service(
        self, route_kind: str, namespace: str, name: str, port: int, over_tls: bool
    ) -> tuple[str | None, str]:
        service = self.services.get((namespace, name))
        if service is None:
            return "BackendNotFound", f"Service {namespace}/{name} does not exist"
        if is_external(service):
            if not self.allow_external_names:  # CVE-2021-25740
                return "UnsupportedProtocol", f"Service {namespace}/{name} is of type ExternalName; not allowed"
            if not (service.get("spec") or {}).get("externalName"):
                return "BackendNotFound", f"Service {namespace}/{name} is of type ExternalName and has no externalName"
            if not (service.get("spec") or {}).get("ports"):
                return _judge_protocol(route_kind, "", f"port {port} of Service {namespace}/{name}")
        entry = service_port(service, port)
        if entry is None:
            has = ", ".join(str(item.get("port")) for item in (service.get("spec") or {}).get("ports") or ())
            return "BackendNotFound", f"Service {namespace}/{name} has no port {port} (it has {has or 'none'})"
        if (entry.get("protocol") or "TCP") != "TCP":
            return "UnsupportedProtocol", f"port {port} of Service {namespace}/{name} is {entry['protocol']}, not TCP"
        protocol = entry.get("appProtocol") or ""
        if over_tls and protocol in _TLS:
            return None, ""
        return _judge_protocol(route_kind, protocol, f"port {port} of Service {namespace}/{name}")


def _judge_protocol(route_kind: str, protocol: str, what: str) -> tuple[str | None, str]:
    if protocol in _H2C or (not protocol and route_kind == "GRPCRoute"):
        return None, ""
    if not protocol:
        return "UnsupportedProtocol", (
            f"{what} has no appProtocol, so it would need HTTP/1.1; an {route_kind} is relayed over HTTP/2, to "
            "appProtocol kubernetes.io/h2c"
        )
    if route_kind != "GRPCRoute":
        return "UnsupportedProtocol", (
            f"{what} has appProtocol {protocol}; an {route_kind} is relayed over HTTP/2, to kubernetes.io/h2c"
        )
    return "UnsupportedProtocol", (
        f"{what} has appProtocol {protocol}; gRPC is relayed to kubernetes.io/h2c, or where appProtocol is not set; "
        "over TLS where a BackendTLSPolicy says how"
    )


def is_external(service: Object) -> bool:
    """Whether a Service stands for a DNS name outside."""
    return (service.get("spec") or {}).get("type") == "ExternalName"


def service_port(service: Object, port: int) -> dict[str, Any] | None:
    """The entry of spec.ports with this number, the TCP one where there are two."""
    ports: list[dict[str, Any]] = (service.get("spec") or {}).get("ports") or []
    entries = [item for item in ports if item.get("port") == port]
    return next((item for item in entries if (item.get("protocol") or "TCP") == "TCP"), entries[0] if entries else None)


def backend_of(
    target: tuple[str, str, int],
    service: Object | None,
    slices: list[Object] | None,
    override: Override | None,
    file_mode: bool,
    here: Place,
) -> tuple[BackendConfig, list[Problem]]:
    """Where the traffic of a valid target goes, and what is odd about its EndpointSlices.

    `slices` is None where the Service has none at all; in file mode it is then looked up in the DNS. Of the endpoints
    those near `here` are taken, where the slices or the Service ask for that.
    """
    namespace, name, port = target
    key = f"{namespace}/{name}:{port}"
    if override is not None:
        return _to_host(key, target, override), []
    if service is not None and is_external(service):
        return _to_host(key, target, ((service.get("spec") or {}).get("externalName") or "", port)), []
    if slices is None and file_mode:
        dns = ((f"{name}.{namespace}", port), (name, port))
        return BackendConfig(key, namespace, name, port, dns=dns), []
    entry = service_port(service, port) if service is not None else None
    collector = _Endpoints(entry or {"port": port}, _first_family(service))
    for item in slices or ():
        collector.take(item)
    distribution = ((service or {}).get("spec") or {}).get("trafficDistribution") or ""
    backend = BackendConfig(key, namespace, name, port, endpoints=collector.merged(here, distribution))
    if file_mode and not backend.endpoints and not collector.problems:
        # Nothing will change that by itself, as it would in a cluster.
        message = f"none of its EndpointSlices has a ready endpoint for port {port}, so calls to it get 14 UNAVAILABLE"
        name_ = object_name("Service", namespace, name)
        collector.problems.append(Problem("warning", "", 0, name_, "", "NoReadyEndpoint", message))
    return backend, collector.problems


def _to_host(key: str, target: tuple[str, str, int], host: Override) -> BackendConfig:
    namespace, name, port = target
    address = _ip(host[0])
    if address is not None:
        return BackendConfig(key, namespace, name, port, endpoints=((address, host[1]),))
    return BackendConfig(key, namespace, name, port, dns=(host,))


def _first_family(service: Object | None) -> str:
    families = ((service or {}).get("spec") or {}).get("ipFamilies") or ["IPv4"]
    return str(families[0])


def _ip(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


class _Endpoints:
    """Merges the slices of one Service port."""

    def __init__(self, port: dict[str, Any], first_family: str) -> None:
        self.problems: list[Problem] = []
        self._port = port
        self._first_family = first_family
        self._ready: list[tuple[Object, str, list[tuple[str, int]]]] = []  # endpoint, family, where it listens
        self._found: set[tuple[str, int]] = set()
        # A dual-stack pod stands in a slice of each family; it is one endpoint, and gets one share.
        self._by_pod: dict[tuple[Any, ...], dict[str, set[tuple[str, int]]]] = {}

    def take(self, item: Object) -> None:
        """Add the ready endpoints of one EndpointSlice (discovery.k8s.io/v1)."""
        if not item.get("endpoints"):
            return
        numbers = self._numbers(item)
        family = item.get("addressType") or "IPv4"
        if not numbers or family == "FQDN":
            why = "addressType FQDN is not supported" if family == "FQDN" else (
                f"none of its ports is called {self._port.get('name') or '(no name)'!r} like the port "
                f"{self._port.get('port')} of the Service"
            )
            self._note(item, "addressType" if family == "FQDN" else "ports", f"no endpoint is taken from it: {why}")
            return
        for index, endpoint in enumerate(item["endpoints"]):
            if not takes_calls(endpoint):
                continue
            addresses: list[str] = []
            for text in endpoint.get("addresses") or ():
                address = _ip(text)
                if address is None:
                    self._note(item, f"endpoints[{index}].addresses", f"{text} is not an IP address")
                else:
                    addresses.append(address)
            if addresses:
                self._ready.append((endpoint, family, [(one, number) for one in addresses for number in numbers]))

    def merged(self, here: Place, distribution: str) -> tuple[tuple[str, int], ...]:
        """All endpoints that calls from `here` go to, sorted."""
        preferred = near([endpoint for endpoint, _, _ in self._ready], here, distribution)
        is_preferred = {id(endpoint) for endpoint in preferred}
        for endpoint, family, places in self._ready:
            if id(endpoint) in is_preferred:
                for place in places:
                    self._add(endpoint, family, place)
        for families in self._by_pod.values():
            self._found |= families.get(self._first_family) or next(iter(families.values()))
        return tuple(sorted(self._found))

    def _numbers(self, item: Object) -> list[int]:
        name = self._port.get("name") or ""
        numbers: list[int] = []
        for port in item.get("ports") or ():
            if (port.get("name") or "") == name and (port.get("protocol") or "TCP") == "TCP":
                number = port.get("port")
                if number is None:  # "all ports": the Service's own numbers hold
                    target = self._port.get("targetPort")
                    number = target if isinstance(target, int) and target else self._port["port"]
                numbers.append(number)
        return numbers

    def _add(self, endpoint: dict[str, Any], family: str, where: tuple[str, int]) -> None:
        pod = endpoint.get("targetRef")
        if not pod:
            self._found.add(where)
            return
        identity = (pod.get("kind"), pod.get("namespace"), pod.get("name"), pod.get("uid"), where[1])
        self._by_pod.setdefault(identity, {}).setdefault(family, set()).add(where)

    def _note(self, item: Object, path: str, message: str) -> None:
        metadata = item["metadata"]
        name = object_name("EndpointSlice", metadata["namespace"], metadata["name"])
        self.problems.append(Problem("warning", "", 0, name, path, "EndpointIgnored", message))


def takes_calls(endpoint: dict[str, Any]) -> bool:
    """Whether an endpoint may get new calls: ready (unknown counts as ready), and not on its way out."""
    state = endpoint.get("conditions") or {}
    return state.get("ready") is not False and state.get("terminating") is not True
