"""Takeovers: the sockets go from one instance to the next, and whatever fails leaves the first as it was."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pygw.channel import MAX_FDS
from pygw.demo.gateway import free_port
from pygw.errors import StartError
from pygw.run_directory import SOCKET_NAME, RunDirectory
from tests.doubles.launcher import GATEWAY, PATIENCE, ROUTE, Line, Probes, Run

SECOND = "  - {name: more, port: 81, protocol: HTTP}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(GATEWAY + ROUTE)
    return path


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def connecting() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def instance(config: Path, run_dir: Path, *arguments: str) -> Run:
    return Run("-f", str(config), "--run-dir", str(run_dir), *arguments)


def successor(config: Path, run_dir: Path, port: int, *arguments: str) -> Run:
    return instance(config, run_dir, "--takeover", "--port-map", f"80={port}", *arguments)


class Callers:
    """Connect to a port again and again, from a thread. Any failure is kept."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port = port
        self.host = host
        self.answers = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Line(self.port, self.host) as line:
                    line.say("who")
                    while (answer := line.hear()).startswith("goaway"):
                        pass
                    json.loads(answer)
                    self.answers += 1
                    line.say("bye")
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


# ===== the sockets go over =====


@pytest.mark.parametrize("workers", ["2", pytest.param("1", marks=pytest.mark.slow), "3"])
def test_nobody_is_refused(config: Path, run_dir: Path, workers: str) -> None:
    """With as many workers as before, fewer and more."""
    with instance(config, run_dir).ready() as old, old.connect() as line, Callers(old.port) as callers:
        line.who()
        with successor(config, run_dir, old.port, "--workers", workers) as new:
            new.log("taking over from the running instance", pid=old.process.pid)
            new.ready()
            new.log("taken over", pid=old.process.pid, was_gone=False)
            old.log("draining", cause=f"taken over by pid {new.process.pid}", delay=0.0)
            assert [line.hear(), line.hear()] == ["goaway 1", "goaway 2"]
            line.say("bye")
            assert old.wait() == 0
            with new.connect() as fresh:
                assert fresh.who()["pid"] in new.children().values()
            before = callers.answers
            new.eventually(lambda: callers.answers > before + 20, "calls after the takeover")
            assert not callers.failures, callers.failures[:3]


@pytest.mark.parametrize("everywhere", [True, False], ids=["all addresses", "one of each family"])
def test_nobody_is_refused_over_ipv6_either(config: Path, run_dir: Path, everywhere: bool) -> None:
    """The wildcard addresses, which is the default, and an address of each family. The system chose their ports."""
    ours = ("-f", str(config), "--run-dir", str(run_dir), "--port-map", "80=0")
    ours = ours if everywhere else (*ours, "--bind", "::1")

    def ports_of(run: Run) -> dict[str, int]:
        return {line["address"]: line["port"] for line in run.lines if line["message"] == "listening"}

    with Run(*ours, everywhere=everywhere).ready() as old:
        ports = ports_of(old)
        assert ports.keys() == ({"0.0.0.0", "::"} if everywhere else {"127.0.0.1", "::1"})
        v4_port, v6_port = (port for _, port in sorted(ports.items()))
        with Callers(v4_port) as v4, Callers(v6_port, "::1") as v6, Line(v6_port, "::1") as line:
            line.who()
            with Run(*ours, "--takeover", "--workers", "3", everywhere=everywhere).ready() as new:
                line.say("bye")
                assert old.wait() == 0
                assert ports_of(new) == ports
                before = v4.answers, v6.answers
                new.eventually(lambda: v4.answers > before[0] + 20 and v6.answers > before[1] + 20, "calls after it")
                with Line(v6_port, "::1") as fresh:
                    assert fresh.who()["pid"] in new.children().values()
                assert not v4.failures + v6.failures, (v4.failures + v6.failures)[:3]


