"""What every test needs: a warning when the compiled modules are stale, and an account of what was not run."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]

# Before any test imports grpcio: it would report its own starts, stops and forks on the terminal.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("pygw", deadline=None)
hypothesis.settings.load_profile("pygw")

# A shell starts what it runs in the background with SIGINT ignored, and gateways would inherit that from us.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WHY_NOT = {
    "full": "need Go programs that `make tools` installs; `make test-full` runs them",
    "slow": "take more than a few seconds each; `make test-full` runs them",
}
_left_out: pytest.StashKey[Counter[str]] = pytest.StashKey()


def stale_modules(root: Path = ROOT) -> list[str]:
    """The .pyx files of pygw that are newer than what was compiled of them, or were never compiled."""
    compiled = max((path.stat().st_mtime for path in (root / "pygw").glob("_compiled.*.so")), default=0.0)
    return [
        str(source.relative_to(root))
        for source in sorted((root / "pygw").rglob("*.pyx"))
        if any(path.stat().st_mtime > compiled for path in (source, source.with_suffix(".pxd")) if path.exists())
    ]


def pytest_report_header() -> list[str]:
    stale = stale_modules()
    return [f"NOT COMPILED AS THEY ARE NOW (run: make build): {', '.join(stale)}"] if stale else []


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_left_out] = Counter()


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in WHY_NOT:
            if item.get_closest_marker(mark):
                item.config.stash[_left_out][mark] += 1
                break


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash[_left_out]
    if not left_out:
        return
    terminalreporter.section("not run here")
    for mark, count in sorted(left_out.items()):
        terminalreporter.line(f"{count} tests marked {mark}: they {WHY_NOT[mark]}")
