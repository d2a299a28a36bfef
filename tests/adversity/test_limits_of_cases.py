"""The harness itself: a case that hangs and a proxy that does not start have failed, and the cases behind them run."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from .__main__ import run_on_rigs
from .case import Case, CaseError, CaseTimeoutError, limited
from .proxies import Program


class Rig:
    """What run_on_rigs() needs of one."""

    def __init__(self) -> None:
        self.program = Program("some")
        self.measures: dict[str, Any] = {}
        self.is_broken = self.stopped = False

    def prepare(self) -> None:
        """Nothing to do."""

    def check_alive(self) -> None:
        """It lives."""

    def stop(self) -> None:
        """Note it."""
        self.stopped = True


def passes(_: object) -> None:
    """A case."""


def fails(_: object) -> None:
    """Another."""
    raise CaseError("so it is")


def hangs(_: object) -> None:
    """A case whose cleaning up hangs too."""
    try:
        threading.Event().wait()
    finally:
        threading.Event().wait()


def cases(*runs: Any) -> list[Case]:
    """One of each."""
    return [Case("floods", run.__name__, run, "") for run in runs]


def test_a_case_that_hangs_has_failed_and_the_next_gets_another_rig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.adversity.case.AGAIN", 0.01)
    rigs: list[Any] = []

    def start(_: int) -> Any:
        rigs.append(Rig())
        return rigs[-1]

    outcomes = list(run_on_rigs(start, "some", cases(passes, hangs, fails, passes), 0.05))
    assert [outcome.passed for outcome in outcomes] == [True, False, False, True]
    assert "did not end within 0.05 s" in outcomes[1].reason
    assert [rig.is_broken for rig in rigs] == [True, False]
    assert all(rig.stopped for rig in rigs)


def test_a_proxy_that_does_not_start_fails_its_cases() -> None:
    def start(_: int) -> Any:
        raise RuntimeError("no such port")

    outcomes = list(run_on_rigs(start, "some", cases(passes, fails)))
    assert [outcome.passed for outcome in outcomes] == [False, False]
    assert all("no such port" in outcome.reason for outcome in outcomes)


def test_a_limit_is_over_with_its_body() -> None:
    with pytest.raises(CaseTimeoutError), limited(0.01):
        threading.Event().wait()
    with limited(0.01):
        pass
    assert not threading.Event().wait(0.03)
