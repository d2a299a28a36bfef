from collections.abc import Callable
from typing import Any

class RouteTable:
    """The routes of one GatewayConfig, compiled by `tables.compile_image`."""

    def __init__(
        self, image: object, previous: RouteTable | None = None, phase: int = 0, regex_cache: int = 4096
    ) -> None:
        """Open an image (any object with the buffer protocol; it must not change).

        Picker states of `previous` live on where a rule's backends and weights are the same; new ones start
        `phase` picks on, so that workers do not move in step. Raises ValueError for what is not an image.
        """
    def site(self, address: str, port: int) -> int: ...
    def match_request(
        self, site: int, authority: bytes | None, path: bytes, fields: list[tuple[bytes, bytes]],
        is_grpc: bool = True, method: bytes = b"POST",
    ) -> dict[str, Any]:
        """What match() finds, as Python values: listener, route, rule (spec index), match, refs, failure. For explain and tests."""
    def pick_times(self, rule: int, times: int) -> list[int]:
        """`times` picks of a rule (by its number in the image): how often each backendRef came. For tests and benchmarks."""
