"""The roles of deploy/ hold what pygw asks of the API server, and nothing else.

Kubernetes mode runs against a double of the API server that refuses what the roles do not permit, through everything
that makes it send a request. What was refused is lacking, and what no request needed is too much.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from pygw.control.kube.api import Api
from pygw.control.kube.kinds import KINDS
from pygw.control.kube.lease import lease_name
from pygw.control.kube.mode import KubernetesMode
from pygw.control.resolve import Resolution, ResolveOptions, resolve
from pygw.run_options import RunOptions
from tests.deploy.access import Access, Attributes, attributes
from tests.deploy.rendering import HOST_PORTS, KUSTOMIZE, NAMESPACE, Object, read, render
from tests.doubles import kube_api, objects
from tests.doubles.kube_api import KubeApi, Seen, running, until

BASE = KUSTOMIZE / "base" / "rbac.yaml"
CONTROLLER = "pygw.dev/gateway-controller"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "pygw-1", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "pygw"}},
    "status": {"hostIP": "192.0.2.1", "conditions": [{"type": "Ready", "status": "True"}]},
}


@pytest.fixture(autouse=True)
def _pod(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """We are that Pod, and the server knows our own CRD."""
    monkeypatch.setenv("POD_NAME", "pygw-1")
    monkeypatch.setenv("POD_NAMESPACE", NAMESPACE)
    monkeypatch.setitem(kube_api.KINDS, "gatewayconfigs", "GatewayConfig")
    monkeypatch.setitem(kube_api.PLURALS, "GatewayConfig", "gatewayconfigs")
    return iter([None])


class GuardedApi(KubeApi):
    """An API server that permits what a ServiceAccount may do."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        if "gatewayconfigs" not in self.served.get(("pygw.dev", "v1alpha1"), ()):
            self.install("gatewayconfigs", group="pygw.dev", version="v1alpha1")
        self.access = access
        self.asked: set[Attributes] = set()
        self.refused: set[Attributes] = set()

    async def _answer(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        wanted = set(attributes(seen.method, seen.path, seen.query, creates=self._creates(seen)))
        self.asked |= wanted
        lacking = {one for one in wanted if not self.access.permits(one)}
        if lacking:
            self.refused |= lacking
            body = kube_api._status(403, "Forbidden", f"cannot {lacking}")
            return web.Response(status=403, body=body, content_type="application/json")
        return await super()._answer(request, seen)

    def _creates(self, seen: Seen) -> bool:
        """Whether it is an apply to something that is not there."""
        if "apply" not in seen.headers.get("Content-Type", ""):
            return False
        *_, namespace, plural, name = seen.path.split("/")
        return (namespace, name) not in self.objects[plural]


class Installation:
    """Kubernetes mode at work, without the launcher and the workers around it."""

    def __init__(self, server: GuardedApi, options: RunOptions) -> None:
        self.server, self.options = server, options
        self.changed = asyncio.Event()
        self.mode = KubernetesMode(options, self.changed.set, Api(self._load))
        self.resolution: Resolution | None = None

    async def _load(self, configuration: Any) -> str:
        configuration.host = self.server.url
        return NAMESPACE

    async def asks(self, method: str, text: str, count: int = 1) -> None:
        """Until so many such requests came."""
        await self.until(lambda: self.server.count(method, text) >= count, f"{method} {text}")

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Until it holds, resolving whatever is new."""

        def is_so() -> bool:
            if self.changed.is_set():
                self.changed.clear()
                self._resolve()
            return holds()

        try:
            await until(is_so)
        except TimeoutError:
            refused = sorted(map(str, self.server.refused))
            raise AssertionError(f"no {what}; refused so far: {refused}") from None

    def _resolve(self) -> None:
        """A cycle of the controller."""
        loaded = self.mode.source.read()
        options = ResolveOptions(
            controller_name=CONTROLLER, file_mode=False, gateway_addresses=self.mode.addresses.current(),
            previous=self.resolution, now="2026-01-01T00:00:00Z",
        )  # fmt: skip
        self.resolution = resolution = resolve(loaded.state, options)
        # Policies get their status like all others; what it says does not matter here.
        for namespace, name in loaded.state.objects("BackendTLSPolicy"):
            resolution.statuses.setdefault(("BackendTLSPolicy", namespace, name), {"ancestors": []})
        self.mode.on_resolved(resolution, [*loaded.problems, *resolution.problems])


@contextlib.asynccontextmanager
async def installed(server: GuardedApi, options: RunOptions) -> AsyncIterator[Installation]:
    """It, opened; closed in the end."""
    installation = Installation(server, options)
    background: list[Any] = []
    async with contextlib.AsyncExitStack() as tasks:
        tasks.push_async_callback(installation.mode.close)
        opening = await tasks.enter_async_context(running(installation.mode.open(background.append)))
        while not opening.done() or background:
            while background:
                await tasks.enter_async_context(running(background.pop(0)))
            await asyncio.sleep(0.001)
        opening.result()
        installation.changed.set()
        yield installation


def put_world(server: GuardedApi, namespace: str) -> None:
    """Objects of all kinds in a namespace, with references to Secrets and ConfigMaps, and one fault."""
    tls = {"certificateRefs": [{"name": "certificate"}]}
    certificates = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "authority"}]}
    policy = {
        "apiVersion": f"{objects.GROUP}/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "policy", "namespace": namespace},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "echo"}],
            "validation": {"hostname": "echo.example.com", **certificates},
        },
    }
    for kind in ("Secret", "ConfigMap"):
        name = "certificate" if kind == "Secret" else "authority"
        server.put({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "data": {}})
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    server.put(policy)
    listeners = [objects.listener(), objects.listener("tls", 443, "HTTPS", tls=tls)]
    allowed = {"namespaces": {"from": "Same"}}
    server.put(objects.gateway(*listeners, namespace=namespace, allowedListeners=allowed))
    parent = {"name": "gw", "namespace": namespace}
    server.put(objects.listener_set(objects.listener("more", 8080), namespace=namespace, parent=parent))
    server.put(objects.route(namespace=namespace))  # its Service is missing: an Event
    server.put(objects.route(name="h", namespace=namespace, kind="HTTPRoute"))


async def live(server: GuardedApi, options: RunOptions, worlds: list[str]) -> None:
    """A life of an installation, with everything that asks something of the API server."""
    server.put(POD)
    server.put(objects.gateway_class())
    for namespace in worlds:
        put_world(server, namespace)
    async with installed(server, options) as installation:
        count = len(worlds)
        of_cluster = not options.watch_namespaces
        for kind in KINDS:
            if kind.has_status and (kind.is_namespaced or of_cluster):
                await installation.asks("PATCH", f"/{kind.plural}/", count if kind.is_namespaced else 1)
        await installation.asks("PATCH", "/serviceaccounts/", count)
        for kind in KINDS:
            if kind.is_namespaced or of_cluster:
                await installation.asks("WATCH", f"/{kind.plural}", 1 if of_cluster else count)
        for plural in ("secrets", "configmaps"):
            await installation.asks("WATCH", f"/{plural}", count)
        await installation.asks("WATCH", "/serviceaccounts", 1 if of_cluster else count)
        if not options.gateway_addresses:
            await installation.asks("WATCH", f"/namespaces/{NAMESPACE}/")  # the Pods, or the Service
        await mend_and_break(installation, worlds)
        for namespace in worlds:  # no longer ours
            server.put(objects.gateway(namespace=namespace, gatewayClassName="of-somebody-else"))
        await installation.asks("DELETE", "/serviceaccounts/", count)
        await installation.mode.drain()


async def mend_and_break(installation: Installation, worlds: list[str]) -> None:
    """The fault goes and comes back: its Event gets a series."""
    server = installation.server

    def told_of() -> set[str]:
        return {item["regarding"]["namespace"] for item in server.objects["events"].values() if _is_of_route(item)}

    await installation.until(lambda: told_of() == set(worlds), "Event about the GRPCRoute")
    told = server.count("PATCH", "/grpcroutes/")
    for namespace in worlds:
        server.put(objects.service(namespace=namespace))
    await installation.asks("PATCH", "/grpcroutes/", told + len(worlds))
    for namespace in worlds:
        server.delete("Service", namespace, "echo")
    await installation.asks("PATCH", "/events/", len(worlds))


def _is_of_route(event: Object) -> bool:
    return bool(event["regarding"]["kind"] == "GRPCRoute" and event["reason"] == "BackendNotFound")


def account_of(roles: list[Object]) -> Access:
    return Access(roles, "pygw", NAMESPACE)


async def run(roles: list[Object], options: RunOptions, worlds: list[str]) -> GuardedApi:
    """The API server after a life with these roles."""
    server = GuardedApi(account_of(roles))
    async with server:
        await live(server, options, worlds)
    return server


def options(**more: Any) -> RunOptions:
    return RunOptions(paths=(), workers=1, kubernetes=True, **more)


SERVICE = f"{NAMESPACE}/pygw"


def test_cluster_role_is_what_is_asked_for() -> None:
    """The kustomize base, which needs no program to be read."""
    server = asyncio.run(run(read(BASE), options(gateway_service=SERVICE), ["one"]))
    assert server.refused == set()
    assert server.access.unused(server.asked) == []


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "more", "worlds"),
    [
        pytest.param((), {"gateway_service": SERVICE}, ["one"], id="load balancer"),
        pytest.param(HOST_PORTS, {}, ["one"], id="addresses of nodes"),
        pytest.param(
            ("--set", "gatewayAddresses={192.0.2.1}"), {"gateway_addresses": ("192.0.2.1",)}, ["one"], id="static"
        ),
        pytest.param(
            ("--set", "rbac.certificateNamespaces={one}"), {"gateway_service": SERVICE}, ["one"], id="certificates"
        ),
        pytest.param(
            ("--set", "watchNamespaces={two,one}"),
            {"gateway_service": SERVICE, "watch_namespaces": ("one", "two")},
            ["one", "two"],
            id="namespaces",
        ),
        pytest.param(
            ("--set", "watchNamespaces={one}", *HOST_PORTS),
            {"watch_namespaces": ("one",)},
            ["one"],
            id="namespace, nodes",
        ),
    ],
)
def test_chart_roles_are_what_is_asked_for(arguments: tuple[str, ...], more: dict[str, Any], worlds: list[str]) -> None:
    server = asyncio.run(run(render(*arguments), options(**more), worlds))
    # With --watch-namespace pygw also tries what only a ClusterRole would permit, and does without.
    tried = {
        Attributes("list", objects.GROUP, "gatewayclasses"),
        Attributes("list", "", "namespaces"),
        Attributes("list", "apiextensions.k8s.io", "customresourcedefinitions", "", f"gatewayclasses.{objects.GROUP}"),
    }
    assert server.refused == (tried if "watch_namespaces" in more else set())
    assert server.access.unused(server.asked) == []


@pytest.mark.full
@pytest.mark.parametrize("name", [CONTROLLER, "example.com/A_B/c~d", "a.example/" + "x" * 220])
@pytest.mark.parametrize("namespaces", [(), ("b", "a")])
def test_role_names_the_lease(name: str, namespaces: tuple[str, ...]) -> None:
    arguments = ["--set-string", f"controllerName={name}"]
    if namespaces:
        arguments += ["--set", f"watchNamespaces={{{','.join(namespaces)}}}"]
    rights = account_of(render(*arguments)).rights
    assert {right.name for right in rights if (right.verb, right.resource) == ("update", "leases")} == {
        lease_name(name, namespaces)
    }


# ===== that the tests above can fail =====


def test_a_missing_right_is_refused_and_an_unused_one_is_told() -> None:
    roles = read(BASE)
    role = next(item for item in roles if item["kind"] == "ClusterRole")
    rule = next(rule for rule in role["rules"] if rule["resources"] == ["serviceaccounts"])
    rule["verbs"].append("update")
    access = account_of(roles)
    assert access.unused([]) == [str(right) for right in access.rights]
    asked = [Attributes("get", "", "serviceaccounts", "one", "gw-pygw"), Attributes("get", "", "secrets", "one", "x")]
    assert [access.permits(one) for one in asked] == [True, False]
    assert "ClusterRole pygw-system-pygw: get serviceaccounts.core" not in access.unused(asked)
    assert "ClusterRole pygw-system-pygw: update serviceaccounts.core" in access.unused(asked)


def test_a_wildcard_is_no_right_by_name() -> None:
    roles = read(BASE)
    next(item for item in roles if item["kind"] == "ClusterRole")["rules"][0]["verbs"] = ["*"]
    with pytest.raises(AssertionError, match="wildcard"):
        account_of(roles)


LEASES = "/apis/coordination.k8s.io/v1/namespaces/n/leases"
GATEWAYS = f"/apis/{objects.GROUP}/v1"


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/services", {}, Attributes("list", "", "services")),
        ("GET", "/api/v1/services", {"watch": "1"}, Attributes("watch", "", "services")),
        ("GET", "/api/v1/namespaces", {}, Attributes("list", "", "namespaces")),
        ("GET", "/api/v1/namespaces/n", {}, Attributes("get", "", "namespaces", "n", "n")),
        (
            "GET", "/api/v1/namespaces/n/secrets", {"fieldSelector": "metadata.name=s", "watch": "1"},
            Attributes("watch", "", "secrets", "n", "s"),
        ),
        ("POST", LEASES, {}, Attributes("create", "coordination.k8s.io", "leases", "n")),
        ("PUT", f"{LEASES}/l", {}, Attributes("update", "coordination.k8s.io", "leases", "n", "l")),
        ("DELETE", f"{LEASES}/l", {}, Attributes("delete", "coordination.k8s.io", "leases", "n", "l")),
        (
            "PATCH", f"{GATEWAYS}/namespaces/n/gateways/g/status", {},
            Attributes("patch", objects.GROUP, "gateways/status", "n", "g"),
        ),
        (
            "PATCH", f"{GATEWAYS}/gatewayclasses/c/status", {},
            Attributes("patch", objects.GROUP, "gatewayclasses/status", "", "c"),
        ),
    ],
)  # fmt: skip
def test_attributes(method: str, path: str, query: dict[str, str], expected: Attributes) -> None:
    assert attributes(method, path, query) == [expected]


def test_discovery_needs_no_role() -> None:
    assert attributes("GET", "/apis", {}) == attributes("GET", GATEWAYS, {}) == attributes("GET", "/api/v1", {}) == []
