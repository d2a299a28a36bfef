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
