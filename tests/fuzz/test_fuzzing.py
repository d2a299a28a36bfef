"""A few seconds of fuzzing each target, where there is a clang and atheris."""

from __future__ import annotations

import pytest

from tests.fuzz import build, targets
from tests.fuzz.__main__ import fuzz

SECONDS = 5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def _built() -> None:
    if reason := build.why_not():
        pytest.skip(f"nothing is fuzzed: {reason}")
    build.build()


@pytest.mark.usefixtures("_built")
@pytest.mark.timeout(900)  # the first build takes minutes
@pytest.mark.parametrize("name", targets.NAMES)
def test_nothing_is_found_in_seconds(name: str) -> None:
    outcome = fuzz(name, SECONDS, keep=False, quiet=True)
    assert not outcome.failed, f"found: see {build.COPY}/found; its report is above"
    assert outcome.executions > 100
    assert outcome.edges > 100
    print(f"\n{name}: {outcome}")
