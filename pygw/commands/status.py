"""`pygw status -f PATH`: the statuses that Kubernetes would show for the objects in files and folders."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pygw.commands.options import Parser, ip_address, service_override
from pygw.printable import one_line

if TYPE_CHECKING:
    from pygw.control.cluster_state import ClusterState, Object
    from pygw.control.resolve import Resolution

EPILOG = """exit codes:
  0   the files were read (conditions may be False all the same; `pygw validate` judges)
  1   something in the files could not be accepted; it is named on stderr
  2   unusable arguments
"""

# The kinds that have a status of ours, in the order of the table; all others follow in a List by name of kind.
_ROUTE_KINDS = ("GRPCRoute", "HTTPRoute")
_STATUS_KINDS = ("GatewayClass", "Gateway", "ListenerSet", *_ROUTE_KINDS, "BackendTLSPolicy")

# Conditions that are good news when they are False.
_BETTER_FALSE = frozenset({"Conflicted", "PartiallyInvalid", "OverlappingTLSConfig"})


def add_arguments(parser: Parser) -> None:
    """Add the arguments of `pygw status` to its parser."""
    parser.add_argument(
        "-f", "--filename", action="append", required=True, metavar="PATH", dest="paths",
        help="a file or folder of Gateway API YAML; - is standard input; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", choices=("json", "table"),
        help="json: a List of the objects given, each with its .status; default: table on a terminal, else json",
    )
    parser.add_option(
        "--controller-name", default="pygw.dev/gateway-controller", metavar="NAME",
        help="GatewayClasses with this controllerName are ours; default pygw.dev/gateway-controller",
    )
    parser.add_option(
        "--gateway-address", action="append", default=[], type=ip_address, metavar="ADDRESS", dest="gateway_addresses",
        help="an address that Gateways without their own show in status.addresses; repeatable",
    )
    parser.add_option(
        "--resolve", action="append", default=[], type=service_override, metavar="NAMESPACE/NAME:PORT=HOST:PORT",
        help="where a Service port is found, with or without a Service object; repeatable",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the statuses; return the exit code."""
    from pygw.control.resolve import ResolveOptions, resolve
    from pygw.control.yaml_source import load

    loaded = load(arguments.paths)
    options = ResolveOptions(
        controller_name=arguments.controller_name,
        overrides=dict(arguments.resolve),
        gateway_addresses=tuple(arguments.gateway_addresses),
        now=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    resolution = resolve(loaded.state, options)
    for problem in loaded.problems:
        print(problem, file=sys.stderr)
    output = arguments.output or ("table" if sys.stdout.isatty() else "json")
    if output == "json":
        print(json.dumps(as_list(loaded.state, resolution), indent=2))
    else:
        print(as_table(loaded.state, resolution))
    return 1 if any(problem.is_error for problem in loaded.problems) else 0


def as_list(state: ClusterState, resolution: Resolution) -> dict[str, Any]:
    """A `List` of all objects, each with the status that resolving gave it (or the one it came with)."""
    items = []
    for kind, (namespace, name), item in _objects(state):
        status = resolution.statuses.get((kind, namespace, name))
        if status is None and kind in _ROUTE_KINDS:
            status = item.get("status", {"parents": []})
        items.append(item if status is None else {**item, "status": status})
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}


def as_table(state: ClusterState, resolution: Resolution) -> str:
    """For people: one line for each object, listener and parent; what is wrong is explained below its line."""
    rows: list[tuple[str, ...]] = [("KIND", "NAME", "PART", "CONDITIONS")]
    for kind, (namespace, name), item in _objects(state):
        if kind not in _STATUS_KINDS:
            continue
        full_name = f"{namespace}/{name}" if namespace else name
        status = resolution.statuses.get((kind, namespace, name))
        if status is None:
            rows.append((kind, full_name, "", _unserved(kind, item)))
        elif "parents" in status or "ancestors" in status:
            rows += _parent_rows(kind, full_name, namespace, status)
        else:
            rows += _rows(kind, full_name, _addresses(status), status["conditions"])
            for listener in status.get("listeners", ()):
                routes = listener["attachedRoutes"]
                part = f"listener {listener['name']}, {routes} route{'' if routes == 1 else 's'}"
                rows += _rows("", "", part, listener["conditions"])
    if len(rows) == 1:
        return "no GatewayClass, Gateway or route in what was given"
    return _aligned([tuple(map(one_line, row)) for row in rows])


def _objects(state: ClusterState) -> Iterator[tuple[str, tuple[str, str], Object]]:
    kinds = state.kinds()
    known = [kind for kind in _STATUS_KINDS if kind in kinds]
    for kind in [*known, *(kind for kind in kinds if kind not in _STATUS_KINDS)]:
        for key, item in sorted(state.objects(kind).items()):
            yield kind, key, item


def _unserved(kind: str, item: Object) -> str:
    if kind == "GatewayClass":
        return f"left alone: its controllerName is {item['spec'].get('controllerName')}"
    if kind == "Gateway":
        return f"left alone: GatewayClass {item['spec'].get('gatewayClassName')} is another controller's"
    if kind == "ListenerSet":
        return "left alone: its Gateway does not exist, or is another controller's"
    if kind == "BackendTLSPolicy":
        return "not in use: no Gateway that is served sends calls to what it targets"
    return "not attached: no parentRef names a Gateway that is served"


def _parent_rows(kind: str, name: str, namespace: str, status: dict[str, Any]) -> list[tuple[str, ...]]:
    """The parents of a route, or the ancestors of a policy."""
    rows: list[tuple[str, ...]] = []
    for parent in status.get("parents") or status.get("ancestors") or ():
        reference = parent.get("parentRef") or parent["ancestorRef"]
        shown = "" if reference.get("kind", "Gateway") == "Gateway" else f"{reference['kind']} "
        part = f"parent {shown}{reference.get('namespace', namespace)}/{reference['name']}"
        if reference.get("sectionName"):
            part += f", listener {reference['sectionName']}"
        if reference.get("port"):
            part += f", port {reference['port']}"
        rows += _rows(kind if not rows else "", name if not rows else "", part, parent["conditions"])
    return rows or [(kind, name, "", "not attached")]


def _rows(kind: str, name: str, part: str, conditions: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The line of one set of conditions, and a line for each that is not as one wishes it."""
    words, reasons = [], []
    for condition in conditions:
        wished = "False" if condition["type"] in _BETTER_FALSE else "True"
        if condition["status"] != wished:
            words.append(f"{condition['type']}={condition['status']}")
            reasons.append(f"{condition['type']}: {condition['reason']}: {condition['message']}")
        elif wished == "True":
            words.append(condition["type"])
            if condition["reason"] != condition["type"]:  # as Accepted with reason ListenersNotValid
                reasons.append(f"{condition['type']}: {condition['reason']}: {condition['message']}")
    return [(kind, name, part, ", ".join(words)), *(("  " + reason,) for reason in reasons)]


def _addresses(status: dict[str, Any]) -> str:
    return ", ".join(address["value"] for address in status.get("addresses", ()))


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows if len(row) > 1) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        if len(row) > 1
        else row[0]
        for row in rows
    )
