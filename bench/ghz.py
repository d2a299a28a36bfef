"""Load by ghz: what a proxy costs with grpc-go's client, which is what many real callers are.

Its messages are protobuf (programs/ghz/echo.proto); programs/h2.h says how they tell the backend what to answer. ghz
fails a call whose answer is no such message; the octets in it are not compared.
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.builds import GHZ, GHZ_SOURCES
from bench.processes import BenchError, Placement, run_pinned
from bench.rules import HOST
from bench.scenarios import Load

FIELD_HEAD = 2  # octets: tag and length of the field of bytes
MAX_FIELD = 127  # whose length is one octet


def field_message(size: int, response: int) -> bytes:
    """A protobuf message of so many octets that asks for one answer of `response` (programs/h2.h)."""
    if not 8 <= size <= MAX_FIELD + FIELD_HEAD or not FIELD_HEAD <= response <= MAX_FIELD + FIELD_HEAD:
        raise ValueError(f"messages of ghz have 8 to {MAX_FIELD + FIELD_HEAD} octets")
    head = bytes([0x0A, size - FIELD_HEAD]) + response.to_bytes(2) + (1).to_bytes(4)
    prefix = 5  # the pattern counts from the beginning of the gRPC message's prefix
    return head + bytes((i * 131 + (i >> 8) * 17) & 255 for i in range(prefix + len(head), prefix + size))


def run_ghz(load: Load, port: int, calls: int, folder: Path, placement: Placement) -> dict[str, float]:
    """Runs ghz; the same figures as run_load."""
    message = folder / f"field-{load.request}-{load.response}"
    message.write_bytes(field_message(load.request, load.response))
    command = [
        str(GHZ), "--insecure", f"--proto={GHZ_SOURCES / 'echo.proto'}", "--call=bench.Echo.Call",
        f"--authority={HOST}", f"--binary-file={message}", f"--connections={load.connections}",
        f"--concurrency={load.connections * load.streams}", f"--total={calls}", "--format=json",
        f"127.0.0.1:{port}",
    ]
    return parse_ghz(run_pinned(command, placement.load), calls)


def parse_ghz(text: str, calls: int) -> dict[str, float]:
    """The figures in ghz's report; BenchError unless all calls succeeded."""
    try:
        report = json.loads(text)
        done = report["statusCodeDistribution"]
        latencies = sorted(call["latency"] for call in report["details"])
        seconds = report["total"] / 1e9
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(f"cannot read what ghz said:\n{text[-500:]}") from error
    if done != {"OK": calls} or len(latencies) != calls:
        raise BenchError(f"of {calls} calls of ghz: {done}")
    return {
        "calls": calls, "seconds": seconds,
        **{name: latencies[int((calls - 1) * part)] / 1000
           for name, part in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999))},
    }
