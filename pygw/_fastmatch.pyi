from typing import Any

from .match.regex_cache import RegexSet

class RouteTable:
    """The routes of one GatewayConfig, compiled by `tables.compile_image`."""

    regexes: RegexSet

    def __init__(
        self, image: object, previous: RouteTable | None = None, phase: int = 0, regex_cache: int = 4096
    ) -> None:
        """Open an image: any object with the buffer protocol, which must not change, or its ImageProof.

        Picker states of `previous` live on where a rule's backends and weights are the same, as do its compiled
        regexes and its cache of decisions (`regex_cache` counts for the first table only); new picker states start
        `phase` picks on, counted round their period and 1,024 at most, so that workers do not move in step. Raises
        ValueError for what is not an image.
        """
    def inherit(self, rules: int) -> bool:
        """Take over the picker states of so many rules more; True when nothing of `previous` is needed any more.

        A rule that is picked before its turn takes over its own: the calls never wait for this.
        """
    def site(self, address: str, port: int) -> int:
        """Which set of listeners answers at a local IP address and a listener's own port; -1: none.

        An address that Gateways bind as their own is theirs alone; any other has the listeners of all Gateways without
        addresses of their own.
        """
    def match_request(
        self, site: int, authority: bytes | None, path: bytes, fields: list[tuple[bytes, bytes]],
        is_grpc: bool = True, method: bytes = b"POST",
    ) -> dict[str, Any]:
        """What match() finds, as Python values. For explain and tests.

        `listener` is the key of the one selected, or None. `route` ("namespace/name") is None where nothing matches;
        else there are kind, rule (its place in spec.rules), rule_name, match, rule_number (in the image), failure
        ((grpc_status, message) or None) and refs (label, backend, weight, reason, failure of each backendRef).
        """
    def match_times(
        self, rounds: int, site: int, questions: list[tuple[bytes | None, bytes, list[tuple[bytes, bytes]]]]
    ) -> int:
        """match() of all questions (authority, path, fields), `rounds` times: how many found a rule. For benchmarks."""
    def pick_times(self, rule: int, times: int) -> list[int]:
        """`times` picks of a rule (by its rule_number): how often each backendRef came. For tests and benchmarks."""
