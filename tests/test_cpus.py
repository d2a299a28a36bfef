"""usable_cpus: affinity and cgroup quotas, on made-up /proc and cgroup trees."""

import os
from pathlib import Path

import pytest

from pygw.cpus import cpu_quota, usable_cpus


def tree(tmp_path: Path, cgroup: str, mountinfo: str, files: dict[str, str]) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(cgroup)
    (proc / "mountinfo").write_text(mountinfo.replace("ROOT", str(tmp_path)))
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc


V2 = "30 23 0:26 / ROOT/cg rw,nosuid - cgroup2 cgroup2 rw\n"
V1 = "33 25 0:29 / ROOT/cpu rw - cgroup cgroup rw,cpu,cpuacct\n34 25 0:30 / ROOT/mem rw - cgroup cgroup rw,memory\n"
V1_DOCKER = "33 25 0:29 /docker/abc ROOT/cpu ro - cgroup cgroup rw,cpu\n"


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "files", "quota"),
    [
        pytest.param("0::/\n", V2, {"cg/cpu.max": "250000 100000\n"}, 2.5, id="v2, own root"),
        pytest.param("0::/a/b\n", V2, {"cg/a/b/cpu.max": "max 100000\n"}, None, id="v2, no limit"),
        pytest.param(
            "0::/a/b\n",
            V2,
            {"cg/a/b/cpu.max": "400000 100000\n", "cg/a/cpu.max": "150000 100000\n"},
            1.5,
            id="v2, the parent is tighter",
        ),
        pytest.param(
            "4:cpu,cpuacct:/x\n5:memory:/y\n",
            V1,
            {"cpu/x/cpu.cfs_quota_us": "50000\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            0.5,
            id="v1",
        ),
        pytest.param(
            "4:cpu:/x\n", V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None, id="v1, none"
        ),
        pytest.param(
            "4:cpu:/docker/abc\n",
            V1_DOCKER,
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3.0,
            id="v1, container without a cgroup namespace",
        ),
        pytest.param("0::/\n", V2, {"cg/cpu.max": "nonsense\n"}, None, id="unreadable content"),
        pytest.param("0::/\n", "x\n", {}, None, id="no cgroup mounted"),
    ],
)
def test_quota(tmp_path: Path, cgroup: str, mountinfo: str, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(tree(tmp_path, cgroup, mountinfo, files)) == quota


def test_no_proc(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "absent") is None


def test_mount_point_with_a_space(tmp_path: Path) -> None:
    mountinfo = r"30 23 0:26 / ROOT/c\040g rw - cgroup2 cgroup2 rw"
    assert cpu_quota(tree(tmp_path, "0::/\n", mountinfo, {"c g/cpu.max": "100000 100000"})) == 1.0


@pytest.mark.parametrize(("quota", "cpus"), [("50000", 1), ("190000", 1), ("200000", 2), ("6400000", 4)])
def test_workers_fit_quota_and_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert usable_cpus(tree(tmp_path, "0::/\n", V2, {"cg/cpu.max": f"{quota} 100000"})) == cpus


def test_here() -> None:
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))
