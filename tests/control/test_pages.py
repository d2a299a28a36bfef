"""The admin pages by themselves: what is redacted, and what the endpoints and explanations say. The rest is tested
where a gateway runs (tests/test_launcher.py)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

import pytest

from pygw.admin import Request, Response
from pygw.control.controller import Controller
from pygw.control.dns import Answer, Names
from pygw.control.pages import REDACTED, Pages, redact
from pygw.control.worker_link import Published
from pygw.model import (
    BackendConfig,
    BackendRefConfig,
    GatewayConfig,
    HeaderMatch,
    HeaderModifier,
    ListenerConfig,
    MatchConfig,
    RouteConfig,
    RuleConfig,
)
from pygw.run_options import RunOptions
from pygw.tables import compile_image

SECRET = "hunter2"


def config() -> GatewayConfig:
    modifier = HeaderModifier(
        set=(("authorization", f"Bearer {SECRET}"), ("x-plain", "shown")), add=(("X-Api-Key", SECRET),)
    )
    match = MatchConfig(headers=(HeaderMatch("x-auth-token", SECRET), HeaderMatch("x-tenant", "acme")))
    cookie = HeaderModifier(set=(("cookie", SECRET),))
    ref = BackendRefConfig("default/b:80", "default", "b", 80, response_headers=cookie)
    route = RouteConfig("default", "r", (), (RuleConfig(0, (match,), (ref,), request_headers=modifier),))
    listener = ListenerConfig("default/gw", "grpc", 80, routes=(route.key,))
    backend = BackendConfig("default/b:80", "default", "b", 80, dns=(("b.default", 80),))
    return GatewayConfig((listener,), {route.key: route}, {backend.key: backend})


def ask(page: str, query: list[tuple[str, str]] | None = None, is_served: bool = True) -> Response:
    async def lookup(host: str) -> Answer:
        return Answer(("10.0.0.1",), 30.0)

    async def main() -> Response:
        told: list[dict[str, Any]] = []
        controller = Controller(
            RunOptions(("x",), 1), None, lambda message, fds=(): told.append(message),  # type: ignore[arg-type]
            lambda on_change: Names(lookup, on_change),
        )  # fmt: skip
        if is_served:
            image = compile_image(config())
            endpoints = {"default/b:80": (("10.0.0.1", 80),)}
            controller.published = Published(3, config(), image.octets, image.backend_keys, endpoints)
            controller.apply_seconds = 0.25
        pages = Pages(controller, controller.tell_launcher)
        try:
            response = await pages.admin()[page](Request("GET", page, query or [], {}, True))
            if page == "POST /drain":
                assert told == [{"type": "drain"}]
            return response
        finally:
            controller.close()

    return asyncio.run(main())


def test_config_is_redacted() -> None:
    response = ask("GET /config")
    assert SECRET.encode() not in response.body
    shown = json.loads(response.body)
    assert shown["version"] == 3
    rule = shown["config"]["routes"]["GRPCRoute/default/r"]["rules"][0]
    assert rule["request_headers"]["set"] == [["authorization", REDACTED], ["x-plain", "shown"]]
    assert rule["request_headers"]["add"] == [["X-Api-Key", REDACTED]]
    assert [match["value"] for match in rule["matches"][0]["headers"]] == [REDACTED, "acme"]


def test_redaction_leaves_all_else_as_it_is() -> None:
    plain = GatewayConfig((ListenerConfig("default/gw", "token", 80),), {}, {})
    assert redact(asdict(plain)) == json.loads(json.dumps(asdict(plain)))


def test_explain_uses_the_image_that_is_served() -> None:
    query = [("port", "80"), ("authority", "x"), ("path", "/a.B/C")]
    query += [("header", f"x-auth-token: {SECRET}"), ("header", "x-tenant: acme")]
    response = ask("GET /explain", query)
    assert response.status == 200
    explained = json.loads(response.body)
    assert (explained["outcome"], explained["route"]) == ("route", "default/r")
    assert explained["filters"]["requestHeaders"]["set"] == {"authorization": REDACTED, "x-plain": "shown"}


@pytest.mark.parametrize(
    ("query", "message"),
    [([], b"port and path are due"), ([("port", "80"), ("path", "/"), ("x", "y")], b"unknown parameter 'x'")],
)
def test_a_question_that_is_none(query: list[tuple[str, str]], message: bytes) -> None:
    response = ask("GET /explain", query)
    assert response.status == 400
    assert message in response.body


def test_endpoints() -> None:
    shown = json.loads(ask("GET /endpoints").body)
    assert shown["backends"] == {
        "default/b:80": {"source": "dns", "endpoints": [["10.0.0.1", 80]], "dns": [["b.default", 80]]}
    }


@pytest.mark.parametrize(
    ("page", "status"),
    [
        ("GET /healthz", 200), ("GET /readyz", 503), ("GET /metrics", 200), ("GET /config", 200),
        ("GET /status", 200), ("GET /endpoints", 200), ("GET /explain", 503), ("POST /drain", 202),
    ],
)  # fmt: skip
def test_before_there_is_a_configuration(page: str, status: int) -> None:
    assert ask(page, is_served=False).status == status


def test_own_metrics() -> None:
    text = ask("GET /metrics").body.decode()
    for line in (
        "pygw_config_version 3.0", "pygw_workers 1.0", "pygw_workers_connected 0.0", "pygw_ready 0.0",
        'pygw_config_problems{severity="error"} 0.0', "pygw_control_restarts_total 0.0",
        "pygw_config_last_apply_seconds 0.25",
    ):  # fmt: skip
        assert f"\n{line}\n" in text
    assert 'pygw_build_info{python="' in text
