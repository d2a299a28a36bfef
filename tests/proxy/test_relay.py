"""The relay, frame by frame: balancing, pools, queues, flow control, filters, mirrors, addresses, timers, drain."""

import asyncio

import pytest

from pygw.model import BackendRefConfig, HeaderModifier, MirrorConfig
from pygw.settings import Settings
from tests.doubles.in_process import REQUEST, Backend, gateway, message, one_route, run

CANCEL = 8
REFUSED_STREAM = 7
MAX_CONCURRENT_STREAMS = 3
INITIAL_WINDOW_SIZE = 4


# ===== balancing and pools =====


def test_calls_of_one_connection_are_shared_between_endpoints():
    async def test():
        backends = [await Backend().start() for _ in range(3)]
        async with gateway(one_route(backends)) as served:
            client = await served.client()
            for _ in range(30):
                client.request(body=message(b""))
            for backend in backends:
                peer = await backend.connected()
                assert len(await peer.open(10)) == 10
                assert len(backend.peers) == 1

    run(test)


def test_many_connections_share_one_upstream_connection():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            for _ in range(10):
                (await served.client()).request(body=message(b""))
            await (await backend.connected()).open(10)
            assert len(backend.peers) == 1

    run(test)


def test_the_stream_limit_of_a_backend_opens_another_connection():
    async def test():
        backend = await Backend({MAX_CONCURRENT_STREAMS: 2}).start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            for _ in range(5):
                client.request(body=message(b""))
            for number in (1, 2, 3):
                peer = await backend.connected(number)
                await peer.open(1 if number == 3 else 2)
            assert served.count("pygw_upstream_connections") == 3

    run(test)


def test_beyond_all_connections_calls_wait_and_go_on():
    async def test():
        backend = await Backend({MAX_CONCURRENT_STREAMS: 1}).start()
        async with gateway(one_route([backend]), Settings(max_upstream_connections=1)) as served:
            client = await served.client()
            first, second = client.request(body=message(b"1")), client.request(body=message(b"2"))
            peer = await backend.connected()
            assert await peer.open(1) == [1]
            peer.respond(1)
            assert (await client.over(first)).status == "0"
            assert await peer.open(2) == [1, 3]
            peer.respond(3)
            assert (await client.over(second)).status == "0"
            assert peer.streams[3].data == message(b"2")

    run(test)


def test_the_queue_is_bounded_and_says_so():
    async def test():
        backend = await Backend({MAX_CONCURRENT_STREAMS: 1}).start()
        settings = Settings(max_upstream_connections=1, pending_calls=1)
        async with gateway(one_route([backend]), settings) as served:
            client = await served.client()
            client.request(body=message(b""))
            await (await backend.connected()).open(1)
            client.request(body=message(b""))
            refused = await client.over(client.request(body=message(b"")))
            assert refused.status == "8"
            assert "pending_calls" in refused.text
            assert served.count("pygw_limit_hits_total", limit="pending_calls") == 1

    run(test)


def test_who_waits_too_long_is_told():
    async def test():
        backend = await Backend({MAX_CONCURRENT_STREAMS: 0}).start()
        async with gateway(one_route([backend]), Settings(pending_timeout=0.05)) as served:
            client = await served.client()
            refused = await client.over(client.request(body=message(b"")))
            assert refused.status == "14"
            assert "pending_timeout" in refused.text

    run(test)


def test_a_dead_endpoint_is_passed_over():
    async def test():
        backend = await Backend().start()
        dead = await Backend().start()
        await dead.stop()
        async with gateway(one_route([backend, dead])) as served:
            client = await served.client()
            for _ in range(6):
                client.request(body=message(b""))
            assert len(await (await backend.connected()).open(6)) == 6
            assert served.count("pygw_upstream_connect_failures_total") >= 1

    run(test)


def test_endpoints_that_stay_keep_their_connections():
    async def test():
        backend, other = await Backend().start(), await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            both = [("127.0.0.1", backend.port), ("127.0.0.1", other.port)]
            served.relay.update_endpoints([("default/main:1", both)])
            for _ in range(4):
                client.request(body=message(b""))
            await (await other.connected()).open(1)
            assert len(backend.peers) == 1
            # Gone from the list: what runs there finishes, nothing new comes.
            served.relay.update_endpoints([("default/main:1", [("127.0.0.1", other.port)])])
            peer.respond(1)
            assert (await client.over(stream_id)).status == "0"
            for number in sorted(peer.streams)[1:]:
                peer.respond(number)
            await peer.until(lambda: peer.closed)

    run(test)


