"""What the API server does to an object before it validates it: pruning, defaults, and list keys.

A `Structure` is the structural schema of a CustomResourceDefinition as a tree made for walking: `settle` changes a
value in place as the Kubernetes documentation of CustomResourceDefinitions says under "Field pruning" and
"Defaulting": fields that the schema does not know are removed (and reported), nulls count as absent, defaults are
filled in from the outside to the inside. Lists of type map or set are searched for duplicates. Types and bounds are
the matter of `schema`: what has the wrong type is left as it is.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .problems import Path

MAX_HINTS = 50  # faults of one object that get a "did you mean": the search is slow, and the text may be hostile


@dataclass(frozen=True, slots=True)
class Fault:
    """A Problem of one object, before its file is known."""

    severity: str
    path: Path
    reason: str
    message: str
    line: int | None = None  # in the document from 0, where the path alone does not say


class Structure:
    """One place in a schema: what may stand there, and what is filled in."""

    __slots__ = ("_defaults", "_items", "_keep_unknown", "_list_keys", "_list_set", "_properties", "_values")

    def __init__(self, schema: dict[str, Any]) -> None:
        """`schema` is an openAPIV3Schema, or a part of one."""
        self._properties = {name: _deep(child) for name, child in schema.get("properties", {}).items()}
        self._defaults: list[tuple[str, Any]] = [
            (name, child["default"]) for name, child in schema.get("properties", {}).items() if "default" in child
        ]
        items = schema.get("items")
        self._items = _deep(items) if items is not None else None
        values = schema.get("additionalProperties")
        self._values = _deep(values) if isinstance(values, dict) else None
        self._keep_unknown = (
            "properties" not in schema and not isinstance(values, dict)
        ) or "x-kubernetes-preserve-unknown-fields" in schema
        list_type = schema.get("x-kubernetes-list-type")
        self._list_set = list_type == "set"
        self._list_keys: tuple[str, ...] = tuple(schema["x-kubernetes-list-map-keys"]) if list_type == "map" else ()

    @property
    def is_leaf(self) -> bool:
        """Whether there is nothing to do here or below."""
        return self._keep_unknown and self._items is None and not self._list_set

    def settle(self, value: Any, path: Path, faults: list[Fault]) -> None:
        """Prune and default a value in place; what is found goes to `faults`."""
        if type(value) is dict:
            if self._properties or self._values is not None:
                self._settle_mapping(value, path, faults)
        elif type(value) is list:
            if self._items is not None:
                for index, item in enumerate(value):
                    self._items.settle(item, (*path, index), faults)
            if self._list_keys or self._list_set:
                faults.extend(self._duplicates(value, path))

    def _settle_mapping(self, value: dict[str, Any], path: Path, faults: list[Fault]) -> None:
        properties = self._properties
        for name in [name for name in value if value[name] is None or name not in properties]:
            if name not in properties and self._values is None:
                if not self._keep_unknown:
                    del value[name]
                    faults.append(self._unknown(name, path, len(faults) < MAX_HINTS))
            elif value[name] is None:
                del value[name]
        for name, default in self._defaults:
            if name not in value:
                value[name] = copy.deepcopy(default) if type(default) in (dict, list) else default
        for name, item in value.items():
            if type(item) is dict or type(item) is list:
                child = properties.get(name, self._values)
                if child is not None:
                    child.settle(item, (*path, name), faults)

    def _unknown(self, name: str, path: Path, with_hint: bool) -> Fault:
        close = difflib.get_close_matches(name[:64], list(self._properties), n=1, cutoff=0.6) if with_hint else []
        hint = f", did you mean {close[0]}?" if close else ""
        return Fault("warning", (*path, name), "UnknownField", f"unknown field, ignored{hint}")

    def _duplicates(self, value: list[Any], path: Path) -> Iterator[Fault]:
        """Equal items of a set, equal keys of a map."""
        seen: dict[str, int] = {}
        for index, item in enumerate(value):
            if not self._list_keys:
                shown = json.dumps(item, sort_keys=True)
            elif type(item) is dict:
                shown = json.dumps({key: item[key] for key in self._list_keys if key in item}, sort_keys=True)
            else:
                continue
            first = seen.setdefault(shown, index)
            if first != index:
                message = f"duplicate of item [{first}]: {shown}"
                yield Fault("error", (*path, index), "DuplicateItem", message)


def _deep(schema: dict[str, Any]) -> Structure | None:
    """The structure below a property, or None where nothing is to be done there."""
    structure = Structure(schema)
    return None if structure.is_leaf else structure
