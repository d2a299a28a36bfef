"""Measures one scenario on one running proxy: a Sample, which is figures by name.

cpu_us      CPU time of the proxy's whole process tree per call, in microseconds
rate        calls a second
p50_us ...  latency of a call (of a message each way in ping-pong), in microseconds
gb_per_cpu_s  10^9 octets of messages relayed in one second of CPU time
octets_each   memory per connection or stream held (PSS)
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.caller import PREFIX, request_message
from bench.ghz import run_ghz
from bench.processes import BUILD, ROOT, BenchError, Placement, Running, pinned, run_pinned
from bench.proxies import Variant
from bench.rules import HOST
from bench.scenarios import Scenario
from bench.workers import measure_workers

Sample = dict[str, float]
PEERS_TIMEOUT = 300  # seconds for the changes of all peers
SETTLE = 0.3  # seconds: no proxy says when it has freed what it does not need, or how fast it is by now


def arguments_of(scenario: Scenario, variant: Variant, port: int) -> list[str]:
    """The arguments of programs/load.c for this scenario."""
    load, last = scenario.load, variant.rules.count - 1
    named = {
        "port": port, "connections": load.connections, "streams": load.streams, "request": load.request,
        "response": load.response, "uploads": load.uploads, "messages": load.messages, "pings": load.pings,
        "rate": load.rate, "metadata": int(load.metadata), "path": variant.rules.path(last),
    }
    return [f"{name}={value}" for name, value in named.items()] + [
        f"field={name}:{value}" for name, value in variant.rules.fields(last)
    ]


def run_load(arguments: list[str], placement: Placement) -> dict[str, float]:
    """Runs our own load generator; its figures. A single bad answer is an error."""
    answer: dict[str, float] = json.loads(run_pinned([str(BUILD / "load"), *arguments], placement.load))
    if answer["failed"] or not answer["calls"]:
        raise BenchError(f"{answer['failed']} of {answer['calls']} calls failed or had wrong contents")
    return answer


def uses_h2load(scenario: Scenario) -> bool:
    """Whether h2load drives it: plain unary calls, where it is installed. Headers that change are beyond it."""
    load = scenario.load
    is_unary = load.uploads == load.messages == 1 and not load.pings
    return scenario.kind == "calls" and is_unary and not load.metadata and shutil.which("h2load") is not None


def run_h2load(scenario: Scenario, variant: Variant, port: int, calls: int, folder: Path,
               placement: Placement) -> dict[str, float]:
    """Runs h2load; the same figures as run_load. Its message carries the order of programs/h2.h."""
    load, last = scenario.load, variant.rules.count - 1
    message, log = folder / f"message-{load.request}-{load.response}", folder / "h2load.log"
    if not message.exists():
        message.write_bytes(request_message(load.request, load.response))
    log.unlink(missing_ok=True)
    headers = [f":authority: {HOST}", "content-type: application/grpc", "te: trailers", "user-agent: h2load"]
    headers += [f"{name}: {value}" for name, value in variant.rules.fields(last)]
    command = [
        "h2load", "-n", str(calls), "-c", str(load.connections), "-m", str(load.streams), "-d", str(message),
        "-w", "24", "-W", "30", f"--log-file={log}", *(part for header in headers for part in ("-H", header)),
        f"http://127.0.0.1:{port}{variant.rules.path(last)}",
    ]
    return parse_h2load(run_pinned(command, placement.load), log.read_text(), calls, load.response)


def parse_h2load(text: str, log: str, calls: int, response: int) -> dict[str, float]:
    """The figures in what h2load printed and logged; BenchError unless all calls succeeded with all their octets."""
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    wall = re.search(r"finished in ([\d.]+)(us|ms|s),", text)
    octets = re.search(r"headers \([^)]*\)[^,]*, .*?\((\d+)\) data", text)
    if done is None or wall is None or octets is None:
        raise BenchError(f"cannot read what h2load said:\n{text[-500:]}")
    if [int(number) for number in done.groups()] != [calls, 0, 0]:
        raise BenchError(f"of {calls} calls {done[0]}")
    if int(octets[1]) != calls * (PREFIX + response):
        raise BenchError(f"answers have {octets[1]} octets, not {calls} times {PREFIX + response}")
    latencies = sorted(int(line.rsplit("\t", 1)[1]) for line in log.splitlines())
    seconds = float(wall[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1}[wall[2]]
    return {
        "calls": calls, "seconds": seconds,
        **{name: latencies[int((len(latencies) - 1) * part)]
           for name, part in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999))},
    }


def measure_calls(scenario: Scenario, variant: Variant, proxy: Running, folder: Path, placement: Placement) -> Sample:
    """Calls as fast as they are answered."""
    load, arguments = scenario.load, arguments_of(scenario, variant, proxy.port)
    # Connections to the backend are opened, caches filled, and the number of calls for a run found.
    least = load.connections * load.streams
    warm = run_load([*arguments, f"calls={max(least, 300) * 2}", f"seconds={scenario.seconds / 4}"], placement)
    calls = int(max(warm["calls"] / warm["seconds"] * scenario.seconds, least))
    before = proxy.cpu_seconds()
    if uses_h2load(scenario):
        answer = run_h2load(scenario, variant, proxy.port, calls, folder, placement)
    else:
        answer = run_load([*arguments, f"calls={calls}", f"seconds={scenario.seconds * 2}"], placement)
    cpu = proxy.cpu_seconds() - before
    units = answer["calls"] * (load.pings or 1)
    return {"cpu_us": cpu / units * 1e6, "rate": units / answer["seconds"], **latencies_of(answer)}


def measure_ghz(scenario: Scenario, variant: Variant, proxy: Running, folder: Path, placement: Placement) -> Sample:
    """Calls from grpc-go's client, as fast as they are answered."""
    warm = run_ghz(scenario.load, proxy.port, 1000, folder, placement)
    calls = max(int(warm["calls"] / warm["seconds"] * scenario.seconds), 1000)
    before = proxy.cpu_seconds()
    answer = run_ghz(scenario.load, proxy.port, calls, folder, placement)
    cpu = proxy.cpu_seconds() - before
    return {"cpu_us": cpu / calls * 1e6, "rate": calls / answer["seconds"], **latencies_of(answer)}


