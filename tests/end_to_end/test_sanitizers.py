"""Under `make sanitize`, the processes of a gateway are the sanitized build too: launcher, control and workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.doubles.gateway import ROOT, Gateway

pytestmark = pytest.mark.skipif("asan" not in os.environ.get("LD_PRELOAD", ""), reason="run by `make sanitize`")


def test_every_process_of_a_gateway_is_sanitized(gateway: Gateway) -> None:
    launcher = gateway.process.pid
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    assert len(children) == 3, "a control process and two workers"
    for pid in (str(launcher), *children):
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert "libasan" in mapped, f"process {pid} runs without the sanitizers"
    for worker in gateway.worker_pids():
        mapped = Path(f"/proc/{worker}/maps").read_text()
        modules = {line.split()[-1] for line in mapped.splitlines() if "/pygw/" in line}
        assert modules, "no compiled module in a worker"
        assert all(module.startswith(str(ROOT)) for module in modules), "a module of another build"
