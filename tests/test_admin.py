"""The admin server's HTTP: answers, bounds, patience, and who may ask. Raw octets over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

import pytest

from pygw import admin
from pygw.admin import AdminServer, Request, Response, _is_local_host, _is_loopback

Talk = Callable[[bytes], Awaitable[bytes]]


async def hello(request: Request) -> Response:
    return Response.text(200, "hello")


async def echo(request: Request) -> Response:
    return Response.json({"query": request.query, "path": request.path, "local": request.is_local})


async def broken(request: Request) -> Response:
    raise RuntimeError("secret detail")


async def slow(request: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


async def large(request: Request) -> Response:
    return Response(200, b"x" * 50_000_000)


PAGES: dict[str, admin.Page] = {
    "GET /hello": hello, "GET /echo": echo, "GET /broken": broken, "GET /slow": slow, "GET /large": large,
    "POST /act": hello,
}  # fmt: skip


class Client:
    """Opens connections to a running server."""

    def __init__(self, server: AdminServer, port: int) -> None:
        self.server = server
        self.port = port

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def talk(self, octets: bytes) -> bytes:
        """All that comes back until the server closes."""
        reader, writer = await self.open()
        writer.write(octets)
        try:
            return await asyncio.wait_for(reader.read(-1), 5)
        finally:
            writer.close()

    async def get(self, path: str, headers: str = "Host: localhost\r\n", method: str = "GET") -> tuple[int, bytes]:
        answer = await self.talk(f"{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body


def serve(test: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        server = AdminServer(PAGES)
        await server.start(sock)
        try:
            await test(Client(server, port))
        finally:
            await server.close()

    asyncio.run(main())


def test_pages() -> None:
    async def test(client: Client) -> None:
        assert await client.get("/hello") == (200, b"hello\n")
        status, body = await client.get("/echo?a=1&b=%20x&a=")
        assert status == 200
        assert json.loads(body) == {"query": [["a", "1"], ["b", " x"], ["a", ""]], "path": "/echo", "local": True}

    serve(test)


def test_head_has_no_body() -> None:
    async def test(client: Client) -> None:
        assert await client.get("/hello", method="HEAD") == (200, b"")

    serve(test)


def test_a_connection_is_used_again() -> None:
    async def test(client: Client) -> None:
        reader, writer = await client.open()
        for _ in range(3):
            writer.write(b"GET /hello HTTP/1.1\r\nHost: [::1]:9901\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(6) == b"hello\n"
        writer.close()

    serve(test)


def test_http_1_0() -> None:
    async def test(client: Client) -> None:
        assert (await client.talk(b"GET /hello HTTP/1.0\r\nHost: localhost\r\n\r\n")).endswith(b"hello\n")

    serve(test)


def test_what_is_not_there() -> None:
    async def test(client: Client) -> None:
        status, body = await client.get("/nothing")
        assert status == 404
        assert b"GET /hello\n" in body
        assert (await client.get("/act"))[0] == 405
        assert (await client.get("/hello", method="POST"))[0] == 405
        assert (await client.get("/hello", method="BREW"))[0] == 405
        assert (await client.get("http://localhost/hello"))[0] == 200  # absolute form, RFC 9112 §3.2.2
        assert (await client.get("//evil/hello"))[0] in (200, 404)

    serve(test)


def test_a_broken_page_says_nothing_of_its_inside() -> None:
    async def test(client: Client) -> None:
        status, body = await client.get("/broken")
        assert status == 500
        assert b"secret" not in body
        assert (await client.get("/hello"))[0] == 200

    serve(test)


def test_a_slow_page_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "PAGE_TIMEOUT", 0.05)

    async def test(client: Client) -> None:
        assert (await client.get("/slow"))[0] == 503

    serve(test)


@pytest.mark.parametrize(
    "octets",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET /hello HTTP/1.1\r\n\r\n",  # no Host
        b"GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /hello?" + b"&".join(b"a=1" for _ in range(500)) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused(octets: bytes) -> None:
    async def test(client: Client) -> None:
        assert (await client.talk(octets)).startswith(b"HTTP/1.1 400")
        http2_preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        assert (await client.talk(http2_preface)).startswith(b"HTTP/1.1 403")  # it has no Host
        assert (await client.get("/hello"))[0] == 200

    serve(test)


def test_a_head_that_does_not_end_is_refused() -> None:
    async def test(client: Client) -> None:
        answer = await client.talk(b"GET /hello HTTP/1.1\r\nX: " + b"a" * 100_000)
        assert answer.startswith(b"HTTP/1.1 431")

    serve(test)


def test_a_body_is_read_and_bounded() -> None:
    async def test(client: Client) -> None:
        head = b"POST /act HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        assert (await client.talk(head + b"Content-Length: 3\r\n\r\nabc")).endswith(b"hello\n")
        expecting = head + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n"
        assert (await client.talk(expecting)).endswith(b"hello\n")
        too_large = head + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000
        assert (await client.talk(too_large)).startswith(b"HTTP/1.1 413")

    serve(test)


def test_a_request_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "IDLE_TIMEOUT", 0.1)
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT", 0.1)

    async def test(client: Client) -> None:
        assert await client.talk(b"") == b""
        assert await client.talk(b"GET /hel") == b""
        assert await client.talk(b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab") == b""

    serve(test)


def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "WRITE_TIMEOUT", 0.1)

    async def test(client: Client) -> None:
        reader, writer = await client.open()
        writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert (await client.get("/hello"))[0] == 200
        async with asyncio.timeout(5):
            while client.server._connections:
                await asyncio.sleep(0.01)
        writer.transport.abort()

    serve(test)


def test_at_the_end_those_who_have_asked_are_answered() -> None:
    """Also who was accepted in the very turn in which it ends; who comes later is left to somebody else."""

    async def test() -> None:
        asked, may_answer = asyncio.Event(), asyncio.Event()

        async def waits(request: Request) -> Response:
            asked.set()
            await may_answer.wait()
            return Response.text(200, "answered")

        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
            server = AdminServer({"GET /waits": waits, "GET /hello": hello})
            client = Client(server, port)
            await server.start(sock.dup())
            first = asyncio.create_task(client.get("/waits"))
            await asked.wait()
            with socket.create_connection(("127.0.0.1", port)) as late:
                late.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                await asyncio.sleep(0)  # the loop looks at its sockets: it is accepted in the next turn, beside the end
                ended = asyncio.create_task(server.finish())
                may_answer.set()
                assert await first == (200, b"answered\n")
                await ended
                sock.setblocking(False)
                try:
                    waiting, _ = sock.accept()
                except BlockingIOError:
                    late.settimeout(5)
                    assert late.recv(100).startswith(b"HTTP/1.1 200")
                else:
                    waiting.close()

    asyncio.run(test())


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "MAX_CONNECTIONS", 3)

    async def test(client: Client) -> None:
        opened = []
        for _ in range(3):
            reader, writer = await client.open()
            writer.write(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"hello\n")
            opened.append(writer)
        with pytest.raises((ConnectionResetError, IndexError)):
            await client.get("/hello")
        opened.pop().close()
        while True:
            try:
                assert (await client.get("/hello"))[0] == 200
                break
            except (ConnectionResetError, IndexError):
                await asyncio.sleep(0)
        for writer in opened:
            writer.close()

    serve(test)


@pytest.mark.parametrize(
    ("headers", "method", "path", "status"),
    [
        ("Host: 127.0.0.1:9901\r\n", "GET", "/hello", 200),
        ("Host: [::1]:9901\r\n", "GET", "/hello", 200),
        ("Host: LOCALHOST:9901\r\n", "GET", "/hello", 200),
        ("Host: rebound.evil.example:9901\r\n", "GET", "/hello", 403),
        ("Host: localhost.evil.example\r\n", "GET", "/hello", 403),
        ("Host: \r\n", "GET", "/hello", 403),
        ("Host: localhost\r\n", "POST", "/act", 200),
        ("Host: rebound.evil.example\r\n", "POST", "/act", 403),
        ("Host: localhost\r\nOrigin: http://evil.example\r\n", "POST", "/act", 403),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", "POST", "/act", 403),
        ("Host: localhost\r\nSec-Fetch-Site: same-origin\r\n", "POST", "/act", 200),
    ],
)
def test_who_may_ask(headers: str, method: str, path: str, status: int) -> None:
    async def test(client: Client) -> None:
        assert (await client.get(path, headers, method))[0] == status

    serve(test)


def test_from_another_machine_only_get() -> None:
    def request(method: str) -> Request:
        return Request(method, "/act", [], {"host": "pygw.example:9901"}, is_local=False)

    assert admin._refusal(request("GET")) == ""
    assert admin._refusal(request("POST")) == "only from this machine"


def test_loopback_addresses() -> None:
    assert [_is_loopback(a) for a in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")] == [True] * 4
    assert [_is_loopback(a) for a in ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "x")] == [False] * 4
    assert [_is_local_host(h) for h in ("127.0.0.1", "[::1]", "localhost:80", "10.0.0.1:80")] == [True] * 4
    assert [_is_local_host(h) for h in ("", "a.b", "[x]", "127.0.0.1.evil.example")] == [False] * 4
