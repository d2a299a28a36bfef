"""`python -m tests.soak --minutes 60`: prints the figures; exit code 1 where something grew or a call failed."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would report each fault that we make

from tests.soak.soak import run  # noqa: E402: grpc reads the variable when it is imported

parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
parser.add_argument("--minutes", type=float, default=60.0, help="default 60")
arguments = parser.parse_args()
with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "config").mkdir()
    wrong = run(arguments.minutes, Path(folder) / "config")
print("\n".join(wrong) or "all flat, no call failed")
raise SystemExit(bool(wrong))
