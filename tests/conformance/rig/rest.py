"""The few calls of the Kubernetes API that the rig and its tests need, on the standard library.

Not the client that pygw uses: a fault there must not hide behind the same fault here.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Object = dict[str, Any]

GATEWAY_GROUP = "gateway.networking.k8s.io"
# What `kind.lower() + "s"` does not give.
_PLURALS = {
    "GatewayClass": "gatewayclasses",
    "BackendTLSPolicy": "backendtlspolicies",
    "NetworkPolicy": "networkpolicies",
}
_CLUSTER_SCOPED = {"Namespace", "Node", "GatewayClass", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}


class ApiError(Exception):
    """The API server said no: `status` is the HTTP status, the text is what it said."""

    def __init__(self, status: int, method: str, path: str, body: str) -> None:
        super().__init__(f"{method} {path}: {status} {body[:500]}")
        self.status = status


class Api:
    """A connection to an API server by token, one for each thread, kept alive."""

    def __init__(self, server: str, token: str, authority: Path) -> None:
        url = urllib.parse.urlsplit(server)
        assert url.hostname
        self._host, self._port, self._token = url.hostname, url.port, token
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._local = threading.local()
        self._opened: list[http.client.HTTPSConnection] = []  # by all threads: some end before the test does

    def close(self) -> None:
        """Close the connections of all threads, which must have no call under way."""
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()

    # ===== calls =====

    def call(
        self, method: str, path: str, body: object = None, content_type: str = "application/json", timeout: float = 30.0
    ) -> Any:
        """The JSON that `method path` answers, or None. Raises ApiError, or OSError where there is no server."""
        headers = self._headers() | {"Content-Type": content_type}
        data = json.dumps(body) if body is not None else None
        for is_last in (False, True):
            kept = getattr(self._local, "connection", None)
            connection = kept or self._open(timeout)
            try:
                connection.request(method, path, body=data, headers=headers)
                response = connection.getresponse()
                answer = response.read()
                break
            except (OSError, http.client.HTTPException):
                connection.close()
                self._opened.remove(connection)
                self._local.connection = None
                if is_last or not kept:  # a connection that was kept may have been closed by the server
                    raise
        if response.status >= 300:
            raise ApiError(response.status, method, path, answer.decode(errors="replace"))
        return json.loads(answer) if answer.startswith((b"{", b"[")) else None

    def _open(self, timeout: float) -> http.client.HTTPSConnection:
        """A connection for this thread's calls."""
        connection = self.connect(timeout)
        self._local.connection = connection
        self._opened.append(connection)
        return connection

    def connect(self, timeout: float | None) -> http.client.HTTPSConnection:
        """A new connection, for one who reads a stream."""
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls, timeout=timeout)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}

    def watch(self, path: str, logged: Callable[[str], None]) -> Iterator[tuple[str, Any]]:
        """(type, object) for ever; each fresh list comes first, as ("LIST", all objects)."""
        while True:
            try:
                listed = self.call("GET", path)
                yield "LIST", listed["items"]
                yield from self._events(path, listed["metadata"]["resourceVersion"])
            except (OSError, http.client.HTTPException, ApiError, ValueError) as error:
                logged(f"watch {path}: {error!r}, again")
                time.sleep(0.5)  # nothing to wait for: the server is away

    def _events(self, path: str, version: str) -> Iterator[tuple[str, Any]]:
        query = urllib.parse.urlencode({"watch": "1", "resourceVersion": version, "timeoutSeconds": "3000"})
        connection = self.connect(timeout=None)
        try:
            connection.request("GET", f"{path}?{query}", headers=self._headers())
            response = connection.getresponse()
            if response.status != 200:
                raise ApiError(response.status, "WATCH", path, response.read().decode(errors="replace"))
            while line := response.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["type"], event["object"]
        finally:
            connection.close()

    # ===== objects =====

    def get(self, kind: str, name: str, namespace: str = "default", version: str = "") -> Object:
        """One object. Raises ApiError with status 404 where there is none."""
        found: Object = self.call("GET", path_of(kind, name, namespace, version))
        return found

    def list(self, kind: str, namespace: str = "", version: str = "") -> list[Object]:
        """All objects of a kind, of one namespace or of all."""
        items: list[Object] = self.call("GET", path_of(kind, "", namespace, version))["items"]
        return items

    def apply(self, item: Object) -> Object:
        """Create it, or make it so: a server-side apply that takes every field given."""
        path = path_of_object(item) + "?fieldManager=conformance&force=true"
        applied: Object = self.call("PATCH", path, item, "application/apply-patch+yaml")
        return applied

    def patch(self, item: Object, change: Object, subresource: str = "") -> Object:
        """Merge `change` into an object."""
        path = path_of_object(item) + (f"/{subresource}" if subresource else "")
        patched: Object = self.call("PATCH", path, change, "application/merge-patch+json")
        return patched

    def delete(self, kind: str, name: str, namespace: str = "default", version: str = "") -> None:
        """Delete it, if it is there. Does not wait for what belongs to it."""
        try:
            self.call("DELETE", path_of(kind, name, namespace, version))
        except ApiError as error:
            if error.status != 404:
                raise


def version_of(kind: str) -> str:
    """The apiVersion of the kinds that the tests use."""
    if kind in ("GatewayClass", "Gateway", "GRPCRoute", "HTTPRoute", "ReferenceGrant", "ListenerSet"):
        return f"{GATEWAY_GROUP}/v1"
    groups = {
        "BackendTLSPolicy": f"{GATEWAY_GROUP}/v1",
        "Deployment": "apps/v1",
        "DaemonSet": "apps/v1",
        "EndpointSlice": "discovery.k8s.io/v1",
        "Lease": "coordination.k8s.io/v1",
        "ClusterRole": "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
        "Role": "rbac.authorization.k8s.io/v1",
        "RoleBinding": "rbac.authorization.k8s.io/v1",
        "CustomResourceDefinition": "apiextensions.k8s.io/v1",
    }
    return groups.get(kind, "v1")


def path_of(kind: str, name: str = "", namespace: str = "", version: str = "") -> str:
    """The path of an object, or of a list of them where `name` is empty."""
    version = version or version_of(kind)
    parts = ["/api" if "/" not in version else "/apis", version]
    if namespace and kind not in _CLUSTER_SCOPED:
        parts += ["namespaces", namespace]
    parts.append(_PLURALS.get(kind, kind.lower() + "s"))
    return "/".join([*parts, name] if name else parts)


def path_of_object(item: Object) -> str:
    """The path of an object that says what it is."""
    metadata = item["metadata"]
    return path_of(item["kind"], metadata["name"], metadata.get("namespace", "default"), item["apiVersion"])
