"""The processes of `pygw run`: start, replacement, ports, drain, and their end. Workers speak lines (doubles/relay)."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.launcher import GATEWAY, PATIENCE, ROOT, ROUTE, Line, Probes, Run, taken_port


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(GATEWAY + ROUTE)
    return path


@dataclass
class Shared:
    """A run that several tests use, one after the other; each leaves the configuration as it was."""

    run: Run
    config: Path
    access_log: Path

    def change(self, text: str) -> None:
        """Replace the configuration."""
        replace(self.config, text)

    def restore(self) -> None:
        """Back to what it was, unless it still is, and wait until it is served."""
        if self.config.read_text() == GATEWAY + ROUTE:
            return
        self.change(GATEWAY + ROUTE)
        reloads = self.run.metric("pygw_config_reloads_total")

        def is_served() -> bool:
            config = json.loads(self.run.get("/config")[1])["config"]
            return (
                len(config["listeners"]) == len(config["routes"]) == 1
                and self.run.metric("pygw_config_problems{severity=\"error\"}") == 0
                and self.run.metric("pygw_config_reloads_total") >= reloads
            )

        self.run.eventually(is_served, "the configuration as it was")


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("shared")
    config, access_log = folder / "gateway.yaml", folder / "access.log"
    config.write_text(GATEWAY + ROUTE)
    arguments = ["-f", str(config), "--port-map", "80=0", "--port-map", "81=0", "--access-log", str(access_log)]
    arguments += ["--set", "max_concurrent_streams=7"]
    with Run(*arguments, environment={"PYGW_PROBE_ADDRESS": "127.0.0.1:0"}).ready() as run:
        yield Shared(run, config, access_log)


@pytest.fixture
def shared(_shared: Shared) -> Iterator[Shared]:
    yield _shared
    _shared.restore()


def version(run: Run) -> int:
    return int(run.metric("pygw_config_version"))


def replace(path: Path, text: str) -> None:
    """As an editor does: at once."""
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.rename(path)


def has_ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], PATIENCE)[0])


# ===== start =====


def test_all_workers_serve_the_port(shared: Shared) -> None:
    run = shared.run
    assert run.get("/healthz") == (200, "ok\n")
    assert run.get("/readyz") == (200, "ready\n")
    seen = set()
    with contextlib.ExitStack() as lines:
        while len(seen) < 2:  # the kernel chooses by a hash of the client's port
            answer = lines.enter_context(run.connect()).who()
            seen.add(answer["worker"])
            assert answer["site"] == ":80"
            assert answer["version"] == version(run)
            assert answer["backends"] == {"default/greeter:50051": [["127.0.0.9", 50051]]}


def test_options_reach_the_workers_and_the_environment_counts(shared: Shared) -> None:
    with shared.run.connect() as line:
        assert line.who()["streams"] == 7
    shared.run.log("admin server listens", role="probe")


def test_the_probe_server_shows_only_what_probes_need(shared: Shared) -> None:
    port = shared.run.log("admin server listens", role="probe")["port"]
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/config", 404), ("/status", 404)):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as client:
            client.request("GET", path)
            response = client.getresponse()
            response.read()
            assert (path, response.status) == (path, status)


@pytest.mark.slow
def test_standard_input_outlives_a_control_process() -> None:
    with Run("-f", "-", stdin=GATEWAY + ROUTE).ready() as run:
        mark = run.mark
        os.kill(run.children()["control"], signal.SIGKILL)
        run.log("configuration published", since=mark, version=2, routes=1)


@pytest.mark.slow
def test_v4_and_v6(config: Path) -> None:
    with Run("-f", str(config), "--bind", "127.0.0.1", "--bind", "::1").ready() as run:
        hosts = {line["address"]: line["port"] for line in run.lines if line["message"] == "listening"}
        assert hosts.keys() == {"127.0.0.1", "::1"}
        with socket.create_connection(("::1", hosts["::1"]), PATIENCE) as sock:
            sock.sendall(b"who\n")
            assert b'"site": ":80"' in sock.recv(10_000)


# ===== failed starts =====


def test_a_port_in_use_is_an_error_that_says_what_to_do(config: Path) -> None:
    with taken_port() as port, Run("-f", str(config), "--port-map", f"80={port}") as run:
        assert run.wait() == 1
        message = run.log(f"cannot bind 127.0.0.1:{port}: it is in use by {Path('/proc/self/comm').read_text().strip()}"
                          f" (pid {os.getpid()}); free it, or serve the listener on another local port: "
                          f"--port-map 80=18080")
        assert message["level"] == "error"


def test_a_second_instance_on_the_same_port_is_an_error(config: Path) -> None:
    with Run("-f", str(config)).ready() as first, Run("-f", str(config), "--port-map", f"80={first.port}") as second:
        assert second.wait() == 1
        assert any("it is in use by" in line["message"] for line in second.lines)
        with first.connect() as line:
            assert line.who()["version"] == 1


def test_the_admin_port_in_use(config: Path) -> None:
    with taken_port() as port, Run("-f", str(config), "--admin", f"127.0.0.1:{port}") as run:
        assert run.wait() == 1
        remedy = "choose another, or none with '--admin off': --admin HOST:PORT"
        assert any(remedy in line["message"] for line in run.lines)


@pytest.mark.slow
def test_nothing_to_serve(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(ROUTE)
    with Run("-f", str(path)) as run:
        assert run.wait() == 1
        run.log(
            f"nothing to serve: no Gateway in {path}; served are Gateways whose GatewayClass is absent or has the "
            "controllerName pygw.dev/gateway-controller"
        )


@pytest.mark.slow
def test_a_worker_that_does_not_start_ends_the_start(config: Path) -> None:
    with Run("-f", str(config), environment={"TEST_WORKER": "tests.doubles.no_such_module"}) as run:
        assert run.wait() == 1
        assert "process does not start" in "".join(run.raw)  # Python's own line on stderr may be beside it


# ===== replacement =====


def test_a_dead_worker_is_replaced_and_its_queue_waits(config: Path) -> None:
    with Run("-f", str(config)).ready() as run:
        workers = [pid for name, pid in run.children().items() if name != "control"]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)  # so that connections stay in the accept queues
        with contextlib.ExitStack() as stack:
            lines = [stack.enter_context(run.connect()) for _ in range(20)]
            mark = run.mark
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            answers = [line.who() for line in lines]
        assert {answer["pid"] for answer in answers}.isdisjoint(workers)
        for number in (0, 1):
            run.log("process died; it is replaced", since=mark, child=f"worker {number}", exit="SIGKILL")
            assert run.metric(f'pygw_worker_restarts_total{{worker="{number}"}}') == 1
        assert run.get("/readyz")[0] == 200


def test_a_replacement_serves_at_once_whatever_the_control_process_does(config: Path) -> None:
    with Run("-f", str(config)).ready() as run:
        os.kill(run.children()["control"], signal.SIGSTOP)
        for name in ("0", "1"):
            os.kill(run.children()[name], signal.SIGKILL)
        with run.connect() as line:
            answer = line.who()
        assert answer["version"] == 1
        assert answer["backends"] == {"default/greeter:50051": [["127.0.0.9", 50051]]}


@pytest.mark.slow
def test_counts_of_dead_workers_are_kept(config: Path) -> None:
    with Run("-f", str(config), "--workers", "1").ready() as run:
        with run.connect() as line:
            line.who()
            line.who()
        calls = 'pygw_calls_total{grpc_status="0",service="a\\"b\\n"}'
        assert run.metric(calls) == 2
        mark = run.mark
        os.kill(run.children()["0"], signal.SIGKILL)
        run.log("process started", since=mark, child="worker 0")
        with run.connect() as line:
            line.who()
        run.eventually(lambda: run.metric(calls) == 3, "the counts of both processes")
        os.kill(run.children()["control"], signal.SIGKILL)
        run.eventually(lambda: run.metric(calls) == 3, "the counts outlive the control process")
        assert run.metric("pygw_control_restarts_total") == 1


def test_the_control_process_is_replaced_while_workers_serve(config: Path) -> None:
    with Run("-f", str(config)).ready() as run, run.connect() as line:
        before = line.who()
        mark = run.mark
        os.kill(run.children()["control"], signal.SIGKILL)
        assert run.get("/healthz")[0] == 200  # waits in the launcher's socket until somebody answers
        assert run.get("/readyz")[0] == 200
        run.log("configuration published", since=mark, version=2)
        replace(config, GATEWAY)
        run.log("configuration published", since=mark, version=3, routes=0)
        after = line.who()
        assert (after["pid"], after["version"]) == (before["pid"], 3)


@pytest.mark.slow
def test_a_new_control_process_with_a_broken_source_leaves_the_workers_alone(config: Path) -> None:
    with Run("-f", str(config)).ready() as run, run.connect() as line:
        config.write_text("a: [\n")
        mark = run.mark
        os.kill(run.children()["control"], signal.SIGKILL)
        run.log("keeping what the workers serve", since=mark)
        assert line.who()["version"] == 1
        assert run.get("/readyz")[0] == 200
        assert run.metric("pygw_config_last_reload_success") == 0
        assert run.metric("pygw_config_last_reload_success_timestamp_seconds") > 0
        replace(config, GATEWAY)
        run.log("configuration published", since=mark, version=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["control", "0"])
def test_what_hangs_is_replaced(config: Path, name: str) -> None:
    with Run("-f", str(config), "--set", "hang_timeout=1").ready() as run:
        mark = run.mark
        os.kill(run.children()[name], signal.SIGSTOP)
        child = name if name == "control" else f"worker {name}"
        run.log("process hangs; it is killed", since=mark, child=child)
        run.log("process started", since=mark, child=child)
        assert run.get("/readyz")[0] == 200


@pytest.mark.slow
def test_a_control_process_with_a_stuck_thread_is_replaced(config: Path, tmp_path: Path) -> None:
    """It answers pings and pages, but a change never comes through. Workers and probes do not notice."""
    hang = tmp_path / "hang"
    environment = {"TEST_CONTROL": "tests.doubles.stuck_control", "TEST_HANG": str(hang)}
    arguments = ("-f", str(config), "--set", "reload_timeout=1")
    stale = "pygw_config_stale_since_timestamp_seconds"
    with Run(*arguments, environment=environment).ready() as run, run.connect() as line, Probes(run) as probes:
        assert run.metric(stale) == 0
        began, mark = time.time(), run.mark
        hang.touch()
        replace(config, GATEWAY)
        run.log("a change of the configuration hangs; the control process is replaced", since=mark)
        run.log("process died; it is replaced", since=mark, child="control")
        run.log("process started", since=mark, child="control")
        # The next one hangs, too: what it serves is no newer.
        run.eventually(lambda: began - 2 < run.metric(stale) <= time.time(), "stale")
        assert line.who()["version"] == 1
        hang.unlink()
        run.log("configuration published", since=mark, routes=0)
        run.eventually(lambda: run.metric(stale) == 0, "fresh again")
        assert run.metric("pygw_control_restarts_total") >= 1
        assert line.who()["version"] == 2
    assert probes.answers.keys() == {("/healthz", 200), ("/readyz", 200)}


def test_nobody_outlives_a_killed_launcher(config: Path) -> None:
    with Run("-f", str(config)).ready() as run:
        pidfds = [os.pidfd_open(pid) for pid in run.children().values()]
        assert len(pidfds) == 3
        run.signal(signal.SIGKILL)
        ended = [has_ended(pidfd) for pidfd in pidfds]
        for pidfd in pidfds:
            os.close(pidfd)
        assert all(ended)


# ===== configuration changes =====


def test_broken_yaml_changes_nothing_and_says_where(shared: Shared) -> None:
    run, mark, before = shared.run, shared.run.mark, version(shared.run)
    shared.change(GATEWAY + "\n\tx: [\n")
    problem = run.log("problem in the configuration", since=mark, reason="ParseError", level="error")
    assert problem["at"].startswith(f"{shared.config}:")
    with run.connect() as line:
        assert line.who()["version"] == before
    status = json.loads(run.get("/status")[1])
    assert status["problems"][0]["file"] == str(shared.config)
    assert run.metric('pygw_config_problems{severity="error"}') == 1
    shared.change(GATEWAY)
    run.log("all problems of the configuration are solved", since=mark)
    run.log("configuration published", since=mark, version=before + 1)


def test_ports_come_and_go_with_the_configuration(shared: Shared) -> None:
    second = "  - {name: more, port: 81, protocol: HTTP}\n"
    run, mark, first_port = shared.run, shared.run.mark, shared.run.port
    shared.change(GATEWAY + second + ROUTE)
    port = run.log("listening", since=mark, listener_port=81)["port"]
    with Line(port) as line:
        assert line.who()["site"] == ":81"
    shared.change(GATEWAY + ROUTE)

    def is_closed() -> bool:
        with contextlib.closing(socket.socket()) as sock:
            return sock.connect_ex(("127.0.0.1", port)) != 0

    run.eventually(is_closed, "the port of the listener that is gone is closed")
    with Line(first_port) as line:
        assert line.who()["version"] == version(run)


def test_endpoint_changes_reach_the_workers_without_a_new_version(shared: Shared) -> None:
    run, mark, before = shared.run, shared.run.mark, version(shared.run)
    with run.connect() as line:
        shared.change((GATEWAY + ROUTE).replace("127.0.0.9", "127.0.0.8"))
        run.log("endpoints changed", since=mark, backends=["default/greeter:50051"])

        def arrived() -> bool:
            return bool(line.who()["backends"] == {"default/greeter:50051": [["127.0.0.8", 50051]]})

        run.eventually(arrived, "the new endpoint")
        assert line.who()["version"] == before
        shared.change(GATEWAY + ROUTE)
        run.eventually(lambda: "127.0.0.9" in json.dumps(line.who()["backends"]), "the old endpoint")


def test_hangup_reads_again(shared: Shared) -> None:
    run, mark = shared.run, shared.run.mark
    before = run.metric("pygw_config_reloads_total")
    run.signal(signal.SIGHUP)
    run.log("reloading", since=mark, signal="SIGHUP")
    run.eventually(lambda: run.metric("pygw_config_reloads_total") == before + 1, "one more reload")


def test_the_access_log_is_reopened(shared: Shared) -> None:
    run, path = shared.run, shared.access_log
    with run.connect() as line:
        line.who()
        assert path.read_text().splitlines()[-1].startswith('{"call":')
        path.rename(path.with_suffix(".1"))
        run.signal(signal.SIGUSR1)
        run.eventually(path.exists, "a new file")

        def is_written_to() -> bool:
            line.who()
            return bool(path.read_text())

        run.eventually(is_written_to, "a line in the new file")


def test_who_may_not_drain(shared: Shared) -> None:
    assert shared.run.get("/drain")[0] == 405
    assert shared.run.get("/drain", "POST", {"Host": "evil.example"})[0] == 403
    assert shared.run.get("/drain", "POST", {"Origin": "http://evil.example"})[0] == 403
    assert shared.run.get("/readyz")[0] == 200


@pytest.mark.slow
def test_a_port_that_cannot_be_bound_later_disturbs_nobody(config: Path) -> None:
    with taken_port() as port, Run("-f", str(config), "--port-map", "80=0", "--port-map", f"81={port}").ready() as run:
        replace(config, GATEWAY + "  - {name: more, port: 81, protocol: HTTP}\n" + ROUTE)
        reason = run.log("cannot bind")["reason"]
        assert f"127.0.0.1:{port}" in reason
        assert run.get("/readyz") == (200, f"ready\n{reason}\n")
        assert run.metric("pygw_bind_failures") == 1
        status = json.loads(run.get("/status")[1])
        gateway = next(item["status"] for item in status["objects"] if item["kind"] == "Gateway")
        programmed = {
            listener["name"]: condition["status"]
            for listener in gateway["listeners"]
            for condition in listener["conditions"]
            if condition["type"] == "Programmed"
        }
        assert programmed == {"grpc": "True", "more": "False"}
        with run.connect() as line:
            assert line.who()["version"] == 2


# ===== the end =====


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_drain(config: Path, number: signal.Signals) -> None:
    with Run("-f", str(config), "--drain-delay", "0.3").ready() as run, run.connect() as line:
        line.who()
        port = run.port
        run.signal(number)
        run.log("draining", cause=number.name)
        run.get_until("/readyz", (503, "not ready: draining\n"))
        with Line(port) as late:  # still accepted
            assert late.who()["draining"] is False
            assert late.hear() == "goaway 1"
            assert line.hear() == "goaway 1"
            assert late.hear() == "goaway 2"
            assert line.hear() == "goaway 2"
            with pytest.raises(ConnectionRefusedError):
                Line(port)
            late.say("bye")
            assert run.process.poll() is None
            line.say("bye")
            assert run.wait() == 0


def test_drain_timeout_ends_what_is_left(config: Path) -> None:
    with Run("-f", str(config), "--drain-timeout", "0.3").ready() as run, run.connect() as line:
        line.who()
        run.signal(signal.SIGTERM)
        assert [line.hear(), line.hear(), line.hear(), line.hear()] == ["goaway 1", "goaway 2", "aborted", ""]
        assert run.wait() == 0


def test_a_second_signal_exits_at_once(config: Path) -> None:
    with Run("-f", str(config), "--drain-delay", "60").ready() as run, run.connect() as line:
        line.who()
        run.signal(signal.SIGTERM)
        run.log("draining")
        while run.process.poll() is None:  # one that comes with the first counts as the same
            run.signal(signal.SIGTERM)
            with contextlib.suppress(Exception):
                run.process.wait(0.05)
        assert run.wait() == 128 + signal.SIGTERM


def test_drain_by_http(config: Path) -> None:
    with Run("-f", str(config)).ready() as run:
        assert run.get("/drain", "POST") == (202, "draining\n")
        assert run.wait() == 0


@pytest.mark.slow
def test_a_terminal_that_closes_ends_it(config: Path) -> None:
    """SIGHUP asks for a reload, but the kernel also sends it when our terminal is gone."""
    pid, terminal = pty.fork()
    if pid == 0:
        arguments = ["-f", str(config), "--bind", "127.0.0.1", "--port-map", "80=0", "--admin", "off", "--workers", "1"]
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "tests.doubles.launcher", "run", *arguments])
    shown = b""
    while b" ready " not in shown:  # console format: it is a terminal
        shown += os.read(terminal, 10_000)
    assert b" info    ready workers=1" in shown
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.slow
def test_a_signal_before_it_is_ready_stops_it(config: Path) -> None:
    with Run("-f", str(config), "--drain-delay", "60") as run:
        run.log("admin server listens")
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
