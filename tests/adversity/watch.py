"""CPU time and memory of a proxy's process tree, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import glob
import os
import threading
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_INTERVAL = 0.02
MIB = 1 << 20


def tree_of(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text()
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of all threads of these processes, from the scheduler's nanoseconds."""
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(Path(path).read_text().split()[0])
    return total / 1e9


def resident_octets(pids: list[int]) -> int:
    """Resident memory; shared pages count in each process, which a difference does not show."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    return total


class MemoryWatch:
    """The most memory that a process tree had between `start` and `stop`, as growth from the start, in MiB."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._before = self._peak = resident_octets(pids)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL):
            self._peak = max(self._peak, resident_octets(self._pids))

    def stop(self) -> float:
        """The growth; nothing is watched any more."""
        self._stop.set()
        self._thread.join()
        return (max(self._peak, resident_octets(self._pids)) - self._before) / MIB

    def kept(self) -> float:
        """What is there now beyond the start."""
        return (resident_octets(self._pids) - self._before) / MIB
