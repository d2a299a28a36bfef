"""Two workers against one at the same rate for each: what a call costs, and whether they get as many."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from bench.processes import BUILD, BenchError, NotMeasurableError, Placement, Running, pinned, run_pinned, start_program
from bench.proxies import Variant, start

CORES = 4  # two for workers, one each for backend and load: else they would take each other's time
CONNECTIONS = 400
RATE = 10_000  # calls a second for each worker
Sample = dict[str, float]


def measure_workers(rounds: int, seconds: float) -> list[Sample]:
    """Interleaved rounds of one and two workers, one core each."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < CORES:
        raise NotMeasurableError(f"needs {CORES} cores, this machine has {len(cpus)}")
    return compare([frozenset(cpus[:1]), frozenset(cpus[:2])], frozenset(cpus[2:]), rounds, seconds)


def compare(workers: list[frozenset[int]], others: frozenset[int], rounds: int, seconds: float) -> list[Sample]:
    """The CPUs of one worker and of two; those of load and backend."""
    with tempfile.TemporaryDirectory(prefix="pygw-bench-") as name:
        folder = Path(name)
        backend = start_program("backend", [], others, folder / "backend.log")
        up: list[Running] = []
        try:
            for number, cpus in enumerate(workers, 1):
                variant = Variant("pygw", workers=number)
                up.append(start(variant, backend.port, folder / variant.label, Placement(cpus, others)))
            for proxy in up:  # connections to the backend, caches
                _cpu_us(proxy, RATE // 10, 0.5, others)
            samples = []
            for _ in range(rounds):
                one, two = (
                    _cpu_us(proxy, number * RATE, seconds, others) for number, proxy in enumerate(up, 1)
                )
                samples.append({"one_us": one, "two_us": two, "growth": two / one,
                                "uneven_percent": _uneven(up[1], others)})
            return samples
        finally:
            for program in [*up, backend]:
                program.stop()


def _cpu_us(proxy: Running, rate: int, seconds: float, others: frozenset[int]) -> float:
    """CPU time per call of the whole process tree."""
    command = [
        str(BUILD / "load"), f"port={proxy.port}", f"connections={CONNECTIONS}", "streams=100", f"rate={rate}",
        f"seconds={seconds}",
    ]
    before = proxy.cpu_seconds()
    answer = json.loads(run_pinned(command, others))
    if answer["failed"] or not answer["calls"]:
        raise BenchError(f"{answer['failed']} of {answer['calls']} calls failed")
    return float((proxy.cpu_seconds() - before) / answer["calls"] * 1e6)


def _uneven(proxy: Running, others: frozenset[int]) -> float:
    """How far, in percent, the workers are from an equal share of as many open calls as there are connections."""
    command = [str(BUILD / "load"), f"port={proxy.port}", f"connections={CONNECTIONS}", "streams=1", "hold=open"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=pinned(others))
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != b"ready\n":
            raise BenchError("400 open calls could not be held")
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.admin}/endpoints", timeout=10) as answer:
            workers = json.load(answer)["workers"]
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
    calls: list[int] = [
        sum(endpoint["calls"] for endpoints in states.values() for endpoint in endpoints) for states in workers.values()
    ]
    return (max(calls) / statistics.mean(calls) - 1) * 100
