"""A control process whose source hangs in its thread while a file (TEST_HANG) is there, as on a file system that does
not answer; a double of pygw.control.main for tests/doubles/launcher.py."""

from __future__ import annotations

import os
import time

from pygw.control import main
from pygw.control.yaml_source import LoadResult, YamlSource

_read = YamlSource.read


def read(source: YamlSource) -> LoadResult:
    """As the original, once the file is gone."""
    while os.path.exists(os.environ["TEST_HANG"]):
        time.sleep(0.02)
    return _read(source)


if __name__ == "__main__":
    YamlSource.read = read  # type: ignore[assignment,method-assign]
    raise SystemExit(main.main())
