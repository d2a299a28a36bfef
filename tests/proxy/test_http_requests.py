"""Requests that are not gRPC, to HTTPRoutes: relayed frame by frame, answered by the gateway itself, redirected."""

from dataclasses import replace

import pytest

from pygw.model import (
    BackendRefConfig,
    GatewayConfig,
    HeaderModifier,
    HttpMatchConfig,
    MirrorConfig,
    RedirectConfig,
    RouteConfig,
)
from pygw.settings import Settings
from tests.doubles.in_process import REQUEST, Backend, gateway, message, one_route, run

CANCEL = 8
NO_ERROR = 0
REF = BackendRefConfig("default/main:1", "default", "main", 1)


def http(backends=(), *, rule=None, beside_grpc=False, **rest) -> GatewayConfig:
    """One HTTPRoute with one rule to `default/main:1`; with `beside_grpc` the GRPCRoute of one_route() stays."""
    found = one_route(backends, **rest)
    (grpc,) = found.routes.values()
    made = replace(grpc.rules[0], matches=(), **{"http_matches": (HttpMatchConfig(),), **(rule or {})})
    route = RouteConfig("default", "web", (), (made,), kind="HTTPRoute")
    routes = {route.key: route, **({grpc.key: grpc} if beside_grpc else {})}
    listener = replace(found.listeners[0], routes=tuple(sorted(routes)))
    return GatewayConfig((listener,), routes, found.backends)


def get(path="/", method="GET", authority="web.example.com", **fields):
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)]
    return [*pseudo, *((name.replace("_", "-"), value) for name, value in fields.items())]


def test_a_request_and_its_answer_pass_unchanged():
    async def test():
        backend = await Backend().start()
        async with gateway(http([backend]), Settings(x_forwarded=False)) as served:
            client = await served.client()
            sent = get("/a%2Fb//c?x=1", "POST", content_type="text/plain", content_length="5", grpc_timeout="nonsense")
            stream_id = client.request(sent, body=b"hello")
            peer = await backend.connected()
            request = await peer.over(1)
            assert request.fields[0] == sent
            assert request.data == b"hello"
            peer.headers(1, [(":status", "103"), ("link", "</x>")])
            peer.headers(1, [(":status", "201"), ("content-length", "3"), ("x-a", "1")])
            peer.data(1, b"yes", end=True)
            answer = await client.over(stream_id)
            assert [fields[0] for fields in answer.fields] == [(":status", "103"), (":status", "201")]
            assert answer.sections[1]["x-a"] == "1"
            assert (answer.data, answer.reset) == (b"yes", None)
            # Only gRPC calls have methods to count by; octets count for both.
            assert served.count("pygw_calls_total", method="_other", grpc_status="none") == 1

    run(test)


def test_trailers_pass_both_ways():
    async def test():
        backend = await Backend().start()
        async with gateway(http([backend])) as served:
            client = await served.client()
            stream_id = client.request(get(method="POST"))
            client.data(stream_id, b"x")
            client.headers(stream_id, [("x-request-trailer", "1")], end=True)
            peer = await backend.connected()
            assert (await peer.over(1)).sections[-1] == {"x-request-trailer": "1"}
            peer.headers(1, [(":status", "200")])
            peer.data(1, b"y")
            peer.headers(1, [("x-response-trailer", "2")], end=True)
            answer = await client.over(stream_id)
            assert answer.sections[-1] == {"x-response-trailer": "2"}

    run(test)


def test_an_answer_to_head_announces_a_length_and_has_no_content():
    async def test():
        backend = await Backend().start()
        async with gateway(http([backend])) as served:
            client = await served.client()
            stream_id = client.request(get(method="HEAD"), body=b"")
            peer = await backend.connected()
            await peer.over(1)
            peer.headers(1, [(":status", "200"), ("content-length", "1000")], end=True)
            answer = await client.over(stream_id)
            assert answer.sections == [{":status": "200", "content-length": "1000"}]
            assert answer.reset is None

    run(test)


@pytest.mark.parametrize("is_grpc", [False, True])
def test_what_no_route_matches(is_grpc):
    async def test():
        config = http(rule={"http_matches": (HttpMatchConfig("/only", "Exact"),)}, beside_grpc=is_grpc)
        async with gateway(config) as served:
            client = await served.client()
            answer = await client.over(client.request(get("/other"), body=b""))
            assert answer.sections[0][":status"] == "404"
            assert b"No route" in answer.data
            head = await client.over(client.request(get("/other", "HEAD"), body=b""))
            assert (head.sections[0][":status"], head.data) == ("404", b"")

    run(test)


def test_without_an_http_route_it_is_another_protocol():
    async def test():
        async with gateway(one_route()) as served:
            client = await served.client()
            assert (await client.over(client.request(get(), body=b""))).sections[0][":status"] == "415"

    run(test)


