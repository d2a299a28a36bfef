"""Problem: one fault in what the user wrote, with the place to mend it.

Written by `yaml_source` (which knows files and lines) and `resolve` (which knows objects and paths only, and leaves
`file` and `line` empty). Paths are written as the Kubernetes API server writes them: spec.rules[0].backendRefs[1].port,
metadata.annotations[example.com/a].
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pygw.printable import one_line

Path = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_$-]+\Z")
_STEP = re.compile(r"\[(\d+)\]|\[([^\]]*)\]|([^.\[]+)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault. An error keeps its object or file from being accepted; with a warning it is served all the same."""

    severity: str  # "error" or "warning"
    file: str  # as the user named it; "" where not known
    line: int  # from 1; 0 where not known
    object: str  # "GRPCRoute default/r1", "GatewayClass gc", or "" for a whole file
    path: str  # "spec.rules[0].matches[1].method.service", or "" for the whole object
    reason: str  # one word: ParseError, UnknownField, SchemaViolation, RuleViolation, Duplicate...
    message: str

    @property
    def is_error(self) -> bool:
        """Whether it is more than a warning."""
        return self.severity == "error"

    def __str__(self) -> str:
        """One line, whatever the names and values in it."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        parts = [part for part in (place, self.object, self.path) if part]
        return one_line(f"{': '.join([*parts, self.message])} ({self.reason})")


def format_path(path: Iterable[str | int]) -> str:
    """("spec", "rules", 0, "name") as "spec.rules[0].name"."""
    text = ""
    for step in path:
        if isinstance(step, int) or not _PLAIN_KEY.match(step):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def parse_path(text: str) -> Path:
    """The reverse of `format_path`."""
    return tuple(int(index) if index else key or name for index, key, name in _STEP.findall(text))


def object_name(kind: str, namespace: str, name: str) -> str:
    """ "GRPCRoute default/r1"; cluster-scoped objects have no namespace: "GatewayClass gc"."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
