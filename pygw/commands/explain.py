"""`pygw explain`: which listener, route, rule, match and backends a call gets, and why all others do not.

Asks the same compiled matcher as the relay, over the YAML given with -f, or a running gateway with --admin. With
--batch, one question (JSON) a line on standard input and one answer a line on standard output, in order.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from pygw.commands.options import Parser, port, service_override
from pygw.errors import PygwError, UsageError
from pygw.explain.table import table_lines
from pygw.printable import each_line, one_line

if TYPE_CHECKING:
    from pygw.explain.explainer import Explainer

ADMIN_TIMEOUT = 30.0  # seconds

EPILOG = """a question of --batch:
  {"id": 7, "port": 80, "authority": "grpc.example.com:80", "path": "/helloworld.Greeter/SayHello",
   "headers": [["x-tenant-id", "acme"]]}
  optional: id, authority, headers (as on the wire), address (where Gateways bind their own), method (POST),
  scheme (http); others are ignored, with a "warning" in the answer
  gRPC is assumed unless headers give a content-type; an empty one stands for a request without
its answer: outcome "route", "none" (nothing matches: grpc_status 12; gRPC but not POST: http_status 405; not gRPC:
  404, or 415 where no HTTPRoute is), "reject" (malformed by RFC 9113 section 8) or "error" (the line is no question;
  the next ones are answered). With "route", "kind" is there where it is not GRPCRoute, grpc_status is null where
  calls go to the backends, and a number where the rule itself answers them all (http_status where they are not
  gRPC); a backend whose "valid" is false gets its share of calls answered with 14 UNAVAILABLE, or "http_status".

exit codes:
  0   decided, whatever the outcome
  1   the gateway could not be asked, or lines of --batch were no questions
  2   unusable arguments
"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of `pygw explain` to its parser."""
    parser.add_argument(
        "-f", "--filename", action="append", metavar="PATH", dest="paths",
        help="a file or folder of Gateway API YAML; - is standard input (not with --batch); repeatable",
    )  # fmt: skip
    parser.add_argument("--admin", metavar="URL", help="ask a running gateway's admin server: http://127.0.0.1:9901")
    parser.add_argument("--port", type=port, metavar="PORT", help="the listener's own port (not the one of --port-map)")
    parser.add_argument("--authority", metavar="HOST", help="the call's :authority; a port in it is ignored")
    parser.add_argument("--path", metavar="/SERVICE/METHOD", help="the call's :path; any path for HTTPRoutes")
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="'K: V'", dest="headers",
        help="metadata of the call; repeatable; -bin values in base64; 'content-type:' for plain HTTP",
    )  # fmt: skip
    parser.add_argument("--address", default="", help="the local address, where Gateways bind their own")
    parser.add_argument("--method", default="POST", help="the :method; default POST")
    parser.add_argument("--scheme", default="http", help="the :scheme; default http")
    parser.add_argument("--batch", action="store_true", help="questions on standard input; see below")
    parser.add_argument(
        "-o", "--output", choices=("json", "table"), help="default: table on a terminal, else json"
    )
    parser.add_option(
        "--controller-name", default="pygw.dev/gateway-controller", metavar="NAME",
        help="GatewayClasses with this controllerName are ours; default pygw.dev/gateway-controller",
    )
    parser.add_option(
        "--resolve", action="append", default=[], type=service_override, metavar="NAMESPACE/NAME:PORT=HOST:PORT",
        help="where a Service port is found, with or without a Service object; repeatable",
    )


def run(arguments: argparse.Namespace) -> int:
    """Explain; return the exit code."""
    _check(arguments)
    if arguments.batch:
        return _batch(_explainer(arguments), sys.stdin.buffer, sys.stdout.buffer)
    explained = _ask_admin(arguments) if arguments.admin else _ask_files(arguments)
    if arguments.output == "json" or (arguments.output is None and not sys.stdout.isatty()):
        print(each_line(json.dumps(explained, indent=2, ensure_ascii=False)))
    else:
        print("\n".join(map(one_line, table_lines(explained))))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.paths) == bool(arguments.admin):
        raise UsageError("pygw explain: either -f PATH or --admin URL is due; see 'pygw explain --help'")
    if not arguments.batch:
        missing = [name for name in ("port", "path") if getattr(arguments, name) is None]
        if missing:
            raise UsageError(f"pygw explain: --{missing[0]} is due (or --batch); see 'pygw explain --help'")
    elif arguments.admin:
        raise UsageError("pygw explain: --batch works on files (-f), not with --admin")
    elif "-" in arguments.paths:
        raise UsageError("pygw explain: --batch reads questions from standard input: -f - cannot read it too")
    elif arguments.port is not None or arguments.authority or arguments.path or arguments.headers:
        raise UsageError("pygw explain: with --batch the questions are on standard input, not in --port and others")


