"""A plugin of pytest for tests/tools/sanitize.sh: a report of any process fails the test in which it came.

Reports of this process and of the gateways that tests start are in REPORTS_OF_SANITIZERS (log_path of the sanitizers).
In the end LeakSanitizer looks for memory that nothing points to any more. An interpreter leaves some of its own; what
counts is what one of our modules has allocated itself.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

_REPORTS = Path(os.environ["REPORTS_OF_SANITIZERS"])
_LEAK = re.compile(r"^(?:Direct|Indirect) leak of .*?(?=^\s*$|\Z)", re.MULTILINE | re.DOTALL)
_OWNER = re.compile(r"^\s*#1 .*\bpygw/.*$", re.MULTILINE)  # #0 is malloc() itself
_seen: set[Path] = set()


def _new_reports() -> list[Path]:
    """Reports that no test has failed for yet."""
    found = [path for path in sorted(_REPORTS.iterdir()) if path not in _seen]
    _seen.update(found)
    return found


def leaks_of(report: str) -> Iterator[str]:
    """The leaks in a report of LeakSanitizer that are ours."""
    for leak in _LEAK.findall(report):
        if _OWNER.search(leak):
            yield leak


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test in whose time a process reported something has failed."""
    report = yield
    if call.when == "teardown" and (found := _new_reports()):
        report.outcome = "failed"
        report.longrepr = "\n".join(path.read_text(errors="replace") for path in found)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look for leaks of this process, where the sanitizer can."""
    _new_reports()
    check = ctypes.CDLL(None).__lsan_do_recoverable_leak_check
    check()
    leaks = [leak for path in _new_reports() for leak in leaks_of(path.read_text(errors="replace"))]
    for path in _seen:
        if "LeakSanitizer" in path.read_text(errors="replace"):
            path.unlink()  # the interpreter's own
    if leaks:
        (_REPORTS / "leaks").write_text("\n".join(leaks))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
