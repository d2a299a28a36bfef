"""explain: the decision, why others lost, batch lines, the command, a running gateway asked."""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import HealthCheck, given, settings

from pygw.cli import main
from pygw.explain.explainer import Explainer, Query, header_of
from pygw.explain.table import table_lines
from pygw.model import (
    BackendRefConfig,
    GatewayConfig,
    HeaderMatch,
    HeaderModifier,
    ListenerConfig,
    MatchConfig,
    MirrorConfig,
    RouteConfig,
    RuleConfig,
)
from tests import test_fastmatch

GREETER = BackendRefConfig("default/greeter:50051", "default", "greeter", 50051, weight=80)
GONE = BackendRefConfig("other/gone:1", "other", "gone", 1, weight=20, reason="RefNotPermitted", message="no grant")
TENANT = (HeaderMatch("x-tenant-id", "acme"),)


def config(*rules: RuleConfig, hostname: str = "grpc.example.com") -> GatewayConfig:
    one = RouteConfig("default", "r1", ("*.example.com",), rules)
    two = RouteConfig("default", "r2", (), (RuleConfig(0, (MatchConfig(),), (GREETER,), "all"),))
    listeners = (
        ListenerConfig("default/gw", "any", 80, routes=(two.key,)),
        ListenerConfig("default/gw", "grpc", 80, hostname, routes=(one.key, two.key)),
    )
    return GatewayConfig(listeners, {one.key: one, two.key: two})


GREET = RuleConfig(2, (MatchConfig("t"), MatchConfig("helloworld.Greeter", headers=TENANT)), (GREETER, GONE))
QUESTION = {
    "port": 80, "authority": "grpc.example.com:80", "path": "/helloworld.Greeter/SayHello",
    "headers": [["x-tenant-id", "acme"]],
}  # fmt: skip


def decide(made: GatewayConfig, **changes) -> dict:
    return Explainer(made).decide(Query.from_json({**QUESTION, **changes}))


def test_a_route():
    assert decide(config(GREET)) == {
        "outcome": "route", "listener": "default/gw/grpc", "route": "default/r1", "rule": 2, "match": 1,
        "backends": [
            {"namespace": "default", "name": "greeter", "port": 50051, "weight": 80, "valid": True},
            {"namespace": "other", "name": "gone", "port": 1, "weight": 20, "valid": False,
             "reason": "RefNotPermitted", "message": "no grant"},
        ],
        "grpc_status": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"port": 81}, 12, "no listener has port 81"),
        ({"path": "/helloworld.Greeter"}, 12, "not /service/method"),
        ({"path": "/helloworld.Greeter/SayHello?x"}, 12, "not /service/method"),
        ({"headers": [["content-type", "text/plain"]]}, None, "content-type"),
        ({"headers": [["content-type", "application/grpc-web"]]}, None, "content-type"),
        ({"method": "GET"}, None, "POST"),
    ],
)
def test_none(changes, status, reason):
    decision = decide(config(GREET), **changes)
    assert (decision["outcome"], decision["grpc_status"]) == ("none", status)
    assert reason in decision["message"]


def test_nothing_matches():
    made = config(GREET)
    only_one = GatewayConfig((made.listeners[1],), {"GRPCRoute/default/r1": made.routes["GRPCRoute/default/r1"]})
    decision = decide(only_one, path="/u/M")
    assert (decision["outcome"], decision["grpc_status"], decision["listener"]) == ("none", 12, "default/gw/grpc")
    decision = decide(only_one, authority="other.org")
    assert (decision["outcome"], decision["grpc_status"], decision["listener"]) == ("none", 12, None)


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"headers": [["content-type", "text/plain"]]}, 415), ({"method": "GET"}, 405), ({"method": "PUT"}, 405)],
)
def test_none_by_http_status(changes, status):
    assert decide(config(GREET), **changes)["http_status"] == status


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"])
def test_grpc_by_content_type(content_type):
    headers = [["content-type", content_type], ["x-tenant-id", "acme"]]
    assert decide(config(GREET), headers=headers)["route"] == "default/r1"


@pytest.mark.parametrize(
    "changes",
    [
        {"path": ""}, {"path": "x/y"}, {"headers": [["Upper", "x"]]}, {"headers": [["connection", "close"]]},
        {"headers": [["te", "gzip"]]}, {"authority": "user@example.com"}, {"headers": [["x", "a\nb"]]},
        {"path": "/a b/c"}, {"authority": None},
    ],
)  # fmt: skip
def test_reject(changes):
    decision = decide(config(GREET), **changes)
    assert (decision["outcome"], decision["grpc_status"]) == ("reject", None)
    assert decision["message"]


