"""Finds the Cython modules, all of which are in one shared object.

Sixty objects of their own would spread what a call runs through over many more pages of memory (docs/performance.md).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType

from pygw import _compiled


class CompiledFinder:
    """For sys.meta_path: a module of the shared object is known by PyInit_NAME there (PEP 489)."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where the module is; None if it is not one of ours."""
        if name not in _compiled.MODULES:
            return None
        return spec_from_file_location(name, _compiled.__file__, loader=ExtensionFileLoader(name, _compiled.__file__))


def find_modules() -> None:
    """Let Python import them: behind all other finders."""
    if CompiledFinder not in sys.meta_path:
        sys.meta_path.append(CompiledFinder)
