"""How many CPUs this process may use: its affinity mask, and the CPU quota of its cgroups (v1 and v2).

A container limited to two CPUs on a 64-core node sees all 64 in its affinity mask; workers beyond the quota
would only be throttled (every thread of the cgroup stops until the next period), which shows as latency.
See cgroup-v2 "cpu.max" and the v1 scheduler's "cpu.cfs_quota_us". Imports nothing of pygw.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def usable_cpus(proc: Path = Path("/proc/self")) -> int:
    """CPUs that this process can keep busy; at least 1.

    A quota is rounded down: a worker that has half a CPU is throttled in every period, while the half that is
    left serves the control process.
    """
    cpus = len(os.sched_getaffinity(0))
    quota = cpu_quota(proc)
    if quota is not None:
        cpus = min(cpus, int(quota))
    return max(cpus, 1)


def cpu_quota(proc: Path = Path("/proc/self")) -> float | None:
    """The tightest CPU quota on the way up from this process's cgroup, in CPUs; None where there is none."""
    try:
        groups = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return None
    quotas = [quota for folder in _cpu_cgroups(groups, mounts) if (quota := _read_quota(folder)) is not None]
    return min(quotas, default=None)


def _cpu_cgroups(groups: list[str], mounts: list[str]) -> Iterator[Path]:
    """Folders of the cgroups that limit our CPU time: our own and all above it that are visible here."""
    paths: dict[str, str] = {}  # "cpu" (v1) or "" (v2) -> path of our cgroup in that hierarchy
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            paths[""] = path
        elif "cpu" in controllers.split(","):
            paths["cpu"] = path
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, options = left.split(), right.split()
        if len(fields) < 5 or not options:
            continue
        if options[0] == "cgroup2":
            hierarchy = ""
        elif options[0] == "cgroup" and "cpu" in options[-1].split(","):
            hierarchy = "cpu"
        else:
            continue
        if hierarchy in paths:
            yield from _folders(Path(_unescape(fields[4])), _unescape(fields[3]), paths[hierarchy])


def _folders(mount_point: Path, mount_root: str, path: str) -> Iterator[Path]:
    """From our cgroup's folder up to the mount point.

    In a container without a cgroup namespace `path` is as the host sees it, and the mount shows only the part
    below `mount_root`.
    """
    inside = path.removeprefix(mount_root) if mount_root != "/" and path.startswith(mount_root) else path
    parts = [part for part in inside.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount_point.joinpath(*parts[:depth])


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash as \\ooo (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _read_quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if quota in ("max", "-1"):
            return None
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
