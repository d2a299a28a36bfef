class StreamPool:
    """Lends the Streams of a worker's connections; one for each worker."""

    used: int
    multiplier: int
    def __init__(self, isolated: bool = False) -> None:
        """`isolated`: each Stream is its own allocation, so that sanitizers see every use after it was given back."""
