"""The real control process with a quicker sign of life: `python -m tests.doubles.control`."""

import os

from pygw import child
from pygw.control.main import main

if __name__ == "__main__":
    child.ALIVE_INTERVAL = float(os.environ["TEST_ALIVE_INTERVAL"])
    raise SystemExit(main())
