"""One YAML document -> the Kubernetes objects in it, checked; `kind: List` is unpacked.

The result depends on the text alone, so that `yaml_source` can keep it as long as the text stays. Lines are counted
from the document's first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .cluster_state import Object
from .problems import Path, Problem, format_path, object_name
from .schema import find_schema
from .structure import Fault
from .yaml_nodes import Document, YamlError, parse

DEFAULT_NAMESPACE = "default"
MAX_FAULTS = 100  # of one object that are reported: no one reads more, and each costs a search for its line


@dataclass(slots=True)
class Entry:
    """One object of a document."""

    kind: str
    namespace: str  # "" for cluster-scoped kinds
    name: str
    item: Object | None  # pruned and defaulted; None where it is not accepted
    line: int  # its first, counted in the document from 0
    root: Path = ()  # ("items", 3) inside a List


@dataclass(frozen=True, slots=True)
class PlacedFault:
    """A Problem whose file is not known here."""

    severity: str
    line: int
    object: str
    path: str
    reason: str
    message: str

    def problem(self, file: str, first_line: int) -> Problem:
        """The Problem; `first_line` is the document's first line, from 0."""
        line = first_line + self.line + 1
        return Problem(self.severity, file, line, self.object, self.path, self.reason, self.message)


@dataclass(slots=True)
class ParsedDocument:
    """What a document's text says."""

    text: str
    entries: list[Entry] = field(default_factory=list)
    faults: list[PlacedFault] = field(default_factory=list)
    unusable: list[YamlError] = field(default_factory=list)  # not YAML, or not even the name of an object

    def line_finder(self) -> Callable[[Entry, Path], int]:
        """A function that gives the line of a field of an entry, from 0 in the document.

        Parses the text again, because the nodes that know the lines would take ten times its memory.
        """
        documents = parse(self.text)

        def line_of(entry: Entry, path: Path) -> int:
            lines = (document.line_of((*entry.root, *path)) for document in documents)
            return next((line for line in lines if line >= entry.line), entry.line)

        return line_of


def parse_document(text: str) -> ParsedDocument:
    """Parse and check one document. Never raises for what stands in it."""
    parsed = ParsedDocument(text)
    try:
        documents = parse(text)
    except YamlError as fault:
        parsed.unusable.append(fault)
        return parsed
    for document in documents:
        if document.value is None:
            continue  # "---" and nothing, or null: kubectl passes over it
        for root, value in _unpack(document.value):
            _take(parsed, document, root, value)
    return parsed


def _unpack(value: Any) -> Iterator[tuple[Path, Any]]:
    """The objects in a value: the items of a List (also GRPCRouteList and so on), or itself."""
    if isinstance(value, dict) and str(value.get("kind", "")).endswith("List") and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            yield ("items", index), item
    else:
        yield (), value


def _take(parsed: ParsedDocument, document: Document, root: Path, value: Any) -> None:
    """Check one object."""

    def unusable(path: Path, message: str) -> None:
        parsed.unusable.append(YamlError(message, document.line_of((*root, *path))))

    if not isinstance(value, dict):
        return unusable((), "not a Kubernetes object: a mapping with apiVersion, kind and metadata is due")
    for field_name in ("apiVersion", "kind"):
        if not isinstance(value.get(field_name), str) or not value[field_name]:
            return unusable((field_name,), f"not a Kubernetes object: {field_name} is missing")
    kind = value["kind"]
    metadata: Any = value.get("metadata")
    name, namespace = _name_of(metadata)
    schema = find_schema(value["apiVersion"], kind)
    if isinstance(schema, str):
        line = document.line_of((*root, "kind"))
        shown = object_name(kind, namespace, name).rstrip()
        parsed.faults.append(PlacedFault("warning", line, shown, "", "UnknownKind", schema))
        return None
    if not name:
        return unusable(("metadata", "name"), f"the {kind} has no metadata.name")
    if schema.is_cluster_scoped:
        namespace = ""
    elif not namespace and not metadata.get("namespace"):
        namespace = metadata["namespace"] = DEFAULT_NAMESPACE
    faults = [*_repeated_keys(document, root), *schema.check(value)]
    shown = object_name(kind, namespace, name)
    for fault in _first(faults):
        line = document.line_of((*root, *fault.path)) if fault.line is None else fault.line
        path = format_path(fault.path)
        parsed.faults.append(PlacedFault(fault.severity, line, shown, path, fault.reason, fault.message))
    accepted = None if any(fault.severity == "error" for fault in faults) else value
    parsed.entries.append(Entry(kind, namespace, name, accepted, document.line_of(root), root))
    return None


def _first(faults: list[Fault]) -> list[Fault]:
    """As many as are worth reading, errors before warnings."""
    if len(faults) <= MAX_FAULTS:
        return faults
    chosen = sorted(faults, key=lambda fault: fault.severity)[:MAX_FAULTS]
    message = f"has {len(faults) - MAX_FAULTS} faults more"
    return [*chosen, Fault(chosen[-1].severity, (), "TooManyFaults", message)]


def _name_of(metadata: Any) -> tuple[str, str]:
    """(name, namespace) of an object, "" where they are no strings."""
    if not isinstance(metadata, dict):
        return "", ""
    name, namespace = metadata.get("name"), metadata.get("namespace")
    return name if isinstance(name, str) else "", namespace if isinstance(namespace, str) else ""


def _repeated_keys(document: Document, root: Path) -> Iterator[Fault]:
    for path, line, first in document.repeated_keys:
        if path[: len(root)] == root:
            where = "in the same line" if line == first else f"first {line - first} lines above"
            message = f"the key {path[-1]!r} is given twice in one mapping, {where}"
            yield Fault("error", path[len(root) :], "DuplicateKey", message, line)
