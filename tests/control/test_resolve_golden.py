"""resolve over whole files: every example of the GRPCRoute page, and scenarios in tests/data/gateways.

Each NAME.yaml has its NAME.expected.json: configuration, statuses and problems. To see what a change does, run with
PYGW_WRITE_EXPECTED=1 and read the diff.
"""

import json
import os
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest
import yaml

from pygw import tables
from tests.doubles.objects import resolve_items

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "gateways"
EXAMPLES = ROOT / "examples"
GATEWAY = EXAMPLES / "gateway.yaml"

PAGE = {path.stem: [GATEWAY, path] for path in sorted((EXAMPLES / "grpcroute").glob("*.yaml"))}
GRANT = PAGE.pop("reference-grant")[1]  # belongs to cross-namespace
PAGE["cross-namespace-granted"] = [*PAGE["cross-namespace"], GRANT]
SCENARIOS = {path.stem: [path] for path in sorted(DATA.glob("*.yaml"))}
CASES = {**{f"page-{name}": files for name, files in PAGE.items()}, **SCENARIOS}


def objects(files):
    for file in files:
        yield from (item for item in yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader) if item)


def services_for(items):
    """A Service for every backendRef that has none: the page leaves them out."""
    given = {(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items if item["kind"] == "Service"}
    for item in [item for item in items if item["kind"] == "GRPCRoute"]:
        for rule in item["spec"]["rules"]:
            for ref in rule["backendRefs"]:
                key = (ref.get("namespace", item["metadata"]["namespace"]), ref["name"])
                if key not in given:
                    given.add(key)
                    metadata = {"namespace": key[0], "name": key[1]}
                    yield {"kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": ref["port"]}]}}


def plain(value):
    """As JSON has it; fields of dataclasses that have their default are left out."""
    if is_dataclass(value):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        return {
            field.name: plain(found[field.name])
            for field in fields(value)
            if field.default is MISSING or found[field.name] != field.default
        }
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def described(resolution):
    return {
        "config": plain(resolution.config),
        "statuses": {"/".join(key): status for key, status in resolution.statuses.items()},
        "problems": [str(problem) for problem in resolution.problems],
    }


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    items = list(objects(CASES[name]))
    if name.startswith("page-"):
        for item in items:
            if item["kind"] != "GatewayClass":
                item["metadata"].setdefault("namespace", "default")
        items += services_for(items)
    resolution = resolve_items(*items)
    found = json.loads(json.dumps(described(resolution)))
    path = DATA / f"{name}.expected.json"
    if os.environ.get("PYGW_WRITE_EXPECTED"):
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())
    image = tables.compile_image(resolution.config)
    assert set(image.backend_keys) <= set(resolution.config.backends)


def test_every_expectation_has_its_case():
    assert {path.name.removesuffix(".expected.json") for path in DATA.glob("*.json")} == set(CASES)


def test_the_pages_examples_are_clean():
    """As written, with their Services there, nothing is wrong with them; only the grant is missing on purpose."""
    for name in PAGE:
        expected = json.loads((DATA / f"page-{name}.expected.json").read_text())
        reasons = [problem.rsplit("(")[-1] for problem in expected["problems"]]
        assert reasons == (["RefNotPermitted)"] if name == "cross-namespace" else []), name
