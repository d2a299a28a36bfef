"""Api: requests to the Kubernetes API server, as plain JSON objects, and nothing about what they mean.

Over the official client: its configuration (kubeconfig, in-cluster account, exec plugins), its authentication and its
aiohttp transport. Not its generated API classes: they build a model for every object, which takes five times the CPU
and almost three times the memory of the plain dicts that `resolve` wants, and leave custom resources as dicts anyway.

Every answer is bounded (MAX_BODY, MAX_LINE), every wait has an end (timeouts, TCP_USER_TIMEOUT). All failures come
out as ApiError.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from pygw import __version__
from pygw.control.cluster_state import Object
from pygw.control.kube.credentials import LoadConfiguration
from pygw.errors import StartError

log = logging.getLogger(__name__)

MAX_BODY = 256 * 1024 * 1024  # octets of one answer; a page of a list holds at most 250 objects of some 1.5 MiB
MAX_LINE = 16 * 1024 * 1024  # octets of one watch event; etcd refuses objects far below that
REQUEST_TIMEOUT = 30.0  # seconds for one answer
CONNECT_TIMEOUT = 5.0
# Seconds without an octet on a watch. The API server sends a bookmark about every minute, so two minutes and a half of
# silence mean that the stream is dead, whatever TCP says.
WATCH_SILENCE = 150.0
RELOAD_PAUSE = 5.0  # seconds between two readings of the credentials
DEAD_PEER_MS = 20_000  # TCP_USER_TIMEOUT: a peer that does not acknowledge for so long is gone

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # server-side apply; JSON is YAML


class ApiError(Exception):
    """A request that failed. `status` is 0 where no (whole) answer came."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after


class Api:
    """One API server, shared by everything in Kubernetes mode. Use it in one event loop; close() it."""

    def __init__(self, load: LoadConfiguration) -> None:
        self._load = load
        self._configuration = Configuration()
        self._client: _Client | None = None
        self._reloaded_at = float("-inf")
        self._is_stale = False
        self._reloading = asyncio.Lock()
        self.host = ""
        self.namespace = ""  # the one that this process or the kubeconfig's context is in
        self.is_reachable = True
        self.requests: Counter[tuple[str, str]] = Counter()  # (method, status or "error")
        self.last_answer = 0.0  # loop time

    async def connect(self) -> None:
        """Read the configuration; nothing is asked of the server yet. Raises StartError."""
        try:
            await self.reload()
        except Exception as error:  # the loaders raise whatever the file makes them stumble over
            reason = str(error) or type(error).__name__
            raise StartError(f"the Kubernetes configuration cannot be used: {reason}") from error

    async def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request and its JSON answer. Raises ApiError."""
        limits = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        with self._as_api_error(method):
            response = await self._send(method, path, query or {}, body, content_type, limits)
            async with contextlib.aclosing(_bounded(response, MAX_BODY)) as chunks:
                text = b"".join([chunk async for chunk in chunks])
            self._count(method, str(response.status))
            if response.status >= 300:
                raise _refusal(response.status, text, response.headers.get("retry-after", ""))
            answer = json.loads(text)
            if not isinstance(answer, dict):
                raise ApiError(0, "BadAnswer", "the answer is not an object")
            return answer

    @contextlib.asynccontextmanager
    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[AsyncGenerator[Object]]:
        """The events of a watch until the server ends it; inside the block it has been accepted.

        Raises ApiError, also for an end amid an event.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=WATCH_SILENCE)
        with self._as_api_error("WATCH"):
            response = await self._send("GET", path, query, None, "application/json", limits)
            try:
                self._count("WATCH", str(response.status))
                if response.status != 200:
                    async with contextlib.aclosing(_bounded(response, MAX_BODY)) as chunks:
                        text = b"".join([chunk async for chunk in chunks])
                    raise _refusal(response.status, text, response.headers.get("retry-after", ""))
                async with contextlib.aclosing(_events(response)) as events:
                    yield events
            finally:
                response.close()

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Whether the server itself says by discovery that it has this resource. Raises ApiError.

        A 404 alone is not believed: a proxy in front of a server that is down may send one.
        """
        try:
            found = await self.call("GET", f"/apis/{group}/{version}")
        except ApiError as error:
            if error.status != 404:
                raise
            groups = await self.call("GET", "/apis")
            if groups.get("kind") != "APIGroupList":
                raise ApiError(0, "BadAnswer", "discovery gives no list of API groups") from None
            names = {
                entry.get("groupVersion") for item in groups.get("groups") or () for entry in item.get("versions") or ()
            }
            return f"{group}/{version}" in names
        if found.get("kind") != "APIResourceList":
            raise ApiError(0, "BadAnswer", "discovery gives no list of resources")
        return any(resource.get("name") == plural for resource in found.get("resources") or ())

    async def close(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # ===== own =====

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        content_type: str,
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send; where the credentials are refused, read them again and send once more."""
        if self._is_stale:
            self._is_stale = not await self._reload_or_not()
        url = quote(path) + (f"?{urlencode(query)}" if query else "")
        for is_last in (False, True):
            headers = {"User-Agent": f"pygw/{__version__}", "Accept": "application/json", "Content-Type": content_type}
            for setting in (await self._configuration.auth_settings()).values():
                if isinstance(setting, dict):
                    headers[setting["key"]] = str(setting["value"]).strip()
            if self._client is None:
                raise ApiError(0, "Closed", "the connection to the API server is closed")
            sent = await self._client.request(  # type: ignore[no-untyped-call]
                method, self._configuration.host + url, headers=headers, body=body, _request_timeout=limits
            )
            response: aiohttp.ClientResponse = sent.response
            if response.status == 401 and not is_last and await self._reload_or_not():
                response.close()
                continue
            return response
        raise AssertionError("unreachable")

    async def reload(self) -> bool:
        """Read kubeconfig, token and certificates again; False where that was done just now."""
        async with self._reloading:
            now = asyncio.get_running_loop().time()
            if now - self._reloaded_at < RELOAD_PAUSE:
                return False
            self._reloaded_at = now
            configuration = Configuration()
            self.namespace = await self._load(configuration)
            old, self._client = self._client, _Client(configuration)
            self._configuration, self.host = configuration, configuration.host
            if old is not None:
                log.info("credentials read again", extra={"server": self.host})
                await old.close()  # what still runs over the old connections is resumed over new ones
        return True

    async def _reload_or_not(self) -> bool:
        """reload(); a kubeconfig that is broken for now leaves what we have."""
        try:
            return await self.reload()
        except Exception as error:  # as in connect()
            log.warning("the credentials cannot be read again", extra={"reason": str(error) or type(error).__name__})
            return False

    @contextlib.contextmanager
    def _as_api_error(self, method: str) -> Iterator[None]:
        """Turn what a transport raises into ApiError, and keep account of whether there is a server at all."""
        try:
            yield
        except ApiError as error:
            if error.status:
                self._reached()
            raise
        except aiohttp.ClientPayloadError as error:
            self._reached()
            raise ApiError(0, "Truncated", f"the answer broke off: {error}") from None
        except ValueError as error:
            self._reached()
            raise ApiError(0, "BadAnswer", f"the answer is no JSON: {error}") from None
        except (aiohttp.ClientError, ssl.SSLError, TimeoutError, OSError) as error:
            self._count(method, "error")
            message = f"{self.host}: {str(error) or type(error).__name__}"
            if self.is_reachable:
                self.is_reachable = False
                log.warning("the Kubernetes API server does not answer; serving on", extra={"reason": message})
            # A CA or a client certificate may have been replaced.
            self._is_stale = self._is_stale or isinstance(error, aiohttp.ClientSSLError | ssl.SSLError)
            raise ApiError(0, "Unreachable", message) from None
        else:
            self._reached()

    def _reached(self) -> None:
        if not self.is_reachable:
            self.is_reachable = True
            log.info("the Kubernetes API server answers again", extra={"server": self.host})

    def _count(self, method: str, result: str) -> None:
        self.requests[method, result] += 1
        if result != "error":
            self.last_answer = asyncio.get_running_loop().time()
            self._reached()


