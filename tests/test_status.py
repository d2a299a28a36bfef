"""`pygw status`: what it prints, and how it ends."""

import argparse
import json

import pytest

from pygw.cli import main
from pygw.commands.status import as_list, as_table, service_override
from tests.doubles.objects import (
    allow,
    conditions,
    gateway,
    gateway_class,
    listener,
    listener_set,
    ref,
    resolve_items,
    route,
    rule,
    service,
    state_of,
)

YAML = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: r}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: echo, port: 50051}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: pygw
  listeners: [{name: grpc, port: 80, protocol: HTTP}]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "gateway.yaml").write_text(YAML)
    return tmp_path


def table(*items):
    return as_table(state_of(*items), resolve_items(*items)).splitlines()


def test_json_is_a_list_of_the_objects_given(folder, capsys):
    assert main(["status", "-f", str(folder), "-o", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["apiVersion"], printed["kind"]) == ("v1", "List")
    by_kind = {item["kind"]: item for item in printed["items"]}
    assert set(by_kind) == {"Gateway", "GRPCRoute"}
    assert by_kind["GRPCRoute"]["metadata"]["namespace"] == "default"
    (parent,) = by_kind["GRPCRoute"]["status"]["parents"]
    assert conditions(parent) == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", "BackendNotFound")}
    assert by_kind["Gateway"]["status"]["listeners"][0]["attachedRoutes"] == 1


def test_json_is_the_default_where_there_is_no_terminal(folder, capsys):
    assert main(["status", "-f", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "List"


def test_options(folder, capsys):
    options = ["--resolve", "default/echo:50051=127.0.0.1:9000", "--gateway-address", "192.0.2.1"]
    assert main(["status", "-f", str(folder), *options]) == 0
    gateway_item, route_item = json.loads(capsys.readouterr().out)["items"]
    assert conditions(route_item["status"]["parents"][0])["ResolvedRefs"] == ("True", "ResolvedRefs")
    assert gateway_item["status"]["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]


def test_what_cannot_be_read_is_said_and_ends_with_1(folder, capsys):
    (folder / "broken.yaml").write_text("kind: [\n")
    assert main(["status", "-f", str(folder)]) == 1
    printed = capsys.readouterr()
    assert "broken.yaml" in printed.err
    assert len(json.loads(printed.out)["items"]) == 2  # the rest is shown all the same


def test_wrong_arguments_end_with_2(capsys):
    assert main(["status"]) == 2
    assert main(["status", "-f", "x", "-o", "xml"]) == 2
    assert main(["status", "-f", "x", "--resolve", "echo=1"]) == 2
    assert "NAMESPACE/NAME:PORT=HOST:PORT" in capsys.readouterr().err


def test_objects_without_a_status_of_ours_stay_as_they_are():
    foreign = {**gateway_class("x", controller="example.com/x"), "status": {"conditions": []}}
    items = [foreign, service(), route(parents=[{"name": "missing"}])]
    listed = as_list(state_of(*items), resolve_items(*items))["items"]
    assert [item["kind"] for item in listed] == ["GatewayClass", "GRPCRoute", "Service"]
    assert listed[0] == foreign
    assert listed[1]["status"] == {"parents": []}
    assert listed[2] == service()


def test_the_table():
    lines = table(gateway_class(), gateway(listener(**allow("All"))), route(), service())
    assert [line.split() for line in lines] == [
        ["KIND", "NAME", "PART", "CONDITIONS"],
        ["GatewayClass", "pygw", "Accepted,", "SupportedVersion"],
        ["Gateway", "default/gw", "Accepted,", "Programmed,", "ResolvedRefs"],
        ["listener", "grpc,", "1", "route", "Accepted,", "Programmed,", "ResolvedRefs"],
        ["GRPCRoute", "default/r", "parent", "default/gw", "Accepted,", "ResolvedRefs"],
    ]


def test_the_table_explains_what_is_wrong():
    parents = [{"name": "gw", "sectionName": "grpc", "port": 80}]
    lines = table(gateway(listener(), listener("tls", 443, "TLS")), route(rule(ref("gone")), parents=parents))
    text = "\n".join(lines)
    assert "parent default/gw, listener grpc, port 80  Accepted, ResolvedRefs=False" in text
    assert "\n  ResolvedRefs: BackendNotFound: spec.rules[0].backendRefs[0]: Service default/gone does not" in text
    assert "\n  Accepted: ListenersNotValid: listener tls: protocol TLS" in text
    assert "Conflicted" not in text


def test_the_table_names_what_is_not_ours():
    text = "\n".join(table(gateway_class(controller="example.com/x"), gateway(), route()))
    assert "left alone: its controllerName is example.com/x" in text
    assert "left alone: GatewayClass pygw is another controller's" in text
    assert "not attached: no parentRef names a Gateway that is served" in text


def test_the_table_shows_listener_sets_and_routes_of_theirs():
    lines = table(
        gateway(allowedListeners={"namespaces": {"from": "All"}}),
        listener_set(listener("extra", 81)),
        listener_set(listener("extra", 81), name="lost", parent={"name": "gone"}),
        route(parents=[{"kind": "ListenerSet", "name": "ls"}]),
        service(),
    )
    assert [line.split() for line in lines[3:]] == [
        ["ListenerSet", "default/lost", "left", "alone:", "its", "Gateway", "does", "not", "exist,", "or", "is",
         "another", "controller's"],
        ["ListenerSet", "default/ls", "Accepted,", "Programmed"],
        ["listener", "extra,", "1", "route", "Accepted,", "Programmed,", "ResolvedRefs"],
        ["GRPCRoute", "default/r", "parent", "ListenerSet", "default/ls", "Accepted,", "ResolvedRefs"],
    ]  # fmt: skip


def test_nothing_to_show():
    assert table(service()) == ["no GatewayClass, Gateway or route in what was given"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b:1=c:2", (("a", "b", 1), ("c", 2))),
        ("a/b:1=[::1]:2", (("a", "b", 1), ("::1", 2))),
    ],
)
def test_overrides(text, expected):
    assert service_override(text) == expected


@pytest.mark.parametrize("text", ["", "a/b:1", "b:1=c:2", "a/b=c:2", "a/b:1=c", "/b:1=c:2", "a/:1=c:2", "a/b:x=c:2"])
def test_bad_overrides(text):
    with pytest.raises(argparse.ArgumentTypeError):
        service_override(text)
