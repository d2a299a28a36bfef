"""The schemas of the kinds that pygw reads: an object as written -> the object as the API server would store it.

In the API server's order: pruning and defaults (`structure`), the OpenAPI schema (jsonschema-rs), then the CEL rules
(`cel_rules`), these only where the types are right. Everything comes from the CustomResourceDefinitions in crds/; a
kind's definition is read and compiled when the first object of it comes. Knows nothing of files.

jsonschema-rs, because a thousand objects must be checked within a second or so (the pure-Python validators take 20
times longer), because its regular expressions know that `$` is the end and not before a last newline, and because its
wheels (abi3; manylinux and musllinux, x86-64 and arm64) serve every platform that pygw does.
"""

from __future__ import annotations

import base64
import difflib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import yaml

from .cel_rules import CelRules
from .structure import Fault, Structure

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

GATEWAY_API = "gateway.networking.k8s.io"

_CRDS = FilePath(__file__).parent / "crds"
_CORE = "core_kinds.yaml"
_FILES = {  # (group, kind) -> file; written down so that only the kinds in use are read
    (GATEWAY_API, "BackendTLSPolicy"): f"{GATEWAY_API}_backendtlspolicies.yaml",
    (GATEWAY_API, "Gateway"): f"{GATEWAY_API}_gateways.yaml",
    (GATEWAY_API, "GatewayClass"): f"{GATEWAY_API}_gatewayclasses.yaml",
    (GATEWAY_API, "GRPCRoute"): f"{GATEWAY_API}_grpcroutes.yaml",
    (GATEWAY_API, "HTTPRoute"): f"{GATEWAY_API}_httproutes.yaml",
    (GATEWAY_API, "ListenerSet"): f"{GATEWAY_API}_listenersets.yaml",
    (GATEWAY_API, "ReferenceGrant"): f"{GATEWAY_API}_referencegrants.yaml",
    ("pygw.dev", "GatewayConfig"): "pygw.dev_gatewayconfigs.yaml",
    ("", "ConfigMap"): _CORE,
    ("", "Namespace"): _CORE,
    ("", "Secret"): _CORE,
    ("", "Service"): _CORE,
    ("discovery.k8s.io", "EndpointSlice"): _CORE,
}
_NOT_SERVED = frozenset({"TCPRoute", "TLSRoute", "UDPRoute"})  # of the Gateway API, and not for a gRPC gateway

_BLOCKING = frozenset({"required", "type", "maxItems", "maxLength", "maxProperties"})  # CEL is not run after these

_BOUNDS = {
    "maximum": "is greater than {}",
    "minimum": "is less than {}",
    "maxLength": "is longer than {} characters",
    "minLength": "is shorter than {} characters",
    "maxItems": "more than {} items",
    "minItems": "fewer than {} items",
    "maxProperties": "more than {} entries",
}
_LABEL_VALUE = {
    "type": "string",
    "maxLength": 63,
    "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
    "x-pygw-message": "a label's value is at most 63 letters, digits, '-', '_' and '.', and begins and ends with one "
    "of the first two",
}
_METADATA: dict[str, Any] = {  # ObjectMeta, as far as it matters; {} is known and not looked into
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {
            "type": "string",
            "minLength": 1,
            "maxLength": 253,
            "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
            "x-pygw-message": "a name is a lowercase RFC 1123 subdomain: letters, digits, '-' and '.', beginning and "
            "ending with a letter or digit, at most 253 characters",
        },
        "namespace": {
            "type": "string",
            "minLength": 1,
            "maxLength": 63,
            "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            "x-pygw-message": "a namespace is a lowercase RFC 1123 label: letters, digits and '-', beginning and "
            "ending with a letter or digit, at most 63 characters",
        },
        "labels": {"type": "object", "additionalProperties": _LABEL_VALUE},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "generation": {"type": "integer", "minimum": 0},
        "creationTimestamp": {"type": "string", "format": "date-time"},
        "uid": {"type": "string"},
        "resourceVersion": {"type": "string"},
        "deletionGracePeriodSeconds": {},
        "deletionTimestamp": {},
        "finalizers": {},
        "generateName": {},
        "managedFields": {},
        "ownerReferences": {},
        "selfLink": {},
    },
}


