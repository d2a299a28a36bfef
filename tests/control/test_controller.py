"""The controller between a source, a launcher and workers that are all played by the test."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pygw.backend_list import read_backends
from pygw.channel import Channel, channel_pair
from pygw.control import controller as controller_module
from pygw.control.cluster_state import ClusterState
from pygw.control.controller import Controller
from pygw.control.dns import Answer, LookupFailedError, Names
from pygw.control.problems import Problem
from pygw.model import GatewayConfig
from pygw.run_options import RunOptions
from pygw.tables import Image

GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
    "metadata": {"name": "gw", "namespace": "default"},
    "spec": {
        "gatewayClassName": "any",
        "listeners": [
            {"name": "grpc", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "Same"}}},
        ],
    },
}  # fmt: skip


def route(name: str = "r", service: str = "greeter") -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}],
            "rules": [{"backendRefs": [{"group": "", "kind": "Service", "name": service, "port": 50051, "weight": 1}]}],
        },
    }  # fmt: skip


SERVICE = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "greeter", "namespace": "default"},
    "spec": {"ports": [{"port": 50051}]},
}  # fmt: skip


class Loaded:
    def __init__(self, state: ClusterState, problems: list[Problem]) -> None:
        self.state, self.problems = state, problems


class FakeSource:
    """Says what the test put in."""

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = [GATEWAY, route(), SERVICE]
        self.problems: list[Problem] = []
        self.on_read: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        self.reads = 0

    def read(self) -> Loaded:
        self.reads += 1
        self.on_read()
        if self.error is not None:
            raise self.error
        state = ClusterState()
        for item in self.objects:
            state.apply(item)
        return Loaded(state, list(self.problems))

    def place(self, problem: Problem) -> Problem:
        return replace(problem, file="f.yaml", line=7)


def backends_in(fd: int) -> list[list[Any]]:
    """The backends of a snapshot, as a message would show them."""
    rows = [row for chunk in read_backends(fd) for row in chunk]
    return [[key, [[host, port] for host, port in endpoints]] for key, endpoints in rows]


class FakeWorker:
    """The worker's end of a channel."""

    def __init__(self, world: World, number: int, version: int = 0) -> None:
        ours, theirs = channel_pair()
        self.messages: list[dict[str, Any]] = []
        self.images: list[bytes] = []
        self.arrived = asyncio.Event()
        self.error: str | None = None
        self.is_silent = False
        self.channel = Channel(ours, self.on_message, lambda: None)
        world.controller.add_worker(number, 1000 + number, theirs)
        self.channel.send({"type": "hello", "version": version})

    def on_message(self, message: dict[str, Any], fds: list[int]) -> None:
        self.messages.append(message)
        if fds:
            self.images.append(os.pread(fds[0], 1000, 0))
            message["backends"] = backends_in(fds[1])
        self.arrived.set()
        if not self.is_silent:
            self.answer(message)

    def answer(self, message: dict[str, Any]) -> None:
        self.channel.send({
            "type": "ack", "sequence": message["sequence"], "error": self.error, "version": message.get("version"),
            "pause": 0.002,
        })  # fmt: skip

    async def wait(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(5):
            while len(self.messages) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.messages


class World:
    """A controller and all around it."""

    def __init__(self, is_restart: bool = False, first_version: int = 0, workers: int = 2) -> None:
        self.source = FakeSource()
        self.told: list[dict[str, Any]] = []
        self.images: list[bytes] = []
        self.telling = asyncio.Event()
        self.bind_failures: list[list[Any]] = []
        self.answers: dict[str, Answer] = {}
        self.compiled: list[GatewayConfig] = []
        self.seconds = 1000.0
        self.controller = Controller(
            RunOptions(("f.yaml",), workers, port_map={"80": 18080}, bind=("127.0.0.1",)),
            self.source,
            self.tell,
            self.make_names,
            is_restart=is_restart,
            first_version=first_version,
            compile_image=self.compile,
            clock=lambda: 1700000000.0,
            stopwatch=lambda: self.seconds,
        )
        self.workers: list[FakeWorker] = []

    def make_names(self, on_change: Callable[[str], None]) -> Names:
        async def lookup(host: str) -> Answer:
            if host not in self.answers:
                raise LookupFailedError("no such name", is_absent=True)
            return self.answers[host]

        async def sleep(seconds: float) -> None:
            await self.expired.wait()
            self.expired.clear()

        self.expired = asyncio.Event()
        return Names(lookup, on_change, sleep)

    def compile(self, config: GatewayConfig) -> Image:
        self.compiled.append(config)
        return Image(f"image {len(self.compiled)}".encode(), tuple(config.backends))

    def tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        self.told.append(message)
        if fds:
            self.images.append(os.pread(fds[0], 1000, 0))
            message["backends"] = backends_in(fds[1])
        self.telling.set()
        if message["type"] == "bind":
            failed = {(failure[0], failure[1]) for failure in self.bind_failures}
            sites = [site for site in message["sites"] if (site[0], site[1]) not in failed]
            asyncio.get_running_loop().call_soon(self.controller.on_bound, sites, self.bind_failures)

    async def until_told(self, kind: str, count: int = 1) -> dict[str, Any]:
        async with asyncio.timeout(5):
            while len(found := [message for message in self.told if message["type"] == kind]) < count:
                self.telling.clear()
                await self.telling.wait()
        return found[count - 1]

    def add_worker(self, number: int, version: int = 0) -> FakeWorker:
        worker = FakeWorker(self, number, version)
        self.workers.append(worker)
        return worker


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "DEBOUNCE", 0.001)