def _explainer(arguments: argparse.Namespace) -> Explainer:
    from pygw.control.resolve import ResolveOptions, resolve
    from pygw.control.yaml_source import load
    from pygw.explain.explainer import Explainer

    loaded = load(arguments.paths)
    options = ResolveOptions(
        controller_name=arguments.controller_name,
        overrides=dict(arguments.resolve),
        now=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    resolution = resolve(loaded.state, options)
    for problem in [*loaded.problems, *resolution.problems]:
        if problem.is_error:
            print(problem, file=sys.stderr)
    return Explainer(resolution.config)


def _ask_files(arguments: argparse.Namespace) -> dict[str, Any]:
    from pygw.explain.explainer import Query, header_of

    try:
        query = Query(
            arguments.port, arguments.path, arguments.authority, tuple(map(header_of, arguments.headers)),
            arguments.address, arguments.method, arguments.scheme,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"pygw explain: {error}") from None
    return _explainer(arguments).explain(query)


def _ask_admin(arguments: argparse.Namespace) -> dict[str, Any]:
    parameters = [("port", str(arguments.port)), ("path", arguments.path), ("method", arguments.method)]
    parameters += [(name, value) for name in ("authority", "address", "scheme") if (value := getattr(arguments, name))]
    parameters += [("header", header) for header in arguments.headers]
    base = arguments.admin if "://" in arguments.admin else f"http://{arguments.admin}"
    url = f"{base.rstrip('/')}/explain?{urllib.parse.urlencode(parameters)}"
    if not base.startswith(("http://", "https://")):
        raise UsageError(f"pygw explain: --admin {arguments.admin!r} is no URL, as in http://127.0.0.1:9901")
    try:
        with urllib.request.urlopen(url, timeout=ADMIN_TIMEOUT) as response:
            explained = json.load(response)
    except urllib.error.HTTPError as error:
        text = error.read(4096).decode(errors="replace").strip()
        raise PygwError(f"pygw explain: {base} answers {error.code}: {text}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise PygwError(f"pygw explain: cannot ask {base}: {reason}; is that gateway's --admin there?") from None
    except ValueError as error:
        raise PygwError(f"pygw explain: {base} is no admin server of pygw: {error}") from None
    if not isinstance(explained, dict) or "outcome" not in explained:
        raise PygwError(f"pygw explain: {base} is no admin server of pygw")
    return explained


def _batch(explainer: Explainer, questions: IO[bytes], answers: IO[bytes]) -> int:
    code = 0
    encode = json.JSONEncoder(ensure_ascii=False, separators=(", ", ": ")).encode
    for answer in _answers(explainer, questions):
        code |= answer["outcome"] == "error"
        answers.write(one_line(encode(answer)).encode() + b"\n")
        answers.flush()  # who asks line by line waits for each answer
    return code


def _answers(explainer: Explainer, questions: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    from pygw.explain.explainer import Query

    for number, line in enumerate(questions, 1):
        if not line.strip():
            continue
        identity = None
        try:
            question = json.loads(line)
            if not isinstance(question, dict):
                raise ValueError("not a JSON object")
            identity = question.get("id")
            answer = {"id": identity, **explainer.decide(Query.from_json(question))}
            unknown = sorted(question.keys() - Query.MEMBERS)
            if unknown:
                answer["warning"] = f"ignored: {', '.join(unknown)}"
            yield answer
        except (ValueError, RecursionError) as error:
            yield {"id": identity, "outcome": "error", "grpc_status": None, "message": f"line {number}: {error}"}