def find_schema(api_version: str, kind: str) -> KindSchema | str:
    """The schema of a kind, or why there is none (a warning's text)."""
    group, _, version = api_version.rpartition("/")
    file = _FILES.get((group, kind))
    if file is not None:
        schemas = _load(file)
        found = schemas.get((group, kind, version))
        if found is not None:
            return found
        served = [known[2] for known in schemas if known[:2] == (group, kind)]
        return f"{kind} has no version {version!r} (known: {', '.join(served)}), ignored"
    if group == GATEWAY_API and kind in _NOT_SERVED:
        return f"pygw serves no {kind}, ignored"
    files = [name for known, name in _FILES.items() if known[1] == kind]
    if files:
        own_group, _, version = next(known for known in _load(files[0]) if known[1] == kind)
        meant = f"{own_group}/{version}" if own_group else version
        return f"{kind} of {api_version!r} is unknown, ignored; did you mean apiVersion {meant}?"
    close = difflib.get_close_matches(kind, [name for known, name in _FILES if known == group], n=1, cutoff=0.75)
    return f"unknown kind, ignored{f'; did you mean {close[0]}?' if close else ''}"


class KindSchema:
    """One version of one kind. Its validators are compiled on first use."""

    def __init__(self, crd: dict[str, Any], version: dict[str, Any]) -> None:
        """`crd` is a CustomResourceDefinition, `version` an item of its spec.versions."""
        spec = crd["spec"]
        self.kind: str = spec["names"]["kind"]
        self.is_cluster_scoped: bool = spec["scope"] == "Cluster"
        # Versions of one kind differ in nothing but their name (conversion strategy None): all are read as its v1.
        stable = "v1" if any(one["name"] == "v1" for one in spec["versions"]) else version["name"]
        self.api_version = f"{spec['group']}/{stable}" if spec["group"] else stable
        self._schema = _with_metadata(version["schema"]["openAPIV3Schema"])
        self._structure: Structure | None = None
        self._validator: Any = None
        self._rules: CelRules | None = None

    def check(self, item: dict[str, Any]) -> list[Fault]:
        """Prune and default an object in place, and name its faults. Without an error among them it is accepted.

        The object's metadata is a mapping with a name; all else may be anything.
        """
        if self._structure is None:
            self._compile()
        assert self._structure is not None
        assert self._rules is not None
        item.pop("status", None)  # a subresource: what comes with the object is not taken, as on create
        faults: list[Fault] = []
        self._structure.settle(item, (), faults)
        if self.is_cluster_scoped and item["metadata"].pop("namespace", None) is not None:
            message = f"a {self.kind} has no namespace, ignored"
            faults.append(Fault("warning", ("metadata", "namespace"), "UnknownField", message))
        runs_rules = True
        if not self._validator.is_valid(item):
            for error in self._validator.iter_errors(item):
                runs_rules = runs_rules and error.kind.name not in _BLOCKING
                faults.append(self._violation(error))
        if runs_rules:
            faults.extend(Fault("error", rule.path, "RuleViolation", rule.message) for rule in self._rules.broken(item))
        item["apiVersion"] = self.api_version
        if self.kind == "Secret":
            _merge_string_data(item)
        return faults

    def rules(self) -> int:
        """How many CEL rules are enforced."""
        if self._rules is None:
            self._compile()
        assert self._rules is not None
        return len(self._rules)

    def _compile(self) -> None:
        from jsonschema_rs import Draft4Validator  # OpenAPI v3.0 is draft 4 in what CRDs use of it

        self._validator = Draft4Validator(self._schema, validate_formats=True)
        self._structure = Structure(self._schema)
        self._rules = CelRules(self._schema)

    def _violation(self, error: ValidationError) -> Fault:
        path = tuple(error.instance_path)
        if error.kind.name == "required":
            return Fault("error", (*path, error.kind.as_dict()["property"]), "SchemaViolation", "required, and missing")
        schema = _follow(self._schema, error.schema_path[:-1])
        is_secret = self.kind == "Secret" and path[:1] in (("data",), ("stringData",))
        shown = "the value" if is_secret else _show(error.instance)
        return Fault("error", path, "SchemaViolation", _explain(error, schema, shown))