# ===== flow control =====


def test_a_slow_reader_stops_the_backend():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            client.reads = False
            stream_id = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            peer.headers(1, ((":status", "200"), ("content-type", "application/grpc")))
            # All that the gateway's window lets through; then it must hold the backend.
            sent = await peer.fill(1)
            await client.until(lambda: stream_id in client.streams and len(client.streams[stream_id].data) == 65535)
            # The client's window, and the gateway's own, which doubled once while the client's filled.
            assert sent <= 65535 + 2 * Settings().stream_window
            client.h2.reset_stream(stream_id, CANCEL)
            client.flush()
            await peer.until(lambda: peer.streams[1].reset == CANCEL)

    run(test)


def test_a_slow_backend_stops_the_client():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request()
            peer = await backend.connected()
            peer.reads = False
            await peer.open(1)
            sent = await client.fill(stream_id)
            await peer.until(lambda: len(peer.streams[1].data) == 65535)
            # As above, but that the first 65535 octets of what the client may send do not fill the window.
            assert sent <= 65535 + Settings().request_window

    run(test)


def test_a_stalled_call_does_not_stall_its_neighbours():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            stalled, lively = await served.client(), await served.client()
            stalled.reads = False
            for _ in range(80):  # 80 windows of 64 KiB are more than the connection's window of 4 MiB
                stalled.request(body=message(b""))
            peer = await backend.connected()
            for number in await peer.open(80):
                peer.headers(number, ((":status", "200"), ("content-type", "application/grpc")))
                for _ in range(3):
                    peer.data(number, b"\0" * 16384)
                await asyncio.sleep(0)
            stream_id = lively.request(body=message(b""))
            number = max(await peer.open(81))
            peer.respond(number)
            assert (await lively.over(stream_id)).status == "0"

    run(test)


# ===== filters and mirrors =====


def test_request_headers_are_modified_by_rule_and_backend_ref():
    async def test():
        backend = await Backend().start()
        rule = {
            "request_headers": HeaderModifier(
                set=(("x-set", "new"),), add=(("x-add", "more"), ("x-fresh", "1")), remove=("x-gone",)
            ),
            "response_headers": HeaderModifier(set=(("x-served-by", "pygw"),), remove=("server",)),
            "backends": (
                BackendRefConfig(
                    "default/main:1", "default", "main", 1,
                    request_headers=HeaderModifier(add=(("x-add", "still"),)),
                    response_headers=HeaderModifier(add=(("x-served-by", "main"),)),
                ),
            ),
        }
        async with gateway(one_route([backend], rule=rule)) as served:
            client = await served.client()
            fields = (*REQUEST, ("x-set", "a"), ("x-set", "b"), ("x-add", "foo"), ("x-gone", "1"), ("x-kept", "k"))
            stream_id = client.request(fields, body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            got = peer.streams[1].fields[0]
            assert [value for name, value in got if name == "x-set"] == ["new"]
            assert [value for name, value in got if name == "x-add"] == ["foo,more,still"]
            assert ("x-fresh", "1") in got
            assert ("x-kept", "k") in got
            assert "x-gone" not in dict(got)
            peer.headers(1, ((":status", "200"), ("content-type", "application/grpc"), ("server", "secret")))
            peer.headers(1, (("grpc-status", "0"), ("x-served-by", "trailer")), end=True)
            stream = await client.over(stream_id)
            assert stream.sections[0]["x-served-by"] == "pygw,main"
            assert "server" not in stream.sections[0]
            assert stream.sections[1]["x-served-by"] == "trailer"

    run(test)


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"), [(100, 100, 40), (50, 100, 20), (1, 8, 5), (0, 100, 0)]
)
def test_mirrors_get_their_share_and_their_answers_are_dropped(numerator, denominator, expected):
    async def test():
        backend, shadow = await Backend().start(), await Backend().start()
        rule = {"mirrors": (MirrorConfig("default/shadow:1", numerator, denominator),)}
        async with gateway(one_route([backend], rule=rule, extra={"shadow": [shadow]})) as served:
            client = await served.client()
            for turn in range(40):
                stream_id = client.request(body=message(b"hello"))
                peer = await backend.connected()
                number = (await peer.open(turn + 1))[-1]
                await peer.over(number)
                peer.respond(number)
                assert (await client.over(stream_id)).data == message(b"answer")
            assert served.count("pygw_mirrors_total") == expected
            if expected:
                copy = await shadow.connected()
                numbers = await copy.open(expected)
                for number in numbers:
                    await copy.over(number)
                    assert copy.streams[number].data == message(b"hello")
                    copy.respond(number, message(b"ignored"))
                assert len(numbers) == expected

    run(test)


