"""Every seed and every kept input once more, by the ordinary build: seconds, in every run of the tests."""

from __future__ import annotations

import pytest

from tests.fuzz import corpora, targets


@pytest.mark.parametrize("name", targets.NAMES)
def test_kept_inputs(name: str) -> None:
    target = targets.load(name)
    kept = corpora.read(name)
    assert kept, f"tests/fuzz/corpus/{name}.txt has no inputs"
    for octets in [*target.SEEDS, *kept]:
        try:
            target.check(octets)
        except BaseException as error:
            error.add_note(f"input: {octets.hex()}")
            raise
