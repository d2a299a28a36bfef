"""Events about what somebody must mend: told once, by one replica, and never too many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pygw.control.cluster_state import ClusterState
from pygw.control.kube.events import MAX_NOTE, Recorder
from pygw.control.kube.kinds import KINDS, trimmed
from pygw.control.problems import Problem
from tests.doubles.kube_api import Alone, KubeApi, connect, running, until
from tests.doubles.objects import gateway_class, route

_KINDS = {kind.name: kind for kind in KINDS}


def problem(
    name: str = "r", message: str = "Service default/x does not exist", reason: str = "BackendNotFound"
) -> Problem:
    return Problem("error", "", 0, f"GRPCRoute default/{name}", "spec.rules[0].backendRefs[0]", reason, message)


class World:
    def __init__(self, server: KubeApi, api: Any) -> None:
        self.server, self.api, self.election, self.state = server, api, Alone(), ClusterState()
        self.slept: list[float] = []
        self.recorder = self.another()

    def another(self) -> Recorder:
        return Recorder(self.api, self.election, "pygw.dev/gateway-controller", "pod-1", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def put(self, item: dict[str, Any]) -> None:
        stored = copy.deepcopy(self.server.put(item))
        self.state.apply(trimmed(_KINDS[item["kind"]], stored))

    def offer(self, *problems: Problem) -> None:
        self.recorder.offer(problems, self.state.find)

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.server.objects["events"].values())

    async def idle(self) -> None:
        await until(lambda: not self.recorder._queue)
        for _ in range(3):  # whatever it still has under way
            await asyncio.sleep(0.01)


def play(scenario: Callable[[World], Awaitable[None]]) -> None:
    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[World]:
        async with KubeApi() as server:
            api = await connect(server)
            made = World(server, api)
            made.put(route(name="r"))
            try:
                async with running(made.recorder.run()):
                    yield made
            finally:
                await api.close()

    async def main() -> None:
        async with asyncio.timeout(8), world() as it:
            await scenario(it)

    asyncio.run(main())


def test_a_problem_is_told_on_its_object() -> None:
    async def scenario(it: World) -> None:
        it.offer(problem())
        await until(lambda: bool(it.events))
        event = it.events[0]
        metadata = it.state.objects("GRPCRoute")["default", "r"]["metadata"]
        assert event["regarding"] == {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute", "namespace": "default", "name": "r",
            "uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"],
        }  # fmt: skip
        assert event["reason"] == "BackendNotFound"
        assert event["note"] == "spec.rules[0].backendRefs[0]: Service default/x does not exist"
        assert event["type"] == "Warning"
        assert event["reportingController"] == "pygw.dev/gateway-controller"

    play(scenario)


def test_it_is_told_once_while_it_lasts_and_by_one_replica() -> None:
    async def scenario(it: World) -> None:
        for _ in range(5):
            it.offer(problem())
            await it.idle()
        assert it.server.count("POST", "events") == 1
        it.recorder = it.another()  # a new leader
        async with running(it.recorder.run()):
            it.offer(problem())
            await it.idle()
        assert len(it.events) == 1
        assert it.server.count("PATCH", "events") == 0

    play(scenario)


def test_one_that_comes_back_counts_in_the_series() -> None:
    async def scenario(it: World) -> None:
        for _ in range(3):
            it.offer(problem())
            await it.idle()
            it.offer()
        assert len(it.events) == 1
        assert it.events[0]["series"]["count"] == 3

    play(scenario)


def test_one_that_is_solved_in_time_is_not_told() -> None:
    async def scenario(it: World) -> None:
        it.election.lose()
        it.offer(problem())
        it.offer()
        it.election.win()
        it.recorder.poke()
        await it.idle()
        assert not it.events

    play(scenario)


def test_others_are_told_apart() -> None:
    async def scenario(it: World) -> None:
        it.put(route(name="other"))
        it.offer(problem(), problem(message="another"), problem(reason="RefNotPermitted"), problem("other"))
        await until(lambda: len(it.events) == 4)

    play(scenario)


def test_a_thousand_at_once_come_slowly() -> None:
    async def scenario(it: World) -> None:
        for number in range(100):
            it.put(route(name=f"r{number}"))
        it.offer(*(problem(f"r{number}") for number in range(100)))
        await until(lambda: len(it.events) == 100)
        assert set(it.slept) == {0.1}

    play(scenario)


def test_cluster_scoped_objects_have_their_events_in_default() -> None:
    async def scenario(it: World) -> None:
        it.put(gateway_class())
        it.offer(Problem("error", "", 0, "GatewayClass pygw", "spec.parametersRef", "InvalidParameters", "no"))
        await until(lambda: bool(it.events))
        assert it.events[0]["metadata"]["namespace"] == "default"
        assert "namespace" not in it.events[0]["regarding"]

    play(scenario)


def test_long_notes_and_names_fit() -> None:
    async def scenario(it: World) -> None:
        it.put(route(name="n" * 253))
        it.offer(problem("n" * 253, message="x" * 5000))
        await until(lambda: bool(it.events))
        assert len(it.events[0]["note"]) == MAX_NOTE
        assert len(it.events[0]["metadata"]["name"]) <= 253

    play(scenario)


def test_objects_of_other_kinds_and_those_that_are_gone_are_passed_over() -> None:
    async def scenario(it: World) -> None:
        odd = Problem("warning", "", 0, "EndpointSlice default/s", "ports", "EndpointIgnored", "odd")
        whole = Problem("warning", "", 0, "", "", "Forbidden", "no")
        it.offer(odd, whole, problem("gone"))
        await it.idle()
        assert it.server.count("POST", "events") == 0

    play(scenario)


def test_where_events_may_not_be_written_it_is_said_once_and_no_more() -> None:
    async def scenario(it: World) -> None:
        it.server.refuse(403, path="events")
        it.offer(problem(), problem(message="another"))
        await until(lambda: it.recorder.results["error"] == 2)
        assert it.server.count("POST", "events") == 2

    play(scenario)
