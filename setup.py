"""Builds the Cython modules: every pygw/**/*.pyx, one extension each. All else is in pyproject.toml.

PYGW_DEBUG=1 switches bounds checks and assertions on; PYGW_SANITIZE=1 adds AddressSanitizer and
UndefinedBehaviorSanitizer; PYGW_FUZZ=1 (with CC=clang) beside them the coverage counters of libFuzzer, whose runtime
must be preloaded; PYGW_ONLY=a.pyx,b.pyx builds only those (for quick work on one module).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("PYGW_DEBUG") == "1"
FUZZ = os.environ.get("PYGW_FUZZ") == "1"
SANITIZE = FUZZ or os.environ.get("PYGW_SANITIZE") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": not DEBUG,
    "always_allow_keywords": True,
}

compile_args = ["-O1", "-g"] if DEBUG or SANITIZE else ["-O2", "-g0", "-fvisibility=hidden"]
link_args = []
if SANITIZE:
    flags = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    compile_args += flags
    link_args += flags
if FUZZ:
    compile_args += ["-fsanitize=fuzzer-no-link", "-fno-sanitize-recover=undefined"]

chosen = os.environ.get("PYGW_ONLY")
sources = sorted(chosen.split(",") if chosen else map(str, Path("pygw").rglob("*.pyx")))
extensions = [
    Extension(
        source.removesuffix(".pyx").replace("/", "."),
        [source],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for source in sources
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives=DIRECTIVES,
        nthreads=0 if len(sources) == 1 else os.cpu_count() or 1,
        emit_linenums=DEBUG,
    )
)
