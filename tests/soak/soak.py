"""A long run: mixed calls, clients and backends that misbehave, and a configuration that never rests; flat memory.

What is looked at after a warm-up: memory (PSS) and descriptors of every process of the gateway, the number of metric
series, open connections and calls. Calls of the well-behaved load must not fail. `python -m tests.soak --minutes 60`.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import statistics
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from tests.doubles.backend import ECHO, Backend
from tests.doubles.client import stream_stream, unary_stream, unary_unary
from tests.doubles.gateway import Gateway
from tests.doubles.load import Load
from tests.doubles.manifests import GATEWAY, route, to

WARM_UP = 0.3  # of the whole time: pools fill, tables reach their size, the allocator its high-water mark
INTERVAL = 2.0  # seconds between two samples
MEMORY_GROWTH = 4096  # KiB of PSS that the last samples of a process may be above the first after the warm-up
DESCRIPTOR_GROWTH = 16  # churned connections that are open in one sample and not in the other
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
RUDE = (
    b"",  # says nothing
    b"PRI * HT",  # stops in the preface
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    PREFACE,
    PREFACE + bytes.fromhex("000004010500000001ffffffff"),  # HPACK that is broken
    PREFACE + bytes.fromhex("0000080600") + bytes(12),  # PING
    PREFACE + bytes.fromhex("000000000000000000"),  # DATA on stream 0
    os.urandom(4096),
)


@dataclass
class Figures:
    """Samples by name, in order of time."""

    samples: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, at: float, value: float) -> None:
        """One sample, `at` a share of the whole time."""
        self.samples[name].append((at, value))

    def growth(self, name: str) -> tuple[float, float]:
        """The median of the first and of the last third after the warm-up."""
        steady = [value for at, value in self.samples[name] if at >= WARM_UP]
        third = max(1, len(steady) // 3)
        return statistics.median(steady[:third]), statistics.median(steady[-third:])

    def faults(self) -> list[str]:
        """What has grown."""
        allowed = {"PSS KiB": MEMORY_GROWTH, "descriptors": DESCRIPTOR_GROWTH, "series": 0, "connections": 8}
        found = []
        for name in self.samples:
            before, after = self.growth(name)
            if after - before > allowed[name.partition(" of ")[0]]:
                found.append(f"{name} grew from {before:.0f} to {after:.0f}")
        return found

    def __str__(self) -> str:
        lines = []
        for name in sorted(self.samples):
            before, after = self.growth(name)
            lines.append(f"{name:<28} {before:>10.0f} {after:>10.0f} {after - before:>+8.0f}")
        return "\n".join([f"{'':<28} {'after warm-up':>10} {'at the end':>8} {'':>7}", *lines])


class Trouble:
    """Threads that each do one thing again and again until the end, which `stop` tells them; a context manager."""

    def __init__(self, stop: threading.Event, *works: Callable[[], None]) -> None:
        self.rounds: dict[str, int] = defaultdict(int)
        self.failures: list[str] = []
        self._stop = stop
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in works]

    def _run(self, work: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except Exception as error:  # told at the end: a thread that ends early would test nothing
                self.failures.append(f"{work.__name__}: {error!r}")
                return
            self.rounds[work.__name__] += 1

    def __enter__(self) -> Trouble:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60.0)
            assert not thread.is_alive()


@dataclass
class Soak:
    """One run against a gateway that serves `backends`."""

    gateway: Gateway
    backends: list[Backend]
    random: random.Random = field(default_factory=lambda: random.Random(7))
    reloads: int = 0
    stop: threading.Event = field(default_factory=threading.Event)  # for Trouble, and so that no pause outlasts the run

    def rude_clients(self) -> None:
        """Connections that say something wrong or nothing, and end in an orderly way or with a reset."""
        for octets in RUDE:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.gateway.port), 5.0) as sock:
                sock.sendall(octets)
                if self.random.random() < 0.5:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stop.wait(0.05)  # a pace: some twenty rounds a second

    def failing_calls(self) -> None:
        """Calls that fail, hang until their deadline, are cancelled in the middle, or find no route."""
        with self.gateway.channel() as channel:
            for method in ("Fail", "FailLate"):
                with contextlib.suppress(grpc.RpcError):
                    list(unary_stream(channel, f"{ECHO}/{method}")(b'{"code": 9, "message": "as wanted"}', timeout=20))
            with contextlib.suppress(grpc.RpcError):
                unary_unary(channel, f"{ECHO}/Hang")(b"", timeout=0.05)
            call = stream_stream(channel, f"{ECHO}/HangStream")(iter([b""] * 3), timeout=20)
            with contextlib.suppress(grpc.RpcError):
                next(call)
            call.cancel()
            with contextlib.suppress(grpc.RpcError):
                unary_unary(channel, f"no.Route{self.random.randrange(10**6)}/X")(b"", timeout=20)
            with contextlib.suppress(grpc.RpcError):
                unary_unary(channel, f"{ECHO}/Unary")(b"x" * 100, metadata=[("x-big", "y" * 200_000)], timeout=20)

    def large_calls(self) -> None:
        """A megabyte down, and a reader that gives up after the first messages."""
        with self.gateway.channel() as channel:
            wanted = b'{"count": 32, "size": 32768}'
            assert sum(map(len, unary_stream(channel, f"{ECHO}/Download")(wanted, timeout=30))) == 32 * 32768
            call = unary_stream(channel, f"{ECHO}/Download")(wanted, timeout=30)
            next(call)
            call.cancel()

    def reload(self) -> None:
        """Routes, weights and endpoints that are others each time, and now and then a broken file."""
        self.reloads += 1
        if self.reloads % 7 == 0:
            self.gateway.write("config.yaml", "apiVersion: [")
        else:
            others = [
                to("b0", matches=f"[{{method: {{service: other.S{index}}}}}]") for index in range(self.reloads % 5)
            ]
            shares = to("b0", "s") if self.reloads % 2 else to("b0=3", "b1=1", "s")
            ports = [backend.port for backend in self.backends[: 1 + self.reloads % 3]]
            with_other_rules = f"[{{method: {{service: {ECHO}}}}}]"
            rules = [*others, shares.replace("{backendRefs", f"{{matches: {with_other_rules}, backendRefs")]
            self.gateway.write("config.yaml", GATEWAY + route(*rules) + service(*ports))
        if self.reloads % 3 == 0:
            self.gateway.reload()
        self.stop.wait(0.5)  # a pace, at which some changes come before the last one is served and some after
        for backend in self.backends:
            backend.calls.clear()

    def sample(self, figures: Figures, at: float) -> None:
        """One look at everything."""
        for name, pid in processes(self.gateway.process.pid):
            figures.add(f"PSS KiB of {name}", at, pss(pid))
            figures.add(f"descriptors of {name}", at, len(os.listdir(f"/proc/{pid}/fd")))
        status, body = self.gateway.admin("/metrics")
        assert status == 200
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        figures.add("series", at, len(lines))
        figures.add("connections", at, sum(map(value, filter(is_connections, lines))))


def run(minutes: float, folder: Path, told: Callable[[str], None] = print) -> list[str]:
    """Soak a gateway for so long; what was wrong."""
    figures, seconds = Figures(), minutes * 60
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Backend(f"b{number}")) for number in range(3)]
        ports = {f"default/{backend.name}": backend.port for backend in backends}
        (folder / "config.yaml").write_text(GATEWAY + route(to("b0", "s")) + service(backends[0].port))
        gateway = stack.enter_context(Gateway(folder, resolve=ports))
        soak = Soak(gateway, backends)
        load = stack.enter_context(Load(gateway.channel, unary=2, streaming=2, connecting=1))
        works = (soak.rude_clients, soak.failing_calls, soak.large_calls, soak.reload)
        trouble = stack.enter_context(Trouble(soak.stop, *works))
        start = time.monotonic()
        while (passed := time.monotonic() - start) < seconds:
            soak.sample(figures, passed / seconds)
            time.sleep(min(INTERVAL, seconds / 30))  # the time between two samples
        trouble.__exit__()
        load.stop()
        told(f"calls: {dict(load.ended)}; rounds of trouble: {dict(trouble.rounds)}; {soak.reloads} changes\n{figures}")
        wrong = [*figures.faults(), *trouble.failures]
        wrong += [f"failed calls: {load.failed} {load.details[:5]}"] if load.failed else []
        try:
            gateway.eventually(lambda: not left(gateway), "all that was open closed", patience=30.0)
        except AssertionError:
            wrong.append(f"left open: {left(gateway)}")
    return wrong


def left(gateway: Gateway) -> list[str]:
    """Gauges of what should be open no more, where all clients are gone."""
    names = ("pygw_calls_open", "pygw_downstream_connections", "pygw_downstream_streams", "pygw_upstream_streams")
    names += ("pygw_upstream_pending_calls",)
    lines = gateway.admin("/metrics")[1].decode().splitlines()
    return [line for line in lines if re.split(r"[{ ]", line)[0] in names and value(line)]


def is_connections(line: str) -> bool:
    """Whether a line of Prometheus text says how many connections are open."""
    return re.split(r"[{ ]", line)[0] in ("pygw_downstream_connections", "pygw_upstream_connections")


def value(line: str) -> float:
    """Of a line of Prometheus text."""
    return float(line.rpartition(" ")[2])


def service(*ports: int) -> str:
    """The Service s with an endpoint at each of these local ports."""
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: default}\nspec: {ports: [{port: 50051}]}\n"
    for port in ports:
        text += (
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
            f"metadata: {{name: s-{port}, namespace: default, labels: {{kubernetes.io/service-name: s}}}}\n"
            f"ports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
        )
    return text


def processes(launcher: int) -> Iterator[tuple[str, int]]:
    """Name and id of the processes of a gateway."""
    yield "launcher", launcher
    for pid in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
        yield "control" if "control" in words[-1] else f"worker {words[-1]}", int(pid)


def pss(pid: int) -> int:
    """Proportional set size in KiB."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1])
