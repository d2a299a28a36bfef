from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any

class AccessLog:
    """JSON lines of finished calls, handed to `sink` once per loop turn and whenever 64 KiB have come together.

    An OSError of the sink loses the lines it was given; they are counted in `lost`.
    """

    line_count: int
    lost: int
    def __init__(self, loop: AbstractEventLoop, sink: Callable[[bytes], object]) -> None: ...
    def flush(self) -> int:
        """Hands out what is there; once more at the end, then nothing is missing."""

def write_entry(log: AccessLog, values: dict[str, Any], times: int = 1) -> None:
    """Writes a line as the relay does, from values by the names of the line's fields (durations in `..._us`)."""
