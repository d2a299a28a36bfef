"""Endpoints that fail calls, or cannot be connected, are left out and come back; connections heal without a call."""

import asyncio
import contextlib
import itertools
import socket

import pytest

from pygw.settings import Settings
from tests.doubles.in_process import REQUEST, Backend, gateway, message, one_route, run
from tests.doubles.raw_peers import black_hole

INTERNAL_ERROR, REFUSED_STREAM = 2, 7
CALL = message(b"ask")
LONG = {"eject_time": 60.0, "eject_time_max": 60.0}


class Server:
    """Answers each call at once: with a response, or as `fail` does."""

    def __init__(self, backend, fail=None):
        self.backend = backend
        self.fail = fail
        self.calls = 0
        self.held = []
        self._task = asyncio.ensure_future(self._serve())

    @classmethod
    async def start(cls, fail=None):
        return cls(await Backend().start(), fail)

    async def _serve(self):
        answered = set()
        while True:
            for peer in self.backend.peers:
                for number in list(peer.streams):
                    if (id(peer), number) not in answered and not peer.closed:
                        answered.add((id(peer), number))
                        self.calls += 1
                        (self.fail or type(peer).respond)(peer, number)
            await asyncio.sleep(0)

    def stop(self):
        self._task.cancel()


def reset_with(code):
    def fail(peer, number):
        peer.h2.reset_stream(number, code)
        peer.flush()

    return fail


def break_connection(peer, number):
    peer.writer.transport.abort()


def never(peer, number):
    pass


@contextlib.asynccontextmanager
async def servers(*fails):
    started = [await Server.start(fail) for fail in fails]
    try:
        yield started
    finally:
        for server in started:
            server.stop()


async def call(client, **options):
    return (await client.over(client.request(body=CALL, **options))).status


@pytest.mark.parametrize("fail", [reset_with(INTERNAL_ERROR), break_connection], ids=["reset", "break"])
def test_an_endpoint_that_fails_calls_is_left_out(fail):
    async def test():
        async with (
            servers(fail, None, None) as (bad, *_),
            gateway(one_route([bad.backend, *(server.backend for server in _)]), Settings(**LONG)) as served,
        ):
            client = await served.client()
            statuses = [await call(client) for _ in range(60)]
            assert (bad.calls, statuses.count("14"), statuses.count("0")) == (5, 5, 55)
            assert served.count("pygw_endpoint_ejections_total") == served.count("pygw_endpoints_ejected") == 1
            states = served.relay.endpoint_states()["default/main:1"]
            assert [state["ejected"] for state in states] == [True, False, False]

    run(test)


def test_an_endpoint_that_refuses_all_calls_costs_none_of_them():
    async def test():
        async with (
            servers(reset_with(REFUSED_STREAM), None) as (bad, good),
            gateway(one_route([bad.backend, good.backend]), Settings(eject_panic=50, **LONG)) as served,
        ):
            client = await served.client()
            assert [await call(client) for _ in range(40)] == ["0"] * 40
            assert bad.calls == 5

    run(test)


def test_answers_in_between_keep_an_endpoint():
    async def test():
        async with (
            servers(reset_with(INTERNAL_ERROR), None) as (bad, good),
            gateway(one_route([bad.backend, good.backend]), Settings(eject_failures=3, **LONG)) as served,
        ):
            client = await served.client()
            for _ in range(4):
                bad.fail = reset_with(INTERNAL_ERROR)
                before = bad.calls
                while bad.calls < before + 2:
                    await call(client)
                bad.fail = None
                while bad.calls < before + 3:
                    await call(client)
            assert served.count("pygw_endpoint_ejections_total") == 0

    run(test)


def test_one_call_tries_an_endpoint_whose_time_is_over_and_brings_it_back():
    async def test():
        settings = Settings(eject_failures=1, eject_time=0.5, eject_time_max=0.5)
        async with (
            servers(reset_with(INTERNAL_ERROR), None) as (bad, good),
            gateway(one_route([bad.backend, good.backend]), settings) as served,
        ):
            client = await served.client()
            while bad.calls < 1:
                await call(client)
            bad.fail = never
            calls = []
            while bad.calls < 2:
                calls.append(client.request(body=CALL))
                await asyncio.sleep(0.005)
            # That one is under way; nobody follows.
            for _ in range(20):
                assert await call(client) == "0"
            assert bad.calls == 2
            bad.backend.peers[0].respond(max(bad.backend.peers[0].streams))
            for stream_id in calls:
                assert (await client.over(stream_id)).status == "0"
            bad.fail = None
            for _ in range(20):
                assert await call(client) == "0"
            assert bad.calls == 12
            assert served.count("pygw_endpoints_ejected") == 0

    run(test)