def latencies_of(answer: dict[str, float]) -> Sample:
    """Its percentiles."""
    return {name: value for name, value in answer.items() if name.endswith("_us")}


def measure_bulk(scenario: Scenario, variant: Variant, proxy: Running, folder: Path, placement: Placement) -> Sample:
    """One call of many octets."""
    load = scenario.load
    arguments = arguments_of(scenario, variant, proxy.port)
    before = proxy.cpu_seconds()
    answer = run_load([*arguments, "calls=1"], placement)
    cpu = proxy.cpu_seconds() - before
    octets = load.uploads * load.request + load.messages * load.response
    return {"gb_per_cpu_s": octets / cpu / 1e9, "gb_per_s": octets / answer["seconds"] / 1e9}


def measure_latency(scenario: Scenario, variant: Variant, proxy: Running, folder: Path, placement: Placement) -> Sample:
    """Calls on a fixed schedule."""
    arguments = arguments_of(scenario, variant, proxy.port)
    run_load([*arguments, "seconds=0.2"], placement)
    before = proxy.cpu_seconds()
    answer = run_load([*arguments, f"seconds={scenario.seconds}"], placement)
    cpu = proxy.cpu_seconds() - before
    return {"cpu_us": cpu / answer["calls"] * 1e6, "rate": answer["calls"] / answer["seconds"], **latencies_of(answer)}


