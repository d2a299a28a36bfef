class DecisionCache:
    """Remembered answers: `size` entries of 16 octets each (rounded up to a power of 2; 0: none are kept)."""

    size: int
    hits: int
    misses: int

    def __init__(self, entries: int) -> None: ...

class RegexSet:
    """The patterns of an image; `previous` hands on what it has compiled."""

    cache: DecisionCache

    def __init__(self, patterns: list[bytes], cache: DecisionCache, previous: RegexSet | None = None) -> None: ...
    def decide(self, number: int, value: bytes) -> bool:
        """Whether all of `value` matches a pattern (by place); an invalid pattern matches nothing. For tests."""