@pytest.mark.parametrize(("share", "panic"), [(50, True), (100, False)])
def test_where_most_are_ejected_all_take_calls(share, panic):
    async def test():
        fail = reset_with(INTERNAL_ERROR)
        settings = Settings(eject_failures=1, eject_panic=share, **LONG)
        async with (
            servers(fail, fail, None) as (first, second, good),
            gateway(one_route([first.backend, second.backend, good.backend]), settings) as served,
        ):
            client = await served.client()
            while served.count("pygw_endpoints_ejected") < 2:
                await call(client)
            before = first.calls + second.calls
            for _ in range(30):
                await call(client)
            assert (first.calls + second.calls > before) is panic
            assert (served.count("pygw_endpoint_panics_total") > 0) is panic

    run(test)


def test_endpoints_that_cannot_be_connected_cost_no_call():
    async def test():
        async with servers(None) as (good,):
            with socket.socket() as first, socket.socket() as second:  # bound, not listening: they refuse
                for sock in (first, second):
                    sock.bind(("127.0.0.1", 0))
                ports = [sock.getsockname()[1] for sock in (first, second)]
                async with gateway(one_route([good.backend], ports=ports)) as served:
                    client = await served.client()
                    assert [await call(client) for _ in range(60)] == ["0"] * 60
                    assert served.count("pygw_endpoint_panics_total") == 0

    run(test)


def test_a_black_holed_endpoint_holds_up_nobody_for_long():
    async def test():
        async with servers(None) as (good,):
            with black_hole() as port:
                settings = Settings(connect_timeout=60.0, connect_patience=0.05)
                async with gateway(one_route([good.backend], ports=[port]), settings) as served:
                    client = await served.client()
                    # Those that come before there is any connection, and those that come later.
                    ids = [client.request(body=CALL) for _ in range(20)]
                    for stream_id in ids:
                        assert (await client.over(stream_id)).status == "0"
                    assert 9 <= served.count("pygw_upstream_retries_total", reason="connect") <= 11
                    for _ in range(20):
                        assert await call(client) == "0"
                    assert 9 <= served.count("pygw_upstream_retries_total", reason="connect") <= 11

    run(test)


# ===== connections =====


def test_an_endpoint_with_traffic_is_connected_again_before_a_call_comes():
    async def test():
        async with servers(None) as (server,), gateway(one_route([server.backend])) as served:
            client = await served.client()
            assert await call(client) == "0"
            for count in (2, 3):
                await server.backend.peers[-1].close()
                await server.backend.connected(count)
                if count == 2:
                    assert await call(client) == "0"
            # The third took no call, so nobody asks for a fourth.
            assert served.count("pygw_upstream_connects_total") == 3

    run(test)


def test_an_endpoint_that_was_away_is_connected_when_it_is_back():
    async def test():
        async with servers(None) as (server,):
            settings = Settings(eject_time=0.01, eject_time_max=0.02)
            async with gateway(one_route([server.backend]), settings) as served:
                client = await served.client()
                assert await call(client) == "0"
                port = server.backend.port
                await server.backend.stop()
                while served.count("pygw_upstream_connect_failures_total") < 3:
                    await asyncio.sleep(0.005)
                listener = await asyncio.start_server(server.backend._accept, "127.0.0.1", port)
                await server.backend.connected(2)
                assert await call(client) == "0"
                listener.close()

    run(test)


def test_attempts_to_connect_come_later_and_later_and_not_in_step():
    async def test():
        async with servers(None) as (server,):
            first, last = 0.02, 0.16
            settings = Settings(eject_time=first, eject_time_max=last)
            async with gateway(one_route([server.backend]), settings) as served:
                client = await served.client()
                assert await call(client) == "0"
                loop, attempts = asyncio.get_running_loop(), []

                def turn_away(reader, writer):
                    attempts.append(loop.time())
                    writer.transport.abort()

                await server.backend.stop()
                listener = await asyncio.start_server(turn_away, "127.0.0.1", server.backend.port)
                while len(attempts) < 12:
                    await asyncio.sleep(0.005)
                listener.close()
                gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
                for failures, gap in enumerate(gaps):
                    # Half is jitter; the loop's clock counts milliseconds.
                    assert gap >= min(first * 2**failures, last) / 2 - 0.002
                assert max(gaps[4:]) - min(gaps[4:]) > 0.002

    run(test)


def test_a_connection_that_a_deadline_makes_suspect_is_asked_whether_it_lives():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(keepalive_timeout=0.05)) as served:
            client = await served.client()
            warm = client.request(body=CALL)
            peer = await backend.connected()
            peer.respond((await peer.open(1))[0])
            await client.over(warm)
            peer.answers_pings = False
            stream_id = client.request((*REQUEST, ("grpc-timeout", "30m")), body=CALL)
            other = client.request(body=CALL)
            assert (await client.over(stream_id)).status == "4"
            assert (await client.over(other)).status == "14"
            await peer.until(lambda: peer.closed)
            assert peer.pings

    run(test)
