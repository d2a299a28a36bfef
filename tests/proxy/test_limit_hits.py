"""Each limit of the engine that a client or a backend goes over is counted, under its own name and once."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from pygw.settings import Settings
from tests.doubles import frames
from tests.doubles.in_process import REQUEST, RESPONSE, Backend, Gateway, gateway, message, one_route, run

OPEN_BLOCK = frames.headers(1, end_headers=False)
STREAMS = range(1, 601, 2)
LARGE = [(b"x" * 90, b"y" * 90) for _ in range(20)]
SMALL = [(b"x", b"y")] * 30
TOO_MANY = Settings(max_header_fields=20)
TOO_LARGE = Settings(max_header_list_size=2000)


@dataclass
class Over:
    """What goes over the limit, and the settings for it."""

    limit: str
    sent: bytes
    settings: Settings = field(default_factory=Settings)


BOTH = [
    Over("max_header_block", OPEN_BLOCK + frames.continuation(1, bytes(1000)), Settings(max_header_block=1000)),
    Over("max_header_block", frames.headers(1, bytes(1500)), Settings(max_header_block=1000)),
    Over("max_continuations", OPEN_BLOCK + frames.continuation(1) * 33),
    Over("flood_control_frames", frames.ping() * 1500),
    Over("flood_settings_frames", frames.settings() * 150),
    Over("max_header_list_size", frames.headers(1, [*frames.RESPONSE, *LARGE * 3]), TOO_LARGE),
    Over("max_header_fields", frames.headers(1, [*frames.RESPONSE, *SMALL * 3]), TOO_MANY),
]
CLIENT = [
    *BOTH,
    Over("flood_rapid_resets", b"".join(frames.headers(number) + frames.rst_stream(number) for number in STREAMS)),
    Over("flood_provoked_resets",
         b"".join(frames.headers(number) + frames.window_update(number, 0) for number in STREAMS)),
]
BACKEND = [
    *BOTH,
    Over("max_interim_responses", frames.headers(1, [(b":status", b"103")]) * 33),
    Over("max_header_list_size", frames.headers(1, [*frames.RESPONSE, *LARGE]), TOO_LARGE),
    Over("max_header_fields", frames.headers(1, [*frames.RESPONSE, *SMALL]), TOO_MANY),
]


def named(cases: list[Over]) -> list[Any]:
    return [pytest.param(case, id=f"{case.limit}-{place}") for place, case in enumerate(cases)]


def hits(served: Gateway) -> dict[str, float]:
    """What pygw_limit_hits_total has counted."""
    rows = served.relay.metrics()["counters"]
    return {labels["limit"]: count for name, labels, count in rows if name == "pygw_limit_hits_total" and count}


async def send_all(served: Gateway, octets: bytes) -> None:
    """A client that sends this and reads until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(frames.PREFACE + frames.settings() + octets)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            await reader.read()
    writer.close()


@pytest.mark.parametrize("case", named(CLIENT))
def test_what_a_client_goes_over_is_counted(case: Over) -> None:
    async def test() -> None:
        backend = await Backend().start()
        async with gateway(one_route([backend]), case.settings) as served:
            await send_all(served, case.sent)
            assert hits(served) == {case.limit: 1}
            assert served.count("pygw_downstream_connection_errors_total") == 1

    run(test)


@pytest.mark.parametrize("case", named(BACKEND))
def test_what_a_backend_goes_over_is_counted(case: Over) -> None:
    async def test() -> None:
        backend = await Backend().start()
        async with gateway(one_route([backend]), case.settings) as served:
            client = await served.client()
            asked = client.request(body=message(b"hello"))
            peer = await backend.connected()
            await peer.open(1)
            peer.writer.write(case.sent)
            assert (await client.over(asked)).status in ("8", "13", "14")
            assert hits(served) == {case.limit: 1}

    run(test)


def test_streams_over_their_limit_are_counted_and_so_is_their_flood() -> None:
    async def test() -> None:
        backend = await Backend().start()
        settings = Settings(max_concurrent_streams=1, flood_refused_streams=10)
        async with gateway(one_route([backend]), settings) as served:
            await send_all(served, b"".join(map(frames.headers, STREAMS)))
            assert hits(served) == {"max_concurrent_streams": 11, "flood_refused_streams": 1}

    run(test)


@pytest.mark.parametrize(("settings", "fields", "limit"), [
    (TOO_LARGE, LARGE, "max_header_list_size"), (TOO_MANY, SMALL, "max_header_fields"),
])  # fmt: skip
@pytest.mark.parametrize("place", ["request", "trailers"])
def test_header_lists_that_are_refused_are_counted(settings, fields, limit, place) -> None:
    async def test() -> None:
        backend = await Backend().start()
        async with gateway(one_route([backend]), settings) as served:
            client = await served.client()
            if place == "request":
                client.writer.write(frames.headers(1, [*frames.REQUEST, *fields]))
            else:
                client.writer.write(frames.headers(1) + frames.headers(1, fields, end_stream=True))
            client.writer.write(frames.ping())
            while not hits(served):
                await asyncio.sleep(0)
            assert hits(served) == {limit: 1}
            assert not client.closed

    run(test)


@pytest.mark.parametrize(("settings", "fields", "text"), [
    (TOO_LARGE, LARGE, "headers are larger than max_header_list_size"),
    (TOO_MANY, SMALL, "has more header fields than max_header_fields"),
])  # fmt: skip
@pytest.mark.parametrize("whose", ["request", "response"])
def test_the_message_names_the_limit_that_a_header_list_is_over(settings, fields, text, whose) -> None:
    more = [(name.decode(), value.decode()) for name, value in fields]

    async def test() -> None:
        backend = await Backend().start()
        async with gateway(one_route([backend]), settings) as served:
            client = await served.client()
            asked = client.request([*REQUEST, *(more if whose == "request" else ())], body=message(b"hello"))
            if whose == "response":
                peer = await backend.connected()
                await peer.open(1)
                peer.headers(1, [*RESPONSE, *more])
            stream = await client.over(asked)
            assert stream.status == "8"
            assert whose in stream.text
            assert text in stream.text

    run(test)


def test_output_that_is_not_read_is_counted() -> None:
    async def test() -> None:
        settings = Settings(max_blocked_output=20_000, write_high_water=1, flood_control_frames=10**9)
        async with gateway(one_route(), settings) as served:
            client = await served.client(receive_buffer=4096)
            client.stop_reading()
            while not hits(served) and not client.writer.transport.is_closing():
                client.writer.write(frames.ping() * 100)
                await asyncio.sleep(0)
            assert hits(served) == {"max_blocked_output": 1}

    run(test)
