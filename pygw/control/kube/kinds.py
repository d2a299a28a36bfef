"""The kinds that pygw reads from the API server, and what of their objects it keeps.

`trim` drops at once what nobody reads (managedFields above all, often half of an object): that is memory, and a change
to it is no change. Of the kinds whose status pygw writes, the whole status and the resourceVersion stay, because a
write must leave what others wrote and must not overwrite what is newer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pygw.control.cluster_state import Object
from pygw.control.references import GATEWAY_GROUP
from pygw.control.slices import SERVICE_NAME_LABEL

OWN_GROUP = "pygw.dev"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "pygw"
BUNDLE_VERSION = "gateway.networking.k8s.io/bundle-version"  # on the Gateway API's own CRDs

# What TLS needs of a Secret or ConfigMap; a bundle of a hundred other files in the same object is none of ours.
_SECRET_ITEMS = ("tls.crt", "tls.key", "ca.crt")
_CONFIG_MAP_ITEMS = ("ca.crt",)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind and how it is read."""

    name: str
    group: str  # "" is the core group
    versions: tuple[str, ...]  # those that we understand, the best first
    plural: str
    trim: Callable[[Object], Object]
    is_namespaced: bool = True
    is_custom: bool = False  # defined by a CRD, which may be missing or come later
    has_status: bool = False  # its status is ours to write
    label_selector: str = ""

    def path(self, version: str, namespace: str = "", name: str = "") -> str:
        """The path of all objects, of those of a namespace, or of one."""
        root = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
        place = f"/namespaces/{namespace}" if namespace and self.is_namespaced else ""
        return f"{root}{place}/{self.plural}" + (f"/{name}" if name else "")

    @property
    def resource(self) -> str:
        """As RBAC and kubectl name it: grpcroutes.gateway.networking.k8s.io."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _pick(source: Any, *names: str) -> Object:
    """Those members of an object that are there and say something."""
    return {name: source[name] for name in names if source.get(name) is not None} if source else {}


def _metadata(item: Object, *more: str) -> Object:
    return _pick(item["metadata"], "name", "namespace", *more)


def _with_status(item: Object) -> Object:
    """A kind of which we read the whole spec and write the status."""
    return {
        "apiVersion": item["apiVersion"],
        "metadata": _metadata(item, "uid", "generation", "creationTimestamp", "resourceVersion"),
        "spec": item.get("spec") or {},
        **_pick(item, "status"),
    }


def _grant(item: Object) -> Object:
    return {"metadata": _metadata(item), "spec": item.get("spec") or {}}


def _parameters(item: Object) -> Object:
    return {"metadata": _metadata(item, "generation"), "spec": item.get("spec") or {}}


def _service(item: Object) -> Object:
    spec = _pick(
        item.get("spec"), "type", "externalName", "ipFamilies", "clusterIP", "trafficDistribution"
    )
    spec["ports"] = [
        _pick(port, "name", "port", "protocol", "appProtocol", "targetPort")
        for port in (item.get("spec") or {}).get("ports") or ()
    ]
    trimmed = {"metadata": _metadata(item), "spec": spec}
    ingress = ((item.get("status") or {}).get("loadBalancer") or {}).get("ingress")
    if ingress:  # for --gateway-service
        trimmed["status"] = {"loadBalancer": {"ingress": [_pick(entry, "ip", "hostname") for entry in ingress]}}
    return trimmed


def _slice(item: Object) -> Object:
    metadata = _metadata(item)
    labels = item["metadata"].get("labels") or {}
    metadata["labels"] = _pick(labels, SERVICE_NAME_LABEL)
    return {
        "metadata": metadata,
        **_pick(item, "addressType"),
        "ports": [_pick(port, "name", "port", "protocol", "appProtocol") for port in item.get("ports") or ()],
        "endpoints": [_endpoint(endpoint) for endpoint in item.get("endpoints") or ()],
    }


def _endpoint(endpoint: Object) -> Object:
    """Ten thousand of these are kept: equal parts are one object, and a Pod is told by its uid alone."""
    trimmed = _pick(endpoint, "addresses", "hints")
    for name in ("nodeName", "zone"):
        if endpoint.get(name):
            trimmed[name] = sys.intern(endpoint[name])
    conditions = endpoint.get("conditions") or {}
    trimmed["conditions"] = _CONDITIONS[
        conditions.get("ready"), conditions.get("serving"), conditions.get("terminating")
    ]
    target = endpoint.get("targetRef")
    if target:
        trimmed["targetRef"] = _pick(target, "uid") or _pick(target, "kind", "namespace", "name")
    return trimmed


_STATES = (None, True, False)
# Every value that conditions can have, once: objects are never changed in place.
_CONDITIONS: Mapping[tuple[Any, Any, Any], Object] = {
    (ready, serving, terminating): _pick(
        {"ready": ready, "serving": serving, "terminating": terminating}, "ready", "serving", "terminating"
    )
    for ready in _STATES
    for serving in _STATES
    for terminating in _STATES
}


def _namespace(item: Object) -> Object:
    return {"metadata": _metadata(item, "labels")}


def _secret(item: Object) -> Object:
    return {"metadata": _metadata(item), **_pick(item, "type"), "data": _pick(item.get("data"), *_SECRET_ITEMS)}


def _config_map(item: Object) -> Object:
    return {"metadata": _metadata(item), "data": _pick(item.get("data"), *_CONFIG_MAP_ITEMS)}


def _service_account(item: Object) -> Object:
    return {"metadata": _metadata(item, "uid", "labels", "annotations", "ownerReferences")}


def _pod(item: Object) -> Object:
    status = _pick(item.get("status"), "hostIP", "hostIPs")
    status["conditions"] = [
        _pick(condition, "type", "status")
        for condition in (item.get("status") or {}).get("conditions") or ()
        if condition.get("type") == "Ready"
    ]
    return {"metadata": _metadata(item, "labels", "deletionTimestamp"), "status": status}


def _definition(item: Object) -> Object:
    return {"metadata": {**_metadata(item), "annotations": _pick(item["metadata"].get("annotations"), BUNDLE_VERSION)}}


def _gateway_api(name: str, plural: str, *versions: str, is_namespaced: bool = True) -> Kind:
    return Kind(
        name, GATEWAY_GROUP, versions or ("v1",), plural, _with_status,
        is_namespaced=is_namespaced, is_custom=True, has_status=True,
    )  # fmt: skip


GATEWAY_CLASS = _gateway_api("GatewayClass", "gatewayclasses", is_namespaced=False)
GATEWAY = _gateway_api("Gateway", "gateways")
NAMESPACE = Kind("Namespace", "", ("v1",), "namespaces", _namespace, is_namespaced=False)

# All that is listed and watched as a whole. ReferenceGrant became v1 long after the others, so clusters with somewhat
# older CRDs serve it as v1beta1 alone; what it says is the same.
KINDS = (
    GATEWAY_CLASS,
    GATEWAY,
    _gateway_api("GRPCRoute", "grpcroutes"),
    _gateway_api("HTTPRoute", "httproutes"),
    _gateway_api("ListenerSet", "listenersets"),
    _gateway_api("BackendTLSPolicy", "backendtlspolicies"),
    Kind("ReferenceGrant", GATEWAY_GROUP, ("v1", "v1beta1"), "referencegrants", _grant, is_custom=True),
    Kind("GatewayConfig", OWN_GROUP, ("v1alpha1",), "gatewayconfigs", _parameters, is_custom=True),
    NAMESPACE,
    Kind("Service", "", ("v1",), "services", _service),
    # A slice without this label belongs to no Service.
    Kind(
        "EndpointSlice", "discovery.k8s.io", ("v1",), "endpointslices", _slice, label_selector=SERVICE_NAME_LABEL
    ),
)  # fmt: skip

# Watched one by one, and only where something of ours refers to it.
SECRET = Kind("Secret", "", ("v1",), "secrets", _secret)
CONFIG_MAP = Kind("ConfigMap", "", ("v1",), "configmaps", _config_map)

# Not for `resolve`: what is created for each Gateway, and the replicas of this installation.
SERVICE_ACCOUNT = Kind(
    "ServiceAccount", "", ("v1",), "serviceaccounts", _service_account,
    label_selector=f"{MANAGED_BY_LABEL}={MANAGED_BY}",
)  # fmt: skip
POD = Kind("Pod", "", ("v1",), "pods", _pod)
# That of GatewayClass stands for all: they are installed as one bundle.
DEFINITION = Kind(
    "CustomResourceDefinition", "apiextensions.k8s.io", ("v1",), "customresourcedefinitions", _definition,
    is_namespaced=False, is_custom=True,
)  # fmt: skip


def trimmed(kind: Kind, item: Object) -> Object:
    """What we keep of an object as the API server gave it; lists leave out its kind. Raises on what is no object."""
    kept = kind.trim({"apiVersion": "v1", **item})
    kept["kind"] = kind.name
    return kept
