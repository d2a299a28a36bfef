"""`pygw validate`: what it prints and how it exits."""

import io
import json
import sys
from pathlib import Path

import pytest

from pygw.cli import main

DATA = Path(__file__).parent / "data" / "yaml"
GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: pygw
  listeners: [{name: grpc, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: r}
spec:
  parentRefs: [{name: gw}]
  rules:
  - backendRefs:
    - {name: greeter, port: 50051}
---
apiVersion: v1
kind: Service
metadata: {name: greeter}
spec: {ports: [{port: 50051}]}
"""


def validate(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    code = main(["validate", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def write(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return str(path)


def test_a_clean_file(capsys, tmp_path):
    code, out, err = validate(capsys, "-f", write(tmp_path, GATEWAY), "-o", "table")
    assert (code, out, err) == (0, "3 objects, 0 errors, 0 warnings\n", "")


def test_warnings_alone_are_no_failure(capsys, tmp_path):
    path = write(tmp_path, GATEWAY + "typ: x\n---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}\n")
    code, out, _ = validate(capsys, "-f", path, "-o", "table")
    assert code == 0
    assert out.splitlines() == [
        f"warning: {path}:21: Service default/greeter: typ: unknown field, ignored (UnknownField)",
        f"warning: {path}:23: Deployment d: unknown kind, ignored (UnknownKind)",
        "3 objects, 0 errors, 2 warnings",
    ]


def test_faults_are_sorted_by_place(capsys):
    path = DATA / "bad_route.yaml"
    code, out, _ = validate(capsys, "-f", str(path), "-o", "table")
    assert code == 1
    promised = [line[2:] for line in path.read_text().splitlines() if line.startswith("# :")]
    *problems, summary = out.splitlines()
    assert [problem.partition(" ")[2].removeprefix(str(path)) for problem in problems] == promised
    assert summary == "0 objects, 8 errors, 1 warning"


def test_faults_of_references_have_file_and_line(capsys, tmp_path):
    path = write(tmp_path, GATEWAY.replace("{name: greeter, port: 50051}", "{name: greeter, port: 1}"))
    code, out, _ = validate(capsys, "-f", path, "-o", "json")
    assert code == 1
    (problem,) = json.loads(out)["problems"]
    assert problem.pop("message")
    assert problem == {
        "severity": "error", "file": path, "line": 15, "object": "GRPCRoute default/r",
        "path": "spec.rules[0].backendRefs[0]", "reason": "BackendNotFound",
    }  # fmt: skip


def test_json_is_one_object(capsys, tmp_path):
    path = write(tmp_path, "a: [")
    code, out, _ = validate(capsys, "-f", path, "-o", "json")
    assert code == 1
    document = json.loads(out)
    assert document["summary"] == {"objects": 0, "errors": 1, "warnings": 0}
    (problem,) = document["problems"]
    assert problem["file"] == path
    assert (problem["line"], problem["object"], problem["path"], problem["reason"]) == (1, "", "", "ParseError")


def test_standard_input(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello")))
    code, out, _ = validate(capsys, "-f", "-", "-o", "table")
    assert code == 1
    assert out.startswith("error: <stdin>:1: not a Kubernetes object")


def test_json_is_the_default_where_no_one_looks(capsys, tmp_path):
    _, out, _ = validate(capsys, "-f", write(tmp_path, GATEWAY))
    assert json.loads(out)["problems"] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-f", "/nonexistent/x.yaml"], "pygw validate: /nonexistent/x.yaml: no such file or folder"),
        ([], "-f/--filename"),
        (["-f"], "expected one argument"),
        (["-f", ".", "-o", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_unusable_arguments(capsys, arguments, says):
    code, out, err = validate(capsys, *arguments)
    assert (code, out) == (2, "")
    assert says in err


# ===== injection =====

FORGED = r"\r\nerror: forged\e[31m\x9b\u2028"
ROUTE_FILTER = """\
  - filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {KIND: [{name: NAME, value: VALUE}]}}
    backendRefs:
"""


@pytest.mark.parametrize("kind", ["set", "add"])
@pytest.mark.parametrize("octets", [r"\r", r"\n", r"\0", r"\e", r"\x7f", r"\x9b", r"\u2028", r"\r\nx-b: 1"])
def test_a_header_value_that_cannot_travel_is_left_out(capsys, tmp_path, kind, octets):
    text = ROUTE_FILTER.replace("KIND", kind).replace("NAME", "x-a").replace("VALUE", f'"a{octets}b"')
    path = write(tmp_path, GATEWAY.replace("  - backendRefs:\n", text))
    code, out, _ = validate(capsys, "-f", path, "-o", "json")
    [problem] = json.loads(out)["problems"]
    assert (code, problem["reason"], problem["line"]) == (0, "HeaderIgnored", 15)
    assert problem["path"] == f"spec.rules[0].filters[0].requestHeaderModifier.{kind}[0]"
    assert problem["message"] == "the value of x-a is not printable ASCII and cannot travel as metadata"


@pytest.mark.parametrize("name", [r"x\na", r"x-a\n", r"x\0", "x: a", r"x\r\nb"])
def test_a_header_name_that_is_none_is_an_error(capsys, tmp_path, name):
    text = ROUTE_FILTER.replace("KIND", "set").replace("NAME", f'"{name}"').replace("VALUE", "b")
    code, out, _ = validate(capsys, "-f", write(tmp_path, GATEWAY.replace("  - backendRefs:\n", text)), "-o", "json")
    assert code == 1
    assert json.loads(out)["problems"][0]["path"].endswith("requestHeaderModifier.set[0].name")


@pytest.mark.parametrize(
    ("plain", "forged"),
    [
        ("metadata: {name: r}", f'metadata: {{name: "r{FORGED}"}}'),
        ("kind: GRPCRoute", f'kind: "GRPCRoute{FORGED}"'),
        ("{name: greeter, port: 50051}", f'{{name: "greeter{FORGED}", port: 50051}}'),
        ("  rules:", f'  "rule{FORGED}": 1\n  rules:'),
    ],
    ids=["name", "kind", "reference", "unknown field"],
)
@pytest.mark.parametrize("command", ["validate", "status"])
def test_what_does_not_print_forges_no_line(capsys, tmp_path, command, plain, forged):
    path = write(tmp_path, GATEWAY.replace(plain, forged, 1))
    main([command, "-f", path, "-o", "table"])
    captured = capsys.readouterr()
    lines = [*captured.out.split("\n"), *captured.err.split("\n")]
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("error: forged") for line in lines)
    assert r"forged\u001b[31m\u009b\u2028" in captured.out + captured.err
    assert validate(capsys, "-f", path, "-o", "json")[1].replace("\n", "").isprintable()
