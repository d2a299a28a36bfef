"""The benchmark suite: pygw beside a raw TCP relay and other gRPC gateways, on the same work in the same run.

    python -m bench [--full] [--only NAME,...] [--peers NAME,...] [--beside FOLDER] [--rounds N]

Prints the table of the numbers to reach, and writes a page with all figures and plots to bench/results/DATE.md.
How to read and to repeat it: bench/README.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import fnmatch
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

from bench import page
from bench.builds import build_ghz, build_pingora
from bench.measure import MEASURES_ALONE, Reasons, Results, Sample, measure
from bench.processes import (
    ROOT,
    BenchError,
    NotMeasurableError,
    Placement,
    Running,
    compile_programs,
    say,
    start_program,
)
from bench.proxies import PROXIES, WHEELS, Variant, find_program, install_peers, start
from bench.scenarios import SCENARIOS, Scenario, quickened


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="exit codes: 0 measured; 1 pygw, or the suite itself, failed; 2 unusable arguments; "
               "3 with --strict: a number to reach was not reached",
    )
    parser.add_argument("--full", action="store_true", help="all scenarios (15 minutes), not the short choice (4)")
    parser.add_argument("--smoke", action="store_true", help="one short round of what was chosen: does it work?")
    parser.add_argument("--only", type=split, metavar="NAME,...", help="only these scenarios; * and ? stand for any")
    parser.add_argument("--peers", type=split, metavar="NAME,...", help=f"only these beside pygw: {', '.join(PROXIES)}")
    parser.add_argument("--beside", type=Path, action="append", default=[], metavar="FOLDER",
                        help="another checkout of pygw, compiled, that is measured beside this one (before, after)")
    parser.add_argument("--rounds", type=int, help="rounds of every scenario (default: 1 to 5, as it needs)")
    parser.add_argument("--minutes", type=float, metavar="N",
                        help="after so long, one round of each scenario that is left (default: 5, 15 with --full)")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results", help="the folder for the page")
    parser.add_argument("--no-page", action="store_true", help="print the table and write nothing")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--strict", action="store_true", help="exit code 3 where a number to reach was not reached")
    chosen = parser.parse_args(arguments)
    for folder in chosen.beside:
        if not (folder / "pygw" / "__init__.py").exists():
            parser.error(f"--beside: no checkout of pygw: {folder}")
    for peer in set(chosen.peers or ()) - set(PROXIES):
        parser.error(f"--peers: no such peer: {peer}; there are {', '.join(PROXIES)}")
    names = [scenario.name for scenario in SCENARIOS]
    for pattern in chosen.only or ():
        if not fnmatch.filter(names, pattern):
            parser.error(f"--only: no such scenario: {pattern}; --list names them")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds: 1 or more")
    return chosen


def split(text: str) -> list[str]:
    """NAME,NAME."""
    return [part.strip() for part in text.split(",") if part.strip()]


def chosen_scenarios(arguments: argparse.Namespace) -> list[Scenario]:
    """What this run measures, in the suite's order."""
    chosen = []
    for scenario in SCENARIOS:
        if arguments.only:
            is_wanted = any(fnmatch.fnmatch(scenario.name, pattern) for pattern in arguments.only)
        else:
            is_wanted = arguments.full or scenario.is_quick
        if not is_wanted:
            continue
        if not arguments.full and not arguments.only:
            scenario = quickened(scenario)
        if arguments.smoke:
            scenario = dataclasses.replace(quickened(scenario), rounds=1, seconds=0.1)
        if arguments.rounds:
            scenario = dataclasses.replace(scenario, rounds=arguments.rounds)
        chosen.append(with_builds(scenario, arguments.beside))
    return chosen


def with_builds(scenario: Scenario, folders: list[Path]) -> Scenario:
    """The scenario with other builds of pygw behind each of this one."""
    if scenario.kind in MEASURES_ALONE:
        return scenario
    proxies: list[str | Variant] = []
    for proxy, variant in zip(scenario.proxies, scenario.variants(), strict=True):
        proxies.append(proxy)
        if variant.proxy == "pygw":
            proxies += [dataclasses.replace(variant, root=folder.resolve()) for folder in folders]
    return dataclasses.replace(scenario, proxies=tuple(proxies))


def show(sample: Sample) -> str:
    """Its figures, for progress."""
    return ", ".join(f"{name} {value:.4g}" for name, value in sample.items())


def is_late(arguments: argparse.Namespace, seconds: float) -> bool:
    """Whether a run is to hurry after so long: a machine that is busy must not make it endless."""
    minutes = arguments.minutes or (None if arguments.rounds else 15 if arguments.full else 5)
    return minutes is not None and seconds > minutes * 60