def test_host_stands_in_for_the_authority():
    decision = decide(config(GREET), authority=None, headers=[["host", "grpc.example.com"]])
    assert decision["listener"] == "default/gw/grpc"


@pytest.mark.parametrize(
    ("rule", "status", "reason"),
    [
        (RuleConfig(0, (MatchConfig("helloworld.Greeter"),), (GREETER,), failure=(14, "no such filter")), 14, "filter"),
        (RuleConfig(0, (MatchConfig("helloworld.Greeter"),), ()), 12, "no backendRefs"),
        (RuleConfig(0, (MatchConfig("helloworld.Greeter"),), (
            BackendRefConfig("d/b:1", "d", "b", 1, weight=0),)), 14, "weight 0"),
    ],
)  # fmt: skip
def test_a_rule_that_answers_itself(rule, status, reason):
    decision = decide(config(rule))
    assert (decision["outcome"], decision["route"], decision["grpc_status"]) == ("route", "default/r1", status)
    assert reason in decision["message"]


def test_an_unsupported_filter_of_a_backend():
    ref = BackendRefConfig("d/b:1", "d", "b", 1, failure="no such filter")
    backend = decide(config(RuleConfig(0, (MatchConfig(),), (ref,))))["backends"][0]
    assert (backend["valid"], backend["reason"], backend["message"]) == (False, "UnsupportedFilter", "no such filter")


# --- why others lost ---


def explained(made: GatewayConfig, **changes) -> dict:
    return Explainer(made).explain(Query.from_json({**QUESTION, **changes}))


def test_candidates():
    answer = explained(config(GREET))
    told = [(one["route"], one["rule"], one["match"], one["result"], one.get("step")) for one in answer["candidates"]]
    assert told == [
        ("default/r1", 2, 1, "won", None),
        ("default/r2", 0, 0, "lost", 2),
        ("default/r1", 2, 0, "no match", None),
    ]
    assert answer["candidates"][1]["reason"] == "characters in the hostname: (none); the winner's: *.example.com"
    assert answer["candidates"][2]["reason"] == "service 'helloworld.Greeter' is not t"
    assert answer["matched"] == "service helloworld.Greeter, header x-tenant-id = acme"


def test_listeners():
    answer = explained(config(GREET))
    assert [(one["listener"], one["selected"]) for one in answer["listeners"]] == [
        ("default/gw/any", False), ("default/gw/grpc", True),
    ]  # fmt: skip
    assert "more specific" in answer["listeners"][0]["reason"]
    answer = explained(config(GREET), authority="other.org")
    assert answer["listeners"][1]["reason"] == "hostname grpc.example.com does not match 'other.org'"


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        (MatchConfig("x"), "service 'helloworld.Greeter' is not x"),
        (MatchConfig("x.*", True), "service 'helloworld.Greeter' is not ~ x.*"),
        (MatchConfig(None, False, "x"), "method 'SayHello' is not x"),
        (MatchConfig(headers=(HeaderMatch("gone", "1"),)), "there is no header gone"),
        (MatchConfig(headers=(HeaderMatch("x-tenant-id", "globex"),)), "header x-tenant-id: 'acme' is not globex"),
        (MatchConfig(headers=(HeaderMatch("x-tenant-id", "g.*", True),)), "header x-tenant-id: 'acme' is not ~ g.*"),
        (MatchConfig("(", True), "service 'helloworld.Greeter' is not ~ ("),
    ],
)
def test_reasons_for_no_match(match, reason):
    answer = explained(config(RuleConfig(0, (match,), (GREETER,))))
    assert reason in [one["reason"] for one in answer["candidates"]]


def test_a_hostname_that_does_not_match():
    answer = explained(config(GREET, hostname=""), authority="other.org")
    assert "hostnames *.example.com do not match 'other.org'" in [one["reason"] for one in answer["candidates"]]