def test_grpc_without_a_route_of_its_own_is_relayed_as_grpc():
    async def test():
        backend = await Backend().start()
        async with gateway(http([backend])) as served:
            client = await served.client()
            stream_id = client.request(body=message(b"x"))
            peer = await backend.connected()
            await peer.over(1)
            peer.respond(1)
            answer = await client.over(stream_id)
            assert answer.status == "0"
            assert served.count("pygw_calls_total", service="test.Service", grpc_status="0") == 1
            missing = [(":path", "/a/b/c") if name == ":path" else (name, value) for name, value in REQUEST]
            stream_id = client.request(missing, body=b"")
            await peer.over(3)
            peer.respond(3)
            assert (await client.over(stream_id)).status == "0"

    run(test)


@pytest.mark.parametrize(
    ("rule", "status", "grpc_status"),
    [
        pytest.param({"failure": (14, "filter X is not supported")}, "500", "14", id="a filter"),
        pytest.param({"failure": (12, "no backendRefs"), "backends": ()}, "500", "12", id="no backends"),
        pytest.param({"backends": (replace(REF, weight=0),)}, "503", "14", id="no weight"),
        pytest.param(
            {"backends": (replace(REF, reason="BackendNotFound", message="Service is missing"),)}, "500", "14",
            id="a bad reference",
        ),
        pytest.param(
            {"backends": (replace(REF, reason="UnsupportedProtocol", message="it needs HTTP/1.1"),)}, "502", "14",
            id="HTTP/1.1",
        ),
        pytest.param({"backends": (replace(REF, failure="filter CORS"),)}, "500", "14", id="a filter of a backend"),
        pytest.param({}, "503", "14", id="no endpoints"),
    ],
)  # fmt: skip
def test_what_cannot_be_relayed(rule, status, grpc_status):
    async def test():
        async with gateway(http(rule=rule)) as served:
            client = await served.client()
            answer = await client.over(client.request(get(), body=b""))
            assert answer.sections[0][":status"] == status
            assert answer.data
            assert answer.sections[0]["content-length"] == str(len(answer.data))
            head = await client.over(client.request(get(method="HEAD"), body=b""))
            assert (head.sections[0][":status"], head.data) == (status, b"")
            # A gRPC call that comes here gets what gRPC clients understand.
            assert (await client.over(client.request(body=message(b"")))).status == grpc_status

    run(test)


def test_a_very_long_reason_is_cut():
    async def test():
        async with gateway(http(rule={"failure": (14, "x" * 5000)})) as served:
            client = await served.client()
            answer = await client.over(client.request(get(), body=b""))
            assert answer.sections[0]["content-length"] == str(len(answer.data)) == "999"

    run(test)


@pytest.mark.parametrize("code", [CANCEL, NO_ERROR])
def test_a_backend_that_resets(code):
    async def test():
        backend = await Backend().start()
        async with gateway(http([backend])) as served:
            client = await served.client()
            stream_id = client.request(get(), body=b"")
            peer = await backend.connected()
            await peer.over(1)
            peer.h2.reset_stream(1, code)
            peer.flush()
            assert (await client.over(stream_id)).sections[0][":status"] == "503"

    run(test)


def test_a_backend_that_dies_inside_its_answer():
    async def test():
        backend = await Backend().start()
        async with gateway(http([backend])) as served:
            client = await served.client()
            stream_id = client.request(get(), body=b"")
            peer = await backend.connected()
            await peer.over(1)
            peer.headers(1, [(":status", "200"), ("content-length", "10")])
            peer.data(1, b"12345")
            await client.until(lambda: client.streams.get(stream_id) and client.streams[stream_id].data)
            await peer.close()
            answer = await client.over(stream_id)
            assert not answer.ended
            assert answer.reset is not None

    run(test)


class TestTimeouts:
    def test_nothing_in_time(self):
        async def test():
            backend = await Backend().start()
            async with gateway(http([backend], rule={"timeout": 0.05})) as served:
                client = await served.client()
                stream_id = client.request(get(), body=b"")
                peer = await backend.connected()
                assert "grpc-timeout" not in (await peer.over(1)).sections[0]
                assert (await client.over(stream_id)).sections[0][":status"] == "504"
                await peer.until(lambda: peer.streams[1].reset == CANCEL)

        run(test)

    def test_a_grpc_call_gets_the_shorter_of_both(self):
        async def test():
            backend = await Backend().start()
            async with gateway(http([backend], rule={"timeout": 5.0})) as served:
                client = await served.client()
                client.request([*REQUEST, ("grpc-timeout", "100S")], body=message(b""))
                client.request([*REQUEST, ("grpc-timeout", "1S")], body=message(b""))
                peer = await backend.connected()
                sent = [(await peer.over(stream_id)).sections[0]["grpc-timeout"] for stream_id in (1, 3)]
                assert int(sent[0][:-1]) == pytest.approx(4.9e6, rel=0.1)
                assert int(sent[1][:-1]) == pytest.approx(9.9e5, rel=0.1)

        run(test)