def _explain(error: ValidationError, schema: dict[str, Any], shown: str) -> str:
    """A violation in words that help; `shown` is the value that breaks the schema."""
    name = error.kind.name
    if name == "type":
        due = schema.get("type", "another type")
        found = _type_name(error.instance)
        hint = ""
        if due == "string" and found == "boolean":
            hint = "; put it in quotes (in YAML, yes, no, on, off, y and n are booleans)"
        elif due == "string" and found in ("integer", "number"):
            hint = "; put it in quotes"
        elif due in ("integer", "boolean") and found == "string":
            hint = "; leave out the quotes" if _reads_as(str(error.instance), due) else ""
        return f"must be {_article(due)}, not {_article(found)} ({shown}){hint}"
    if "x-pygw-message" in schema:
        return f"{shown}: {schema['x-pygw-message']}"
    if name == "enum":
        options = [str(option) for option in schema["enum"]]
        close = difflib.get_close_matches(str(error.instance), options, n=1, cutoff=0.6)
        return f"{shown} is not supported, only {', '.join(options)}" + (f"; did you mean {close[0]}?" if close else "")
    if name == "pattern":
        return f"{shown} does not match {schema['pattern']}"
    if name in _BOUNDS:
        text = _BOUNDS[name].format(schema[name])
        return text if name.endswith(("Items", "Properties")) else f"{shown} {text}"
    if name == "format":
        return f"{shown} is no {schema['format']}"
    formats = ", ".join(sorted(set(_formats(schema.get(name)))))
    return f"{shown} is none of the forms allowed here" + (f" ({formats})" if formats else "")


def _formats(schema: Any) -> Iterator[str]:
    """The `format`s named in the branches of an anyOf or oneOf."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _formats(branch)
    elif isinstance(schema, dict):
        if isinstance(schema.get("format"), str):
            yield schema["format"]
        for child in schema.values():
            yield from _formats(child)


def _with_metadata(schema: dict[str, Any]) -> dict[str, Any]:
    """A kind's schema with ObjectMeta's in its place, and what the kind narrows of it; without status."""
    own = schema["properties"].get("metadata", {}).get("properties", {})
    properties = {name: {**known, **own.get(name, {})} for name, known in _METADATA["properties"].items()}
    rest = {name: child for name, child in schema["properties"].items() if name not in ("status", "metadata")}
    identity = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    return {
        **schema,
        "properties": {**identity, **rest, "metadata": {**_METADATA, "properties": properties}},
        "required": [*schema.get("required", ()), "metadata"],
    }


def _merge_string_data(secret: dict[str, Any]) -> None:
    """stringData is write-only: the API server moves it into data."""
    extra = secret.pop("stringData", None)
    if isinstance(extra, dict):
        data = secret.setdefault("data", {})
        for key, text in extra.items():
            if isinstance(text, str) and isinstance(data, dict):
                data[key] = base64.b64encode(text.encode()).decode()


@cache
def _load(file: str) -> dict[tuple[str, str, str], KindSchema]:
    """The served versions of the kinds in one file of crds/."""
    found = {}
    with open(_CRDS / file, encoding="utf-8") as stream:
        for crd in yaml.load_all(stream, yaml.CSafeLoader):
            for version in crd["spec"]["versions"]:
                if version["served"]:
                    key = (crd["spec"]["group"], crd["spec"]["names"]["kind"], version["name"])
                    found[key] = KindSchema(crd, version)
    return found


def known_kinds() -> Iterator[tuple[str, str]]:
    """(group, kind) of all that pygw reads."""
    yield from _FILES


def _follow(schema: Any, steps: list[str | int]) -> dict[str, Any]:
    for step in steps:
        schema = schema[step]
    return schema if isinstance(schema, dict) else {}


def _type_name(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _article(name: str) -> str:
    names = {"array": "a list", "object": "a mapping", "integer": "an integer", "null": "null"}
    return names.get(name, f"a {name}")


def _reads_as(text: str, due: str) -> bool:
    return text.lstrip("-").isdigit() if due == "integer" else text in ("true", "false")


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
