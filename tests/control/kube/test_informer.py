"""The informer against an API server that does everything an API server does to its clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pygw.control.kube import informer as module
from pygw.control.kube.api import Api
from pygw.control.kube.informer import Informer
from pygw.control.kube.kinds import KINDS, SECRET, Kind
from tests.doubles.kube_api import KubeApi, connect, running
from tests.doubles.objects import route

GRPC_ROUTE = next(kind for kind in KINDS if kind.name == "GRPCRoute")
SERVICE = next(kind for kind in KINDS if kind.name == "Service")
SLICES = next(kind for kind in KINDS if kind.name == "EndpointSlice")
PATIENCE = 8.0


class World:
    """An informer, its server, and what it told."""

    def __init__(self, server: KubeApi, api: Api, kind: Kind, **options: Any) -> None:
        self.server, self.api = server, api
        self.told: list[tuple[str, bool]] = []  # name, whether it is there
        self.slept: list[float] = []
        self.changed = asyncio.Event()
        self.informer = Informer(api, kind, self.on_object, self.changed.set, sleep=self.sleep, **options)

    def on_object(self, kind: Kind, key: tuple[str, str], item: Any) -> None:
        self.told.append((key[1], item is not None))
        self.changed.set()

    async def sleep(self, seconds: float) -> None:
        """Waits hardly at all, but lets others run: a fault that lasts must not become a busy loop."""
        self.slept.append(seconds)
        self.changed.set()
        await asyncio.sleep(0.001)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self.changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):  # what the server saw tells nobody
                        await self.changed.wait()

    def names(self) -> list[str]:
        return sorted(name for _, name in self.informer.objects)


@contextlib.asynccontextmanager
async def world(
    kind: Kind = GRPC_ROUTE, prepare: Callable[[KubeApi], None] = lambda server: None, **options: Any
) -> AsyncIterator[World]:
    async with KubeApi() as server:
        prepare(server)
        api = await connect(server)
        made = World(server, api, kind, **options)
        try:
            async with running(made.informer.run()):
                yield made
        finally:
            await api.close()


def with_routes(*names: str) -> Callable[[KubeApi], None]:
    def prepare(server: KubeApi) -> None:
        for name in names:
            server.put(route(name=name))

    return prepare


def test_lists_then_watches() -> None:
    async def scenario() -> None:
        async with world(prepare=with_routes("a", "b")) as it:
            await it.until(lambda: it.server.count("WATCH", "grpcroutes") == 1)
            assert it.informer.is_listed
            it.server.put(route(name="c"))
            it.server.delete("GRPCRoute", "default", "a")
            await it.until(lambda: it.names() == ["b", "c"])
            assert it.told == [("a", True), ("b", True), ("c", True), ("a", False)]
            query = it.server.requests[-1].query
            assert query["allowWatchBookmarks"] == "true"
            assert 300 <= int(query["timeoutSeconds"]) <= 600

    asyncio.run(scenario())


def test_keeps_only_what_is_used() -> None:
    async def scenario() -> None:
        def prepare(server: KubeApi) -> None:
            item = route(name="a")
            item["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 1000}
            server.put(item)

        async with world(prepare=prepare) as it:
            await it.until(lambda: it.informer.is_listed)
            kept = it.informer.objects["default", "a"]
            assert set(kept["metadata"]) == {
                "name", "namespace", "uid", "generation", "creationTimestamp", "resourceVersion"
            }  # fmt: skip
            assert kept["kind"] == "GRPCRoute"

    asyncio.run(scenario())


def test_a_change_that_changes_nothing_for_us_is_not_told() -> None:
    async def scenario() -> None:
        item = {
            "kind": "EndpointSlice",
            "metadata": {
                "name": "s", "namespace": "default", "labels": {"kubernetes.io/service-name": "x", "team": "a"},
            },
            "addressType": "IPv4",
            "ports": [{"port": 1}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "nodeName": "n"}],
        }  # fmt: skip

        def prepare(server: KubeApi) -> None:
            server.put(item)

        async with world(SLICES, prepare=prepare) as it:
            await it.until(lambda: it.server.count("WATCH", "slices") == 1)
            item["metadata"]["labels"]["team"] = "b"  # type: ignore[index]
            it.server.put(item)
            item["endpoints"][0]["conditions"]["ready"] = False  # type: ignore[index]
            it.server.put(item)
            await it.until(lambda: it.informer.events == 2)
            assert it.told == [("s", True), ("s", True)]

    asyncio.run(scenario())


def test_long_lists_come_in_pages() -> None:
    async def scenario() -> None:
        names = [f"r{number:03}" for number in range(2 * module.PAGE + 1)]
        async with world(prepare=with_routes(*names)) as it:
            await it.until(lambda: it.informer.is_listed)
            assert it.names() == names
            assert it.server.count("LIST", "grpcroutes") == 3

    asyncio.run(scenario())


def test_a_list_that_expires_amid_its_pages_comes_whole() -> None:
    async def scenario() -> None:
        names = [f"r{number:03}" for number in range(module.PAGE + 1)]

        def prepare(server: KubeApi) -> None:
            with_routes(*names)(server)
            server.refuse(410, path="continue=", times=1)

        async with world(prepare=prepare) as it:
            await it.until(lambda: it.informer.is_listed)
            assert it.names() == names
            assert "limit" not in [seen for seen in it.server.requests if not seen.query.get("watch")][-1].query

    asyncio.run(scenario())


def test_a_watch_that_ends_is_resumed_where_it_was() -> None:
    async def scenario() -> None:
        async with world(prepare=with_routes("a")) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            it.server.bookmark("grpcroutes")
            await it.until(lambda: it.informer.events == 1)
            last = it.server.requests[-1].query["resourceVersion"]
            it.server.end_watches()
            await it.until(lambda: it.server.count("WATCH", "") == 2)
            assert int(it.server.requests[-1].query["resourceVersion"]) > int(last)
            assert it.server.count("LIST", "grpcroutes") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("end", ["cut_watches", "end_watches"])
def test_what_happens_between_two_watches_is_not_missed(end: str) -> None:
    async def scenario() -> None:
        async with world(prepare=with_routes("a")) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            fault = it.server.refuse(503, method="WATCH")
            getattr(it.server, end)()
            await it.until(lambda: len(it.slept) >= 2)
            it.server.put(route(name="b"))
            it.server.delete("GRPCRoute", "default", "a")
            it.server.mend(fault)
            await it.until(lambda: it.names() == ["b"])

    asyncio.run(scenario())


def test_an_expired_watch_lists_again_and_tells_only_differences() -> None:
    async def scenario() -> None:
        async with world(prepare=with_routes("a", "b", "c")) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            fault = it.server.refuse(503, method="WATCH")
            it.server.end_watches()
            await it.until(lambda: not it.server.watchers)
            it.told.clear()
            it.server.delete("GRPCRoute", "default", "b")
            it.server.put(route(name="d"))
            it.server.compact()
            it.server.mend(fault)
            await it.until(lambda: it.names() == ["a", "c", "d"])
            assert it.told == [("b", False), ("d", True)]

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503, 504])
def test_a_refusal_changes_nothing_and_is_told(status: int) -> None:
    async def scenario() -> None:
        async with world(prepare=with_routes("a")) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            fault = it.server.refuse(status, path="grpcroutes")
            it.server.expire_watches()
            it.server.cut_watches()
            await it.until(lambda: len(it.slept) > 5)
            assert it.names() == ["a"]
            assert it.informer.trouble is not None
            assert it.informer.trouble.status == status
            assert it.told == [("a", True)]
            it.server.mend(fault)
            await it.until(lambda: it.informer.trouble is None and len(it.server.watchers) == 1)
            assert it.told == [("a", True)]

    asyncio.run(scenario())


def test_waits_longer_and_longer_and_as_long_as_the_server_asks() -> None:
    async def scenario() -> None:
        async with world() as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            fault = it.server.refuse(500, path="grpcroutes")
            it.server.cut_watches()
            await it.until(lambda: len(it.slept) > 12)
            assert it.slept[0] <= 0.2
            assert max(it.slept) <= 30
            assert it.slept[9] > 10 * it.slept[0]
            it.server.mend(fault)
            await it.until(lambda: len(it.server.watchers) == 1)
            it.server.put(route(name="a"))  # one event, and the next failure is the first again
            await it.until(lambda: it.names() == ["a"])
            it.server.refuse(429, path="grpcroutes", times=1, Retry_After="17")
            it.slept.clear()
            it.server.cut_watches()
            await it.until(lambda: len(it.server.watchers) == 1 and len(it.slept) >= 2)
            assert it.slept[0] <= 0.2
            assert it.slept[1] == 17.0

    asyncio.run(scenario())


def test_a_server_that_is_away_changes_nothing() -> None:
    async def scenario() -> None:
        async with world(prepare=with_routes("a")) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            await it.server.stop()
            await it.until(lambda: len(it.slept) > 20)
            assert it.names() == ["a"]
            assert not it.api.is_reachable
            it.server.put(route(name="b"))
            await it.server.start()
            await it.until(lambda: it.names() == ["a", "b"])
            assert it.api.is_reachable

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "event",
    [
        "this is no JSON",
        {"type": "ADDED"},
        {"type": "ADDED", "object": {"metadata": {}}},
        {"type": "WHAT", "object": {"metadata": {"resourceVersion": "1"}}},
        {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is away"}},
    ],
    ids=["no-json", "no-object", "no-version", "unknown", "error"],
)
def test_nonsense_in_a_watch_ends_it_and_nothing_else(event: Any) -> None:
    async def scenario() -> None:
        async with world(prepare=with_routes("a")) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            it.server.send_to_watches(event)
            await it.until(lambda: len(it.slept) == 1 and len(it.server.watchers) == 1)
            it.server.put(route(name="b"))
            await it.until(lambda: it.names() == ["a", "b"])

    asyncio.run(scenario())


def service(name: str, ports: Any) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": {"ports": ports}}


def test_an_object_that_cannot_be_read_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        def prepare(server: KubeApi) -> None:
            server.put(service("a", [{"port": 1}]))

        async with world(SERVICE, prepare=prepare) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            it.server.put(service("a", [5]))
            it.server.put(service("new", [5]))
            it.server.put(service("b", [{"port": 2}]))
            await it.until(lambda: it.names() == ["a", "b"])
            it.server.put(service("c", []))
            it.server.expire_watches()
            await it.until(lambda: it.informer.lists == 2)
            assert it.names() == ["a", "b", "c"]
            assert it.informer.objects["default", "a"]["spec"]["ports"] == [{"port": 1}]
        assert "default/new" in {getattr(record, "object", "") for record in caplog.records}

    asyncio.run(scenario())


def test_a_missing_crd_is_picked_up_when_it_comes_and_let_go_when_it_goes() -> None:
    async def scenario() -> None:
        async with world(prepare=lambda server: server.uninstall("grpcroutes")) as it:
            await it.until(lambda: it.informer.is_missing)
            assert it.informer.is_settled
            assert not it.informer.is_listed
            it.server.install("grpcroutes")
            it.server.put(route(name="a"))
            await it.until(lambda: it.names() == ["a"])
            assert not it.informer.is_missing
            it.server.uninstall("grpcroutes")
            it.server.end_watches()
            await it.until(lambda: it.informer.is_missing)
            assert it.names() == []

    asyncio.run(scenario())


def test_a_404_alone_makes_nothing_go() -> None:
    """A proxy in front of a server that is down may answer so."""

    async def scenario() -> None:
        async with world(prepare=with_routes("a")) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            it.server.refuse(404, body=b"<html>no such site</html>")
            it.server.cut_watches()
            await it.until(lambda: len(it.slept) > 10)
            assert it.names() == ["a"]
            assert not it.informer.is_missing

    asyncio.run(scenario())


def test_an_older_version_serves_where_the_best_is_not_there() -> None:
    grants = next(kind for kind in KINDS if kind.name == "ReferenceGrant")

    async def scenario() -> None:
        def prepare(server: KubeApi) -> None:
            server.uninstall("referencegrants")
            server.install("referencegrants", version="v1beta1")
            server.put({"kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": "default"}, "spec": {}})

        async with world(grants, prepare=prepare) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            assert it.names() == ["g"]
            assert it.informer.version == "v1beta1"

    asyncio.run(scenario())


def test_one_object_by_name_in_one_namespace() -> None:
    async def scenario() -> None:
        secret = {"kind": "Secret", "metadata": {"name": "cert", "namespace": "a"}, "type": "kubernetes.io/tls",
                  "data": {"tls.crt": "eA==", "other": "eA=="}}  # fmt: skip
        other = {"kind": "Secret", "metadata": {"name": "other", "namespace": "a"}, "data": {}}

        def prepare(server: KubeApi) -> None:
            server.put(secret)
            server.put(other)

        async with world(SECRET, prepare=prepare, namespace="a", name="cert") as it:
            await it.until(lambda: it.names() == ["cert"])
            assert it.informer.objects["a", "cert"]["data"] == {"tls.crt": "eA=="}
            assert {seen.query.get("fieldSelector") for seen in it.server.requests} == {"metadata.name=cert"}
            assert {seen.path for seen in it.server.requests} == {"/api/v1/namespaces/a/secrets"}

    asyncio.run(scenario())


def test_huge_objects_come_through() -> None:
    async def scenario() -> None:
        async with world(prepare=with_routes("a")) as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            item = route(name="big")
            item["spec"]["text"] = "x" * (3 << 20)
            it.server.put(item)
            await it.until(lambda: it.names() == ["a", "big"])

    asyncio.run(scenario())


def test_what_is_too_large_is_refused_and_lists_come_in_smaller_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pygw.control.kube.api.MAX_BODY", 50_000)

    async def scenario() -> None:
        names = [f"r{number:03}" for number in range(200)]
        async with world(prepare=with_routes(*names)) as it:
            await it.until(lambda: it.informer.is_listed)
            assert it.names() == names
            assert {seen.query["limit"] for seen in it.server.requests if "limit" in seen.query} == {"250", "31"}

    asyncio.run(scenario())


def test_a_silent_watch_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pygw.control.kube.api.WATCH_SILENCE", 0.05)

    async def scenario() -> None:
        async with world(prepare=with_routes("a")) as it:
            await it.until(lambda: it.server.count("WATCH", "") >= 3)
            assert it.names() == ["a"]

    asyncio.run(scenario())


def test_a_server_that_is_well_again_is_asked_at_once() -> None:
    async def scenario() -> None:
        async with world() as it:
            await it.until(lambda: len(it.server.watchers) == 1)
            fault = it.server.refuse(503, path="grpcroutes")
            never = asyncio.Event()

            async def sleep(seconds: float) -> None:
                await never.wait()

            it.informer._sleep = sleep
            it.server.cut_watches()
            await it.until(lambda: it.informer.is_cut_off)
            it.server.mend(fault)
            await it.until(lambda: it.informer.retry_now() or not it.informer.is_cut_off)

    asyncio.run(scenario())
