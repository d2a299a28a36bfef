"""A large cluster: 1,000 routes and 10,000 endpoints; how soon a change is served, and what the informer costs.

`python -m tests.conformance tests -- -s tests/conformance/test_scale.py` prints the figures.
"""

from __future__ import annotations

import json
import os
import statistics
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.conformance.rig.cluster import Cluster
from tests.conformance.rig.gateway import ADMIN
from tests.conformance.rig.rest import Object
from tests.conformance.world import METHOD, PORT, World, ask, eventually
from tests.doubles import objects
from tests.doubles.objects import listener, ref, route, rule

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

ROUTES = 1000
ENDPOINTS = 10  # of each route's Service
CHANGES = 20  # of each sort
BATCH = 200  # changes for the cost of one
APPLIED_WITHIN = 1.0  # seconds
ENDPOINT_WITHIN = 0.2
MEMORY = 200.0  # MiB of the control process, all told


class Process:
    """CPU time and memory of the gateway's control process."""

    def __init__(self, cluster: Cluster) -> None:
        launcher = (cluster.folder / "pygw.pid").read_text()
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        self._folder = next(
            Path(f"/proc/{pid}") for pid in children if "control" in Path(f"/proc/{pid}/cmdline").read_text()
        )

    def cpu(self) -> float:
        """Seconds so far."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident MiB."""
        return int((self._folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def slice_of(name: str, *addresses: str) -> Object:
    endpoints = [objects.endpoint(address, conditions={"ready": True}) for address in addresses]
    return objects.endpoint_slice(*endpoints, service=name, ports=[{"name": "grpc", "port": 8080}])


def addresses_of(number: int) -> list[str]:
    return [f"10.{200 + number // 250}.{number % 250}.{last}" for last in range(1, ENDPOINTS + 1)]


def in_parallel(work: Callable[[int], object], count: int) -> float:
    """Seconds for work(0), work(1)… by four clients."""
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(count)))
    return time.monotonic() - start


def metric(name: str) -> float:
    """The sum of a metric's series."""
    with urllib.request.urlopen(f"http://{ADMIN}/metrics", timeout=30) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def settled() -> bool:
    return metric("pygw_kubernetes_status_pending") == 0


@pytest.fixture
def process(pygw: Cluster) -> Process:
    return Process(pygw)


def measure(change: Callable[[int], str], channel: grpc.Channel) -> list[float]:
    """Seconds from each change, which gives the name of the backend, to the first call that gets there."""
    found = []
    for number in range(CHANGES):
        start = time.monotonic()
        name = change(number)
        eventually(lambda name=name: ask(channel, METHOD) == name, f"answered by {name}", patience=10.0)  # type: ignore[misc]
        found.append(time.monotonic() - start)
    return found


def test_a_thousand_routes_and_ten_thousand_endpoints(world: World, process: Process) -> None:
    figures: dict[str, object] = {"MiB before": process.memory()}
    world.gateway(listener())
    backends = [world.backend(name) for name in ("one", "two")]
    world.route(rule(ref("one")), name="live")

    def put(number: int) -> None:
        name = f"s{number:04}"
        world.apply(objects.service(name, {"name": "grpc", "port": PORT}))
        world.apply(slice_of(name, *addresses_of(number)))
        match = {"method": {"service": f"pkg.Service{number}", "method": "Get"}}
        world.apply(route(rule(ref(name), matches=[match]), name=f"r{number:04}"))

    cpu = process.cpu()
    figures["s to apply all of it, by four clients"] = in_parallel(put, ROUTES)
    start = time.monotonic()
    eventually(lambda: settled() and len(world.status("GRPCRoute", f"r{ROUTES - 1:04}")) > 0, "settled", patience=60.0)
    figures["s from there until all statuses are written"] = time.monotonic() - start
    figures["CPU s for all of it"] = process.cpu() - cpu
    figures["MiB with 1,000 routes and 10,000 endpoints"] = process.memory()

    channel = world.channel()
    world.wait_until_served(channel, backends[0])

    def change_endpoint(number: int) -> str:
        other = backends[(number + 1) % 2]
        world.apply(slice_of("one", other.address))
        return other.name

    def change_route(number: int) -> str:
        name = ("two", "one")[number % 2]
        world.apply(route(rule(ref(name)), name="live"))
        return name

    endpoint = measure(change_endpoint, channel)
    world.apply(slice_of("one", backends[0].address))
    world.wait_until_served(channel, backends[0])
    applied = measure(change_route, channel)
    eventually(settled, "settled")
    for what, times in (("an endpoint", endpoint), ("a route", applied)):
        figures[f"ms from apply to served, {what}: median, most"] = [
            round(1000 * value) for value in (statistics.median(times), max(times))
        ]

    cpu, writes = process.cpu(), metric("pygw_kubernetes_status_writes_total")
    in_parallel(lambda number: world.apply(slice_of(f"s{number:04}", *addresses_of(number)[1:])), BATCH)
    eventually(lambda: metric("pygw_kubernetes_status_pending") == 0, "settled")
    figures["CPU ms of the control process for a change of an endpoint"] = 1000 * (process.cpu() - cpu) / BATCH
    figures["statuses written for these"] = metric("pygw_kubernetes_status_writes_total") - writes
    figures["MiB after all"] = process.memory()
    print("\n" + json.dumps(figures, indent=2))
    assert figures["statuses written for these"] == 0
    assert max(endpoint) < ENDPOINT_WITHIN
    assert max(applied) < APPLIED_WITHIN
    assert process.memory() < MEMORY
