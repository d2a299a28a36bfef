"""What explain() found, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LABEL_WIDTH = 10


def table_lines(explained: Mapping[str, Any]) -> list[str]:
    """The lines of `pygw explain -o table`."""
    request = explained["request"]
    lines: list[str] = [f"{request['authority'] or '(no authority)'} {request['path']} on port {request['port']}", ""]
    lines += _row("outcome", _outcome(explained))
    lines += _row("listener", explained.get("listener"))
    if explained["outcome"] == "route":
        name = f" ({explained['rule_name']})" if explained.get("rule_name") else ""
        lines += _row("route", f"{explained.get('kind', 'GRPCRoute')} {explained['route']}")
        lines += _row("rule", f"{explained['rule']}{name}, match {explained['match']}: {explained['matched']}")
        lines += _row("backends", *_backends(explained["backends"]))
        lines += _row("filters", *_filters(explained["filters"]))
    others = [one for one in explained["listeners"] if not one["selected"]]
    lines += _section("other listeners", [(one["listener"], one["reason"]) for one in others])
    lost = [one for one in explained["candidates"] if one["result"] == "lost"]
    lines += _section("match too, but lost", [(_name(one), _step(one)) for one in lost])
    others = [one for one in explained["candidates"] if one["result"] == "no match"]
    lines += _section("do not match", [(_name(one), one["reason"]) for one in others])
    return lines


def _outcome(explained: Mapping[str, Any]) -> str:
    outcome = str(explained["outcome"])
    if explained.get("http_status") is not None:
        outcome += f", HTTP {explained['http_status']}"
    if explained["grpc_status"] is not None:
        outcome += f", grpc-status {explained['grpc_status']}"
    return f"{outcome}: {explained['message']}" if explained.get("message") else outcome


def _row(label: str, *values: str | None) -> list[str]:
    labels = [label] + [""] * (len(values) - 1)
    return [f"{label:<{_LABEL_WIDTH}}{value}" for label, value in zip(labels, values, strict=False) if value]


def _section(title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    if rows:
        yield ""
        yield f"{title}:"
        width = min(max(len(name) for name, _ in rows), 60)
        for name, reason in rows:
            yield f"  {name:<{width}}  {reason}"


def _step(candidate: Mapping[str, Any]) -> str:
    # 0: not a step of precedence, the other kind of route decided.
    return f"step {candidate['step']}, {candidate['reason']}" if candidate["step"] else str(candidate["reason"])


def _name(candidate: Mapping[str, Any]) -> str:
    kind = "" if candidate["kind"] == "GRPCRoute" else f"{candidate['kind']} "
    return f"{kind}{candidate['route']} rule {candidate['rule']} match {candidate['match']}"


def _backends(backends: list[dict[str, Any]]) -> Iterator[str]:
    total = sum(backend["weight"] for backend in backends)
    for backend in backends:
        share = f"{100 * backend['weight'] / total:.4g} %" if total else "0 %"
        line = f"{backend['namespace']}/{backend['name']}:{backend['port']}  weight {backend['weight']} ({share})"
        if backend["valid"]:
            yield line
        elif "http_status" in backend:
            yield f"{line}  {backend['reason']}: these requests get {backend['http_status']}, gRPC calls 14 UNAVAILABLE"
        else:
            yield f"{line}  {backend['reason']}: these calls get 14 UNAVAILABLE"


def _filters(filters: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name in ("requestHeaders", "responseHeaders"):
        for step, value in filters.get(name, {}).items():
            shown = ", ".join(value) if step == "remove" else ", ".join(f"{key}: {text}" for key, text in value.items())
            yield f"{prefix}{name} {step} {shown}"
    for mirror in filters.get("mirrors", ()):
        yield f"{prefix}mirror {mirror['numerator']} of {mirror['denominator']} calls to {mirror['backend']}"
    for place, own in filters.get("backends", {}).items():
        yield from _filters(own, f"{prefix}backend {place}: ")
