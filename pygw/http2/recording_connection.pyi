from collections.abc import Callable, Iterable
from typing import Any

from pygw.http2.connection_options import ConnectionOptions
from pygw.http2.stream import StreamPool

CAUSES: tuple[str, ...]
"""How a ("closed", stream id, cause, code) event names each CloseCause."""

class RecordingConnection:
    """A Connection whose hooks become tuples in `events`; streams are known by id (KeyError where not open).

    `isolated`: what is fed, and each Stream, is an allocation of its own, so that sanitizers see every misuse.
    """

    events: list[tuple[Any, ...]]
    on_event: Callable[[tuple[Any, ...]], object] | None
    auto_credit: bool
    is_client: bool
    failed: bool
    stream_count: int
    goaway_sent: bool
    goaway_received: bool
    settings_received: bool
    settings_acknowledged: bool
    blocked_output: int
    options: ConnectionOptions
    def __init__(self, options: ConnectionOptions, pool: StreamPool | None = None, isolated: bool = True) -> None: ...
    def take_events(self) -> list[tuple[Any, ...]]:
        """The events since the last call."""
    def begin(self) -> None:
        """Connection.start()."""
    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Connection.receive()."""
    def output(self) -> bytes:
        """Connection.take_output()."""
    def lose(self) -> None:
        """Connection.connection_lost()."""
    def open(self) -> int | None:
        """Connection.open_stream(): the id, or None where no stream may be opened."""
    def send_headers(self, stream_id: int, fields: Iterable[tuple[bytes, bytes]], end_stream: bool = False) -> None: ...
    def break_off(self, stream_id: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """As send_headers(), but with a MemoryError in the middle of the header block."""
    def send(self, stream_id: int, data: bytes, end_stream: bool = False) -> int:
        """Connection.send_data(): octets that went out at once."""
    def send_trailing(self, stream_id: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Connection.send_trailers()."""
    def reset(self, stream_id: int, error_code: int = 8) -> None: ...
    def finish(self, stream_id: int, error_code: int = 0) -> None:
        """Connection.finish_with_reset()."""
    def drain(self, stream_id: int, octets: int) -> None:
        """Connection.credit()."""
    def expect_no_content(self, stream_id: int) -> None: ...
    def block_writes(self) -> None: ...
    def resume_writes(self) -> None: ...
    def announce_going_away(self) -> None: ...
    def go_away(self, error_code: int = 0) -> None:
        """Connection.final_goaway()."""
    def send_ping(self, payload: int) -> None: ...
    def give_up(self, error_code: int) -> None:
        """Connection.fail()."""
    def second_passes(self, seconds: int = 1) -> None:
        """Connection.replenish()."""
    def look_for_stalls(self, looks: int) -> None:
        """Connection.end_stalled()."""
    def is_open(self, stream_id: int) -> bool: ...
    def stream_state(self, stream_id: int) -> dict[str, int]: ...
    @property
    def can_open_stream(self) -> bool: ...
    @property
    def holds_data(self) -> bool:
        """DATA waits in some stream, or did at the last look."""
    @property
    def windows(self) -> tuple[int, int]:
        """The connection's, for sending and for receiving."""
    @property
    def octets(self) -> tuple[int, int]:
        """DATA received and sent."""
    @property
    def budgets_left(self) -> dict[str, int]: ...
    @property
    def streams_in_use(self) -> int:
        """Streams that the pool has lent."""
    @property
    def last_stream_error(self) -> str | None:
        """Why a stream was reset for the peer's fault last."""
    @property
    def held_octets(self) -> int:
        """Octets of buffers and tables beside the object itself."""
    @property
    def hpack_octets(self) -> int:
        """Octets that HPACK keeps from one header block to the next, but for its dynamic tables."""
    @property
    def object_octets(self) -> int:
        """Octets of the object, its HPACK decoder and its encoder."""
    @property
    def peer_settings(self) -> dict[str, int]: ...
    def measure_receive(self, data: bytes, rounds: int) -> None:
        """receive(data), so many times."""

class DiscardingConnection(RecordingConnection):
    """Records nothing but how many hooks were called, and drains what comes: for benchmarks."""

    hooks: int