def run(test: Callable[[World], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        world = World(**options)
        task = asyncio.create_task(world.controller.run())
        try:
            await test(world)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            world.controller.close()
            for worker in world.workers:
                worker.channel.close()

    asyncio.run(main())


def test_the_first_configuration_reaches_all_workers_before_it_is_ready() -> None:
    async def test(world: World) -> None:
        first = world.add_worker(0)
        await first.wait(1)
        bind = await world.until_told("bind")
        assert bind["sites"] == [["", 80, "127.0.0.1", 18080]]
        assert world.controller.not_ready_reasons() == ["workers without a configuration: 1"]
        second = world.add_worker(1)
        await second.wait(1)
        await world.until_told("ready")
        assert world.controller.not_ready_reasons() == []
        for worker in (first, second):
            assert worker.images == [b"image 1"]
            assert worker.messages[0]["backends"] == [["default/greeter:50051", []]]
            assert worker.messages[0]["version"] == 1

    run(test)


def test_ports_open_after_the_workers_know_their_routes() -> None:
    async def test(world: World) -> None:
        worker = world.add_worker(0)
        worker.is_silent = True
        (message,) = await worker.wait(1)
        await asyncio.sleep(0)
        assert not any(told["type"] == "bind" for told in world.told)
        worker.answer(message)
        await world.until_told("bind")

    run(test, workers=1)


def test_applying_lasts_from_validated_objects_to_the_last_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    def pass_time(world: World, seconds: float) -> None:
        world.seconds += seconds

    async def test(world: World) -> None:
        world.source.on_read = lambda: pass_time(world, 50.0)  # reading and validating do not count
        quick, slow = world.add_worker(0), world.add_worker(1)
        slow.is_silent = True
        await quick.wait(1)
        message = (await slow.wait(1))[0]
        assert world.controller.apply_seconds == 0.0
        pass_time(world, 0.125)
        slow.answer(message)
        await world.until_told("ready")
        assert world.controller.apply_seconds == 0.125
        assert [record.apply_ms for record in caplog.records if record.message == "configuration published"] == [125.0]
        world.controller.changed()  # to nothing new: nothing is applied
        async with asyncio.timeout(5):
            while world.source.reads < 2:
                await asyncio.sleep(0)
        assert world.controller.apply_seconds == 0.125

    run(test)


def test_an_unchanged_source_publishes_nothing() -> None:
    async def test(world: World) -> None:
        worker = world.add_worker(0)
        await world.until_told("ready")
        world.controller.changed()
        async with asyncio.timeout(5):
            while world.controller.reloads < 2:
                await asyncio.sleep(0.001)
        assert len(worker.messages) == 1
        assert len(world.compiled) == 1

    run(test, workers=1)


def test_a_change_is_published_whole_and_a_new_worker_gets_the_present() -> None:
    async def test(world: World) -> None:
        worker = world.add_worker(0)
        await world.until_told("ready")
        world.source.objects.append(route("r2"))
        world.controller.changed()
        assert (await worker.wait(2))[1]["version"] == 2
        replacement = world.add_worker(0)
        assert [message["version"] for message in await replacement.wait(1)] == [2]
        assert replacement.images == [b"image 2"]
        assert world.controller.not_ready_reasons() == []

    run(test, workers=1)


def test_a_source_that_hangs_makes_what_is_served_stale_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it goes on after all, everything is as before."""
    monkeypatch.setattr(controller_module, "STALE_AFTER", 0.01)

    async def test(world: World) -> None:
        worker = world.add_worker(0)
        await world.until_told("ready")
        hangs, may_go_on = asyncio.Event(), threading.Event()
        world.controller.options.settings["reload_timeout"] = 0.05
        world.controller.on_hang = hangs.set
        world.source.on_read = lambda: None if may_go_on.wait(10) else pytest.fail("nobody let it go on")
        world.source.objects.append(route("r2"))
        world.controller.changed()
        async with asyncio.timeout(5):
            await hangs.wait()
        assert world.controller.stale_since == 1700000000.0
        assert world.controller.not_ready_reasons() == []
        may_go_on.set()
        assert (await worker.wait(2))[1]["version"] == 2
        await world.until_told("bind", 2)
        async with asyncio.timeout(5):
            while world.controller.stale_since:
                await asyncio.sleep(0)

    run(test, workers=1)


def test_a_replacement_that_has_the_image_already_gets_the_present_endpoints() -> None:
    async def test(world: World) -> None:
        world.answers["greeter.default"] = Answer(("10.0.0.1",), 30.0)
        world.add_worker(0)
        await world.until_told("ready")
        replacement = world.add_worker(0, version=1)  # from the launcher's copy, which may be older
        (message,) = await replacement.wait(1)
        assert message["type"] == "endpoints"
        assert message["backends"] == [["default/greeter:50051", [["10.0.0.1", 50051]]]]

    run(test, workers=1)


def test_the_launcher_gets_a_copy_of_what_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "SNAPSHOT_DELAY", 0.001)

    async def test(world: World) -> None:
        world.answers["greeter.default"] = Answer(("10.0.0.1",), 30.0)
        worker = world.add_worker(0)
        copy = await world.until_told("snapshot")
        assert (copy["version"], copy["backends"]) == (1, [["default/greeter:50051", [["10.0.0.1", 50051]]]])
        world.answers["greeter.default"] = Answer(("10.0.0.2",), 30.0)
        world.expired.set()
        copy = await world.until_told("snapshot", 2)
        assert (copy["version"], copy["backends"]) == (1, [["default/greeter:50051", [["10.0.0.2", 50051]]]])
        assert world.images == [b"image 1", b"image 1"]
        worker.error = "not an image"
        world.source.objects.append(route("r2"))
        world.controller.changed()
        await world.until_told("bind", 2)
        assert len(world.images) == 2  # what workers refuse is no use to their replacements

    run(test, workers=1)


def test_a_slow_worker_gets_the_last_version_and_not_all_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "ACK_PATIENCE", 0.01)

    async def test(world: World) -> None:
        slow, quick = world.add_worker(0), world.add_worker(1)
        await world.until_told("ready")
        slow.is_silent = True
        for number in range(2, 5):
            world.source.objects.append(route(f"r{number}"))
            world.controller.changed()
            assert (await quick.wait(number))[-1]["version"] == number
        slow.is_silent = False
        slow.answer(slow.messages[1])
        await slow.wait(3)
        assert [message["version"] for message in slow.messages] == [1, 2, 4]

    run(test)


def test_a_refusal_is_kept_and_not_repeated() -> None:
    async def test(world: World) -> None:
        worker = world.add_worker(0)
        await world.until_told("ready")
        worker.error = "not an image"
        world.source.objects.append(route("r2"))
        world.controller.changed()
        await world.until_told("bind", 2)
        link = world.controller.links[0]
        assert (link.version, link.refused, link.refusal) == (1, 2, "not an image")
        assert len(worker.messages) == 2
        worker.error = None
        world.source.objects.pop()
        world.controller.changed()
        await worker.wait(3)
        await world.until_told("bind", 3)
        assert (link.version, link.refused) == (3, None)

    run(test, workers=1)


def test_endpoints_change_without_a_new_version() -> None:
    def slice_of(address: str) -> dict[str, Any]:
        return {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "greeter-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "greeter"},
            },
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}], "ports": [{"port": 50051}],
        }  # fmt: skip

    async def test(world: World) -> None:
        world.source.objects.append(slice_of("10.0.0.1"))
        worker = world.add_worker(0)
        await world.until_told("ready")
        assert worker.messages[0]["backends"] == [["default/greeter:50051", [["10.0.0.1", 50051]]]]
        world.source.objects[-1] = slice_of("10.0.0.2")
        world.controller.changed()
        await worker.wait(2)
        assert worker.messages[1]["type"] == "endpoints"
        assert worker.messages[1]["backends"] == [["default/greeter:50051", [["10.0.0.2", 50051]]]]
        assert len(world.compiled) == 1

    run(test, workers=1)


def test_names_are_resolved_before_the_first_publication_and_again_later() -> None:
    async def test(world: World) -> None:
        world.answers["greeter.default"] = Answer(("10.0.0.1",), 30.0)
        worker = world.add_worker(0)
        await world.until_told("ready")
        assert worker.messages[0]["backends"] == [["default/greeter:50051", [["10.0.0.1", 50051]]]]
        world.answers["greeter.default"] = Answer(("10.0.0.2",), 30.0)
        world.expired.set()
        await worker.wait(2)
        assert worker.messages[1]["backends"] == [["default/greeter:50051", [["10.0.0.2", 50051]]]]

    run(test, workers=1)


def test_a_dead_worker_leaves_and_readiness_stays() -> None:
    async def test(world: World) -> None:
        ended: list[int] = []
        world.controller.on_worker_end = lambda link: ended.append(link.number)
        worker = world.add_worker(0)
        await world.until_told("ready")
        worker.channel.close()
        async with asyncio.timeout(5):
            while not ended:
                await asyncio.sleep(0.001)
        assert ended == [0]
        assert world.controller.links == {}
        assert world.controller.not_ready_reasons() == []

    run(test, workers=1)


# ===== faults =====


def problem(message: str, severity: str = "error") -> Problem:
    return Problem(severity, "f.yaml", 3, "", "", "ParseError", message)


def test_problems_are_logged_once_and_their_end_too(caplog: pytest.LogCaptureFixture) -> None:
    async def reload(world: World) -> None:
        reloads = world.controller.reloads
        world.controller.changed()
        async with asyncio.timeout(5):
            while world.controller.reloads == reloads:
                await asyncio.sleep(0.001)

    async def test(world: World) -> None:
        world.source.problems = [problem("one"), problem("two", "warning")]
        world.add_worker(0)
        await world.until_told("ready")
        await reload(world)
        assert world.controller.last_reload_failed
        logged = [record for record in caplog.records if record.getMessage() == "problem in the configuration"]
        assert [(record.levelname, record.__dict__["at"]) for record in logged] == [
            ("ERROR", "f.yaml:3"), ("WARNING", "f.yaml:3"),
        ]  # fmt: skip
        world.source.problems = []
        await reload(world)
        assert "all problems of the configuration are solved" in caplog.messages
        assert not world.controller.last_reload_failed

    caplog.set_level("INFO")
    run(test, workers=1)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([SERVICE], "nothing to serve: no Gateway in f.yaml; served are"),
        ([{**GATEWAY, "spec": {**GATEWAY["spec"], "listeners": [
            {"name": "x", "port": 80, "protocol": "UDP"}]}}],
         "nothing to serve: no valid Gateway in f.yaml; the log above names 1 error"),
    ],
)  # fmt: skip
def test_without_a_gateway_it_does_not_start(objects: list[dict[str, Any]], message: str) -> None:
    async def test(world: World) -> None:
        world.source.objects = objects
        assert (await world.until_told("fatal"))["message"].startswith(message)

    run(test)


def test_a_later_source_without_a_gateway_closes_the_ports() -> None:
    async def test(world: World) -> None:
        world.add_worker(0)
        await world.until_told("ready")
        world.source.objects = [SERVICE]
        world.controller.changed()
        assert (await world.until_told("bind", 2))["sites"] == []
        assert not any(told["type"] == "fatal" for told in world.told)

    run(test, workers=1)


def test_a_fault_of_our_own_keeps_what_is_served_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "RELOAD_RETRY", 0.001)

    async def test(world: World) -> None:
        worker = world.add_worker(0)
        await world.until_told("ready")
        world.source.error = RuntimeError("a bug")
        world.source.objects.append(route("r2"))
        world.controller.changed()
        async with asyncio.timeout(5):
            while world.source.reads < 4:
                await asyncio.sleep(0.001)
        assert world.controller.last_reload_failed
        assert len(worker.messages) == 1
        world.source.error = None
        assert (await worker.wait(2))[1]["version"] == 2

    run(test, workers=1)


def test_a_fault_of_our_own_at_the_start_ends_it() -> None:
    async def test(world: World) -> None:
        world.source.error = RuntimeError("a bug")
        assert "a fault of pygw's own" in (await world.until_told("fatal"))["message"]

    run(test)


def test_a_restarted_control_process_goes_on_from_the_last_version() -> None:
    async def test(world: World) -> None:
        assert world.controller.not_ready_reasons() == []
        worker = world.add_worker(0, version=7)
        assert (await worker.wait(1))[0]["version"] == 8
        await world.until_told("bind")

    run(test, workers=1, is_restart=True, first_version=7)


def test_a_restarted_control_process_without_a_gateway_touches_nothing() -> None:
    async def test(world: World) -> None:
        world.source.objects = []
        worker = world.add_worker(0, version=7)
        async with asyncio.timeout(5):
            while not world.controller.reloads:
                await asyncio.sleep(0.001)
        assert worker.messages == []
        assert world.told == []
        assert world.controller.last_reload_failed

    run(test, workers=1, is_restart=True, first_version=7)


# ===== ports =====


@pytest.mark.parametrize("code", ["EADDRINUSE", "EACCES"])
def test_a_port_that_is_taken_at_the_start_ends_it(code: str) -> None:
    async def test(world: World) -> None:
        world.bind_failures = [["", 80, code, "cannot bind port 18080: because"]]
        world.add_worker(0)
        assert (await world.until_told("fatal"))["message"] == "cannot bind port 18080: because"

    run(test, workers=1)


def test_an_address_that_is_not_there_is_a_matter_of_its_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_module, "BIND_RETRY", 0.001)

    async def test(world: World) -> None:
        world.source.objects[0] = {
            **GATEWAY, "spec": {**GATEWAY["spec"], "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}]},  # type: ignore[dict-item]
        }  # fmt: skip
        world.bind_failures = [["192.0.2.1", 80, "EADDRNOTAVAIL", "cannot bind 192.0.2.1:80: no such address"]]
        world.add_worker(0)
        await world.until_told("bind")
        assert not any(told["type"] == "fatal" for told in world.told)
        await world.until_told("bind", 3)  # tried again and again
        assert world.controller.not_ready_reasons() == ["no port is bound"]
        resolution = world.controller.resolution
        assert resolution is not None
        conditions = resolution.statuses["Gateway", "default", "gw"]["conditions"]
        assert {c["type"]: c["status"] for c in conditions}["Programmed"] == "False"
        world.bind_failures = []
        await world.until_told("ready")

    run(test, workers=1)


def test_draining_is_not_ready() -> None:
    async def test(world: World) -> None:
        world.add_worker(0)
        await world.until_told("ready")
        world.controller.drain()
        assert world.controller.not_ready_reasons() == ["draining"]

    run(test, workers=1)
