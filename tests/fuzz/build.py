"""The copy of the tree that is fuzzed: build/fuzz, compiled by clang with coverage counters, ASan and UBSan."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPY = ROOT / "build" / "fuzz"
COMPILERS = ("clang", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14")
NAMES = ("pygw", "tests", "examples", "setup.py", "pyproject.toml")
MADE = shutil.ignore_patterns("*.so", "*.c", "*.cpp", "__pycache__", ".*")
# What the targets run; the relay has its own tests under sanitizers.
COMPILED = ("pygw/http2/*.pyx", "pygw/match/*.pyx", "pygw/*.pyx")

# No leaks: an interpreter never frees all of its own, and the targets count what they must give back.
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "PYTHONMALLOC": "malloc",
}


def compiler() -> str | None:
    """A clang, or None."""
    return next((path for path in map(shutil.which, COMPILERS) if path), None)


def runtime() -> Path | None:
    """libFuzzer, ASan and UBSan in one library, which comes with atheris; None without it."""
    found = importlib.util.find_spec("atheris")
    path = Path(found.origin).parents[1] / "asan_with_fuzzer.so" if found and found.origin else None
    return path if path and path.exists() else None


def why_not() -> str:
    """Why nothing can be fuzzed here; "" where it can."""
    if compiler() is None:
        return "no clang (Debian: clang and libclang-rt-dev)"
    if runtime() is None:
        return "no atheris for this Python (pip install atheris; its wheels are for Linux and macOS)"
    return ""


def build() -> None:
    """Copy what changed and compile it."""
    for name in NAMES:
        _copy(ROOT / name, COPY / name)
    clang = compiler()
    assert clang is not None
    sources = [str(path.relative_to(COPY)) for pattern in COMPILED for path in COPY.glob(pattern)]
    settings = {
        "CC": clang, "LDSHARED": f"{clang} -shared", "PYGW_DEBUG": "1", "PYGW_FUZZ": "1",
        "PYGW_ONLY": ",".join(sources),
    }  # fmt: skip
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=COPY, env=os.environ | settings, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"fuzz: cannot be built:\n{done.stdout}{done.stderr}")


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, times kept, so that what did not change is not compiled again."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        entries = os.listdir(source)
        for name in set(entries) - MADE(str(source), entries):
            _copy(source / name, target / name)
    elif not target.exists() or source.stat().st_mtime != target.stat().st_mtime:
        shutil.copy2(source, target)


def environment() -> dict[str, str]:
    """Of a process that fuzzes."""
    return os.environ | SANITIZERS | {"LD_PRELOAD": str(runtime()), "PYTHONPATH": str(COPY)}
