"""What a cluster test sees and does: a namespace of its own, objects in it, calls through the gateway, conditions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import grpc

from tests.conformance.backend import ClusterBackend
from tests.conformance.rig.gateway import ADDRESS
from tests.conformance.rig.rest import GATEWAY_GROUP, Api, ApiError, Object
from tests.doubles import objects
from tests.doubles.client import unary_unary

PATIENCE = 30.0
POLL_INTERVAL = 0.02
METHOD = "test.Echo/Unary"
PORT = 50051  # of every Service here
_addresses = (f"10.245.{100 + number // 250}.{1 + number % 250}" for number in itertools.count())


def eventually(holds: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """What `holds()` gives, once that is true. Raises AssertionError after `patience` seconds, with the last value."""
    deadline = time.monotonic() + patience
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < deadline, f"not {what} after {patience} s: {found!r}"
        time.sleep(POLL_INTERVAL)


def condition(holder: Object, kind: str) -> tuple[str, str]:
    """Status and reason of a condition, of anything that has conditions; empty where it has none of the kind."""
    for one in holder.get("conditions", []):
        if one["type"] == kind:
            return one["status"], one["reason"]
    return "", ""


class World:
    """A namespace of the cluster, and what a test puts there."""

    def __init__(self, api: Api, namespace: str, stack: ExitStack) -> None:
        self.api, self.namespace, self._stack = api, namespace, stack

    # ===== objects =====

    def apply(self, item: Object) -> Object:
        """Create or change an object, in this namespace unless it names another."""
        metadata = item["metadata"]
        if metadata.get("namespace", "default") == "default":
            item = {**item, "metadata": {**metadata, "namespace": self.namespace}}
        return self.api.apply(item)

    def gateway(self, *listeners: Object, name: str = "gw", wait: bool = True, **spec: Any) -> Object:
        """A Gateway, Programmed when this returns unless `wait` is off."""
        item = self.apply(objects.gateway(*listeners, name=name, **spec))
        if wait:
            self.wait_for("Gateway", name, lambda status: condition(status, "Programmed")[0] == "True", "Programmed")
        return item

    def route(self, *rules: Object, name: str = "r", wait: bool = True, **spec: Any) -> Object:
        """A GRPCRoute, accepted by all its parents when this returns unless `wait` is off."""
        item = self.apply(objects.route(*rules, name=name, **spec))
        if wait:
            parents = len(item["spec"]["parentRefs"])

            def accepted(status: Object) -> bool:
                return [condition(one, "Accepted")[0] for one in status.get("parents", [])] == ["True"] * parents

            self.wait_for("GRPCRoute", name, accepted, "Accepted")
        return item

    def backend(self, name: str = "echo", credentials: grpc.ServerCredentials | None = None) -> ClusterBackend:
        """A backend that runs, its Service and its EndpointSlice."""
        backend = self._stack.enter_context(ClusterBackend(name, next(_addresses), 8080, credentials))
        port = {"name": "grpc", "port": PORT}
        self.apply(objects.service(name, port))
        endpoint = objects.endpoint(backend.address, conditions={"ready": True})
        self.apply(objects.endpoint_slice(endpoint, service=name, ports=[{"name": "grpc", "port": backend.port}]))
        return backend

    def backend_tls_policy(self, service: str, **validation: Any) -> Object:
        """A BackendTLSPolicy for a Service; `validation` as in its spec."""
        target = {"group": "", "kind": "Service", "name": service}
        return self.apply(
            {
                "apiVersion": f"{GATEWAY_GROUP}/v1",
                "kind": "BackendTLSPolicy",
                "metadata": {"name": service},
                "spec": {"targetRefs": [target], "validation": validation},
            }
        )

    def status(self, kind: str, name: str) -> Object:
        """The status of an object here; empty where it has none, or does not exist."""
        try:
            found: Object = self.api.get(kind, name, self.namespace).get("status", {})
        except ApiError as error:
            if error.status != 404:
                raise
            return {}
        return found

    def wait_for(self, kind: str, name: str, holds: Callable[[Object], bool], what: str) -> Object:
        """The status of an object, once it is as wanted and says nothing of an older generation."""

        def current() -> Object | None:
            found = self.api.get(kind, name, self.namespace)
            status: Object = found.get("status", {})
            generations = {one.get("observedGeneration") for one in _conditions(status)}
            is_current = generations <= {found["metadata"].get("generation")}
            return status if is_current and holds(status) else None

        try:
            result: Object = eventually(current, f"{kind} {name} {what}")
        except AssertionError as error:
            raise AssertionError(f"{error}; its status: {self.status(kind, name)}") from None
        return result

    # ===== calls =====

    def channel(
        self,
        authority: str = "grpc.example.com",
        *,
        port: int = 80,
        address: str = ADDRESS,
        credentials: grpc.ChannelCredentials | None = None,
        sni: str = "",
    ) -> grpc.Channel:
        """A channel of its own connection, closed after the test."""
        options: list[tuple[str, Any]] = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.default_authority", authority),
        ]
        target = f"{address}:{port}"
        if credentials:
            options.append(("grpc.ssl_target_name_override", sni or authority))
            opened = grpc.secure_channel(target, credentials, options)
        else:
            opened = grpc.insecure_channel(target, options)
        return self._stack.enter_context(opened)

    def wait_until_served(self, channel: grpc.Channel, by: ClusterBackend, method: str = METHOD) -> None:
        """Until a call on `channel` is answered by a certain backend."""
        eventually(lambda: ask(channel, method) == by.name, f"answered by {by.name}")

    def wait_until_refused(self, channel: grpc.Channel, code: grpc.StatusCode, method: str = METHOD) -> None:
        """Until a call on `channel` ends with `code`."""
        eventually(lambda: ask(channel, method) == code.name, f"answered with {code.name}")


def _conditions(status: Object) -> list[Object]:
    holders: Sequence[Object] = [status, *status.get("parents", []), *status.get("listeners", [])]
    return [one for holder in holders for one in holder.get("conditions", [])]


def ask(channel: grpc.Channel, method: str = METHOD) -> str:
    """Who answers a call, or the name of its status where it fails."""
    call = unary_unary(channel, method)
    try:
        _, done = call.with_call(b"payload", timeout=10.0)
    except grpc.RpcError as error:
        return str(error.code().name)
    metadata = dict(done.initial_metadata() or ())
    return str(metadata.get("served-by", ""))
