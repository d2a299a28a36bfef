"""WorkerLink: the control process's end of its channel to one worker, and the Published configuration it hands out.

One change at a time is under way: the next goes out when the worker has acknowledged the last, and says what is
true then, so a slow worker never falls behind by more than one and nothing queues up.

Messages: to the worker snapshot {version, backends, tls} + image memfd; endpoints {backends}; metrics; endpoint_states;
each with a sequence that its ack {sequence, error} repeats. From the worker hello {version} at first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pygw.channel import Channel, ChannelError, Message, sealed_memfd
from pygw.model import GatewayConfig
from pygw.tables import compile_tls
from pygw.tls_snapshot import TlsSnapshot

log = logging.getLogger(__name__)

Endpoints = tuple[tuple[str, int], ...]


class Published:
    """One version of the configuration, as the workers get it. Only `endpoints` may change while it is served."""

    def __init__(
        self,
        version: int,
        config: GatewayConfig,
        octets: bytes,
        backend_keys: tuple[str, ...],
        endpoints: dict[str, Endpoints],
    ) -> None:
        self.version = version
        self.config = config
        self.backend_keys = backend_keys  # in the order of the image's backend indices
        self.endpoints = endpoints
        tls = compile_tls(config)
        self.tls = tls.to_json() if tls != TlsSnapshot() else None
        self.image_size = len(octets)
        self.image_fd = sealed_memfd("pygw-image", octets)

    def backends(self, keys: Iterable[str] | None = None) -> list[tuple[str, Endpoints]]:
        """Endpoints by backend, of all or of some, in the order of the image."""
        return [(key, self.endpoints.get(key, ())) for key in (self.backend_keys if keys is None else keys)]

    def close(self) -> None:
        """Give the image back; workers that mapped it keep it."""
        os.close(self.image_fd)


@dataclass(slots=True)
class WorkerLink:
    """One worker process. `published()` says what it should serve, `on_progress()` that it acknowledged something."""

    number: int
    pid: int
    sock: socket.socket
    published: Callable[[], Published | None]
    on_progress: Callable[[], None]
    on_end: Callable[[WorkerLink], None]
    version: int | None = None  # that the worker serves; None before its hello
    refused: int | None = None  # a version that it could not apply, and why
    refusal: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)  # as it last said
    _channel: Channel = field(init=False)
    _sequence: int = 0
    _changing: int | None = None  # the sequence of the change under way
    _changed_backends: set[str] = field(default_factory=set)
    _answers: dict[int, asyncio.Future[Message | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._channel = Channel(self.sock, self._on_message, self._on_end)

    def endpoints_changed(self, keys: set[str]) -> None:
        """The endpoints of these backends are others now."""
        self._changed_backends |= keys
        self.poke()

    def poke(self) -> None:
        """Send what the worker lacks, unless something is under way."""
        published = self.published()
        if published is None or self.version is None or self._changing is not None:
            return
        if published.version not in (self.version, self.refused):
            self._changed_backends.clear()
            keys = list(published.backend_keys)
            self._change(published, "snapshot", keys, [published.image_fd], tls=published.tls)
        elif self._changed_backends and published.version == self.version:
            keys = [key for key in published.backend_keys if key in self._changed_backends]
            self._changed_backends.clear()
            if keys:
                self._change(published, "endpoints", keys, [])

    async def ask(self, question: str) -> Message | None:
        """The answer to `metrics` or `endpoint_states`; None where the worker goes away."""
        if self._channel.is_closed:
            return None
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        sequence = self._send({"type": question}, [])
        self._answers[sequence] = future
        try:
            return await future
        finally:
            del self._answers[sequence]

    def close(self) -> None:
        """Close the channel; what waits for an answer gets none."""
        self._channel.close()
        for future in self._answers.values():
            if not future.done():
                future.set_result(None)

    def _change(self, published: Published, kind: str, keys: list[str], fds: list[int], **rest: Any) -> None:
        message = {"type": kind, "version": published.version, "backends": published.backends(keys), **rest}
        self._changing = self._send(message, fds)

    def _send(self, message: Message, fds: list[int]) -> int:
        self._sequence += 1
        with contextlib.suppress(ChannelError):  # its end is being told
            self._channel.send({**message, "sequence": self._sequence}, fds)
        return self._sequence

    def _on_message(self, message: Message, fds: list[int]) -> None:
        if message["type"] == "hello":
            self.version = message["version"]
            published = self.published()
            if published is not None and published.version == self.version:
                # From the launcher, which may not know the latest endpoints.
                self._changed_backends.update(published.backend_keys)
            self.poke()
        elif message["type"] == "ack":
            sequence = message["sequence"]
            if sequence in self._answers and not self._answers[sequence].done():
                self._answers[sequence].set_result(message)
            elif sequence == self._changing:
                self._on_changed(message)

    def _on_changed(self, message: Message) -> None:
        self._changing = None
        version, error = message["version"], message["error"]
        if error is None:
            self.version, self.refused, self.refusal = version, None, ""
        else:
            self.refused, self.refusal = version, error
            log.error("a worker refused the configuration", extra={"worker": self.number, "reason": error})
        self.on_progress()
        self.poke()

    def _on_end(self) -> None:
        self.close()
        self.on_end(self)
