"""WorkerLink: the control process's end of its channel to one worker, and the Published configuration it hands out.

One change at a time is under way: the next goes out when the worker has acknowledged the last, and says what is
true then, so a slow worker never falls behind by more than one and nothing queues up.

Messages: to the worker snapshot {version, tls} + memfds of the image and of its backends; endpoints {backends}, of a
chunk of them at most; metrics; endpoint_states; each with a sequence that its ack {sequence, error, pause} repeats.
From the worker hello {version} at first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pygw.backend_list import CHUNK, Endpoints, write_backends
from pygw.channel import Channel, ChannelError, Message, sealed_memfd
from pygw.model import GatewayConfig
from pygw.tables import compile_tls
from pygw.tls_snapshot import TlsSnapshot

log = logging.getLogger(__name__)

class Published:
    """One version of the configuration, as the workers get it. Only its endpoints may change while it is served."""

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
        self._endpoints = endpoints
        self._backends_fd: int | None = None
        tls = compile_tls(config)
        self.tls = tls.to_json() if tls != TlsSnapshot() else None
        self.image_fd = sealed_memfd("pygw-image", octets)

    @property
    def endpoints(self) -> Mapping[str, Endpoints]:
        """By backend."""
        return self._endpoints

    def update_endpoints(self, changed: Mapping[str, Endpoints]) -> None:
        """Some backends have other endpoints now."""
        self._endpoints.update(changed)
        self._forget_backends()

    def snapshot(self) -> tuple[Message, list[int]]:
        """The message that makes a worker serve this, and its file descriptors, which stay ours."""
        if self._backends_fd is None:
            self._backends_fd = write_backends(self.backends(self.backend_keys))
        message = {"type": "snapshot", "version": self.version, "tls": self.tls}
        return message, [self.image_fd, self._backends_fd]

    def backends(self, keys: Iterable[str]) -> list[tuple[str, Endpoints]]:
        """Endpoints by backend."""
        return [(key, self._endpoints.get(key, ())) for key in keys]

    def close(self) -> None:
        """Give the memory files back; workers that mapped them keep them."""
        os.close(self.image_fd)
        self._forget_backends()

    def _forget_backends(self) -> None:
        if self._backends_fd is not None:
            os.close(self._backends_fd)
            self._backends_fd = None


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
    pause: float = 0.0  # seconds that the last change kept its calls waiting at most
    metrics: dict[str, Any] = field(default_factory=dict)  # as it last said
    _channel: Channel = field(init=False)
    _sequence: int = 0
    _changing: int | None = None  # the sequence of the change under way
    _changed_backends: dict[str, None] = field(default_factory=dict)
    _answers: dict[int, asyncio.Future[Message | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._channel = Channel(self.sock, self._on_message, self._on_end)

    def endpoints_changed(self, keys: Iterable[str]) -> None:
        """The endpoints of these backends are others now."""
        self._changed_backends.update(dict.fromkeys(keys))
        self.poke()

    def poke(self) -> None:
        """Send what the worker lacks, unless something is under way."""
        published = self.published()
        if published is None or self.version is None or self._changing is not None:
            return
        if published.version not in (self.version, self.refused):
            self._changed_backends.clear()
            self._changing = self._send(*published.snapshot())
        elif self._changed_backends and published.version == self.version:
            keys = list(islice(self._changed_backends, CHUNK))
            for key in keys:
                del self._changed_backends[key]
            message = {"type": "endpoints", "version": published.version, "backends": published.backends(keys)}
            self._changing = self._send(message, [])

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
                self._changed_backends.update(dict.fromkeys(published.backend_keys))
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
        self.pause = message["pause"]
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
