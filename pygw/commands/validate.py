"""`pygw validate -f PATH`: every fault of the YAML, with file, line, field path and reason.

Checks what an API server would (schema, defaults and rules of the Gateway API v1.6.1), then what the gateway would
make of it (references and conditions).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from pygw.commands.options import Parser
from pygw.errors import UsageError
from pygw.printable import each_line

if TYPE_CHECKING:
    from pygw.control.problems import Problem

EPILOG = """Folders are not searched recursively: their *.yaml, *.yml and *.json are read, by name. A file may hold many
documents, in any order, and Lists. YAML is understood as kubectl does it (YAML 1.1: yes, no, on, off, y and n are
booleans unless quoted). At most 16 MiB a file, 10,000 files a folder, 50,000 documents a file, 500,000 nodes and 100
levels a document.

exit codes:
  0   no errors (there may be warnings)
  1   errors found
  2   unusable arguments, as a path that does not exist
"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of `pygw validate` to its parser."""
    parser.add_argument(
        "-f", "--filename", action="append", required=True, metavar="PATH", dest="paths",
        help="a file or folder of Gateway API YAML; - is standard input; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", choices=("json", "table"),
        help="table: a line for each fault, then a summary; json: one object with summary and problems; default: table "
        "on a terminal, else json",
    )  # fmt: skip
    parser.add_option(
        "--controller-name", default="pygw.dev/gateway-controller", metavar="NAME",
        help="GatewayClasses with this controllerName are ours; default pygw.dev/gateway-controller",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Print the faults; return the exit code. Raises UsageError for a path that does not exist."""
    from pygw.control.resolve import ResolveOptions, resolve
    from pygw.control.yaml_source import YamlSource

    for path in arguments.paths:
        if path != "-" and not os.path.exists(path):
            raise UsageError(f"pygw validate: {path}: no such file or folder")
    source = YamlSource(arguments.paths)
    loaded = source.read()
    resolution = resolve(loaded.state, ResolveOptions(controller_name=arguments.controller_name))
    problems = sorted_problems([*loaded.problems, *map(source.place, resolution.problems)], arguments.paths)
    objects = sum(len(loaded.state.objects(kind)) for kind in loaded.state.kinds())
    output = arguments.output or ("table" if sys.stdout.isatty() else "json")
    print(as_json(problems, objects) if output == "json" else as_table(problems, objects))
    return 1 if any(problem.is_error for problem in problems) else 0


def sorted_problems(problems: list[Problem], paths: list[str]) -> list[Problem]:
    """By file and line, errors first in a line; files stay in the order in which they were first named."""
    files: dict[str, int] = {}
    for problem in problems:
        files.setdefault(problem.file, len(files))
    return sorted(problems, key=lambda one: (files[one.file], one.line, not one.is_error, one.path))


def as_json(problems: list[Problem], objects: int) -> str:
    """{"summary": {"objects", "errors", "warnings"}, "problems": [{"severity", "file", "line", …}]}."""
    shown: list[dict[str, Any]] = [
        {
            "severity": one.severity, "file": one.file, "line": one.line, "object": one.object, "path": one.path,
            "reason": one.reason, "message": one.message,
        }
        for one in problems
    ]  # fmt: skip
    errors, warnings = _count(problems)
    summary = {"objects": objects, "errors": errors, "warnings": warnings}
    return each_line(json.dumps({"summary": summary, "problems": shown}, indent=2, ensure_ascii=False))


def as_table(problems: list[Problem], objects: int) -> str:
    """A line for each problem, "warning: …" in front of those that are no errors, and the summary."""
    errors, warnings = _count(problems)
    lines = [f"{problem.severity}: {problem}" for problem in problems]
    lines.append(f"{_plural(objects, 'object')}, {_plural(errors, 'error')}, {_plural(warnings, 'warning')}")
    return "\n".join(lines)


def _count(problems: list[Problem]) -> tuple[int, int]:
    errors = sum(problem.is_error for problem in problems)
    return errors, len(problems) - errors


def _plural(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
