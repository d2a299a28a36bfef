"""The command line: help, wrong arguments, environment variables, exit codes. Commands run in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pygw import __version__, cli
from pygw.commands import options as types
from pygw.commands import run as run_command
from pygw.commands.options import Parser
from pygw.errors import UsageError
from pygw.settings import describe

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PYGW_"):
            monkeypatch.delenv(name)


def parse(*arguments: str, environment: dict[str, str] | None = None) -> Any:
    parser = Parser(prog="pygw run")
    run_command.add_arguments(parser)
    return parser.parse(list(arguments), environment or {})


# ===== the program =====


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_names_the_commands(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.COMMANDS)


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    assert capsys.readouterr().out == f"pygw {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: pygw COMMAND [options]\n\npygw: a command is due; see 'pygw --help'"),
        (["rnu"], "pygw: there is no command 'rnu', did you mean run?; see 'pygw --help'"),
        (["--verison"], "pygw: there is no option --verison, did you mean --version?; see 'pygw --help'"),
        (["run", "-f", "-", "--kubernetes"], "pygw run: --kubernetes and -f are two sources; give one of them"),
        (["run", "-f", "-", "--watch-namespace", "a"], "pygw run: --watch-namespace needs --kubernetes"),
        (["run", "-f", "-", "--context", "a"], "pygw run: --context needs --kubernetes"),
        (
            ["run", "--kubernetes", "--resolve", "a/b:1=c:2"],
            "pygw run: --resolve is for file mode; with --kubernetes EndpointSlices say it",
        ),
        (
            ["run", "--kubernetes", "--kubeconfig", "/nowhere"],
            "pygw run: --kubeconfig /nowhere: no such file",
        ),
        (
            ["run", "--kubernetes", "--watch-namespace", "Team_A"],
            "pygw run: argument --watch-namespace: 'Team_A' is no name of a namespace; see 'pygw run --help'",
        ),
        (
            ["run", "--kubernetes", "--gateway-service", "front"],
            "pygw run: argument --gateway-service: 'front' is not NAMESPACE/NAME, as in pygw-system/pygw; "
            "see 'pygw run --help'",
        ),
        (["run"], "pygw run: what to serve is missing; name files or folders with -f PATH, or give --kubernetes"),
        (["run", "-f", "/no/such"], "pygw run: -f /no/such: no such file or folder"),
        (["run", "-f", "-", "-f", "-"], "pygw run: -f - is standard input and can be given only once"),
        (["run", "--prot-map", "80=1"], "pygw run: there is no option --prot-map, did you mean --port-map?; "
                                        "see 'pygw run --help'"),
        (["run", "gateway.yaml"], "pygw run: 'gateway.yaml' is one argument too many; see 'pygw run --help'"),
        (["run", "--work", "2"], "pygw run: there is no option --work, did you mean --workers?; see 'pygw run --help'"),
        (["run", "-f", "/", "--port-map", "80=1", "--port-map", "80=2"],
         "pygw run: --port-map maps port 80 twice, to 1 and 2"),
        (["run", "-f", "/", "--port-map", "80=1", "--port-map", "81=1"],
         "pygw run: --port-map binds ports 80 and 81 both as local port 1"),
        (["run", "-f", "/", "--access-log", "/no/such/file"],
         "pygw run: --access-log /no/such/file: No such file or directory"),
    ],
)  # fmt: skip
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err == message + "\n"
    assert captured.out == ""


def test_a_path_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever runs the tests may be root
    assert cli.main(["run", "-f", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"pygw run: -f {tmp_path}: we may not read it\n"


def test_a_missing_command_module_is_said_only_when_it_is_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "later", "comes later")
    assert cli.main(["--help"]) == 0
    assert cli.main(["later"]) == 1
    assert capsys.readouterr().err == "pygw: this build has no 'later' command\n"


def test_a_missing_dependency_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")

    monkeypatch.setattr(cli.importlib, "import_module", fail)  # type: ignore[attr-defined]
    assert cli.main(["run"]) == 1
    assert "the Python package 'yaml' is missing" in capsys.readouterr().err


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "run", interrupted)
    assert cli.main(["run"]) == 130


def test_help_imports_little() -> None:
    code = "import sys; from pygw import cli; cli.main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"yaml", "asyncio", "uvloop", "jsonschema", "grpc"} & set(done.stderr.split())


def test_output_into_a_closed_pipe_is_silent() -> None:
    command = f"{sys.executable} -m pygw run --list-settings -o json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert done.stderr == ""


# ===== options of run =====


def test_defaults() -> None:
    args = parse("-f", "x")
    assert args.paths == ["x"]
    assert args.port_map == []
    assert args.bind == ["*"]
    assert args.workers is None
    assert args.admin == ("127.0.0.1", 9901)
    assert args.probe_address == ()
    assert args.controller_name == "pygw.dev/gateway-controller"
    assert (args.log_format, args.log_level, args.access_log) == (None, "info", "off")
    assert (args.drain_delay, args.drain_timeout) == (5, 30)


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--port-map", "80=18080", "--port-map=443=0"], "port_map", [(80, 18080), (443, 0)]),
        (["--bind", "127.0.0.1", "--bind", "[::1]", "--bind", "0:0::2"], "bind", ["127.0.0.1", "::1", "::2"]),
        (["--admin", "off"], "admin", ()),
        (["--admin", "[::1]:80"], "admin", ("::1", 80)),
        (["--admin", "localhost:0"], "admin", ("127.0.0.1", 0)),
        (["--probe-address", "0.0.0.0:8080"], "probe_address", ("0.0.0.0", 8080)),
        (["--drain-delay", "0.5"], "drain_delay", 0.5),
        (["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::1"], "trusted_proxy", ["10.0.0.0/8", "::1/128"]),
        (["--resolve", "ns/name:80=[::1]:8080"], "resolve", [(("ns", "name", 80), ("::1", 8080))]),
        (["--set", "x_forwarded=false", "--set", "connect_timeout=2"], "settings",
         [("x_forwarded", False), ("connect_timeout", 2.0)]),
    ],
)  # fmt: skip
def test_values(arguments: list[str], name: str, value: Any) -> None:
    assert getattr(parse(*arguments), name) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port-map", "80"], "'80' is not LISTENER_PORT=LOCAL_PORT, as in 80=18080"),
        (["--port-map", "80=70000"], "'70000' is no port number (0 to 65535)"),
        (["--port-map", "80=-1"], "'-1' is no port number"),
        (["--bind", "localhost"], "'localhost' is no IP address"),
        (["--workers", "0"], "'0' is no number of workers (1 to 1024)"),
        (["--workers", "²"], "'²' is no number of workers"),
        (["--admin", "9901"], "'9901' is not HOST:PORT, as in 127.0.0.1:9901 or [::1]:9901"),
        (["--admin", "::1:9901"], "'::1:9901' is not HOST:PORT"),
        (["--admin", "example.com:9901"], "'example.com' is no IP address"),
        (["--drain-delay", "nan"], "'nan' is no time in seconds (0 or more)"),
        (["--drain-timeout", "-1"], "'-1' is no time in seconds"),
        (["--trusted-proxy", "10.0.0.1/8"], "'10.0.0.1/8' is no network"),
        (["--log-level", "loud"], "invalid choice: 'loud'"),
        (["--set", "max_header_field=3"], "did you mean max_header_fields?"),
        (["--set", "zzz=3"], "there is no setting 'zzz'; --list-settings shows them all"),
        (["--set", "max_header_fields"], "'max_header_fields' is not NAME=VALUE, as in max_header_fields=1000"),
        (["--set", "max_header_fields=1.5"], "a whole number of fields is due (0 to 2147483647)"),
        (["--set", "stream_window=2147483648"], "a whole number of octets is due (0 to 2147483647)"),
        (["--set", "connect_timeout=inf"], "'inf' is no time in seconds"),
        (["--set", "x_forwarded=maybe"], "'maybe' is neither true nor false"),
        (["--resolve", "greeter:80=localhost:80"], "is not NAMESPACE/NAME:PORT=HOST:PORT"),
    ],
)  # fmt: skip
def test_wrong_values(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_environment_variables() -> None:
    environment = {
        "PYGW_FILENAME": "a.yaml,b",
        "PYGW_PORT_MAP": "80=18080,443=18443",
        "PYGW_WORKERS": "3",
        "PYGW_ADMIN": "off",
        "PYGW_LOG_LEVEL": "debug",
        "PYGW_SET": "pending_calls=5",
        "PYGW_ACCESS_LOG": "",
    }
    args = parse(environment=environment)
    assert args.paths == ["a.yaml", "b"]
    assert args.port_map == [(80, 18080), (443, 18443)]
    assert (args.workers, args.admin, args.log_level, args.access_log) == (3, (), "debug", "off")
    assert args.settings == [("pending_calls", 5)]


def test_the_command_line_wins_over_the_environment() -> None:
    args = parse("--port-map", "80=1", "--workers", "1", environment={"PYGW_PORT_MAP": "80=2", "PYGW_WORKERS": "x"})
    assert args.port_map == [(80, 1)]
    assert args.workers == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PYGW_WORKERS", "many", "PYGW_WORKERS: 'many' is no number of workers"),
        ("PYGW_PORT_MAP", "80=1,x", "PYGW_PORT_MAP: 'x' is not LISTENER_PORT=LOCAL_PORT"),
        ("PYGW_LOG_LEVEL", "loud", "PYGW_LOG_LEVEL: 'loud' is none of debug, info, warning, error"),
    ],
)
def test_wrong_environment_variables(name: str, value: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(environment={name: value})
    assert message in str(caught.value)


def test_a_flag_from_the_environment() -> None:
    parser = Parser(prog="x")
    parser.add_option("--verbose", action="store_true")
    assert parser.parse([], {"PYGW_VERBOSE": "on"}).verbose is True
    assert parser.parse([], {"PYGW_VERBOSE": "0"}).verbose is False
    assert parser.parse(["--verbose"], {"PYGW_VERBOSE": "0"}).verbose is True


def test_every_option_of_run_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    parser = Parser(prog="pygw run")
    run_command.add_arguments(parser)
    for option in parser._option_string_actions:
        assert option in text
    assert "PYGW_PORT_MAP" in text
    assert "examples:" in text
    assert "exit codes:" in text


# ===== --list-settings =====


def test_list_settings_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--list-settings", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == describe()


def test_list_settings_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--list-settings", "-o", "table"]) == 0
    text = capsys.readouterr().out
    for item in describe():
        assert item["name"] in text
        assert item["reason"] in text
    assert "x_forwarded" in text
    assert " true boolean" in text


def test_boolean_spellings() -> None:
    assert [types.boolean(text) for text in ("1", "true", "YES", "On")] == [True] * 4
    assert [types.boolean(text) for text in ("0", "false", "NO", "Off")] == [False] * 4
