"""`python -m tests.fuzz.replay TARGET FILE...`: runs single inputs without the fuzzer, on the build it finds.

In build/fuzz, with the environment of tests/fuzz/build.py, that is the one with sanitizers: `--sanitized` does so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import build, targets


def main() -> int:
    arguments = sys.argv[1:]
    if "--sanitized" in arguments:
        arguments.remove("--sanitized")
        files = [str(Path(file).resolve()) for file in arguments[1:]]
        os.chdir(build.COPY)
        command = [sys.executable, "-m", "tests.fuzz.replay", arguments[0], *files]
        os.execve(command[0], command, build.environment())
    if len(arguments) < 2 or arguments[0] not in targets.NAMES:
        print(f"usage: python -m tests.fuzz.replay [--sanitized] TARGET FILE... ({', '.join(targets.NAMES)})")
        return 2
    target = targets.load(arguments[0])
    for file in arguments[1:]:
        target.check(Path(file).read_bytes())
        print(f"{file}: nothing wrong")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
