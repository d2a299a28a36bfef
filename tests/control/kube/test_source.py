"""The Kubernetes source: complete or nothing, only what is referred to, and no certificate missing for a moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from pygw.control.kube import informer as informer_module
from pygw.control.kube import source as module
from pygw.control.kube.source import KubernetesSource, Scope
from tests.doubles.kube_api import KubeApi, connect, running, until
from tests.doubles.objects import (
    CONTROLLER,
    endpoint,
    endpoint_slice,
    gateway,
    gateway_class,
    listener,
    ref,
    route,
    rule,
)

GROUP = "gateway.networking.k8s.io"


class World:
    def __init__(self, server: KubeApi, source: KubernetesSource, changes: list[int]) -> None:
        self.server, self.source, self.changes = server, source, changes

    def read(self) -> set[str]:
        """Kind/name of all that the state holds after a read."""
        state = self.source.read().state
        return {f"{kind}/{name}" for kind in state.kinds() for _, name in state.objects(kind)}

    def watched(self, plural: str) -> set[str]:
        """The names of the single objects of a kind that are watched."""
        return {
            seen.query["fieldSelector"].removeprefix("metadata.name=")
            for seen in self.server.requests
            if seen.path.endswith(plural) and "fieldSelector" in seen.query
        }


def play(
    scenario: Callable[[World], Awaitable[None]],
    *objects: dict[str, Any],
    prepare: Callable[[KubeApi], None] = lambda server: None,
    namespaces: tuple[str, ...] = (),
    node: str = "",
    is_opened: bool = True,
) -> None:
    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[World]:
        changes: list[int] = []
        async with KubeApi() as server:
            for item in objects:
                server.put(item)
            prepare(server)
            api = await connect(server)
            source = KubernetesSource(api, Scope(CONTROLLER, namespaces, node=node), lambda: changes.append(1))
            try:
                if is_opened:
                    await source.open()
                yield World(server, source, changes)
            finally:
                await source.close()
                await api.close()

    async def main() -> None:
        async with asyncio.timeout(8), world() as it:
            await scenario(it)

    asyncio.run(main())


def secret(name: str = "cert", namespace: str = "default") -> dict[str, Any]:
    return {
        "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": "eA==", "tls.key": "eA=="},
    }  # fmt: skip


def https(*references: dict[str, str], name: str = "gw", class_name: str = "pygw") -> dict[str, Any]:
    tls = {"certificateRefs": [{"group": "", "kind": "Secret", **reference} for reference in references]}
    item = gateway(listener("tls", 443, "HTTPS", tls=tls), name=name)
    item["spec"]["gatewayClassName"] = class_name
    return item


def test_gives_all_that_is_there_and_then_what_changes() -> None:
    async def scenario(it: World) -> None:
        assert it.read() == {"GatewayClass/pygw", "Gateway/gw", "GRPCRoute/r"}
        assert not it.changes
        it.server.put(route(name="new"))
        await until(lambda: bool(it.changes))
        result = it.source.read()
        assert result.changed
        assert ("default", "new") in result.state.objects("GRPCRoute")
        assert not it.source.read().changed

    play(scenario, gateway_class(), gateway(), route())


@pytest.mark.parametrize("plural", ["grpcroutes", "services", "endpointslices", "namespaces", "referencegrants"])
def test_nothing_is_given_before_everything_is_listed(plural: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer_module.Backoff, "next", lambda self, at_least=0.0: 0.001)
    monkeypatch.setattr(informer_module, "DENIED_RETRY", 0.001)

    async def scenario(it: World) -> None:
        fault = it.server.refuse(403, path=f"/{plural}")
        async with running(it.source.open()) as opening:
            await until(lambda: it.server.count("LIST", plural) >= 3)
            assert not opening.done()
            assert [text for text in it.source.waiting_for() if text.startswith(plural)]
            it.server.mend(fault)
            await until(opening.done)
            assert it.source.is_complete()

    play(scenario, gateway(), is_opened=False)


def test_the_zone_of_our_node_is_learnt_from_slices() -> None:
    async def scenario(it: World) -> None:
        assert it.source.zone() == ""
        it.server.put(endpoint_slice(endpoint("10.0.0.1", nodeName="node-1", zone="a"), name="echo-2"))
        await until(lambda: bool(it.changes))
        assert it.source.zone() == "a"
        [kept] = it.source.read().state.objects("EndpointSlice")["default", "echo-2"]["endpoints"]
        assert (kept["nodeName"], kept["zone"]) == ("node-1", "a")

    elsewhere = endpoint_slice(endpoint("10.0.0.2", nodeName="node-2", zone="b"))
    play(scenario, gateway_class(), gateway(), elsewhere, node="node-1")


def test_a_missing_crd_keeps_nothing_back() -> None:
    async def scenario(it: World) -> None:
        assert it.read() == {"Gateway/gw"}

    play(scenario, gateway(), prepare=lambda server: server.uninstall("listenersets", "backendtlspolicies"))


def test_only_secrets_that_a_gateway_of_ours_refers_to_are_read() -> None:
    async def scenario(it: World) -> None:
        assert "Secret/cert" in it.read()
        assert it.watched("secrets") == {"cert"}

    play(
        scenario,
        gateway_class(),
        gateway_class("other", "example.com/other"),
        https({"name": "cert"}),
        https({"name": "foreign"}, name="theirs", class_name="other"),
        secret("cert"), secret("foreign"), secret("unused"),
    )  # fmt: skip


def test_every_place_that_can_refer() -> None:
    async def scenario(it: World) -> None:
        assert it.watched("secrets") == {"cert", "client", "of-set"}
        assert it.watched("configmaps") == {"ca", "ca-8443", "ca-backend"}

    item = https({"name": "cert"})
    ca = {"group": "", "kind": "ConfigMap"}
    item["spec"]["tls"] = {
        "backend": {"clientCertificateRef": {"name": "client"}},
        "frontend": {
            "default": {"validation": {"caCertificateRefs": [{**ca, "name": "ca"}]}},
            "perPort": [{"port": 8443, "tls": {"validation": {"caCertificateRefs": [{**ca, "name": "ca-8443"}]}}}],
        },
    }
    listener_set = {
        "apiVersion": f"{GROUP}/v1", "kind": "ListenerSet", "metadata": {"name": "set", "namespace": "default"},
        "spec": {"parentRef": {"name": "gw"}, "listeners": [
            {"name": "a", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "of-set"}]}},
        ]},
    }  # fmt: skip
    policy = {
        "apiVersion": f"{GROUP}/v1", "kind": "BackendTLSPolicy", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"validation": {"caCertificateRefs": [{**ca, "name": "ca-backend"}], "hostname": "x"}},
    }  # fmt: skip
    play(scenario, gateway_class(), item, listener_set, policy)


def test_a_secret_elsewhere_needs_a_grant_and_goes_with_it() -> None:
    grant = {
        "apiVersion": f"{GROUP}/v1", "kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": "certs"},
        "spec": {
            "from": [{"group": GROUP, "kind": "Gateway", "namespace": "default"}],
            "to": [{"group": "", "kind": "Secret", "name": "cert"}],
        },
    }  # fmt: skip

    async def scenario(it: World) -> None:
        assert not it.watched("secrets")
        it.server.put(grant)
        await until(lambda: "Secret/cert" in it.read())
        assert it.watched("secrets") == {"cert"}
        it.server.delete("ReferenceGrant", "certs", "g")
        await until(lambda: "Secret/cert" not in it.read())
        await until(lambda: not [watcher for watcher in it.server.watchers if watcher.plural == "secrets"])

    play(
        scenario, gateway_class(),
        https({"name": "cert", "namespace": "certs"}, {"name": "secret-of-others", "namespace": "certs"}),
        secret("cert", "certs"), secret("secret-of-others", "certs"),
    )  # fmt: skip


def test_a_gateway_waits_for_the_secret_that_it_newly_refers_to() -> None:
    async def scenario(it: World) -> None:
        it.read()
        it.server.put(secret("new"))
        fault = it.server.refuse(500, path="/secrets")
        it.server.put(https({"name": "new"}))
        it.server.put(route(name="meanwhile"))
        await until(lambda: it.server.count("LIST", "secrets") >= 1)
        seen = it.read()
        assert "GRPCRoute/meanwhile" in seen  # others do not wait with it
        assert it.source.state.objects("Gateway")["default", "gw"]["spec"]["listeners"][0]["protocol"] == "HTTP"
        it.server.mend(fault)
        await until(lambda: "Secret/new" in it.read())
        assert it.source.state.objects("Gateway")["default", "gw"]["spec"]["listeners"][0]["protocol"] == "HTTPS"

    play(scenario, gateway_class(), gateway())


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD", 0.05)

    async def scenario(it: World) -> None:
        it.read()
        it.server.refuse(500, path="/secrets")
        it.server.put(https({"name": "new"}))

        def is_seen() -> bool:
            it.read()
            return it.source.state.objects("Gateway")["default", "gw"]["spec"]["listeners"][0]["protocol"] == "HTTPS"

        await until(is_seen)

    play(scenario, gateway_class(), gateway())


def test_a_rotated_secret_is_a_change() -> None:
    async def scenario(it: World) -> None:
        it.read()
        it.server.put({**secret(), "data": {"tls.crt": "bmV3", "tls.key": "bmV3"}})
        await until(lambda: bool(it.changes))
        it.read()
        assert it.source.state.objects("Secret")["default", "cert"]["data"]["tls.crt"] == "bmV3"

    play(scenario, gateway_class(), https({"name": "cert"}), secret())


def test_a_secret_that_may_not_be_read_is_named_and_holds_up_nothing() -> None:
    async def scenario(it: World) -> None:
        result = it.source.read()
        assert ("default", "gw") in result.state.objects("Gateway")
        assert [(problem.object, problem.reason) for problem in result.problems] == [
            ("Secret default/cert", "Forbidden")
        ]
        assert "list and watch on secrets" in result.problems[0].message

    play(
        scenario, gateway_class(), https({"name": "cert"}), secret(),
        prepare=lambda server: server.refuse(403, path="/secrets") and None,
    )  # fmt: skip


def test_one_namespace_with_rights_in_it_alone() -> None:
    def prepare(server: KubeApi) -> None:
        for path in ("/gatewayclasses", "/v1/namespaces?", "/v1/gateways", "/v1/services", "/v1/endpointslices"):
            server.refuse(403, path=path)  # whatever is cluster-wide

    async def scenario(it: World) -> None:
        await until(lambda: "Namespace/default" in it.read())
        # The class is assumed, the route of another namespace is not seen, nor its Secret.
        assert it.read() == {
            "GatewayClass/pygw", "Gateway/gw", "GRPCRoute/mine", "Secret/cert", "Namespace/default"
        }  # fmt: skip
        assert it.source.state.objects("Namespace")["", "default"]["metadata"]["labels"] == {"a": "b"}
        assert not it.source.read().problems

    play(
        scenario,
        https({"name": "cert"}), route(name="mine"), route(name="theirs", namespace="elsewhere"), secret(),
        {"kind": "Namespace", "metadata": {"name": "default", "labels": {"a": "b"}}},
        prepare=prepare,
        namespaces=("default",),
    )  # fmt: skip


def test_several_namespaces() -> None:
    async def scenario(it: World) -> None:
        assert {"GRPCRoute/a", "GRPCRoute/b"} <= it.read()
        assert "GRPCRoute/c" not in it.read()

    routes = [route(name=name, namespace=name) for name in "abc"]
    play(scenario, *routes, namespaces=("a", "b"))


def slice_of(service: str, *addresses: str) -> dict[str, Any]:
    return {
        "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"port": 1}],
        "metadata": {
            "name": f"{service}-1", "namespace": "default", "labels": {"kubernetes.io/service-name": service}
        },
        "endpoints": [{"addresses": [address]} for address in addresses],
    }  # fmt: skip


def test_a_route_goes_to_another_service_once_that_has_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_ROUTE", 100)

    async def scenario(it: World) -> None:
        def target() -> str:
            it.read()
            found = it.source.state.objects("GRPCRoute")["default", "r"]["spec"]["rules"][0]["backendRefs"][0]["name"]
            return str(found)

        assert target() == "old"
        it.server.put(route(rule(ref("new"))))
        it.server.put(slice_of("other", "10.0.0.3"))
        await until(lambda: ("default", "other-1") in it.source.read().state.objects("EndpointSlice"))
        assert target() == "old"
        it.server.put(slice_of("new", "10.0.0.2"))
        await until(lambda: target() == "new")
        # What has endpoints already is not waited for, nor anything when a Service goes.
        it.server.put(route(rule(ref("old"), ref("new"))))
        await until(lambda: target() == "old")
        it.server.delete("GRPCRoute", "default", "r")
        await until(lambda: "GRPCRoute/r" not in it.read())

    play(scenario, route(rule(ref("old"))), slice_of("old", "10.0.0.1"), slice_of("new"))


def test_it_does_not_wait_long_for_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOLD_ROUTE", 0.05)

    async def scenario(it: World) -> None:
        it.read()
        it.server.put(route(rule(ref("nowhere"))))
        it.server.put(route(rule(ref("nowhere")), name="new"))
        await until(lambda: "GRPCRoute/new" in it.read())  # a new one has nothing to lose
        await until(
            lambda: bool(it.read()) and "nowhere" in str(it.source.state.objects("GRPCRoute")["default", "r"]["spec"])
        )

    play(scenario, route(rule(ref("old"))), slice_of("old", "10.0.0.1"))


def test_nothing_is_told_before_all_watches_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer_module.Backoff, "next", lambda self, at_least=0.0: 0.001)
    monkeypatch.setattr(module, "RECOVERY", 100)

    async def scenario(it: World) -> None:
        it.read()
        await it.server.stop()
        it.server.put(route(name="new"))
        fault = it.server.refuse(503, path="/endpointslices")
        await it.server.start()
        before = len(it.server.requests)
        await until(lambda: sum("/endpointslices" in seen.path for seen in it.server.requests[before:]) > 5)
        assert ("default", "new") in it.source._objects["GRPCRoute"]
        assert not it.changes
        it.server.mend(fault)
        await until(lambda: bool(it.changes))
        assert "GRPCRoute/new" in it.read()

    play(scenario, route())


def test_but_one_kind_that_stays_broken_does_not_hold_up_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer_module.Backoff, "next", lambda self, at_least=0.0: 0.001)
    monkeypatch.setattr(module, "RECOVERY", 0.05)

    async def scenario(it: World) -> None:
        it.server.refuse(500, path="/httproutes")
        it.server.cut_watches()
        await until(lambda: any(informer.is_told for informer in it.source.informers))
        it.server.put(route(name="new"))
        await until(lambda: bool(it.changes) and "GRPCRoute/new" in it.read())
        assert [problem.message for problem in it.source.read().problems] == [
            "httproutes.gateway.networking.k8s.io cannot be read: 500 Refused: told to say 500"
        ]

    play(scenario, route())


def test_an_hour_without_the_server_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informer_module.Backoff, "next", lambda self, at_least=0.0: 0.001)

    async def scenario(it: World) -> None:
        before = it.read()
        await it.server.stop()
        await until(lambda: it.source.api.requests["GET", "error"] > 300)  # an hour of attempts
        assert it.read() == before
        assert not it.changes
        it.server.put(route(name="new"))
        it.server.compact()
        await it.server.start()
        await until(lambda: it.read() == before | {"GRPCRoute/new"})

    play(scenario, gateway_class(), gateway(), route())