def test_a_mirror_that_does_not_read_loses_the_call_and_the_primary_goes_on():
    async def test():
        backend, shadow = await Backend().start(), await Backend().start()
        rule = {"mirrors": (MirrorConfig("default/shadow:1"),)}
        async with gateway(one_route([backend], rule=rule, extra={"shadow": [shadow]})) as served:
            client = await served.client()
            stream_id = client.request()
            peer = await backend.connected()
            copy = await shadow.connected()
            copy.reads = False
            await copy.open(1)
            total = 0
            while total < 400_000:
                await client.until(lambda: client.h2.local_flow_control_window(stream_id) >= 16384)
                client.data(stream_id, b"\0" * 16384)
                total += 16384
            await peer.until(lambda: 1 in peer.streams and len(peer.streams[1].data) == total)
            assert (await copy.over(1)).reset == CANCEL
            assert served.count("pygw_mirrors_failed_total") == 1

    run(test)


def test_a_cancelled_call_takes_its_unfinished_mirror_along():
    async def test():
        backend, shadow = await Backend().start(), await Backend().start()
        rule = {"mirrors": (MirrorConfig("default/shadow:1"),)}
        async with gateway(one_route([backend], rule=rule, extra={"shadow": [shadow]})) as served:
            client = await served.client()
            stream_id = client.request()
            peer, copy = await backend.connected(), await shadow.connected()
            await peer.open(1)
            await copy.open(1)
            client.h2.reset_stream(stream_id, CANCEL)
            client.flush()
            assert (await peer.over(1)).reset == CANCEL
            assert (await copy.over(1)).reset == CANCEL

    run(test)


# ===== addresses =====


async def forwarded(served, backend, prefix=b"", fields=()):
    client = await served.client(prefix)
    client.request((*REQUEST, *fields), body=message(b""))
    peer = await backend.connected()
    number = (await peer.open(len(peer.streams) + 1))[-1]
    return peer.streams[number].sections[0]


def test_what_an_untrusted_client_says_of_addresses_is_dropped():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            spoofed = (("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https"))
            got = await forwarded(served, backend, fields=spoofed)
            assert got["x-forwarded-for"] == "127.0.0.1"
            assert got["x-forwarded-proto"] == "http"

    run(test)


def test_what_a_trusted_proxy_says_of_addresses_is_kept():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), trusted_proxies=("127.0.0.0/8",)) as served:
            got = await forwarded(
                served, backend, fields=(("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"))
            )
            assert got["x-forwarded-for"] == "203.0.113.9, 127.0.0.1"
            assert got["x-forwarded-proto"] == "https"

    run(test)


def test_the_proxy_protocol_names_the_client():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), proxy_protocol_from=("127.0.0.0/8",)) as served:
            got = await forwarded(served, backend, prefix=b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 80\r\n")
            assert got["x-forwarded-for"] == "203.0.113.7"
            client = await served.client(b"")
            await client.until(lambda: client.closed)  # whoever is to send the header must
            assert served.count("pygw_downstream_proxy_errors_total") == 1

    run(test)


# ===== timers =====


def test_a_silent_client_with_calls_open_is_asked_and_closed():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(keepalive_time=0.05, keepalive_timeout=0.05)) as served:
            client = await served.client()
            client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            client.answers_pings = False
            await client.until(lambda: client.closed)
            assert client.pings
            assert (await peer.over(1)).reset == CANCEL
            assert served.count("pygw_limit_hits_total", limit="keepalive_timeout") == 1

    run(test)


def test_a_client_that_answers_pings_stays():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(keepalive_time=0.02, keepalive_timeout=5)) as served:
            client = await served.client()
            client.request(body=message(b""))
            await (await backend.connected()).open(1)
            await client.until(lambda: len(client.pings) >= 3)
            assert not client.closed

    run(test)


