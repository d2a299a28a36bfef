"""Launcher and workers: readiness, drain, dead workers, taken ports, arguments that cannot work."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from tests.doubles.backend import ECHO, Backend, StartBackend
from tests.doubles.client import status_of, stream_stream, unary_unary
from tests.doubles.gateway import ROOT, Gateway, StartGateway
from tests.doubles.load import Gate, Load
from tests.doubles.manifests import GATEWAY, route, to

PATIENCE = 30.0
PAUSE = 2.0  # seconds
TIMERS = (
    "connect_timeout", "frame_timeout", "handshake_timeout", "keepalive_time", "keepalive_timeout", "pending_timeout",
    "upstream_keepalive_time", "write_timeout",
)  # fmt: skip


@pytest.fixture
def served(start_backend: StartBackend, start_gateway: StartGateway) -> Gateway:
    """A gateway of its own for tests that kill or stop it."""
    backend = start_backend("backend")
    return start_gateway(GATEWAY + route(to("backend")), resolve={"default/backend": backend.port})


def pygw(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a pygw command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "pygw", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )


# ===== drain =====


def test_sigterm_finishes_every_call(served: Gateway) -> None:
    """Calls in flight finish; calls that start while the listener still accepts do too."""
    with served.channel() as channel:
        calls = [stream_stream(channel, f"{ECHO}/Chat") for _ in range(20)]
        gates = [Gate() for _ in calls]
        open_calls = [call(iter(gate), timeout=PATIENCE) for call, gate in zip(calls, gates, strict=True)]
        for gate, call in zip(gates, open_calls, strict=True):
            gate.send(b"before")
            assert next(call) == b"before"
        served.process.send_signal(signal.SIGTERM)
        served.eventually(lambda: served.admin("/readyz")[0] != 200, "draining")
        for gate, call in zip(gates, open_calls, strict=True):
            gate.send(b"after")
            gate.close()
            assert list(call) == [b"after"]
            assert call.code() is grpc.StatusCode.OK
    assert served.process.wait(PATIENCE) == 0


def test_sigterm_under_load_loses_nothing(start_backend: StartBackend, start_gateway: StartGateway) -> None:
    """Two gateways before one backend, as replicas behind a balancer: one drains, the load goes over to the other."""
    backend = start_backend("backend")
    config = GATEWAY + route(to("backend"))
    resolve = {"default/backend": backend.port}
    leaving = start_gateway(config, "--drain-delay", "1", resolve=resolve)
    staying = start_gateway(config, resolve=resolve)

    def channel() -> grpc.Channel:
        both = f"ipv4:127.0.0.1:{leaving.port},127.0.0.1:{staying.port}"
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.insecure_channel(both, options=options)

    with Load(channel, unary=4, streaming=4) as load:
        load.wait_for(100)
        leaving.process.send_signal(signal.SIGTERM)
        assert leaving.process.wait(PATIENCE) == 0
        load.wait_for(100)
    assert not load.failed, load.details[:5]


def test_takeovers_under_load_lose_nothing(
    start_backend: StartBackend, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """Open connections, open calls and new connections: none fails, with as many workers, more and fewer."""
    config, resolve = GATEWAY + route(to("backend")), {"default/backend": start_backend("backend").port}
    run_dir = tmp_path / "run"
    running = start_gateway(config, "--run-dir", str(run_dir), resolve=resolve)
    with Load(running.channel, unary=3, streaming=3, connecting=2) as load:
        load.wait_for(50)
        for workers in (2, 3, 1):
            successor = start_gateway(
                config, "--run-dir", str(run_dir), "--takeover", resolve=resolve, port=running.port, workers=workers
            )
            assert running.process.wait(PATIENCE) == 0
            running = successor
            load.wait_for(50)
    print("calls by status:", dict(load.ended))
    assert not load.failed, load.details[:5]
    assert load.ended["OK"] >= 200


def test_the_drain_timeout_ends_what_is_left(start_backend: StartBackend, start_gateway: StartGateway) -> None:
    backend = start_backend("backend")
    gateway = start_gateway(
        GATEWAY + route(to("backend")), "--drain-timeout", "0.5", resolve={"default/backend": backend.port}
    )
    with gateway.channel() as channel:
        future = unary_unary(channel, f"{ECHO}/Hang").future(b"", timeout=PATIENCE)
        backend.wait_for_calls(1)
        gateway.process.send_signal(signal.SIGTERM)
        assert future.code() is grpc.StatusCode.UNAVAILABLE
        assert backend.calls[0].ended.wait(PATIENCE)
    assert gateway.process.wait(PATIENCE) == 0


def test_a_second_signal_ends_it_at_once(served: Gateway) -> None:
    with served.channel() as channel:
        future = unary_unary(channel, f"{ECHO}/Hang").future(b"", timeout=PATIENCE)
        served.process.send_signal(signal.SIGTERM)
        served.eventually(lambda: served.admin("/readyz")[0] != 200, "draining")

        def ends() -> bool:
            # Again and again: signals that come together, as from a supervisor to a whole group, count as one.
            served.process.send_signal(signal.SIGTERM)
            return served.process.poll() is not None

        assert served.eventually(ends, "ended") < 5.0  # the drain timeout is 10 s
        assert future.code() is grpc.StatusCode.UNAVAILABLE
    assert not _group_is_alive(served.process.pid)
    served.process.returncode = 0  # how it ends is said elsewhere; the fixture wants 0


def test_not_ready_while_draining(start_backend: StartBackend, start_gateway: StartGateway) -> None:
    """For the drain delay it is not ready and still accepts."""
    backend = start_backend("backend")
    gateway = start_gateway(
        GATEWAY + route(to("backend")), "--drain-delay", "2", resolve={"default/backend": backend.port}
    )
    gateway.process.send_signal(signal.SIGTERM)
    gateway.eventually(lambda: gateway.admin("/readyz")[0] == 503, "not ready")
    assert gateway.admin("/healthz")[0] == 200
    with gateway.channel() as channel:
        assert status_of(unary_unary(channel, f"{ECHO}/Unary")) is grpc.StatusCode.OK
    assert gateway.process.wait(PATIENCE) == 0


# ===== workers =====


def test_a_killed_worker_is_replaced(served: Gateway) -> None:
    with served.channel() as channel:
        assert status_of(unary_unary(channel, f"{ECHO}/Unary")) is grpc.StatusCode.OK
    before = served.worker_pids()
    assert len(before) == 2
    victim = before[0]
    logged = len(served.log)
    os.kill(victim, signal.SIGKILL)
    served.eventually(lambda: victim not in (now := served.worker_pids()) and len(now) == 2, "replaced")
    assert any(str(victim) in line for line in served.log[logged:]), served.log[logged:]
    served.wait_until_ready()
    for _ in range(20):  # new connections, so that both workers get some
        with served.channel() as channel:
            assert status_of(unary_unary(channel, f"{ECHO}/Unary")) is grpc.StatusCode.OK


def test_a_killed_worker_loses_only_its_own_calls(served: Gateway, open_stack: ExitStack) -> None:
    # The kernel spreads the connections by their ports; that all 16 come to one worker happens once in 32,768 runs.
    gates = [Gate() for _ in range(16)]
    calls = []
    channels = [open_stack.enter_context(served.channel()) for _ in gates]
    for gate, channel in zip(gates, channels, strict=True):
        calls.append(stream_stream(channel, f"{ECHO}/Chat")(iter(gate), timeout=PATIENCE))
        gate.send(b"before")
        assert next(calls[-1]) == b"before"
    victim = served.worker_pids()[0]
    doomed = _connections_of(victim, served.port)
    os.kill(victim, signal.SIGKILL)
    for _ in range(20):  # new connections, which may have to wait for its replacement
        with served.channel() as channel:
            assert unary_unary(channel, f"{ECHO}/Unary")(b"at once", timeout=PATIENCE) == b"at once"
    kept = 0
    for gate, call in zip(gates, calls, strict=True):
        gate.send(b"after")
        try:
            kept += next(call) == b"after"
        except grpc.RpcError:
            assert call.code() is grpc.StatusCode.UNAVAILABLE
        gate.close()
    assert 0 < kept < len(calls)
    assert len(calls) - kept == doomed
    for channel in channels:  # those that were cut connect anew
        assert unary_unary(channel, f"{ECHO}/Unary")(b"again", timeout=PATIENCE) == b"again"


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["a worker", "all processes"])
def test_a_pause_costs_no_call(start_backend: StartBackend, start_gateway: StartGateway, whole: bool) -> None:
    """Stopped for longer than each timer that could end a call: a debugger, a machine that slept."""
    settings = [argument for name in TIMERS for argument in ("--set", f"{name}={PAUSE / 2}")]
    resolve = {"default/backend": start_backend("backend").port}
    served = start_gateway(GATEWAY + route(to("backend")), *settings, resolve=resolve)
    with Load(served.channel, unary=3, streaming=3, connecting=2) as load:
        for _ in range(3):
            load.wait_for(50)
            if whole:
                os.killpg(served.process.pid, signal.SIGSTOP)
            else:
                os.kill(served.worker_pids()[0], signal.SIGSTOP)
            time.sleep(PAUSE)
            os.killpg(served.process.pid, signal.SIGCONT)
        load.wait_for(50)
    assert not load.failed, load.details[:5]
    assert served.admin("/readyz")[0] == 200


def _connections_of(pid: int, port: int) -> int:
    """How many connections to a local port a process has (proc(5), /proc/net/tcp)."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in table if row[3] == "01" and int(row[1].partition(":")[2], 16) == port}
    return len(inodes.intersection(links))


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "stopped"])
def test_calls_and_probes_do_without_the_control_process(
    start_backend: StartBackend, start_gateway: StartGateway, is_killed: bool
) -> None:
    """A control process that crashes or hangs costs no call, and /healthz and /readyz stay 200 throughout."""
    settings = ["--set", "hang_timeout=4", "--set", "control_silence=0.5"]
    resolve = {"default/backend": start_backend("backend").port}
    served = start_gateway(GATEWAY + route(to("backend")), *settings, resolve=resolve)

    def control() -> int:
        for pid in Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split():
            if "control" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
        return 0

    def stale_since() -> float:
        lines = served.admin("/metrics")[1].decode().splitlines()
        return float(next(line for line in lines if line.startswith("pygw_config_stale_since")).split()[1])

    with Load(served.channel, unary=2, streaming=2, connecting=1) as load:
        load.wait_for(20)
        assert stale_since() == 0
        victim, began = control(), time.time()
        os.kill(victim, signal.SIGKILL if is_killed else signal.SIGSTOP)
        statuses: set[int] = set()
        if not is_killed:
            served.wait_for_log("answering probes for it")
            assert began - 5.0 < stale_since() <= time.time()

        def is_replaced() -> bool:
            statuses.update(served.admin(path)[0] for path in ("/healthz", "/readyz"))
            return control() not in (0, victim) and b"pygw_config_version" in served.admin("/metrics")[1]

        served.eventually(is_replaced, "replaced")
        load.wait_for(20)
    assert statuses == {200}
    served.eventually(lambda: stale_since() == 0, "fresh again")
    assert not load.failed, load.details[:5]


