"""What is measured: every scenario of the suite, as data.

`kind` says how a scenario is measured (bench/measure.py), `proxies` by whom it is run: names stand for their usual
configuration, Variants for another one. `seconds` is what a run should take on the proxy at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.proxies import HTTP_PROXIES, PROXIES, Variant
from bench.rules import Rules

KIB, GIB = 1024, 1024**3


@dataclass(frozen=True)
class Load:
    """The calls of a scenario: connections, streams open on each, octets and messages each way."""

    connections: int = 1
    streams: int = 1
    request: int = 16
    response: int = 16
    uploads: int = 1
    messages: int = 1
    pings: int = 0
    metadata: bool = False
    rate: int = 0  # calls a second, on a schedule; 0: as fast as they are answered


@dataclass(frozen=True)
class Scenario:
    """One row of the results."""

    name: str
    title: str
    kind: str  # calls, ghz, bulk, latency, fairness, memory, match, reload, workers
    load: Load = Load()
    proxies: tuple[str | Variant, ...] = PROXIES
    rounds: int = 3
    seconds: float = 0.6
    is_quick: bool = False  # in `make bench` too
    wants: str = ""  # of a memory scenario: what is held

    def variants(self) -> tuple[Variant, ...]:
        """Who runs it."""
        return tuple(Variant(proxy) if isinstance(proxy, str) else proxy for proxy in self.proxies)


def _unary() -> list[Scenario]:
    made = []
    goals = {(16, 1, 1), (16, 8, 1), (16, 8, 10), (16, 50, 1), (16, 50, 100), (64 * KIB, 8, 10)}
    for size, text in ((16, "16 B"), (KIB, "1 KiB"), (64 * KIB, "64 KiB")):
        for connections, streams in ((1, 1), (8, 1), (8, 10), (50, 1), (50, 100)):
            is_goal = (size, connections, streams) in goals
            made.append(Scenario(
                f"unary-{text.lower().replace(' ', '')}-{connections}x{streams}",
                f"{text} unary, {connections} x {streams}", "calls",
                # What a worker that sleeps between two calls costs changes most with what else the machine does.
                Load(connections, streams, size, size), rounds=(7 if connections == 1 else 3) if is_goal else 2,
                is_quick=is_goal,
                seconds=0.6 if is_goal else 0.4,
            ))
    return made


def _rules() -> list[Scenario]:
    exact = tuple(Variant("pygw", Rules("exact", count)) for count in (1, 100, 1_000, 10_000))
    load = Load(8, 10)
    peers = tuple(
        Variant(name, Rules("exact", count)) for name in ("envoy", "nginx", "haproxy") for count in (1, 10_000)
    )
    return [
        Scenario("rules-exact", "16 B, 8 x 10, exact host, method and header, the last rule matches", "calls", load,
                 exact, rounds=5, is_quick=True),
        Scenario("rules-exact-peers", "the same through others", "calls", load, peers, rounds=2, seconds=0.4),
        Scenario("rules-headers", "16 B, 8 x 10, 1,000 rules told apart by one header", "calls", load,
                 tuple(Variant(name, Rules("headers", 1_000)) for name in ("pygw", "envoy")), rounds=2, seconds=0.4),
        Scenario("rules-regex", "16 B, 8 x 10, 100 rules of regular expressions for service, method and a header",
                 "calls", load, tuple(Variant(name, Rules("regex", 100)) for name in ("pygw", "envoy")), rounds=2,
                 seconds=0.4),
    ]


SCENARIOS: tuple[Scenario, ...] = (
    *_unary(),
    Scenario("metadata", "16 B unary, 8 x 10, ten metadata fields of which three change", "calls",
             Load(8, 10, metadata=True), is_quick=True),
    Scenario("grpc-go", "16 B unary from grpc-go's client (ghz), 8 x 10", "ghz", Load(8, 10), rounds=2, seconds=0.8),
    Scenario("server-streaming", "100 messages of 1 KiB in answer to one, 8 x 10", "calls",
             Load(8, 10, response=KIB, messages=100), rounds=2, seconds=0.4),
    Scenario("ping-pong", "100 messages of 16 B each way in turn, 8 x 10", "calls", Load(8, 10, pings=100), rounds=2,
             seconds=0.4),
    Scenario("download", "1 GiB download, messages of 64 KiB", "bulk",
             Load(response=64 * KIB, messages=GIB // (64 * KIB)), rounds=2, is_quick=True),
    Scenario("upload", "1 GiB upload, messages of 64 KiB", "bulk", Load(request=64 * KIB, uploads=GIB // (64 * KIB)),
             rounds=2, is_quick=True),
    *_rules(),
    Scenario("access-log", "16 B unary, 8 x 10, an access log in a file", "calls", Load(8, 10),
             ("pygw", Variant("pygw", access_log=True))),
    Scenario("latency", "16 B unary, 2,000 calls a second on 8 connections", "latency",
             Load(8, 100, rate=2_000), rounds=3, seconds=1.5, is_quick=True),
    Scenario("fairness", "500 small calls a second beside a 64 KiB-message download at full speed", "fairness",
             Load(4, 100, rate=500), rounds=2, seconds=1.0),
    Scenario("idle-connections", "10,000 connections that each made a call", "memory", Load(10_000, 1),
             ("pygw", *HTTP_PROXIES), rounds=1, is_quick=True, wants="idle"),
    Scenario("open-streams", "10,000 open streams on 100 connections", "memory", Load(100, 100),
             ("pygw", *HTTP_PROXIES), rounds=1, is_quick=True, wants="open"),
    Scenario("idle-connections-tls", "1,000 idle connections over TLS", "memory", Load(1_000, 1),
             (Variant("pygw", tls=True),), rounds=1, is_quick=True, wants="idle"),
    Scenario("open-streams-tls", "10,000 open streams on 100 connections over TLS", "memory", Load(100, 100),
             (Variant("pygw", tls=True),), rounds=1, is_quick=True, wants="open"),
    Scenario("match", "a match in memory, 10 rules against 10,000", "match", proxies=("pygw",)),
    Scenario("workers", "16 B unary on 400 connections, 10,000 calls a second for each worker, one worker and two",
             "workers", proxies=("pygw",), seconds=2, is_quick=True),
    Scenario("reload", "10,000 rules in 625 files, changed while calls go on", "reload",
             proxies=("pygw", "nginx", "haproxy", "envoy"), rounds=5,
             is_quick=True),
)


def quickened(scenario: Scenario) -> Scenario:
    """The scenario as `make bench` runs it: the same work, fewer repetitions."""
    load = scenario.load
    if scenario.kind == "bulk":  # a quarter of a GiB
        load = replace(load, uploads=max(load.uploads // 4, 1), messages=max(load.messages // 4, 1))
    return replace(scenario, load=load, rounds=min(scenario.rounds, 3), seconds=scenario.seconds * 2 / 3)