class Suite:
    """One run: the backend, the proxies that are up, and what was found."""

    def __init__(self, peers: list[str], folder: Path) -> None:
        self.peers = peers
        self.folder = folder
        self.placement = Placement.choose()
        self.results: Results = {}
        self.reasons: Reasons = {}
        self.failed = False  # pygw, or what is not a peer
        self._up: dict[Variant, Running] = {}
        self._backend = start_program("backend", [], self.placement.load, folder / "backend.log")

    def proxy(self, variant: Variant) -> Running:
        """The running proxy: started where it is not up."""
        if variant not in self._up:
            folder = self.folder / str(len(list(self.folder.iterdir())))
            self._up[variant] = start(variant, self._backend.port, folder, self.placement)
        return self._up[variant]

    def run_alone(self, scenario: Scenario) -> None:
        """A scenario that brings up pygw itself."""
        self._stop(list(self._up))  # idle neighbours would still be woken now and then
        try:
            present = tuple(proxy for proxy in scenario.proxies if self._takes_part(Variant(str(proxy))))
            found = MEASURES_ALONE[scenario.kind](dataclasses.replace(scenario, proxies=present), self.placement)
        except NotMeasurableError as error:
            say(f"  {error}")
            self.reasons[scenario.name] = str(error)
        except BenchError as error:
            self._note_failure(scenario, Variant("pygw"), str(error))
        else:
            self.results[scenario.name] = found
            for label, samples in found.items():
                for sample in samples:
                    say(f"  {label}: {show(sample)}")

    def run(self, scenario: Scenario) -> None:
        """All rounds of a scenario. Who fails is left out of the others, with the reason."""
        began = time.monotonic()
        trouble = build_ghz() if scenario.kind == "ghz" else ""
        if trouble:
            say(f"  {trouble}")
            self.reasons[scenario.name] = trouble
            return
        left = [variant for variant in scenario.variants() if self._takes_part(variant)]
        if scenario.kind == "memory":  # memory that an earlier scenario gave back would be taken again, and not seen
            self._stop(left)
        for number in range(scenario.rounds):
            for variant in list(left):
                try:
                    sample = measure(scenario, variant, self.proxy(variant), self.folder, self.placement)
                except BenchError as error:
                    left.remove(variant)
                    self._note_failure(scenario, variant, str(error))
                else:
                    self.results.setdefault(scenario.name, {}).setdefault(variant.label, []).append(sample)
                    say(f"  {variant.label}, round {number + 1} of {scenario.rounds}: {show(sample)}")
        self._stop([variant for variant in self._up if variant != Variant(variant.proxy)])
        say(f"{scenario.name}: {time.monotonic() - began:.1f} s")

    def _takes_part(self, variant: Variant) -> bool:
        return variant.proxy == "pygw" or (variant.proxy in self.peers and variant.proxy not in self.reasons)

    def _note_failure(self, scenario: Scenario, variant: Variant, text: str) -> None:
        say(f"  {variant.label}: {text}")
        last = text.strip().splitlines()[-1] if text.strip() else "it failed"
        self.results.get(scenario.name, {}).pop(variant.label, None)  # half of the rounds would not be interleaved
        self.reasons[f"{scenario.name}/{variant.label}"] = last
        self.failed |= variant.proxy in ("pygw", "tcp")
        self._stop([variant])  # it may be in any state

    def _stop(self, variants: list[Variant]) -> None:
        for variant in variants:
            if variant in self._up:
                self._up.pop(variant).stop()

    def close(self) -> None:
        """Ends all that was started."""
        self._stop(list(self._up))
        self._backend.stop()


def find_peers(wanted: list[str] | None, reasons: Reasons, *, is_full: bool) -> list[str]:
    """The peers that can be measured; the others' reasons are noted."""
    peers = [name for name in wanted or PROXIES if name != "pygw"]
    trouble = install_peers() if set(peers) & set(WHEELS) else ""
    unbuilt = "it is built in a full run, or where --peers names it"
    if "pingora" in peers and (is_full or wanted):
        unbuilt = build_pingora()
    for name in set(PROXIES) - {"tcp", "pygw"}:
        why = unbuilt if name == "pingora" else trouble or f"{name} is not installed"
        if name not in peers:
            reasons[name] = "left out by --peers"
        elif find_program(name) is None:
            reasons[name] = why
            say(f"{name}: {reasons[name]}")
    return peers


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:22}{'quick ' if scenario.is_quick else '      '}{scenario.title}")
        return 0
    scenarios = chosen_scenarios(arguments)
    compile_programs()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pygw-bench-") as path:
        reasons: Reasons = {}
        peers = find_peers(arguments.peers, reasons, is_full=arguments.full)
        suite = Suite(peers, Path(path))
        suite.reasons |= reasons
        try:
            for number, scenario in enumerate(scenarios):
                if is_late(arguments, time.monotonic() - began) and scenario.rounds > 1:
                    say("late: one round of each from here on")
                    scenario = dataclasses.replace(scenario, rounds=1)
                say(f"[{number + 1}/{len(scenarios)}] {scenario.name}: {scenario.title}")
                if scenario.kind in MEASURES_ALONE:
                    suite.run_alone(scenario)
                else:
                    suite.run(scenario)
        finally:
            suite.close()
    say(f"{time.monotonic() - began:.0f} s in all")
    text, verdicts = page.goals(scenarios, suite.results, suite.reasons)
    print(text)
    if not arguments.no_page:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        command = "python -m bench " + shlex.join(sys.argv[1:])
        written = page.write(arguments.output, today, command.strip(), scenarios, suite.results, suite.reasons)
        say(f"written: {os.path.relpath(written)}")
    if suite.failed:
        return 1
    return 3 if arguments.strict and False in verdicts else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