def test_no_process_is_left(served: Gateway) -> None:
    assert len(served.worker_pids()) == 2
    served.process.terminate()
    assert served.process.wait(PATIENCE) == 0
    assert not _group_is_alive(served.process.pid)


def _group_is_alive(group: int) -> bool:
    """Whether a process of the group still runs; a zombie that waits for its reaper does not."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False


# ===== what cannot work =====


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(GATEWAY)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = pygw("run", "-f", str(tmp_path), "--bind", "127.0.0.1", "--port-map", f"80={port}", "--admin", "off")
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "--port-map" in done.stderr


def test_a_second_instance_is_an_error(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(GATEWAY)
    done = pygw(
        "run", "-f", str(tmp_path), "--bind", "127.0.0.1", "--port-map", f"80={gateway.port}", "--admin", "off"
    )
    assert done.returncode == 1
    assert str(gateway.port) in done.stderr
    assert gateway.admin("/readyz")[0] == 200


@pytest.mark.parametrize("yaml", ["", "apiVersion: [", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"])
def test_without_a_valid_gateway_it_does_not_start(tmp_path: Path, yaml: str) -> None:
    (tmp_path / "config.yaml").write_text(yaml)
    done = pygw("run", "-f", str(tmp_path), "--port-map", "80=0", "--admin", "off")
    assert done.returncode == 1
    assert "Gateway" in done.stderr


def test_an_absent_path_is_named() -> None:
    done = pygw("run", "-f", "/no/such/folder", "--admin", "off")
    assert done.returncode in (1, 2)
    assert "/no/such/folder" in done.stderr


def test_faulty_objects_are_left_out_at_start(
    start_backend: StartBackend, start_gateway: StartGateway, backend: Backend
) -> None:
    bad = route("{backendRefs: [{name: backend, port: 99999}]}", name="bad")
    gateway = start_gateway(GATEWAY + bad + route(to("backend")), resolve={"default/backend": backend.port})
    assert any("bad" in line and "port" in line for line in gateway.log)
    with gateway.channel() as channel:
        assert status_of(unary_unary(channel, f"{ECHO}/Unary")) is grpc.StatusCode.OK
