"""Runs the official conformance suite against the gateway in a rig, and counts what `go test` says of each test."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pygw
from tests.conformance.rig import tools
from tests.conformance.rig.cluster import Cluster

PROFILE = "GATEWAY-GRPC"
# All of 10.245.0.0/16 can be bound in a rig; 192.0.2.0/24 (TEST-NET-1, RFC 5737) is nobody's.
USABLE_ADDRESS, UNUSABLE_ADDRESS = "10.245.2.1", "192.0.2.1"
SUITE_NAMESPACES = ("gateway-conformance-infra", "gateway-conformance-app-backend", "gateway-conformance-web-backend")
LONGEST_RUN = "45m"
_RESULT = re.compile(r"^\s*--- (PASS|FAIL|SKIP): TestConformance/([^/\s]+) \(([\d.]+)s\)")


@dataclass(slots=True)
class Outcome:
    """How one run ended; `results` has PASS, FAIL or SKIP of each test that ran."""

    exit_code: int
    seconds: float
    log: Path
    report: Path
    counted: dict[str, dict[str, str]]  # test: profile: core or extended
    results: dict[str, str] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[str]:
        """The tests that count as "core" or as "extended" for the profile, whether they ran or not."""
        return [name for name, profiles in self.counted.items() if profiles.get(PROFILE) == kind]

    def passed(self, kind: str) -> int:
        return sum(self.results.get(name) == "PASS" for name in self.of_kind(kind))

    def failures(self) -> list[str]:
        return sorted(name for name, result in self.results.items() if result == "FAIL")

    def not_run(self) -> list[str]:
        """Tests of the profile that the suite skipped: their features are not claimed."""
        wanted = [*self.of_kind("core"), *self.of_kind("extended")]
        return sorted(name for name in wanted if self.results.get(name, "SKIP") == "SKIP")

    def summary(self) -> str:
        """What a person wants to know, in a few lines."""
        counts = ", ".join(f"{kind} {self.passed(kind)}/{len(self.of_kind(kind))}" for kind in ("core", "extended"))
        beside = [name for name in self.results if PROFILE not in self.counted.get(name, {})]
        lines = [f"{PROFILE}: {counts}, {self.seconds:.1f} s"]
        passed_beside = sorted(name for name in beside if self.results[name] == "PASS")
        if passed_beside:
            lines.append(f"  passed beside the profile: {', '.join(passed_beside)}")
        if self.not_run():
            lines.append(f"  not run (feature not claimed): {', '.join(self.not_run())}")
        lines += [f"  FAILED: {name}" for name in self.failures()]
        if self.exit_code and not self.failures():
            lines += [f"  the suite ended with {self.exit_code}; the end of {self.log}:", *self._end_of_log()]
        return "\n".join(lines)

    def _end_of_log(self) -> list[str]:
        return ["    " + line for line in self.log.read_text(errors="replace").splitlines()[-15:]]


def run(cluster: Cluster, class_name: str, report: Path, log: Path, flags: Sequence[str] = ()) -> Outcome:
    """One run of the profile, with the features that the class's status claims unless `flags` name some.

    Waits first, uncounted, until the namespaces of an earlier run are gone: nothing can be created in one that
    terminates.
    """
    cluster.kubectl("delete", "namespace", "--ignore-not-found", "--timeout=180s", *SUITE_NAMESPACES)
    report.unlink(missing_ok=True)
    command = [
        str(tools.program("conformance.test")),
        *("-test.run", "^TestConformance$", "-test.v", "-test.timeout", LONGEST_RUN),
        *("-gateway-class", class_name, "-conformance-profiles", PROFILE, "-report-output", str(report)),
        *("-usable-address", USABLE_ADDRESS, "-unusable-address", UNUSABLE_ADDRESS),
        *("-organization", "pygw", "-project", "pygw", "-url", "https://pygw.dev", "-version", pygw.__version__),
        *("-contact", "https://pygw.dev/contact"),
        *flags,
    ]
    start = time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            cluster.namespace.command(*command),
            cwd=cluster.folder,
            env=cluster.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    seconds = time.monotonic() - start
    results = results_in(log.read_text(errors="replace"))
    return Outcome(done.returncode, seconds, log, report, counted_tests(cluster.folder), results)


def results_in(log: str) -> dict[str, str]:
    """PASS, FAIL or SKIP of each test of the suite, as `go test -v` printed them when each had ended."""
    return {found[2]: found[1] for line in log.splitlines() if (found := _RESULT.match(line))}


def counted_tests(folder: Path) -> dict[str, dict[str, str]]:
    """Which test of the linked suite counts for which profile, and as what."""
    target = folder / "tests.json"
    command = [str(tools.program("conformance.test")), "-test.run", "^TestList$", "-list-output", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    entries = json.loads(target.read_text())
    return {name: entry["profiles"] for name, entry in entries.items()}