def test_filters():
    modifier = HeaderModifier(set=(("a", "1"),), remove=("b",))
    ref = BackendRefConfig("d/b:1", "d", "b", 1, response_headers=HeaderModifier(add=(("c", "3"),)))
    rule = RuleConfig(0, (MatchConfig(),), (ref,), request_headers=modifier, mirrors=(MirrorConfig("m/m:1", 1, 10),))
    answer = explained(config(rule))
    assert answer["filters"] == {
        "requestHeaders": {"set": {"a": "1"}, "remove": ["b"]},
        "mirrors": [{"backend": "m/m:1", "numerator": 1, "denominator": 10}],
        "backends": {"0": {"responseHeaders": {"add": {"c": "3"}}}},
    }
    shown = "\n".join(table_lines(answer))
    for text in ("set a: 1", "remove b", "mirror 1 of 10 calls to m/m:1", "backend 0: responseHeaders add c: 3"):
        assert text in shown


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(test_fastmatch.configs(), test_fastmatch.requests)
def test_the_words_agree_with_the_matcher(made, request):
    """The best of the candidates, ranked in words, is the winner of the compiled matcher; the lost have steps."""
    address, port, authority, path, fields = request
    query = Query(
        port, path.decode("latin-1"), None if authority is None else authority.decode(),
        tuple((name.decode(), value.decode("latin-1")) for name, value in fields), address,
    )  # fmt: skip
    answer = Explainer(made).explain(query)
    results = [one["result"] for one in answer["candidates"]]
    if answer["outcome"] == "route":
        assert results[0] == "won"
        assert results.count("won") == 1
        assert all(1 <= one["step"] <= 8 for one in answer["candidates"] if one["result"] == "lost")
    else:
        assert set(results) <= {"no match"}
    selected = [one["listener"] for one in answer["listeners"] if one["selected"]]
    assert answer.get("listener") is None or answer["listener"] in selected
    assert table_lines(answer)


# --- questions ---


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ({"path": "/a/b"}, "no 'port'"), ({"port": 80}, "no 'path'"), ({"port": "80", "path": "/"}, "port"),
        ({"port": 70000, "path": "/"}, "port"), ({"port": True, "path": "/"}, "port"), ({"port": 1, "path": 2}, "path"),
        ({"port": 1, "path": "/", "headers": {"a": "b"}}, "headers"), ({"port": 1, "path": "/", "scheme": 1}, "scheme"),
        ({"port": 1, "path": "/", "headers": [["a"]]}, "headers"), ({"port": 1, "path": "/", "authority": 1}, "auth"),
        ({"port": 1, "path": "/", "headers": [["a", 1]]}, "headers"),
    ],
)  # fmt: skip
def test_questions_that_are_none(question, reason):
    with pytest.raises(ValueError, match=reason):
        Query.from_json(question)


def test_a_question_in_a_query_string():
    parameters = [
        ("port", "80"), ("authority", "a"), ("path", "/s/M"), ("header", "X-Tenant: acme"), ("header", "k:v:w"),
    ]  # fmt: skip
    assert Query.from_parameters(parameters) == Query(80, "/s/M", "a", (("x-tenant", "acme"), ("k", "v:w")))


@pytest.mark.parametrize(
    "parameters",
    [
        [], [("port", "80")], [("port", "x"), ("path", "/")], [("port", "80"), ("path", "/"), ("header", "x")],
        [("port", "80"), ("path", "/"), ("what", "x")], [("port", "80"), ("port", "81"), ("path", "/")],
        [("port", "99999"), ("path", "/")],
    ],
)  # fmt: skip
def test_query_strings_that_are_none(parameters):
    with pytest.raises(ValueError):
        Query.from_parameters(parameters)


def test_header_of():
    assert header_of("X-A : b: c ") == ("x-a", "b: c")


# --- the command ---

