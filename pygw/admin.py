"""The admin server: a small HTTP/1.1 server for operators and probes, in the control process.

h11 parses and checks the protocol (RFC 9112); here are the sockets, the bounds and who may ask. It is no place for
load or strangers: few connections, small requests, short patience. Knows nothing of what its pages say.

A browser on the same machine is kept from being used against us. On a loopback connection the Host must be an
address or localhost, so a name that an attacker points at 127.0.0.1 (DNS rebinding) reads nothing; and POST is
refused where a browser says that another site sent it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import h11

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
MAX_REQUEST_HEAD = 16384  # octets
MAX_BODY = 65536  # octets of a request's body, which nobody reads
REQUEST_TIMEOUT = 10.0  # seconds for a whole request to come in
IDLE_TIMEOUT = 60.0  # seconds between two requests of a connection
WRITE_TIMEOUT = 10.0  # seconds for the client to take an answer
PAGE_TIMEOUT = 20.0  # seconds for a page to be made
LAST_ANSWERS = 0.5  # seconds that answers may take once the server is to end
JOINING_TURNS = 5  # of the loop, until asyncio has made a task of what it has accepted
READ_SIZE = 16384

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """What a page may look at."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]  # lower-case names
    is_local: bool  # from a loopback address


@dataclass(frozen=True, slots=True)
class Response:
    """What a page answers."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def text(cls, status: int, text: str) -> Response:
        """A plain text; a newline is added."""
        return cls(status, f"{text}\n".encode())

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Response:
        """A value as JSON."""
        return cls(status, json.dumps(value, indent=1, default=str).encode() + b"\n", JSON)


Page = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class AdminServer:
    """Serves `pages` ("GET /healthz" -> page) on one listening socket."""

    pages: Mapping[str, Page]
    _server: asyncio.Server | None = None
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, sock: socket.socket) -> None:
        """Begin to accept."""
        self._server = await asyncio.start_server(self._accept, sock=sock, limit=READ_SIZE)

    def stop_accepting(self) -> None:
        """Leave new connections to whoever else has the socket."""
        if self._server is None:
            return
        loop = asyncio.get_running_loop()
        for sock in self._server.sockets:
            loop.remove_reader(sock.fileno())
        # In the next turn: a connection that this one has accepted is not joined to the server before that, and
        # would be reset.
        loop.call_soon(self._server.close)

    async def finish(self) -> None:
        """Stop, but answer those who have asked already; LAST_ANSWERS seconds at most."""
        self.stop_accepting()
        for _ in range(JOINING_TURNS):
            await asyncio.sleep(0)
        if self._connections:
            await asyncio.wait(self._connections, timeout=LAST_ANSWERS)
        await self.close()

    async def close(self) -> None:
        """Stop, and end all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            await _Connection(self.pages, reader, writer).serve()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass
        except Exception:  # a fault of ours: it costs this connection, and the server goes on
            log.exception("admin connection failed")
        finally:
            self._connections.discard(task)
            writer.transport.abort()


class _Connection:
    """One connection: requests one after the other."""

    def __init__(
        self, pages: Mapping[str, Page], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._pages = pages
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_HEAD)
        peer = writer.get_extra_info("peername")
        self._is_local = bool(peer) and _is_loopback(str(peer[0]))

    async def serve(self) -> None:
        while True:
            try:
                request = await self._next_request()
                if request is None:
                    return
                response = await self._answer(request)
            except h11.RemoteProtocolError as error:
                if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    await self._send(Response.text(error.error_status_hint, f"bad request: {error}"), "GET", last=True)
                await self._linger()
                return
            await self._send(response, request.method)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                await self._linger()
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> Request | None:
        """The next request with its body read and forgotten; None at the end of the connection."""
        async with asyncio.timeout(IDLE_TIMEOUT) as patience:
            head = await self._next_event(patience)
            if not isinstance(head, h11.Request):
                return None
            size = 0
            while True:
                event = await self._next_event(None)
                if isinstance(event, h11.Data):
                    size += len(event.data)
                    if size > MAX_BODY:
                        raise h11.RemoteProtocolError("the body is too large", error_status_hint=413)
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return None
        return self._request(head)

    async def _next_event(self, patience: asyncio.Timeout | None) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                self._writer.write(
                    self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                )
            data = await self._reader.read(READ_SIZE)
            if patience is not None:  # a request has begun
                patience.reschedule(asyncio.get_running_loop().time() + REQUEST_TIMEOUT)
                patience = None
            self._http.receive_data(data)

    def _request(self, head: h11.Request) -> Request:
        target = head.target.decode("ascii", "replace")
        try:
            parts = urlsplit(target)
            query = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=200)
        except ValueError as error:
            raise h11.RemoteProtocolError(f"the target is unusable: {error}") from None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return Request(head.method.decode("ascii", "replace"), parts.path, query, headers, self._is_local)

    async def _answer(self, request: Request) -> Response:
        refusal = _refusal(request)
        if refusal:
            return Response.text(403, refusal)
        method = "GET" if request.method == "HEAD" else request.method
        page = self._pages.get(f"{method} {request.path}")
        if page is None:
            return self._no_page(request)
        try:
            async with asyncio.timeout(PAGE_TIMEOUT):
                return await page(request)
        except TimeoutError:
            return Response.text(503, "this takes too long; try again")
        except Exception:  # whatever a page raises: who asked must get an answer
            log.exception("admin page failed", extra={"path": request.path})
            return Response.text(500, "this page failed; the log says why")

    def _no_page(self, request: Request) -> Response:
        methods = [key.split(" ")[0] for key in self._pages if key.split(" ")[1] == request.path]
        if methods:
            allow = ", ".join(methods)
            return Response(405, f"only {allow} here\n".encode(), headers=(("Allow", allow),))
        known = "\n".join(sorted(self._pages))
        return Response.text(404, f"no such page; there are:\n{known}")

    async def _send(self, response: Response, method: str, last: bool = False) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
            *([("Connection", "close")] if last else []),
        ]
        event = h11.Response(status_code=response.status, headers=headers, reason=b"")
        octets = self._http.send(event) or b""
        if method != "HEAD":
            octets += self._http.send(h11.Data(data=response.body)) or b""
        octets += self._http.send(h11.EndOfMessage()) or b""
        self._writer.write(octets)
        async with asyncio.timeout(WRITE_TIMEOUT):
            await self._writer.drain()

    async def _linger(self) -> None:
        """Let the answer arrive: closing with octets unread would reset the connection (RFC 9112 §9.6)."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                for _ in range(64):
                    if not await self._reader.read(READ_SIZE):
                        return


def _refusal(request: Request) -> str:
    """Why this request is not answered; empty where it is."""
    if request.is_local and not _is_local_host(request.headers.get("host", "")):
        return "the Host header must be an IP address or localhost"
    if request.method not in ("GET", "HEAD"):
        if not request.is_local:
            return "only from this machine"
        site = request.headers.get("sec-fetch-site", "none")
        if "origin" in request.headers or site not in ("none", "same-origin"):
            return "not from a web page"
    return ""


def _is_local_host(host: str) -> bool:
    name = host
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        name = host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    with contextlib.suppress(ValueError):
        parsed = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        return bool((mapped or parsed).is_loopback)
    return False