class _Client(RESTClientObject):
    """The official transport, with connections that notice a dead peer and are not limited in number.

    Each watch holds a connection; the client's default of 100 would make the hundredth Secret wait for ever.
    """

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=0, ssl=self.ssl_context, socket_factory=_socket)


def _socket(address: Any) -> socket.socket:
    """A TCP socket that finds out by itself when the other side is gone without a word."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_USER_TIMEOUT", DEAD_PEER_MS)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


async def _bounded(response: aiohttp.ClientResponse, most: int) -> AsyncGenerator[bytes]:
    """The body in pieces, `most` octets of it."""
    size = 0
    try:
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > most:
                raise ApiError(0, "TooLarge", f"the answer is larger than {most} octets")
            yield chunk
    finally:
        response.release() if response.content.is_eof() else response.close()


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[Object]:
    """The events of a watch, one a line; not by readline(), whose limit is two read buffers."""
    buffer, searched = bytearray(), 0
    async for chunk in response.content.iter_any():
        buffer += chunk
        while (end := buffer.find(b"\n", searched)) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            searched = 0
            if line:
                yield _event(line)
        searched = len(buffer)
        if searched > MAX_LINE:
            raise ApiError(0, "TooLarge", f"a watch event is larger than {MAX_LINE} octets")
    if buffer:
        raise ApiError(0, "Truncated", f"the watch broke off amid an event, after {len(buffer)} octets of it")


def _event(line: bytes) -> Object:
    event = json.loads(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise ApiError(0, "BadAnswer", "a watch event without an object")
    return event


def _refusal(status: int, body: bytes, retry_after: str) -> ApiError:
    """The error that an answer of 300 or more stands for: a Status object, or whatever a proxy in between says."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and answer.get("kind") == "Status":
        return status_error(answer, status, retry_after)
    text = body[:200].decode("utf-8", "replace").strip() or "no text"
    return ApiError(status, "Refused", text, _seconds(retry_after))


def status_error(answer: Object, status: int = 0, retry_after: str = "") -> ApiError:
    """The error that a Status object stands for; watches bring one as an event."""
    code = answer.get("code")
    details = answer.get("details")
    seconds = _seconds(retry_after or (details.get("retryAfterSeconds") if isinstance(details, dict) else ""))
    return ApiError(
        code if isinstance(code, int) else status,
        str(answer.get("reason") or "Unknown"),
        str(answer.get("message") or "no message")[:1000],
        seconds,
    )


def _seconds(text: Any) -> float:
    """Retry-After in seconds; 0 for a date, which no API server sends, or for nonsense."""
    text = str(text)
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
