"""Single requests: what comes back, and what every failure becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pygw.control.kube.api import Api, ApiError
from tests.doubles.kube_api import KubeApi, connect
from tests.doubles.objects import gateway

GATEWAYS = "/apis/gateway.networking.k8s.io/v1/gateways"


def play(scenario: Callable[[KubeApi, Api], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(8), KubeApi() as server:
            server.put(gateway())
            api = await connect(server)
            try:
                await scenario(server, api)
            finally:
                await api.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "body", "headers", "reason", "message", "retry_after"),
    [
        (403, b'{"kind":"Status","code":403,"reason":"Forbidden","message":"no"}', {}, "Forbidden", "no", 0),
        (429, b'{"kind":"Status","code":429,"details":{"retryAfterSeconds":7}}', {}, "Unknown", "no message", 7),
        (429, b"slow down", {"Retry_After": "3"}, "Refused", "slow down", 3),
        (503, b"<html>", {"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "Refused", "<html>", 0),
        (500, b"", {}, "Refused", "no text", 0),
        (500, b"[]", {}, "Refused", "[]", 0),
        (502, b"x" * 5000, {}, "Refused", "x" * 200, 0),
        (301, b"elsewhere", {}, "Refused", "elsewhere", 0),
    ],
)
def test_refusals(
    status: int, body: bytes, headers: dict[str, str], reason: str, message: str, retry_after: float
) -> None:
    async def scenario(server: KubeApi, api: Api) -> None:
        server.refuse(status, body=body, **headers)
        with pytest.raises(ApiError) as caught:
            await api.call("GET", GATEWAYS)
        error = caught.value
        assert (error.status, error.reason, error.message, error.retry_after) == (status, reason, message, retry_after)
        assert api.is_reachable

    play(scenario)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"a":', b"\xff"])
def test_answers_that_are_none(body: bytes) -> None:
    async def scenario(server: KubeApi, api: Api) -> None:
        server.refuse(200, body=body)
        with pytest.raises(ApiError) as caught:
            await api.call("GET", GATEWAYS)
        assert (caught.value.status, caught.value.reason) == (0, "BadAnswer")

    play(scenario)


def test_nobody_there_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: KubeApi, api: Api) -> None:
        await server.stop()
        for _ in range(5):
            with pytest.raises(ApiError) as caught:
                await api.call("GET", GATEWAYS)
            assert (caught.value.status, caught.value.reason) == (0, "Unreachable")
        assert not api.is_reachable
        assert len(caplog.records) == 1
        assert api.requests == {("GET", "error"): 5}

    play(scenario)


def test_credentials_are_read_again_when_they_are_refused() -> None:
    async def scenario(server: KubeApi, _: Api) -> None:
        server.token = token = "old"

        async def load(configuration: Any) -> str:
            configuration.host = server.url
            configuration.api_key["BearerToken"] = f"Bearer {token}\n"  # as from a file with a line's end
            return ""

        api = Api(load)
        await api.reload()
        assert len((await api.call("GET", GATEWAYS))["items"]) == 1
        server.token = token = "new"
        api._reloaded_at = float("-inf")
        assert len((await api.call("GET", GATEWAYS))["items"]) == 1
        server.token = "newer"  # read again a moment ago: not for every request
        with pytest.raises(ApiError, match="401 Unauthorized"):
            await api.call("GET", GATEWAYS)
        await api.close()

    play(scenario)


def test_credentials_that_cannot_be_read_again_leave_those_of_before() -> None:
    async def scenario(server: KubeApi, _: Api) -> None:
        is_broken = False

        async def load(configuration: Any) -> str:
            if is_broken:
                raise KeyError("users")
            configuration.host = server.url
            configuration.api_key["BearerToken"] = "Bearer old"
            return ""

        server.token = "old"
        api = Api(load)
        await api.reload()
        is_broken, api._reloaded_at = True, float("-inf")
        fault = server.refuse(401)
        with pytest.raises(ApiError, match="401"):
            await api.call("GET", GATEWAYS)
        server.mend(fault)
        assert len((await api.call("GET", GATEWAYS))["items"]) == 1
        await api.close()

    play(scenario)


@pytest.mark.parametrize(
    ("group", "version", "plural", "expected"),
    [
        ("gateway.networking.k8s.io", "v1", "gateways", True),
        ("gateway.networking.k8s.io", "v1", "nothings", False),
        ("gateway.networking.k8s.io", "v9", "gateways", False),
        ("example.com", "v1", "gateways", False),
    ],
)
def test_discovery(group: str, version: str, plural: str, expected: bool) -> None:
    async def scenario(server: KubeApi, api: Api) -> None:
        assert await api.serves(group, version, plural) is expected

    play(scenario)


@pytest.mark.parametrize("path", ["", "/apis/gateway.networking.k8s.io/v1"])
@pytest.mark.parametrize(("status", "body"), [(404, b"not here"), (200, b"{}"), (503, b"")])
def test_discovery_by_somebody_else_is_no_answer(path: str, status: int, body: bytes) -> None:
    async def scenario(server: KubeApi, api: Api) -> None:
        server.refuse(status, path=path, body=body)
        if path and status == 404:  # the group is listed all the same: then the resource is there
            assert await api.serves("gateway.networking.k8s.io", "v1", "gateways")
            return
        with pytest.raises(ApiError):
            await api.serves("gateway.networking.k8s.io", "v1", "gateways")

    play(scenario)
