"""What kube-proxy makes of a Service, for clients of several gateways: a new connection goes to one that is ready, in
turn, and an open one stays where it is. Readiness is asked for as kubelet does, so that it is known a little late."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from tests.doubles.gateway import Gateway

PROBE_INTERVAL = 0.1  # seconds; kubelet's least is 1
PATIENCE = 30.0


class Balancer:
    """One port in front of `replicas`, which may be added to and taken from; a context manager."""

    def __init__(self, *replicas: Gateway) -> None:
        self.replicas = list(replicas)
        self.refused: list[int] = []  # ports of replicas that were ready and took no connection
        self.port = 0
        self._ready: list[Gateway] = []
        self._next = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._probing: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Balancer:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def is_ready(self, replica: Gateway) -> bool:
        """Whether new connections may go there."""
        return replica in self._ready

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _start(self) -> None:
        await self._probe_once()
        self._probing = asyncio.create_task(self._probe())
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        assert self._server is not None
        assert self._probing is not None
        self._server.close()
        tasks = [self._probing, *self._relays]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_INTERVAL)
            await self._probe_once()

    async def _probe_once(self) -> None:
        replicas = list(self.replicas)
        answers = await asyncio.gather(*(asyncio.to_thread(one.admin, "/readyz") for one in replicas))
        self._ready = [one for one, (status, _) in zip(replicas, answers, strict=True) if status == 200]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            await self._relay(reader, writer)
        finally:
            self._relays.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._ready, "no replica is ready"
        self._next += 1
        replica = self._ready[self._next % len(self._ready)]
        try:
            their_reader, their_writer = await asyncio.open_connection("127.0.0.1", replica.port)
        except OSError:
            self.refused.append(replica.port)
            return
        try:
            await asyncio.gather(_pump(reader, their_writer), _pump(their_reader, writer))
        finally:
            their_writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Octets one way, and their end."""
    with contextlib.suppress(OSError):
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
        writer.write_eof()
