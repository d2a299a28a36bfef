"""Probes and scrapers are answered in time while the workers get three times the calls that they can serve."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field

import pytest

from tests.doubles.gateway import Gateway, StartGateway
from tests.doubles.manifests import GATEWAY, route, to
from tests.doubles.open_load import Phase, backend, load

PAGES = ("/healthz", "/readyz", "/metrics")
MEDIAN, LONGEST = 0.25, 1.0  # seconds; kubelet gives a probe 1 s unless told otherwise
INTERVAL = 0.05  # seconds between two rounds
HOST, PATH = "grpc.example.com", "/test.Service/Call"
# What a call costs the gateway, beside which refusing one is cheap: regexes over a long value, none of which matches.
REGEXES = ", ".join(
    f"{{headers: [{{type: RegularExpression, name: x-load, value: '(a|b{number})*c'}}]}}" for number in range(20)
)


@dataclass
class Probes:
    """Asks for each page again and again."""

    gateway: Gateway
    seconds: dict[str, list[float]] = field(default_factory=lambda: {page: [] for page in PAGES})
    statuses: set[int] = field(default_factory=set)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            for page in PAGES:
                begun = time.monotonic()
                status, _ = await asyncio.to_thread(self.gateway.admin, page)
                self.seconds[page].append(time.monotonic() - begun)
                self.statuses.add(status)
            await asyncio.sleep(INTERVAL)


async def overload(gateway: Gateway, probes: Probes) -> Phase:
    """Measure what it can serve, then ask for three times that while the probes run."""
    _, full = await load(gateway.port, "=64:0.5", "=64:1", authority=HOST, path=PATH)
    probing = asyncio.create_task(probes.run())
    try:
        (over,) = await load(gateway.port, f"{full.good * 3}:4", authority=HOST, path=PATH)
    finally:
        probing.cancel()
    return over


@pytest.mark.slow
def test_admin_pages_answer_in_time(start_gateway: StartGateway) -> None:
    async def test() -> None:
        async with backend() as port:
            rules = route(to("b", matches=f"[{REGEXES}, {{}}]"))
            gateway = await asyncio.to_thread(
                start_gateway, GATEWAY + rules, "--set", "regex_cache=0", resolve={"default/b": port}
            )
            probes = Probes(gateway)
            over = await overload(gateway, probes)
        print({page: (len(took), statistics.median(took), max(took)) for page, took in probes.seconds.items()})
        assert over.good < over.offered * 2 // 3
        assert over.shed > 0
        assert probes.statuses == {200}
        for page, took in probes.seconds.items():
            assert len(took) >= 10, page
            assert statistics.median(took) < MEDIAN, page
            assert max(took) < LONGEST, page

    asyncio.run(test())
