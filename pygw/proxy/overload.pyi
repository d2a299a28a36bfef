class OverloadJudge:
    """What decides whether new calls are taken on, with the time told by the caller, in microseconds."""

    def __init__(self, limit_us: int) -> None:
        """`limit_us`: overload_lag; 0: off."""
    def begin_turn(self, now_us: int) -> None: ...
    def begin_read(self, now_us: int, interval_us: int) -> None:
        """A connection is read that was read last so long ago."""
    def refuses(self, now_us: int, chance: int) -> bool:
        """Whether a call that has just been read is refused; `chance` is a random number below 65536."""
    def end_turn(self, now_us: int) -> None: ...
    @property
    def share(self) -> float:
        """Of the new calls, how many are taken on."""