@pytest.mark.slow
def test_again_and_again(config: Path, run_dir: Path) -> None:
    """Each successor is taken over from in its turn, with more and fewer workers."""
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(instance(config, run_dir).ready())]
        port = runs[0].port
        callers = stack.enter_context(Callers(port))
        for workers in ("3", "1", "2"):
            runs.append(stack.enter_context(successor(config, run_dir, port, "--workers", workers).ready()))
            assert runs[-2].wait() == 0
        assert callers.answers > 20
        assert not callers.failures, callers.failures[:3]


def test_the_admin_address_goes_over(config: Path, run_dir: Path) -> None:
    """Whoever asks is answered by an instance that is ready: nobody is refused, and no connection is reset."""
    admin = f"127.0.0.1:{free_port()}"
    with instance(config, run_dir, "--admin", admin).ready() as old, old.connect() as line:
        line.who()  # so that it lives on for a while
        with successor(config, run_dir, old.port, "--admin", admin) as new:
            answers = set()

            def is_over() -> bool:
                answers.add(old.get("/readyz"))
                return any(entry["message"] == "taken over" for entry in new.lines)

            new.eventually(is_over, "taken over")
            assert answers == {(200, "ready\n")}
            old.log("draining")

            def answers_alone() -> bool:
                pids = {worker["pid"] for worker in json.loads(old.get("/status")[1])["workers"]}
                return pids <= set(new.children().values())

            new.eventually(answers_alone, "answered by the successor")
            assert old.get("/readyz") == (200, "ready\n")
            line.say("bye")
            assert old.wait() == 0


def test_no_probe_is_lost_when_the_running_instance_ends_at_once(config: Path, run_dir: Path) -> None:
    """It has no connections that it would wait for, so it ends while probes that it has accepted are under way."""
    admin = f"127.0.0.1:{free_port()}"
    with (
        instance(config, run_dir, "--admin", admin).ready() as old,
        Probes(old) as probes,
        successor(config, run_dir, old.port, "--admin", admin).ready() as new,
    ):
        assert old.wait() == 0
        before = probes.answers.total()
        new.eventually(lambda: probes.answers.total() > before + 20, "asked after it")
        probes.stop()
    assert probes.answers.keys() == {("/healthz", 200), ("/readyz", 200)}


def test_ports_that_come_and_go(config: Path, run_dir: Path, tmp_path: Path) -> None:
    """The successor binds what is new, and what it does not want ends with the running instance."""
    more = tmp_path / "more.yaml"
    more.write_text(GATEWAY + SECOND + ROUTE)
    third = free_port()
    ports = ("--port-map", f"80={free_port()}", "--port-map", f"81={free_port()}")
    with instance(more, run_dir, *ports).ready() as first:
        port, gone = first.port, first.log("listening", listener_port=81)["port"]
        with successor(config, run_dir, port).ready() as second:
            assert first.wait() == 0
            with contextlib.closing(socket.socket()) as sock:
                assert sock.connect_ex(("127.0.0.1", gone)) != 0
            with successor(more, run_dir, port, "--port-map", f"81={third}").ready():
                assert second.wait() == 0
                with Line(third) as line:
                    assert line.who()["site"] == ":81"


def test_where_none_runs_it_starts_as_usual(config: Path, run_dir: Path) -> None:
    run_dir.mkdir(mode=0o700)
    (run_dir / SOCKET_NAME).touch()  # left by one that was killed
    with successor(config, run_dir, 0).ready() as run:
        run.log("no instance runs; nothing to take over", run_dir=str(run_dir))
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
    assert not list(run_dir.iterdir())


