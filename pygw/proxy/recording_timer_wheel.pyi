from asyncio import AbstractEventLoop
from collections.abc import Callable

class RecordingTimerWheel:
    """A TimerWheel with numbered timers, and a clock that stands where `now` says unless `virtual` is false."""

    now: int
    count: int
    fired: list[int]
    on_expired: Callable[[int], object] | None
    def __init__(self, loop: AbstractEventLoop, size: int, virtual: bool = True) -> None: ...
    def start(self, number: int, seconds: float) -> None:
        """Arms a timer."""
    def cancel(self, number: int) -> None:
        """Disarms a timer and frees its memory."""
    def is_armed(self, number: int) -> bool: ...
    def run_to(self, now: int) -> None:
        """Sets the clock to `now` microseconds and fires what is due."""
    def close(self) -> None:
        """Never wakes again."""
    def measure_arming(self, rounds: int) -> None:
        """Arms and disarms one timer `rounds` times."""
