"""Statuses on their way to the API server: what is written, what is left, what happens when it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from pygw.control.cluster_state import ClusterState
from pygw.control.kube import status_writer as module
from pygw.control.kube.api import Api
from pygw.control.kube.kinds import KINDS, trimmed
from pygw.control.kube.status_writer import StatusWriter
from tests.doubles.kube_api import Alone, KubeApi, connect, running, until
from tests.doubles.objects import route

KEY = ("GRPCRoute", "default", "r")
GRPC_ROUTE = next(kind for kind in KINDS if kind.name == "GRPCRoute")


def status(reason: str = "Accepted", controller: str = "ours") -> dict[str, Any]:
    return {"parents": [{"controllerName": controller, "conditions": [{"type": "Accepted", "reason": reason}]}]}


class World:
    """A writer, its server, and the informer that brings back what was written, played by hand."""

    def __init__(self, server: KubeApi, api: Api) -> None:
        self.server, self.election = server, Alone()
        self.writer = StatusWriter(api, self.election)
        self.state = ClusterState()

    def see(self) -> None:
        """The informer sees all routes as they are now."""
        for item in self.server.objects["grpcroutes"].values():
            self.state.apply(trimmed(GRPC_ROUTE, copy.deepcopy(item)))

    def offer(self, **statuses: dict[str, Any]) -> None:
        self.writer.offer({("GRPCRoute", "default", name): item for name, item in statuses.items()}, self.state.find)

    def stored(self, name: str = "r") -> Any:
        return self.server.get("GRPCRoute", "default", name).get("status")

    @property
    def writes(self) -> int:
        return self.server.count("PATCH", "/status")


def play(scenario: Callable[[World], Awaitable[None]], *names: str) -> None:
    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[World]:
        async with KubeApi() as server:
            for name in names or ("r",):
                server.put(route(name=name))
            api = await connect(server)
            made = World(server, api)
            made.see()
            try:
                async with running(made.writer.run()):
                    yield made
            finally:
                await api.close()

    async def main() -> None:
        async with asyncio.timeout(8), world() as it:
            await scenario(it)

    asyncio.run(main())


def test_writes_what_differs_and_then_rests() -> None:
    async def scenario(it: World) -> None:
        it.offer(r=status())
        await it.writer.settled()
        assert it.stored() == status()
        for _ in range(3):  # before the write has come back to us
            it.offer(r=status())
        it.see()
        it.offer(r=status())
        await it.writer.settled()
        assert it.writes == 1
        assert it.writer.writes == {("GRPCRoute", "success"): 1}

    play(scenario)


def test_the_patch_names_its_version_and_leaves_spec_and_metadata_alone() -> None:
    async def scenario(it: World) -> None:
        before = it.server.get(*KEY)
        it.offer(r=status())
        await it.writer.settled()
        seen = next(seen for seen in it.server.requests if seen.method == "PATCH")
        assert seen.body == {
            "metadata": {"resourceVersion": before["metadata"]["resourceVersion"], "uid": before["metadata"]["uid"]},
            "status": status(),
        }
        assert seen.headers["Content-Type"] == "application/merge-patch+json"

    play(scenario)


def test_fields_that_are_gone_are_removed_and_others_not_sent() -> None:
    async def scenario(it: World) -> None:
        it.server.objects["grpcroutes"]["default", "r"]["status"] = {"a": 1, "b": [1], "c": 3}
        it.see()
        it.offer(r={"a": 1, "b": [2]})
        await it.writer.settled()
        assert it.stored() == {"a": 1, "b": [2]}
        assert it.server.requests[-1].body["status"] == {"b": [2], "c": None}

    play(scenario)


def test_nothing_is_written_without_the_lease_and_all_with_it() -> None:
    async def scenario(it: World) -> None:
        it.election.lose()
        it.offer(a=status(), b=status())
        await asyncio.sleep(0)
        assert it.writer.pending == 2
        assert it.writes == 0
        it.election.win()
        it.writer.poke()
        await it.writer.settled()
        assert it.writes == 2

    play(scenario, "a", "b")


def test_a_lease_that_runs_out_amid_many_writes_stops_them() -> None:
    async def scenario(it: World) -> None:
        def lose_at_ten(seen: Any) -> None:
            if it.writes == 10:
                it.election.is_leader = False  # its time is up, though nobody has said so yet

        it.server.on_request = lose_at_ten
        it.offer(**{f"r{number}": status() for number in range(50)})
        await until(lambda: it.writes >= 10 and not it.writer._busy)
        assert it.writes <= 10 + module.WRITERS
        assert it.writer.pending >= 30

    play(scenario, *(f"r{number}" for number in range(50)))


def test_after_a_conflict_the_newer_version_is_written_with_what_others_put_there() -> None:
    async def scenario(it: World) -> None:
        other = {"controllerName": "other", "conditions": []}
        it.server.objects["grpcroutes"]["default", "r"]["status"] = {"parents": [other]}
        it.server.put(it.server.get(*KEY))  # a version that we have not seen
        it.offer(r=status())
        await until(lambda: it.writer.writes["GRPCRoute", "conflict"] == 1)
        assert it.stored() == {"parents": [other]}
        it.see()
        it.offer(r={"parents": [other, *status()["parents"]]})  # as `resolve` makes it of the version that is there
        await it.writer.settled()
        assert it.stored() == {"parents": [other, *status()["parents"]]}
        assert it.writes == 2

    play(scenario)


def test_a_newer_wish_replaces_one_that_waits() -> None:
    async def scenario(it: World) -> None:
        it.election.lose()
        it.offer(r=status("First"))
        it.offer(r=status("Second"))
        it.election.win()
        it.writer.poke()
        await it.writer.settled()
        assert it.stored() == status("Second")
        assert it.writes == 1

    play(scenario)


def test_a_wish_that_is_withdrawn_is_not_written() -> None:
    async def scenario(it: World) -> None:
        it.election.lose()
        it.offer(r=status())
        it.offer()
        it.election.win()
        it.writer.poke()
        await it.writer.settled()
        assert it.writes == 0

    play(scenario)


def test_what_the_server_stores_otherwise_is_not_written_again_and_again() -> None:
    async def scenario(it: World) -> None:
        body = {"parents": [], "unknownField": 1}

        def prune(seen: Any) -> None:
            if seen.method == "PATCH":
                del seen.body["status"]["unknownField"]

        it.server.on_request = prune
        it.offer(r=body)
        await it.writer.settled()
        it.see()
        it.offer(r=body)
        await it.writer.settled()
        assert it.stored() == {"parents": []}
        assert it.writes == 1
        # Somebody else's change is reason enough to write it once more.
        it.server.objects["grpcroutes"]["default", "r"]["status"] = {"parents": [1]}
        it.server.put(it.server.get(*KEY))
        it.see()
        it.offer(r=body)
        await it.writer.settled()
        assert it.writes == 2

    play(scenario)


@pytest.mark.parametrize("code", [400, 413, 422])
def test_what_is_refused_for_good_is_not_tried_again(code: int, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: World) -> None:
        fault = it.server.refuse(code, method="PATCH")
        it.offer(r=status())
        await it.writer.settled()
        it.offer(r=status())
        await it.writer.settled()
        assert it.writes == 1
        assert [record.object for record in caplog.records] == ["GRPCRoute default/r"]  # type: ignore[attr-defined]
        it.server.mend(fault)
        it.offer(r=status("Other"))
        await it.writer.settled()
        assert it.stored() == status("Other")

    play(scenario)


@pytest.mark.parametrize("code", [401, 403, 429, 500, 503])
def test_what_fails_is_tried_again(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Backoff, "next", lambda self, at_least=0.0: 0.001)

    async def scenario(it: World) -> None:
        fault = it.server.refuse(code, method="PATCH")
        it.offer(r=status())
        await until(lambda: it.writes >= 4)
        it.server.mend(fault)
        await it.writer.settled()
        assert it.stored() == status()

    play(scenario)


def test_a_server_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Backoff, "next", lambda self, at_least=0.0: 0.001)

    async def scenario(it: World) -> None:
        await it.server.stop()
        it.offer(r=status())
        await until(lambda: it.writer.writes["GRPCRoute", "error"] >= 3)
        await it.server.start()
        await it.writer.settled()
        assert it.stored() == status()

    play(scenario)


def test_one_that_waits_holds_up_no_other() -> None:
    async def scenario(it: World) -> None:
        it.server.refuse(500, method="PATCH", path="/a/status")
        it.offer(**{name: status() for name in "abcdefghijklmno"})
        await until(lambda: it.writer.pending == 1)
        assert it.writer.writes["GRPCRoute", "success"] == 14

    play(scenario, *"abcdefghijklmno")


def test_an_object_that_is_gone_is_let_go() -> None:
    async def scenario(it: World) -> None:
        it.server.delete(*KEY)
        it.offer(r=status())
        await it.writer.settled()
        assert it.writer.writes == {("GRPCRoute", "gone"): 1}

    play(scenario)


def test_an_object_that_was_made_anew_gets_its_own_status() -> None:
    async def scenario(it: World) -> None:
        it.offer(r=status())
        await it.writer.settled()
        it.server.delete(*KEY)
        it.server.put(route(name="r"))
        it.see()
        it.offer(r=status())
        await it.writer.settled()
        assert it.stored() == status()

    play(scenario)


def test_a_class_that_we_only_assume_is_never_written() -> None:
    async def scenario(it: World) -> None:
        assumed = {"kind": "GatewayClass", "metadata": {"name": "pygw"}, "spec": {"controllerName": "x"}}
        it.state.apply(assumed)
        it.writer.offer({("GatewayClass", "", "pygw"): {"conditions": []}}, it.state.find)
        assert it.writer.pending == 0

    play(scenario)