def measure_fairness(scenario: Scenario, variant: Variant, proxy: Running, folder: Path,
                     placement: Placement) -> Sample:
    """Small calls on a schedule while another client downloads as fast as it can."""
    bulk = subprocess.Popen(
        [str(BUILD / "load"), f"port={proxy.port}", "response=65536", "messages=1000000", "calls=1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=pinned(placement.load),
    )
    try:
        time.sleep(SETTLE)  # until the download is at its full speed
        sample = measure_latency(scenario, variant, proxy, folder, placement)
        del sample["cpu_us"]  # most of it is the download's
        return sample
    finally:
        bulk.kill()
        bulk.wait()


def measure_memory(scenario: Scenario, variant: Variant, proxy: Running, folder: Path, placement: Placement) -> Sample:
    """What the proxy grows by for each connection or stream that is held."""
    load = scenario.load
    command = [
        str(BUILD / "load"), f"port={proxy.port}", f"connections={load.connections}", f"streams={load.streams}",
        f"hold={scenario.wants}",
    ]
    if variant.tls:
        streams = load.streams if scenario.wants == "open" else 0
        command = [sys.executable, "-m", "bench.holder", str(proxy.port), str(load.connections), str(streams)]
    else:
        run_load([f"port={proxy.port}", "connections=8", "streams=10", "calls=2000"], placement)
    time.sleep(SETTLE)
    before = proxy.memory()
    holder = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=pinned(placement.load),
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stderr is not None
    try:
        if holder.stdout.readline() != "ready\n":
            raise BenchError(f"could not be held: {holder.stderr.read().strip()}")
        time.sleep(SETTLE)
        grown = proxy.memory() - before
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
        holder.stderr.close()
    return {"octets_each": grown / (load.connections * load.streams)}


def measure_match(scenario: Scenario, placement: Placement) -> dict[str, list[Sample]]:
    """A match alone, in memory, by what tells the rules apart (bench/micro/match.py)."""
    found = json.loads(run_pinned([sys.executable, "-m", "bench.micro.match"], placement.proxy))
    return {f"by {kind}": [sample] for kind, sample in found.items()}


def measure_reload(scenario: Scenario, placement: Placement) -> dict[str, list[Sample]]:
    """Changes of 10,000 rules while a victim calls: one sample for each change (bench/reload.py).

    Two workers, and as many CPUs as there are: the control process works beside the relay, not instead of it.
    """
    command = [sys.executable, "-m", "bench.reload"]
    changes = json.loads(run_pinned([*command, "--workers", "2", "--changes", str(scenario.rounds)], None))
    others = [str(proxy) for proxy in scenario.proxies if proxy != "pygw"]
    found = {}
    if others:
        peers = [*command, "--only-peers", "--peers", ",".join(others), "--changes", str(scenario.rounds)]
        found = json.loads(run_pinned(peers, None, PEERS_TIMEOUT))["peers"]
    return {"pygw": reload_samples(changes),
            **{peer: [{"all_files_s": one} for one in seconds] for peer, seconds in found.items()}}


def reload_samples(changes: dict[str, Any]) -> list[Sample]:
    """The figures in what bench/reload.py printed; what was measured once is in each sample."""
    victim = changes["victim_us"]
    once = {
        "pause_ms": max(victim[what]["worst"] for what in ("one_file", "all_files")) / 1000,
        "quiet_pause_ms": victim["quiet"]["worst"] / 1000,
    }
    each = {
        "one_file_s": changes["one_file"]["served"], "all_files_s": changes["all_files"]["served"],
        "one_object_s": changes["one_file"]["applied"], "all_objects_s": changes["all_files"]["applied"],
    }  # fmt: skip
    return [{**dict(zip(each, figures, strict=True)), **once} for figures in zip(*each.values(), strict=True)]


MEASURES: dict[str, Callable[[Scenario, Variant, Running, Path, Placement], Sample]] = {
    "calls": measure_calls,
    "ghz": measure_ghz,
    "bulk": measure_bulk,
    "latency": measure_latency,
    "fairness": measure_fairness,
    "memory": measure_memory,
}
# What brings up pygw itself, in its own way, and has samples for all rounds at once.
MEASURES_ALONE: dict[str, Callable[[Scenario, Placement], dict[str, list[Sample]]]] = {
    "match": measure_match,
    "reload": measure_reload,
    "workers": lambda scenario, placement: {"pygw": measure_workers(scenario.rounds, scenario.seconds)},
}


def measure(scenario: Scenario, variant: Variant, proxy: Running, folder: Path, placement: Placement) -> Sample:
    """One round."""
    return MEASURES[scenario.kind](scenario, variant, proxy, folder, placement)


Results = dict[str, dict[str, list[Sample]]]  # by scenario and label of the variant
Reasons = dict[str, str]  # why something was not measured, by scenario, proxy, or "SCENARIO/LABEL"