def test_the_running_instance_dies_midway(config: Path, run_dir: Path) -> None:
    """The successor has the sockets already, and the connections that wait in them."""
    with instance(config, run_dir).ready() as old:
        for pid in old.children().values():
            os.kill(pid, signal.SIGSTOP)
        port = old.port
        with successor(config, run_dir, port) as new:
            new.log("taking over from the running instance")
            with Line(port) as line:  # waits
                old.stop()
                new.ready()
                assert new.log("taken over")["was_gone"] in (True, False)  # it may have heard of us before it died
                assert line.who()["pid"] in new.children().values()
            with successor(config, run_dir, port).ready():  # the control socket went over, too
                assert new.wait() == 0


# ===== the running instance goes on =====


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [\n", "the configuration is broken, so the running instance goes on: "),
        (ROUTE, "nothing to serve: no Gateway"),
        (GATEWAY + ROUTE.replace("port: 50051}]\n---", "port: 70000}]\n---"), "the configuration is broken"),
    ],
    ids=["not YAML", "no Gateway", "not valid"],
)
def test_a_broken_configuration(config: Path, run_dir: Path, tmp_path: Path, text: str, message: str) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(text)
    with instance(config, run_dir).ready() as old, old.connect() as line, Callers(old.port) as callers:
        with successor(broken, run_dir, old.port) as new:
            assert new.wait() == 1
            assert any(entry["message"].startswith(message) for entry in new.lines), new.raw
        old.log("the takeover was given up; serving on", pid=new.process.pid)
        assert line.who()["draining"] is False
        before = callers.answers
        old.eventually(lambda: callers.answers > before + 20, "calls after it")
        assert not callers.failures, callers.failures[:3]


def test_a_port_that_the_successor_cannot_bind(config: Path, run_dir: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(GATEWAY + SECOND + ROUTE)
    with socket.create_server(("127.0.0.1", 0)) as taken, instance(config, run_dir).ready() as old:
        port = taken.getsockname()[1]
        with Callers(old.port) as callers, successor(more, run_dir, old.port, "--port-map", f"81={port}") as new:
            assert new.wait() == 1
            new.log("cannot bind")
            old.log("the takeover was given up; serving on")
        assert not callers.failures, callers.failures[:3]


def test_a_successor_that_is_killed(config: Path, run_dir: Path) -> None:
    with instance(config, run_dir).ready() as old:
        with successor(config, run_dir, old.port) as new:
            new.log("taking over from the running instance")
            new.stop()
        old.log("takeover", pid=new.process.pid)
        if not any(entry["message"] == "draining" for entry in old.lines):  # it was not ready yet
            old.log("the takeover was given up; serving on", pid=new.process.pid)
            with successor(config, run_dir, old.port).ready():
                assert old.wait() == 0


def test_only_one_successor_at_a_time(config: Path, run_dir: Path) -> None:
    with instance(config, run_dir).ready() as old, successor(config, run_dir, old.port) as first:
        first.log("taking over from the running instance")
        first.signal(signal.SIGSTOP)
        try:
            with successor(config, run_dir, old.port) as second:
                assert second.wait() == 1
                assert f"pid {first.process.pid} is taking over from it already" in "".join(second.raw)
        finally:
            first.signal(signal.SIGCONT)
        first.ready()
        assert old.wait() == 0


def test_another_version_of_the_protocol(config: Path, run_dir: Path) -> None:
    with instance(config, run_dir).ready() as old, caller(run_dir) as sock:
        sock.send(b'j{"type":"takeover","protocol":2,"release":"9"}')
        answer = json.loads(sock.recv(10_000)[1:])
        assert answer["type"] == "refused"
        assert "speaks version 1 of the takeover protocol, the new one version 2" in answer["reason"]
        assert sock.recv(100) == b""
        assert old.get("/readyz")[0] == 200


@pytest.mark.parametrize("packet", [b"", b"x", b"j{", b'j{"type":"ready"}', b'j{"type":"?"}'])
def test_nonsense_on_the_control_socket(config: Path, run_dir: Path, packet: bytes, shared_run: Run) -> None:
    with caller(Path(shared_run.process.args[-1])) as sock:  # type: ignore[index,arg-type]
        if packet:
            sock.send(packet)
            assert sock.recv(100) == b""
    with shared_run.connect() as line:
        assert line.who()["draining"] is False


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "gateway.yaml").write_text(GATEWAY + ROUTE)
    with Run("-f", str(folder / "gateway.yaml"), "--run-dir", str(folder / "run")).ready() as run:
        yield run


