"""The command line: `pygw COMMAND …`.

Finds the command's module, prints what a PygwError says as one line, and turns it into the exit code. What a
command does and takes is in pygw/commands/NAME.py; only the module that is called gets imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from pygw import __version__
from pygw.errors import PygwError, UsageError

COMMANDS = {
    "run": "serve the Gateway API YAML in files and folders",
    "demo": "example backends, a gateway in front and calls through it; nothing to prepare",
    "validate": "every fault of the YAML, with file, line, field path and reason",
    "explain": "which listener, route, rule and backends a call gets, and why",
    "status": "the statuses that Kubernetes would show",
}

EXIT_CODES = """exit codes:
  0   all went well
  1   it did not: faults found, or the gateway could not start
  2   unusable arguments
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line (sys.argv by default) and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _main(arguments)
    except PygwError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130  # as a shell reports it: 128 + SIGINT
    except BrokenPipeError:
        # The reader of our output went away (`pygw explain … | head`); say nothing, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE


def _main(arguments: list[str]) -> int:
    if not arguments:
        raise UsageError(_usage() + "\n\npygw: a command is due; see 'pygw --help'")
    name = arguments[0]
    if name in ("-h", "--help", "help"):
        print(_help())
        return 0
    if name in ("-V", "--version"):
        print(f"pygw {__version__}")
        return 0
    if name not in COMMANDS:
        raise UsageError(f"pygw: there is no {_what(name)}{_hint(name)}; see 'pygw --help'")
    return _run(_load(name), name, arguments[1:])


def _run(command: ModuleType, name: str, arguments: list[str]) -> int:
    from pygw.commands.options import Parser

    description = COMMANDS[name][:1].upper() + COMMANDS[name][1:] + "."
    parser = Parser(prog=f"pygw {name}", description=description, epilog=getattr(command, "EPILOG", EXIT_CODES))
    command.add_arguments(parser)
    code = command.run(parser.parse(arguments))
    sys.stdout.flush()
    return int(code)


def _load(name: str) -> ModuleType:
    module = f"pygw.commands.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise PygwError(f"pygw: this build has no '{name}' command") from None
        raise PygwError(
            f"pygw {name}: the Python package {error.name!r} is missing; reinstall with: pip install pygw-grpc"
        ) from error
    except ImportError as error:
        raise PygwError(f"pygw {name}: this installation is broken ({error}); reinstall pygw-grpc") from error


def _usage() -> str:
    return "usage: pygw COMMAND [options]"


def _help() -> str:
    commands = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    return f"""{_usage()}

A gRPC gateway for the Kubernetes Gateway API.

commands:
{commands}

options:
  -h, --help     this text; 'pygw COMMAND --help' for a command's own
  -V, --version  the version

examples:
  pygw demo
  pygw run -f gateway.yaml --port-map 80=18080
  pygw validate -f gateway.yaml
  pygw explain -f gateway.yaml --port 80 --authority example.com --path /helloworld.Greeter/SayHello

{EXIT_CODES}"""


def _what(name: str) -> str:
    return f"option {name}" if name.startswith("-") else f"command {name!r}"


def _hint(name: str) -> str:
    from pygw.commands.options import did_you_mean

    return did_you_mean(name, ["--help", "--version"] if name.startswith("-") else COMMANDS)
