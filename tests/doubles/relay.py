"""A Relay for tests of the processes around it: speaks lines instead of HTTP/2, counts, and does as it is told.

A connection gets one line for each that it sends: `who` answers with worker, process and what is served, `die` kills
the worker, `hang` stops its loop. `python -m tests.doubles.relay N` is a worker with this relay.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from pygw import worker
from pygw.backend_list import Backends
from pygw.child import inherited_channel
from pygw.settings import Settings

HELP = {"pygw_calls_total": ("counter", "Calls."), "pygw_call_duration_seconds": ("histogram", "Durations.")}


class FakeRelay:
    """Has the methods of pygw.proxy.relay.Relay."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        number: int,
        trusted_proxies: tuple[str, ...] = (),
        proxy_protocol_from: tuple[str, ...] = (),
        access_log: Callable[[bytes], None] | None = None,
    ) -> None:
        self.number = number
        self.settings = settings
        self.access_log = access_log
        self.version = 0
        self.image: Any = None
        self.backends: dict[str, list[tuple[str, int]]] = {}
        self.connections: set[LineProtocol] = set()
        self.calls = 0
        self.is_draining = self.is_finishing = False

    @property
    def open_calls(self) -> int:
        return 0

    @property
    def open_connections(self) -> int:
        return len(self.connections)

    def steps_to(
        self, version: int, image: Any, chunks: Iterable[Backends], tls: object = None
    ) -> Iterator[None]:
        if len(image) < 4:
            raise ValueError("not an image")
        yield
        backends = {key: addresses for chunk in chunks for key, addresses in chunk}
        self.version, self.image, self.backends = version, image, backends

    def update_endpoints(self, backends: Backends) -> None:
        self.backends.update(backends)

    def protocol_factory(self, address: str, port: int) -> Callable[[], asyncio.BaseProtocol]:
        return lambda: LineProtocol(self, f"{address}:{port}")

    def watch_accepting(self, on_accepting: Callable[[bool], None]) -> None:
        self.on_accepting = on_accepting

    def accept_again(self) -> None:
        self.on_accepting(True)

    def start_drain(self) -> None:
        self.is_draining = True
        self.tell("goaway 1")

    def finish_drain(self) -> None:
        self.is_finishing = True
        self.tell("goaway 2")

    def abort_calls(self) -> None:
        for connection in list(self.connections):
            connection.say("aborted")
            connection.transport.close()

    def tell(self, text: str) -> None:
        for connection in self.connections:
            connection.say(text)

    def metrics(self) -> dict[str, Any]:
        return {
            "counters": [
                ["pygw_calls_total", {"service": 'a"b\n', "grpc_status": "0"}, self.calls],
                ["pygw_downstream_connections", {}, len(self.connections)],
            ],
            "histograms": [["pygw_call_duration_seconds", {"service": "s"}, [0.1, 1.0], [self.calls, 0, 1], 2.5]],
        }

    def endpoint_states(self) -> dict[str, list[dict[str, Any]]]:
        return {key: [{"address": f"{host}:{port}"} for host, port in value] for key, value in self.backends.items()}

    def close(self) -> None:
        for connection in list(self.connections):
            connection.transport.abort()


class LineProtocol(asyncio.Protocol):
    """One client connection."""

    transport: asyncio.Transport

    def __init__(self, relay: FakeRelay, site: str) -> None:
        self.relay = relay
        self.site = site

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.relay.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.relay.connections.discard(self)

    def say(self, text: str) -> None:
        self.transport.write(text.encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        for command in data.decode().split():
            self.obey(command)

    def obey(self, command: str) -> None:
        relay = self.relay
        if command == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif command == "hang":
            time.sleep(3600)
        elif command == "bye":
            self.transport.close()
        else:
            relay.calls += 1
            if relay.access_log is not None:
                relay.access_log(f'{{"call":{relay.calls}}}\n'.encode())
            answer = {
                "worker": relay.number, "pid": os.getpid(), "site": self.site, "version": relay.version,
                "backends": relay.backends, "draining": relay.is_draining,
                "streams": relay.settings.max_concurrent_streams,
            }  # fmt: skip
            self.say(json.dumps(answer))


if __name__ == "__main__":
    import uvloop

    uvloop.run(worker.serve(inherited_channel(), lambda loop: worker.Worker(loop, FakeRelay, HELP, goaway_gap=0.05)))
    sys.stdout.flush()
    os._exit(0)
