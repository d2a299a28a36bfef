"""Programs that are built from source where their compilers are: ghz (Go) and the Pingora proxy (Rust).

Each function returns why its program cannot be had, or nothing; what is there and newer than its sources stays.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.processes import BUILD, PROGRAMS, ROOT, say

GHZ, PINGORA = BUILD / "ghz", BUILD / "pingora"
GHZ_SOURCES = PROGRAMS / "ghz"
PINGORA_SOURCES = Path(__file__).parent / "peers" / "pingora"
TIMEOUT = 1200  # seconds: Pingora's 190 crates take some minutes on one slow core


def build_ghz() -> str:
    """ghz, whose client is grpc-go's."""
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(GHZ), "github.com/bojand/ghz/cmd/ghz"]
    return _build(GHZ, GHZ_SOURCES, ["go.mod", "go.sum"], command, "install Go from https://go.dev/dl/")


def build_pingora() -> str:
    """The proxy that is written with Pingora."""
    target = BUILD / "cargo"
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--target-dir", str(target)]
    sources = ["main.rs", "Cargo.toml", "Cargo.lock"]
    trouble = _build(target / "release" / "pingora", PINGORA_SOURCES, sources, command,
                     "install Rust from https://rustup.rs/")
    if not trouble:
        shutil.copy2(target / "release" / "pingora", PINGORA)
    return trouble


def _build(program: Path, folder: Path, sources: Sequence[str], command: Sequence[str], advice: str) -> str:
    """Runs the command in the folder of the sources, where one of them is newer than the program."""
    if program.exists() and program.stat().st_mtime > max((folder / name).stat().st_mtime for name in sources):
        return ""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]} on the PATH to build it: {advice}"
    say(f"building {program.name} from {folder.relative_to(ROOT)}")
    program.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False,
                              env=os.environ | {"CGO_ENABLED": "0"})
    except subprocess.TimeoutExpired:
        return f"{program.name} was not built within {TIMEOUT} s"
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["no reason given"]
        return f"{program.name} was not built: {last[0]}"
    program.touch()  # an unchanged program keeps its date, though a source is newer
    return ""
