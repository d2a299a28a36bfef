"""Kubernetes objects as plain dicts, as short as a test wants them, and `resolve` over them."""

from __future__ import annotations

from typing import Any

from pygw.control.cluster_state import ClusterState, Object
from pygw.control.resolve import Resolution, ResolveOptions, resolve

CONTROLLER = "pygw.dev/gateway-controller"
GROUP = "gateway.networking.k8s.io"
NOW = "2024-01-01T00:00:00Z"
LATER = "2024-01-02T00:00:00Z"


def gateway_class(name: str = "pygw", controller: str = CONTROLLER, **spec: Any) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": controller, **spec},
    }


def listener(name: str = "grpc", port: int = 80, protocol: str = "HTTP", **rest: Any) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": protocol, **rest}


def allow(namespaces: str, selector: Any = None, kinds: Any = None) -> dict[str, Any]:
    allowed: dict[str, Any] = {"namespaces": {"from": namespaces}}
    if selector is not None:
        allowed["namespaces"]["selector"] = selector
    if kinds is not None:
        allowed["kinds"] = kinds
    return {"allowedRoutes": allowed}


def gateway(*listeners: dict[str, Any], name: str = "gw", namespace: str = "default", **spec: Any) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"gatewayClassName": "pygw", "listeners": list(listeners or (listener(),)), **spec},
    }


def listener_set(
    *listeners: dict[str, Any], name: str = "ls", namespace: str = "default", parent: Any = None, created: str = ""
) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ListenerSet",
        "metadata": {
            "name": name, "namespace": namespace, **({"creationTimestamp": created} if created else {}),
        },
        "spec": {
            "parentRef": {"name": "gw", "namespace": "default"} if parent is None else parent,
            "listeners": list(listeners),
        },
    }  # fmt: skip


def ref(name: str = "echo", port: int = 50051, **rest: Any) -> dict[str, Any]:
    return {"name": name, "port": port, **rest}


def rule(*backends: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"backendRefs": list(backends or (ref(),)), **rest}


def route(
    *rules: dict[str, Any],
    name: str = "r",
    namespace: str = "default",
    parents: Any = None,
    kind: str = "GRPCRoute",
    **spec: Any,
) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "parentRefs": [{"name": "gw"}] if parents is None else parents,
            "rules": list(rules or (rule(),)),
            **spec,
        },
    }


def service(name: str = "echo", *ports: Any, namespace: str = "default", **spec: Any) -> Object:
    entries = [port if isinstance(port, dict) else {"port": port} for port in ports or (50051,)]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": entries, **spec},
    }


def endpoint(*addresses: str, **rest: Any) -> dict[str, Any]:
    return {"addresses": list(addresses), **rest}


def endpoint_slice(
    *endpoints: dict[str, Any],
    service: str = "echo",
    name: str = "",
    namespace: str = "default",
    ports: Any = ({"port": 8080},),
    family: str = "IPv4",
) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or f"{service}-1",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "ports": list(ports),
        "endpoints": list(endpoints),
    }


def grant(
    namespace: str,
    source: str = "default",
    name: str = "",
    kind: str = "GRPCRoute",
    to_kind: str = "Service",
    to_group: str = "",
    grant_name: str = "grant",
) -> Object:
    target = {"group": to_group, "kind": to_kind, **({"name": name} if name else {})}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ReferenceGrant",
        "metadata": {"name": grant_name, "namespace": namespace},
        "spec": {"from": [{"group": GROUP, "kind": kind, "namespace": source}], "to": [target]},
    }


def namespace(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def state_of(*items: Object) -> ClusterState:
    state = ClusterState()
    for item in items:
        state.apply(item)
    return state


def resolve_items(*items: Object, **options: Any) -> Resolution:
    return resolve(state_of(*items), ResolveOptions(**{"now": NOW, **options}))


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """{type: (status, reason)} of something that has conditions."""
    return {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}


def message(status: dict[str, Any], kind: str) -> str:
    return next(str(item["message"]) for item in status["conditions"] if item["type"] == kind)


def gateway_of(resolution: Resolution, name: str = "gw", namespace: str = "default") -> dict[str, Any]:
    return resolution.statuses["Gateway", namespace, name]


def listener_of(resolution: Resolution, name: str = "grpc") -> dict[str, Any]:
    return next(item for item in gateway_of(resolution)["listeners"] if item["name"] == name)


def parent_of(
    resolution: Resolution, index: int = 0, name: str = "r", namespace: str = "default", kind: str = "GRPCRoute"
) -> dict[str, Any]:
    parent: dict[str, Any] = resolution.statuses[kind, namespace, name]["parents"][index]
    return parent