class TestFilters:
    def test_modifiers(self):
        async def test():
            backend = await Backend().start()
            rule = {
                "request_headers": HeaderModifier(set=(("content-type", "a/b"),), remove=("x-gone",)),
                "response_headers": HeaderModifier(add=(("vary", "x"),)),
            }
            async with gateway(http([backend], rule=rule)) as served:
                client = await served.client()
                stream_id = client.request(get(content_type="text/plain", x_gone="1"), body=b"")
                peer = await backend.connected()
                sent = (await peer.over(1)).sections[0]
                assert sent["content-type"] == "a/b"
                assert "x-gone" not in sent
                peer.headers(1, [(":status", "200"), ("vary", "y")], end=True)
                assert (await client.over(stream_id)).sections[0]["vary"] == "y,x"

        run(test)

    def test_mirrors(self):
        async def test():
            main, shadow = await Backend().start(), await Backend().start()
            config = http([main], rule={"mirrors": (MirrorConfig("default/shadow:1"),)}, extra={"shadow": [shadow]})
            async with gateway(config) as served:
                client = await served.client()
                stream_id = client.request(get(method="PUT"), body=b"body")
                peer, copy = await main.connected(), await shadow.connected()
                assert (await copy.over(1)).data == b"body"
                copy.headers(1, [(":status", "500")], end=True)
                await peer.over(1)
                peer.headers(1, [(":status", "200")], end=True)
                assert (await client.over(stream_id)).sections[0][":status"] == "200"

        run(test)


class TestRedirects:
    @pytest.mark.parametrize(
        ("redirect", "path", "location"),
        [
            pytest.param({}, "/a?b=1", "http://web.example.com/a?b=1", id="nothing changed"),
            pytest.param({"scheme": "https"}, "/a", "https://web.example.com/a", id="scheme, with its own port"),
            pytest.param({"hostname": "b.com"}, "/a?b", "http://b.com/a?b", id="hostname"),
            pytest.param({"port": 8080}, "/", "http://web.example.com:8080/", id="port"),
            pytest.param({"port": 80}, "/", "http://web.example.com/", id="the port that http implies"),
            pytest.param({"scheme": "https", "port": 443}, "/", "https://web.example.com/", id="and https"),
            pytest.param({"scheme": "https", "port": 80}, "/", "https://web.example.com:80/", id="but not across"),
            pytest.param({"full_path": "/new"}, "/a/b?q=1", "http://web.example.com/new?q=1", id="full path"),
            pytest.param({"full_path": "new"}, "/a", "http://web.example.com/new", id="full path without a slash"),
            pytest.param({"prefix": "/xyz"}, "/foo/bar", "http://web.example.com/xyz/bar", id="prefix"),
            pytest.param({"prefix": "/xyz/"}, "/foo/bar", "http://web.example.com/xyz/bar", id="prefix with a slash"),
            pytest.param({"prefix": "/xyz"}, "/foo", "http://web.example.com/xyz", id="the prefix alone"),
            pytest.param({"prefix": "/xyz"}, "/foo/", "http://web.example.com/xyz/", id="and with a slash"),
            pytest.param({"prefix": ""}, "/foo/bar", "http://web.example.com/bar", id="prefix removed"),
            pytest.param({"prefix": "/"}, "/foo", "http://web.example.com/", id="all of it"),
            pytest.param({"prefix": ""}, "/foo/?q", "http://web.example.com/?q", id="all but the query"),
        ],
    )  # fmt: skip
    def test_location(self, redirect, path, location):
        async def test():
            prefix = "/foo/" if "prefix" in redirect else "/"
            rule = {
                "redirect": RedirectConfig(301, **redirect),
                "backends": (),
                "http_matches": (HttpMatchConfig(prefix),),
                "response_headers": HeaderModifier(set=(("cache-control", "no-store"),)),
            }
            async with gateway(http(rule=rule)) as served:
                client = await served.client()
                answer = await client.over(client.request(get(path, authority="web.example.com:8443"), body=b""))
                assert answer.sections == [
                    {":status": "301", "location": location, "content-length": "0", "cache-control": "no-store"}
                ]
                assert served.count("pygw_calls_total", route="default/web", grpc_status="none") == 1

        run(test)

    def test_a_trusted_proxy_says_what_scheme_it_was(self):
        async def test():
            rule = {"redirect": RedirectConfig(), "backends": ()}
            async with gateway(http(rule=rule), trusted_proxies=["127.0.0.0/8"]) as served:
                client = await served.client()
                answer = await client.over(client.request(get(x_forwarded_proto="https"), body=b""))
                assert answer.sections[0]["location"] == "https://web.example.com/"

        run(test)

    def test_the_rest_of_a_request_is_not_waited_for(self):
        async def test():
            rule = {"redirect": RedirectConfig(308), "backends": ()}
            async with gateway(http(rule=rule)) as served:
                client = await served.client()
                stream_id = client.request(get(method="POST"))
                await client.until(lambda: any(stream.reset is not None for stream in client.streams.values()))
                answer = client.streams[stream_id]
                assert answer.sections[0][":status"] == "308"
                assert answer.reset == NO_ERROR

        run(test)
