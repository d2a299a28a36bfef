"""One fuzzing process: `python -m tests.fuzz.runner TARGET [options of libFuzzer] [folders]`.

Started by tests/fuzz/__main__.py, in the instrumented copy and with atheris' sanitizer runtime preloaded.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

from tests.fuzz import targets


def main() -> None:
    # The compiled modules have their counters built in; this adds ours of plain Python. Other packages do not count.
    with atheris.instrument_imports(include=["pygw"]):
        target = targets.load(sys.argv[1])
    # libFuzzer starts itself anew for a merge, by a shell and what it takes for the name of its program.
    program = f"{sys.executable} -m tests.fuzz.runner {sys.argv[1]}"
    atheris.Setup([program, *sys.argv[2:]], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
