"""What a case is, what comes of it, and the list of all. Knows no proxy and no protocol.

A case is a function of a Rig that raises CaseError, by expect(), where the proxy did not do what it must.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rig import Rig

GROUPS = ("floods", "slow", "protocol", "headers", "backend", "grpc", "drain")

AGAIN = 5.0  # seconds until what hangs while it cleans up is interrupted as well


class CaseError(Exception):
    """The proxy did not do what the case asks; the text says what it did."""


class CaseTimeoutError(Exception):
    """The case did not end. Neither a CaseError nor an OSError, which cases catch."""


class NotApplicableError(Exception):
    """The proxy has nothing that the case is about; the text says what."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `about` is what must hold, in a sentence."""

    group: str
    name: str
    run: Callable[[Rig], None]
    about: str
    is_waiting: bool = False  # it does next to nothing meanwhile, so that others of the kind may run beside it

    @property
    def id(self) -> str:
        """How the command line and pytest name it."""
        return f"{self.group}/{self.name}"


@dataclass(slots=True)
class Outcome:
    """What came of a case with one proxy; `passed` is None where the case does not apply."""

    proxy: str
    group: str
    name: str
    passed: bool | None
    reason: str = ""
    seconds: float = 0.0
    measures: dict[str, Any] = field(default_factory=dict)


CASES: list[Case] = []


def add(group: str, name: str, run: Callable[[Rig], None], about: str, is_waiting: bool = False) -> None:
    """Put a case on the list. For cases that are rows of a table; a single one is declared by @case."""
    assert group in GROUPS, group
    assert all((other.group, other.name) != (group, name) for other in CASES), f"{group}/{name} is there twice"
    CASES.append(Case(group, name, run, about, is_waiting))


def case(group: str, name: str) -> Callable[[Callable[[Rig], None]], Callable[[Rig], None]]:
    """Declare a function as a case; its docstring says what must hold."""

    def declare(run: Callable[[Rig], None]) -> Callable[[Rig], None]:
        add(group, name, run, (run.__doc__ or "").strip())
        return run

    return declare


def expect(holds: object, otherwise: str) -> None:
    """Raise CaseError where the first is not true."""
    if not holds:
        raise CaseError(otherwise)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise CaseTimeoutError in the body where it has not ended by then. For the main thread (signal.setitimer)."""

    def interrupt(*_: object) -> None:
        raise CaseTimeoutError(f"it did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
