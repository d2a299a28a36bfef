"""Load at a given rate (open_load.c) and a backend that is not the bottleneck (bench/programs/backend.c), both in C."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOAD_OCTETS = 3000  # of the field x-load
BENCH = ROOT / "bench" / "programs"


@dataclass(frozen=True)
class Phase:
    """How the calls of one phase ended."""

    offered: int
    good: int
    shed: int
    failed: int
    p50_us: int
    p99_us: int
    last_shed_ms: int  # since the phase began; -1: none was shed


def program(source: Path) -> Path:
    """The program compiled of a C file, anew where that has changed."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) is on the PATH")
    target = ROOT / "build" / "tests" / source.stem
    target.parent.mkdir(parents=True, exist_ok=True)
    newest = max(source.stat().st_mtime, (BENCH / "h2.h").stat().st_mtime)
    if not target.exists() or target.stat().st_mtime < newest:
        command = [compiler, "-D_GNU_SOURCE", "-O2", "-Wall", "-Werror", f"-I{BENCH}", "-o", str(target), str(source)]
        subprocess.run(command, check=True)
    return target


@contextlib.asynccontextmanager
async def backend() -> AsyncIterator[int]:
    """A running backend; its port."""
    process = await asyncio.create_subprocess_exec(
        program(BENCH / "backend.c"), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def load(port: int, *phases: str, authority: str, path: str, connections: int = 16) -> list[Phase]:
    """Send the calls of all phases (RATE:SECONDS, =OPEN:SECONDS) and wait until they have ended."""
    source = Path(__file__).with_name("open_load.c")
    arguments = [str(port), str(connections), str(LOAD_OCTETS), authority, path, *phases]
    process = await asyncio.create_subprocess_exec(program(source), *arguments, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    assert process.returncode == 0, "open_load failed; its standard error says why"
    return [Phase(**json.loads(line)) for line in told.decode().splitlines()]
