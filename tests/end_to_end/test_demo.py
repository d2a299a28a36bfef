"""`pygw demo` as a stranger runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from tests.doubles.gateway import ROOT

PATIENCE = 60.0
COMMAND = [sys.executable, "-m", "pygw", "demo"]


def test_once() -> None:
    done = subprocess.run([*COMMAND, "--once"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "80 x greeter-v1, 20 x greeter-v2" in done.stdout
    assert "12 UNIMPLEMENTED" in done.stdout
    assert "14 UNAVAILABLE" in done.stdout
    assert "WRONG" not in done.stdout
    assert done.stderr == ""


def test_stays_until_ctrl_c() -> None:
    with subprocess.Popen(
        COMMAND, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as demo:
        assert demo.stdout
        killer = threading.Timer(PATIENCE, demo.kill)
        killer.start()
        try:
            told = []
            for line in demo.stdout:
                told.append(line)
                if "Ctrl-C stops everything" in line:
                    break
            demo.send_signal(signal.SIGINT)
            told += list(demo.stdout)
            assert demo.wait() == 0, "".join(told)
        finally:
            killer.cancel()
    assert any("grpcurl -plaintext" in line for line in told)
