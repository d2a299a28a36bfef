import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pygw.settings import Settings
from pygw.tls_snapshot import TlsSnapshot

Addresses = Iterable[tuple[str, int]]

class Relay:
    """The data plane of one worker."""

    context: Any
    """What its connections share: for tests that look at pools and counts."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        worker: int,
        trusted_proxies: tuple[str, ...] = (),
        proxy_protocol_from: tuple[str, ...] = (),
        access_log: Callable[[bytes], object] | None = None,
    ) -> None: ...
    @property
    def version(self) -> int: ...
    @property
    def open_calls(self) -> int: ...
    @property
    def open_connections(self) -> int: ...
    def apply(
        self,
        version: int,
        image: object,
        backends: Iterable[tuple[str, Addresses]],
        tls: TlsSnapshot | None = None,
    ) -> None: ...
    def steps_to(
        self,
        version: int,
        image: object,
        chunks: Iterable[Iterable[tuple[str, Addresses]]],
        tls: TlsSnapshot | None = None,
    ) -> Iterator[None]: ...
    def update_endpoints(self, backends: Iterable[tuple[str, Addresses]]) -> None: ...
    def protocol_factory(self, address: str, port: int) -> Callable[[], Any]: ...
    def watch_accepting(self, on_accepting: Callable[[bool], None]) -> None: ...
    def accept_again(self) -> None: ...
    def start_drain(self) -> None: ...
    def finish_drain(self) -> None: ...
    def abort_calls(self) -> None: ...
    def close(self) -> None: ...
    def metrics(self) -> dict[str, list[Any]]: ...
    def endpoint_states(self) -> dict[str, list[dict[str, Any]]]: ...
