"""The fuzz targets, one a file. Each has

check(data): raises (or crashes under sanitizers) where something is wrong with what `data` makes pygw do;
SEEDS: inputs to begin with; WORDS: octets that inputs are made of.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

NAMES = ("frames", "hpack", "fields", "connection", "documents")


class Target(Protocol):
    """What a module of this package has."""

    SEEDS: Sequence[bytes]
    WORDS: Sequence[bytes]

    def check(self, data: bytes) -> None: ...


def load(name: str) -> Target:
    """The target of this name."""
    return cast(Target, importlib.import_module(f"{__name__}.{name}"))
