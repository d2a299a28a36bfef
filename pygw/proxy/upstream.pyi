import asyncio
from collections.abc import Callable
from typing import Any

class Upstream(asyncio.BufferedProtocol):
    """The HTTP/2 connection to an Endpoint, as uvloop drives it."""

    failure: bytes | None
    """Why it went before it was ready."""

    def __init__(self, context: Any, endpoint: Any, on_settled: Callable[[Upstream], object]) -> None:
        """`on_settled` is called once: it is ready, or it is gone."""