def test_an_idle_client_is_asked_to_go():
    async def test():
        async with gateway(one_route(), Settings(max_connection_idle=0.05)) as served:
            client = await served.client()
            await client.until(lambda: client.closed)
            assert client.goaways == [(0, 0)]
            assert served.count("pygw_limit_hits_total", limit="max_connection_idle") == 1

    run(test)


def test_an_old_connection_finishes_its_calls_and_goes():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend]), Settings(max_connection_age=0.05)) as served:
            client = await served.client()
            stream_id = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            await client.until(lambda: len(client.goaways) == 2)
            assert client.goaways == [(2**31 - 1, 0), (1, 0)]
            peer.respond(1)
            assert (await client.over(stream_id)).status == "0"
            await client.until(lambda: client.closed)

    run(test)


# ===== the gateway's own answers =====


def test_refused_calls_and_broken_backends_get_their_status():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            peer.h2.reset_stream(1, 2)
            peer.flush()
            assert (await client.over(stream_id)).status == "14"
            stream_id = client.request(body=message(b""))
            await peer.open(2)
            peer.headers(3, ((":status", "200"), ("content-type", "application/grpc")))
            peer.data(3, message(b"whole"))
            await client.until(lambda: client.streams.get(stream_id) and client.streams[stream_id].data)
            peer.h2.reset_stream(3, 2)
            peer.flush()
            stream = await client.over(stream_id)
            assert (stream.status, stream.reset) == ("14", None)  # between two messages: trailers
            stream_id = client.request(body=message(b""))
            await peer.open(3)
            peer.headers(5, ((":status", "200"), ("content-type", "application/grpc")))
            peer.data(5, message(b"cut here")[:-3])
            await client.until(lambda: client.streams.get(stream_id) and client.streams[stream_id].data)
            peer.h2.reset_stream(5, 2)
            peer.flush()
            stream = await client.over(stream_id)
            assert (stream.status, stream.reset) == (None, 2)  # inside a message: INTERNAL_ERROR

    run(test)


def test_a_response_without_grpc_status_is_named():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            peer.headers(1, ((":status", "200"), ("content-type", "application/grpc")))
            peer.data(1, message(b"x"), end=True)
            stream = await client.over(stream_id)
            assert (stream.status, stream.data) == ("13", message(b"x"))

    run(test)


# ===== the end =====


def test_drain_tells_clients_twice_and_lets_calls_finish():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            served.relay.start_drain()
            await client.until(lambda: client.goaways == [(2**31 - 1, 0)])
            late = client.request(body=message(b""))  # between the two: still served
            await peer.open(2)
            served.relay.finish_drain()
            await client.until(lambda: len(client.goaways) == 2)
            assert client.goaways[1] == (late, 0)
            peer.respond(3)
            assert (await client.over(late)).status == "0"
            assert not client.closed
            peer.respond(1)
            assert (await client.over(stream_id)).status == "0"
            await client.until(lambda: client.closed)
            assert served.relay.open_connections == 0

    run(test)


def test_a_connection_without_a_call_hears_of_the_drain_with_its_first_call():
    """grpc-core fails the call for which it has just connected where GOAWAY comes before the call."""

    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            idle = await served.client()
            served.relay.start_drain()
            new = await served.client()
            peer = None
            for client, count in ((idle, 1), (new, 2)):
                stream_id = client.request(body=message(b""))
                peer = peer or await backend.connected()
                await peer.open(count)
                assert client.goaways == [(2**31 - 1, 0)]
                peer.respond(2 * count - 1)
                assert (await client.over(stream_id)).status == "0"
            silent = await served.client()
            served.relay.finish_drain()
            await silent.until(lambda: silent.closed)
            assert silent.goaways == [(0, 0)]

    run(test)


def test_what_is_left_at_the_end_of_a_drain_gets_14():
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            stream_id = client.request(body=message(b""))
            peer = await backend.connected()
            await peer.open(1)
            served.relay.start_drain()
            served.relay.finish_drain()
            served.relay.abort_calls()
            assert (await client.over(stream_id)).status == "14"
            assert (await peer.over(1)).reset == CANCEL
            await client.until(lambda: client.closed)

    run(test)
