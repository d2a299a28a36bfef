"""The rig's command line: `python -m tests.conformance COMMAND`, as root, in the project's root; --help says more."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pygw.errors import UsageError
from tests.conformance.rig import gateway, stub, suite, tools
from tests.conformance.rig.cluster import Cluster, class_object

REPORT = Path(__file__).parent / "report.yaml"
EPILOG = """environment:
  CONFORMANCE_DIR  where the programs are built and rigs keep their state; default .tools/conformance
  RIG_NAME         name of the rig, its network namespace and its folder; default pygw-rig
"""


def main() -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args()
    command: Callable[[argparse.Namespace], int] = options.command
    # So that `finally` takes down what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return command(options)
    except UsageError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.conformance",
        description="A Kubernetes control plane in a network namespace, and the Gateway API conformance suite on it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    everything = add("all", run_all, "build, up, suite, the tests marked cluster, down: what `make conformance` does")
    add("build", build, "build the Go programs where they are missing or old")
    up = add("up", bring_up, "start etcd, API server, controllers, node and CRDs; they stay")
    up.add_argument("channel", nargs="?", choices=("standard", "experimental"), default="standard")
    add("down", take_down, "end everything")
    add("status", show_status, "what runs")
    add("gateway", start_gateway, "start `pygw run --kubernetes` in the rig, in the background").add_argument(
        "arguments", nargs=argparse.REMAINDER, help="further options of pygw run"
    )
    suites = add("suite", run_suite, "run the suite against the gateway that runs in the rig")
    suites.add_argument("arguments", nargs=argparse.REMAINDER, help="after --: flags of the suite, as -run-test NAME")
    for sub in (everything, suites):
        sub.add_argument("--runs", type=int, default=1, metavar="N", help="run the suite N times; default 1")
        sub.add_argument("--report", type=Path, default=REPORT, help=f"default {REPORT.relative_to(tools.ROOT)}")
    everything.add_argument("--no-tests", action="store_true", help="the suite alone")
    add("tests", run_tests, "run the tests marked cluster in the rig").add_argument(
        "arguments", nargs=argparse.REMAINDER, help="after --: arguments of pytest, instead of tests/conformance"
    )
    add("control", run_control, "the negative control: the suite against a stub, which must fail as expected")
    add("exec", execute, "run a program inside the rig, with KUBECONFIG set").add_argument(
        "arguments", nargs=argparse.REMAINDER
    )
    add("kubectl", kubectl, "kubectl as the cluster's admin").add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


# ===== commands =====


def build(_: argparse.Namespace) -> int:
    tools.build()
    return 0


def bring_up(options: argparse.Namespace) -> int:
    cluster = Cluster()
    print(f"up in {cluster.up(options.channel):.0f} s; inside the namespace: KUBECONFIG={cluster.kubeconfig}")
    return 0


def take_down(_: argparse.Namespace) -> int:
    Cluster().down()
    return 0


def show_status(_: argparse.Namespace) -> int:
    cluster = Cluster()
    print(f"rig {cluster.name}, folder {cluster.folder}")
    for file in sorted(cluster.folder.glob("*.pid")):
        print(f"  {file.stem}: {'runs' if cluster.is_running(file.stem) else 'has ended'}")
    return 0 if cluster.is_up() else 1


def start_gateway(options: argparse.Namespace) -> int:
    gateway.start(_running(), *_after_dashes(options.arguments))
    return 0


def run_suite(options: argparse.Namespace) -> int:
    return _suite(_running(), options.runs, options.report, _after_dashes(options.arguments))


def run_tests(options: argparse.Namespace) -> int:
    return _tests(_running(), _after_dashes(options.arguments))


def execute(options: argparse.Namespace) -> int:
    cluster = _running()
    command = cluster.namespace.command(*_after_dashes(options.arguments))
    os.execvpe(command[0], command, cluster.environment())


def kubectl(options: argparse.Namespace) -> int:
    cluster = _running()
    command = cluster.namespace.command(*tools.kubebox("kubectl"), *_after_dashes(options.arguments))
    os.execvpe(command[0], command, cluster.environment())


def run_control(_: argparse.Namespace) -> int:
    """The suite against the stub: wrong when it passes more than the stub can, or less."""
    cluster = _running()
    cluster.kubectl_apply(class_object("negative-control", stub.CONTROLLER))
    cluster.start_process("stub", [sys.executable, "-m", "tests.conformance.rig.stub"], cwd=tools.ROOT)
    try:
        flags = ["-supported-features", "Gateway,GRPCRoute,ReferenceGrant"]
        flags += ["-timeout-config-overrides", ";".join(f"{name}:{stub.PATIENCE}" for name in stub.WAITS)]
        folder = cluster.folder
        outcome = suite.run(cluster, "negative-control", folder / "control.yaml", folder / "control.log", flags)
    finally:
        cluster.stop("stub")
    print(outcome.summary())
    passed = {name for name in outcome.of_kind("core") if outcome.results.get(name) == "PASS"}
    print("passed:", *sorted(passed))
    return 0 if passed == stub.PASSES else 1


def run_all(options: argparse.Namespace) -> int:
    """Everything, and the rig taken down whatever happens."""
    tools.build()
    cluster = Cluster()
    print(f"rig {cluster.name}: up in {cluster.up():.0f} s", flush=True)
    try:
        gateway.start(cluster)
        failed = _suite(cluster, options.runs, options.report, [])
        gateway.stop(cluster)
        if not options.no_tests:
            failed = _tests(cluster, []) or failed
        return failed
    finally:
        cluster.down()


# ===== parts =====


def _suite(cluster: Cluster, runs: int, report: Path, flags: list[str]) -> int:
    failed = 0
    for number in range(1, runs + 1):
        folder = cluster.folder
        log, written = folder / f"suite-{number}.log", folder / f"report-{number}.yaml"
        outcome = suite.run(cluster, gateway.CLASS_NAME, written, log, flags)
        print(f"run {number} of {runs}: " if runs > 1 else "", outcome.summary(), sep="", flush=True)
        failed = failed or int(outcome.exit_code != 0 or (not flags and bool(outcome.not_run())))
        if written.exists() and not flags:  # a part of the suite is no report
            shutil.copyfile(written, report)
    return failed


def _tests(cluster: Cluster, arguments: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-m", "cluster", *(arguments or ["tests/conformance"])]
    return subprocess.run(cluster.namespace.command(*command), cwd=tools.ROOT, env=cluster.environment()).returncode


def _running() -> Cluster:
    cluster = Cluster()
    if not cluster.is_up():
        raise UsageError(f"no rig {cluster.name} runs: python -m tests.conformance up")
    return cluster


def _after_dashes(arguments: list[str]) -> list[str]:
    return arguments[1:] if arguments[:1] == ["--"] else arguments


if __name__ == "__main__":
    sys.exit(main())
