"""A worker process with the real relay: what it takes, what it imports, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pygw.backend_list import write_backends
from pygw.channel import sealed_memfd
from pygw.listen_sockets import BACKLOG
from pygw.model import (
    BackendConfig,
    BackendRefConfig,
    GatewayConfig,
    HeaderMatch,
    ListenerConfig,
    MatchConfig,
    RouteConfig,
    RuleConfig,
)
from pygw.tables import compile_image
from tests.doubles.worker import Driver, drive

ROOT = Path(__file__).parents[1]
MEMORY_LIMIT = 40_000  # KiB of PSS
RULES = 1000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
GOAWAY, SETTINGS = 7, 4


def config(rules: int = 1) -> GatewayConfig:
    routes = {}
    for number in range(rules):
        header = HeaderMatch("x-tenant", f"t{number}")
        match = MatchConfig(service=f"pkg{number}.Service", method=f"Method{number}", headers=(header,))
        rule = RuleConfig(0, (match,), (BackendRefConfig(f"default/b{number}:80", "default", f"b{number}", 80),))
        route = RouteConfig("default", f"r{number}", (), (rule,))
        routes[route.key] = route
    listener = ListenerConfig("default/gw", "grpc", 80, routes=tuple(sorted(routes)))
    backends = {f"default/b{n}:80": BackendConfig(f"default/b{n}:80", "default", f"b{n}", 80) for n in range(rules)}
    return GatewayConfig((listener,), routes, backends)


async def frame_types(reader: asyncio.StreamReader) -> list[int]:
    """The types of all frames until the connection ends."""
    types = []
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3], "big"))
            types.append(head[3])
    return types


def test_memory_with_a_thousand_rules() -> None:
    async def test(driver: Driver) -> None:
        for version in (1, 2, 3):  # the former image and its backends are let go
            assert (await driver.publish(config(RULES), version))["error"] is None
        assert driver.memory() < MEMORY_LIMIT

    drive(test)


def test_it_imports_no_part_of_the_control_process() -> None:
    async def test(driver: Driver) -> None:
        maps = driver.maps()
        assert "uvloop" in maps
        for name in ("yaml", "jsonschema", "rpds", "image_builder", "cel_expr"):
            assert f"/{name}" not in maps

    drive(test)


def test_what_is_no_image_is_refused_and_the_old_one_stays() -> None:
    async def test(driver: Driver) -> None:
        assert (await driver.publish(config()))["error"] is None
        fd = sealed_memfd("image", b"not an image" * 100)
        open_fd = os.memfd_create("open", os.MFD_ALLOW_SEALING)
        os.write(open_fd, compile_image(config()).octets)
        backends = write_backends([])
        no_backends = sealed_memfd("backends", b"[[1, 2, 3]]")
        image = sealed_memfd("image", compile_image(config()).octets)
        refused = [
            ((fd, backends), ""), ((open_fd, backends), "not sealed"), ((image, open_fd), "not sealed"),
            ((image, no_backends), ""), ((image,), "")
        ]  # fmt: skip
        for bad, reason in refused:
            answer = await driver.ask({"type": "snapshot", "version": 2, "tls": None}, list(bad))
            assert answer["error"]
            assert reason in answer["error"]
        for used in (fd, open_fd, backends, no_backends, image):
            os.close(used)
        states = (await driver.ask({"type": "endpoint_states"}))["states"]
        assert list(states) == ["default/b0:80"]
        assert (await driver.ask({"type": "nonsense"}))["error"] == "unknown message nonsense"

    drive(test)


def test_endpoints_are_replaced() -> None:
    async def test(driver: Driver) -> None:
        await driver.publish(config())
        backends = [["default/b0:80", [["127.0.0.2", 7], ["::1", 7]]]]
        await driver.ask({"type": "endpoints", "version": 1, "backends": backends})
        (states,) = (await driver.ask({"type": "endpoint_states"}))["states"].values()
        assert [state["address"] for state in states] == ["127.0.0.2:7", "[::1]:7"]

    drive(test)


def test_metrics_come_with_their_help() -> None:
    async def test(driver: Driver) -> None:
        await driver.publish(config())
        metrics = (await driver.ask({"type": "metrics"}))["metrics"]
        assert {name for name, *_ in metrics["counters"]} <= metrics["help"].keys()
        assert "pygw_calls_total" in metrics["help"]

    drive(test)


def test_the_end_of_the_control_process_is_not_the_workers() -> None:
    async def test(driver: Driver) -> None:
        await driver.publish(config(), 5)
        driver.control.close()
        driver.control = driver.new_control()
        await driver.until(lambda: {"type": "hello", "version": 5} in driver.answers)

    drive(test)


def test_a_new_control_process_is_heard_though_the_old_ones_end_is_noticed_later() -> None:
    async def test(driver: Driver) -> None:
        for version in range(1, 9):
            # Both in one turn of the worker's loop, in whichever order it looks.
            os.kill(driver.pid, signal.SIGSTOP)
            driver.control.close()
            driver.control = driver.new_control()
            os.kill(driver.pid, signal.SIGCONT)
            assert (await driver.publish(GatewayConfig(), version))["error"] is None

    drive(test)


def test_connections_wait_until_there_is_a_configuration() -> None:
    async def test(driver: Driver) -> None:
        port = driver.listen()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE)
        await driver.ask({"type": "metrics"})  # so that the worker has had its turn
        assert driver.waiting(port) == 1
        await driver.publish(config())
        assert (await asyncio.wait_for(reader.readexactly(9), 10))[3] == SETTINGS
        assert driver.waiting(port) == 0
        writer.close()

    drive(test)


def test_the_accept_queue_stays_as_long_as_the_launcher_made_it() -> None:
    async def test(driver: Driver) -> None:
        await driver.publish(config())
        reader, writer = await asyncio.open_connection("127.0.0.1", driver.listen())
        writer.write(PREFACE)
        await reader.readexactly(9)  # so it listens
        somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text())  # noqa: ASYNC240
        assert driver.listener is not None
        # tcpi_sacked of a listening socket is the length that its queue may have (tcp_diag's idiag_wqueue).
        info = driver.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert int.from_bytes(info[28:32], sys.byteorder) == min(BACKLOG, somaxconn)
        writer.close()

    drive(test)


def test_a_module_in_the_users_folder_is_not_taken_for_one_of_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logging.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    async def test(driver: Driver) -> None:
        assert (await driver.publish(config()))["error"] is None

    drive(test)


def test_a_worker_that_waits_for_its_configuration_can_drain() -> None:
    async def test(driver: Driver) -> None:
        driver.listen()
        driver.launcher.send({"type": "drain"})
        assert await driver.ended() == 0

    drive(test)


def test_drain_says_goaway_serves_what_waited_and_ends() -> None:
    async def test(driver: Driver) -> None:
        await driver.publish(config())
        port = driver.listen()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE)
        header = await reader.readexactly(9)
        assert header[3] == SETTINGS
        await reader.readexactly(int.from_bytes(header[:3], "big"))
        os.kill(driver.pid, signal.SIGSTOP)  # so that the next one waits in the accept queue
        late_reader, late_writer = await asyncio.open_connection("127.0.0.1", port)
        late_writer.write(PREFACE)
        driver.launcher.send({"type": "drain"})
        os.kill(driver.pid, signal.SIGCONT)
        late = await asyncio.wait_for(frame_types(late_reader), 10)
        assert late[0] == SETTINGS
        assert late.count(GOAWAY) == 1  # the last; the first one comes only where there was a request
        early = await asyncio.wait_for(frame_types(reader), 10)
        assert early.count(GOAWAY) == 1
        assert await driver.ended() == 0
        for one in (writer, late_writer):
            one.close()

    drive(test)


def test_the_end_of_the_launcher_is_its_end() -> None:
    async def test(driver: Driver) -> None:
        driver.launcher.close()
        assert await driver.ended() == 1

    drive(test)


def test_signals_for_the_whole_group_are_the_launchers_matter() -> None:
    async def test(driver: Driver) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(driver.pid, number)
        assert (await driver.publish(config()))["error"] is None

    drive(test)


@pytest.mark.parametrize("module", ["pygw.worker", "pygw.control.main"])
def test_started_by_hand_it_says_how_to_start(module: str) -> None:
    command = f"exec 3<&-; exec {sys.executable} -m {module} 0"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "this is a part of pygw; start it with: pygw run\n"
