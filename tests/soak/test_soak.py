"""The soak as a test: short, so it finds what grows quickly. An hour by hand: `python -m tests.soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import Figures, run


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_grows_and_no_call_fails(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    wrong = run(1.5, folder)
    assert not wrong, "\n".join(wrong)


def test_growth_is_found() -> None:
    figures = Figures()
    for step in range(30):
        figures.add("PSS KiB of worker 0", step / 30, 20_000 + 300 * step)
        figures.add("PSS KiB of worker 1", step / 30, 20_000 + 300 * min(step, 8))
        figures.add("descriptors of control", step / 30, 30 + 2 * step)
        figures.add("series", step / 30, 100 + (step > 20))
    assert [fault.split(" grew")[0] for fault in figures.faults()] == [
        "PSS KiB of worker 0", "descriptors of control", "series",
    ]  # fmt: skip
