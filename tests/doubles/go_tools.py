"""The Go programs of `make tools`, which some tests need."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.doubles.gateway import ROOT


def go_tool(name: str) -> Path:
    """Where the program is; skips the test, with the reason, where it is not."""
    program = ROOT / ".tools" / "bin" / name
    if not program.exists():
        pytest.skip(f"{name} is not in .tools/bin: `make tools` builds it where Go is installed")
    return program


def run(program: Path, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=timeout)