def test_too_many_callers(shared_run: Run) -> None:
    """Those that say nothing do not keep a successor away for long, nor take descriptors."""
    folder = Path(shared_run.process.args[-1])  # type: ignore[index,arg-type]
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(caller(folder)) for _ in range(5)]
        assert socks[4].recv(100) == b""
    with shared_run.connect() as line:
        assert line.who()["draining"] is False


def caller(run_dir: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(PATIENCE)
    sock.connect(str(run_dir / SOCKET_NAME))
    return sock


# ===== the directory =====


def test_without_takeover_a_second_instance_is_an_error(config: Path, run_dir: Path) -> None:
    with instance(config, run_dir).ready() as first, instance(config, run_dir) as second:
        assert second.wait() == 1
        assert (
            f"--run-dir {run_dir}: an instance of pygw (pid {first.process.pid}) runs there; take over from it with "
            "--takeover, or choose another directory" in "".join(second.raw)
        )


def test_takeover_needs_a_directory(config: Path) -> None:
    with Run("-f", str(config), "--takeover") as run:
        assert run.wait() == 2
        assert "--takeover needs --run-dir DIR" in "".join(run.raw)


def test_the_environment_counts(config: Path, run_dir: Path) -> None:
    variables = {"PYGW_TAKEOVER": "true", "PYGW_RUN_DIR": str(run_dir)}
    with Run("-f", str(config), environment=variables).ready() as run:
        run.log("no instance runs; nothing to take over")


def test_a_directory_is_made_for_us_alone(run_dir: Path) -> None:
    directory = RunDirectory.open(f"{run_dir}/")
    assert run_dir.stat().st_mode & 0o777 == 0o700
    assert directory.lock()
    second = RunDirectory.open(str(run_dir))
    assert not second.lock()
    directory.close()
    assert second.lock()
    second.close()


def test_a_directory_that_others_may_use_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    with pytest.raises(StartError, match="its mode is 0770, so that others could take our sockets; chmod 700 it"):
        RunDirectory.open(str(tmp_path))


def test_links_and_files_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="it is a symbolic link"):
        RunDirectory.open(f"{tmp_path}/link/")
    with pytest.raises(StartError, match="Not a directory"):
        RunDirectory.open(f"{tmp_path}/file")
    with pytest.raises(StartError, match="No such file"):
        RunDirectory.open(f"{tmp_path}/absent/run")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(run_dir: Path) -> None:
    run_dir.mkdir(mode=0o700)
    os.chown(run_dir, 12345, 12345)
    with pytest.raises(StartError, match=f"it belongs to user 12345, and we are user {os.geteuid()}"):
        RunDirectory.open(str(run_dir))


def test_a_long_path(tmp_path: Path) -> None:
    """sun_path has 108 octets; we go by the descriptor."""
    deep = tmp_path / ("x" * 200)
    directory = RunDirectory.open(str(deep))
    assert directory.lock()
    with directory.listen(), directory.connect() or socket.socket() as client:
        assert client.family == socket.AF_UNIX
    directory.unlink()
    directory.close()


def test_a_file_instead_of_the_socket(run_dir: Path) -> None:
    directory = RunDirectory.open(str(run_dir))
    (run_dir / SOCKET_NAME).symlink_to("/dev/null")
    with pytest.raises(StartError, match="is no socket; remove it"):
        directory.connect()
    directory.close()


def test_many_workers_fit_into_messages() -> None:
    from pygw.launcher import FDS_PER_MESSAGE

    assert FDS_PER_MESSAGE <= MAX_FDS - 1