YAML = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  gatewayClassName: pygw
  listeners: [{name: grpc, port: 80, protocol: HTTP, hostname: "*.example.com"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: r1, namespace: default}
spec:
  parentRefs: [{name: gw}]
  rules:
    - matches: [{method: {service: helloworld.Greeter}, headers: [{name: x-tenant-id, value: acme}]}]
      backendRefs: [{name: greeter, port: 50051, weight: 80}, {name: gone, port: 1, weight: 20}]
---
apiVersion: v1
kind: Service
metadata: {name: greeter, namespace: default}
spec: {ports: [{port: 50051}]}
"""


@pytest.fixture
def yaml_file(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text(YAML)
    return str(path)


ASKED = ["--port", "80", "--authority", "grpc.example.com", "--path", "/helloworld.Greeter/SayHello"]


def test_command_json(yaml_file, capsys):
    assert main(["explain", "-f", yaml_file, *ASKED, "-H", "x-tenant-id: acme", "-o", "json"]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert (answer["route"], answer["rule"], answer["match"]) == ("default/r1", 0, 0)
    assert [(one["name"], one["valid"]) for one in answer["backends"]] == [("greeter", True), ("gone", False)]
    assert answer["backends"][1]["reason"] == "BackendNotFound"
    assert "gone" in printed.err


def test_command_table(yaml_file, capsys):
    assert main(["explain", "-f", yaml_file, *ASKED, "--header", "x-tenant-id: globex", "-o", "table"]) == 0
    shown = capsys.readouterr().out
    assert "grpc-status 12: no rule of a route at listener default/gw/grpc matches this call" in shown
    assert "header x-tenant-id: 'globex' is not acme" in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "either -f PATH or --admin URL"),
        (["-f", "x", "--admin", "http://x"], "either -f PATH or --admin URL"),
        (["-f", "x", "--path", "/a/b"], "--port is due"),
        (["-f", "x", "--port", "80"], "--path is due"),
        (["-f", "x", *ASKED, "-H", "nothing"], "is not 'name: value'"),
        (["--admin", "http://x", "--batch"], "works on files"),
        (["-f", "-", "--batch"], "standard input"),
        (["-f", "x", "--batch", "--port", "80"], "on standard input"),
        (["--admin", "ftp://x", *ASKED], "is no URL"),
        (["-f", "x", "--port", "http", "--path", "/a/b"], "no port number"),
    ],
)
def test_unusable_arguments(arguments, reason, capsys):
    assert main(["explain", *arguments]) == 2
    assert reason in capsys.readouterr().err


class Standard:
    """sys.stdin or sys.stdout with a buffer."""

    def __init__(self, octets: bytes = b"") -> None:
        self.buffer = io.BytesIO(octets)

    def flush(self) -> None:
        pass


def batch(yaml_file, monkeypatch, *lines: bytes) -> tuple[int, list[dict]]:
    out = Standard()
    monkeypatch.setattr("sys.stdin", Standard(b"\n".join(lines)))
    monkeypatch.setattr("sys.stdout", out)
    code = main(["explain", "--batch", "-f", yaml_file])
    return code, [json.loads(line) for line in out.buffer.getvalue().splitlines()]


def test_batch(yaml_file, monkeypatch):
    code, answers = batch(
        yaml_file, monkeypatch, json.dumps({"id": 7, **QUESTION}).encode(), b"",
        json.dumps({"id": "x", **QUESTION, "path": "/u/M"}).encode(),
    )  # fmt: skip
    assert code == 0
    assert answers == [
        {"id": 7, "outcome": "route", "listener": "default/gw/grpc", "route": "default/r1", "rule": 0, "match": 0,
         "backends": [
             {"namespace": "default", "name": "greeter", "port": 50051, "weight": 80, "valid": True},
             {"namespace": "default", "name": "gone", "port": 1, "weight": 20, "valid": False,
              "reason": "BackendNotFound", "message": answers[0]["backends"][1]["message"]}],
         "grpc_status": None},
        {"id": "x", "outcome": "none", "listener": "default/gw/grpc", "grpc_status": 12,
         "message": "no rule of a route at listener default/gw/grpc matches this call"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "identity", "reason"),
    [
        (b"{", None, "line 1"), (b"[]", None, "not a JSON object"), (b'{"id": 3}', 3, "no 'port'"),
        (b"\xff", None, "line 1"), (b"[" * 100_000, None, "line 1"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_question(yaml_file, monkeypatch, line, identity, reason):
    code, answers = batch(yaml_file, monkeypatch, line, json.dumps({"id": 8, **QUESTION}).encode())
    assert code == 1
    assert (answers[0]["id"], answers[0]["outcome"]) == (identity, "error")
    assert reason in answers[0]["message"]
    assert (answers[1]["id"], answers[1]["outcome"]) == (8, "route")


def test_unknown_members_are_named(yaml_file, monkeypatch):
    _, answers = batch(yaml_file, monkeypatch, json.dumps({**QUESTION, "header": []}).encode())
    assert (answers[0]["outcome"], answers[0]["warning"]) == ("route", "ignored: header")


# --- a running gateway ---


class Admin(BaseHTTPRequestHandler):
    answer = (200, b"{}")
    asked: str = ""

    def do_GET(self):
        Admin.asked = self.path
        status, body = self.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def admin():
    server = HTTPServer(("127.0.0.1", 0), Admin)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_running_gateway_is_asked(admin, capsys):
    Admin.answer = (200, json.dumps(explained(config(GREET))).encode())
    assert main(["explain", "--admin", admin, *ASKED, "-H", "x-tenant-id: acme", "-o", "table"]) == 0
    assert "GRPCRoute default/r1" in capsys.readouterr().out
    path, _, query = Admin.asked.partition("?")
    assert path == "/explain"
    assert "header=x-tenant-id%3A+acme" in query
    assert "path=%2Fhelloworld.Greeter%2FSayHello" in query


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((400, b"port is due"), "answers 400: port is due"), ((200, b"<html>"), "is no admin server"),
        ((200, b"[]"), "is no admin server"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none(admin, capsys, answer, reason):
    Admin.answer = answer
    assert main(["explain", "--admin", admin, *ASKED]) == 1
    assert reason in capsys.readouterr().err


def test_nobody_answers(admin, capsys):
    assert main(["explain", "--admin", "http://127.0.0.1:1", *ASKED]) == 1
    assert "cannot ask http://127.0.0.1:1" in capsys.readouterr().err
