"""Every case of tests/adversity against pygw, in short attacks. What each asks: `python -m tests.adversity --list`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .case import Case, NotApplicableError
from .cases import CASES
from .proxies import Program, find
from .rig import RIGS, LoadRig, ScriptRig

SECONDS = 0.2
HANDSHAKE_TIMEOUT = 1.0
# A busy machine is slow; how long it takes with the default is measured by `python -m tests.adversity`.
HALF_OPEN = 5.0
# No measure, but neither is it a hang.
P99_MS = 5000.0
CPU_SLACK = 10.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def program() -> Program:
    pygw = find("pygw")
    return Program(pygw.name, pygw.path, arguments=(
        "--set", f"handshake_timeout={HANDSHAKE_TIMEOUT}", "--set", f"frame_timeout={HANDSHAKE_TIMEOUT}",
    ))


@pytest.fixture(scope="module")
def rigs(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[type, ScriptRig | LoadRig]]:
    """One of each kind, for all cases: a case leaves nothing behind, or the next one tells."""
    started: dict[type, ScriptRig | LoadRig] = {}
    try:
        for kind in (ScriptRig, LoadRig):
            folder = tmp_path_factory.mktemp(kind.__name__)
            started[kind] = kind(
                program, folder, seconds=SECONDS, half_open=HALF_OPEN, p99_ms=P99_MS, cpu_slack=CPU_SLACK
            )
        yield started
    finally:
        for rig in started.values():
            rig.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(case: Case, rigs: dict[type, ScriptRig | LoadRig]) -> None:
    rig = rigs[RIGS[case.group]]
    rig.prepare()
    try:
        case.run(rig)
    except NotApplicableError as reason:
        pytest.fail(f"pygw must do it: {reason}")
    rig.check_alive()
