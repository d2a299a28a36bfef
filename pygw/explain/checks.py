"""What explain's checks of GRPCRoutes and HTTPRoutes share: hostnames, terms, and how a loser is told of its winner.

In words, for people; the winner itself comes from the compiled matcher.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar

from pygw.model import HeaderMatch, RouteConfig, RuleConfig
from pygw.regex import matcher
from pygw.tables import precedence

Candidate = dict[str, Any]
Fields = list[tuple[bytes, bytes]]

_LOWER = {ord(c): ord(c) + 32 for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def host_of(authority: str | None) -> str:
    """:authority as hostnames are compared with it: lower case, without port."""
    return re.sub(r":[0-9]*\Z", "", (authority or "").translate(_LOWER))


def hostname_holds(hostname: str, host: str) -> bool:
    """Whether a hostname of a listener or route covers this host; "" covers all."""
    if hostname.startswith("*."):
        return host.endswith(hostname[1:]) and len(host) > len(hostname) - 1
    return hostname in ("", host)


def hostname_rank(hostname: str) -> tuple[int, int]:
    """Precedence steps 1 and 2."""
    return (0 if hostname.startswith("*.") else len(hostname), len(hostname))


class Checked:
    """One match of one rule, against the call. Subclasses know what it asks for beside the hostname."""

    STEPS: ClassVar[tuple[str, ...]]  # of precedence, in order: between the two of hostnames and the three of routes

    def __init__(self, route: RouteConfig, rule: RuleConfig, place: int, host: str) -> None:
        self.route, self.rule, self.place = route, rule, place
        holding = [hostname for hostname in route.hostnames or ("",) if hostname_holds(hostname, host)]
        self.hostname = max(holding, key=hostname_rank, default="")
        self.reason = "" if holding else f"hostnames {', '.join(route.hostnames)} do not match {host!r}"

    def ranks(self) -> tuple[Any, ...]:
        """One for each of STEPS; smaller wins."""
        raise NotImplementedError

    def values(self) -> tuple[str, ...]:
        """What stands for it at each of STEPS."""
        raise NotImplementedError

    def description(self) -> str:
        """The match in words."""
        raise NotImplementedError

    @property
    def rank(self) -> tuple[Any, ...]:
        """Smaller wins; one item for each step."""
        plain, total = hostname_rank(self.hostname)
        age = precedence(self.route)
        return -plain, -total, *self.ranks(), age[:2], age[2:], (self.route.rules.index(self.rule), self.place)

    def is_winner(self, decision: Mapping[str, Any]) -> bool:
        """Whether decide() has found this one."""
        mine = (self.route.kind, f"{self.route.namespace}/{self.route.name}", self.rule.index, self.place)
        return mine == (
            decision.get("kind", "GRPCRoute"), decision.get("route"), decision.get("rule"), decision.get("match")
        )  # fmt: skip

    def told(self, winner: Checked | None) -> Candidate:
        """As a member of `candidates`."""
        told: Candidate = {
            "route": f"{self.route.namespace}/{self.route.name}",
            "kind": self.route.kind,
            "rule": self.rule.index,
            "rule_name": self.rule.name,
            "match": self.place,
            "matches": self.description(),
            "hostname": self.hostname,
            "result": "no match" if self.reason else "won" if winner is self else "lost",
            "reason": self.reason,
        }
        if winner is not None and winner is not self:
            told["step"], told["reason"] = self._lost_to(winner)
        return told

    def _lost_to(self, winner: Checked) -> tuple[int, str]:
        if winner.route.kind != self.route.kind:
            return 0, f"a gRPC call goes to {winner.route.kind}s first"
        mine, theirs = self.rank, winner.rank
        last = len(mine) - 1
        step = next((place for place in range(last) if mine[place] != theirs[place]), last)
        name = (*_HOST_STEPS, *self.STEPS, *_ROUTE_STEPS)[step]
        return step + 1, f"{name}: {self._all_values()[step]}; the winner's: {winner._all_values()[step]}"

    def _all_values(self) -> tuple[str, ...]:
        return (
            or_any(self.hostname), or_any(self.hostname), *self.values(),
            self.route.created or "no creationTimestamp",
            f"{self.route.namespace}/{self.route.name}",
            f"rule {self.rule.index}, match {self.place}",
        )  # fmt: skip


_HOST_STEPS = ("characters in a non-wildcard hostname", "characters in the hostname")
_ROUTE_STEPS = ("age of the route", "namespace/name of the route", "order in the route")


def distinct(matches: tuple[HeaderMatch, ...]) -> list[HeaderMatch]:
    """Of equal names only the first counts."""
    return list({match.name: match for match in reversed(matches)}.values())


def why_no_header(headers: list[HeaderMatch], fields: Fields) -> str:
    """The first header that does not hold, in words; "": all hold."""
    for header in headers:
        values = [value for name, value in fields if name == header.name.encode()]
        if not values:
            return f"there is no header {header.name}"
        if not holds(header.value, header.is_regex, b",".join(values)):
            return f"header {header.name}: {text_of(b','.join(values))} is not {term(header.value, header.is_regex)}"
    return ""


def holds(wanted: str | None, is_regex: bool, value: bytes) -> bool:
    """Whether a value is what a match asks for; None asks for nothing."""
    if wanted is None:
        return True
    if is_regex:
        match = _compiled(wanted)
        return match is not None and bool(match(value))
    return wanted.encode("utf-8", "surrogatepass") == value


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Callable[[bytes], Any] | None:
    try:
        return matcher(pattern.encode())
    except ValueError:  # the matcher lets an invalid pattern match nothing
        return None


def or_any(hostname: str) -> str:
    """A hostname, or "(none)"."""
    return hostname or "(none)"


def operator(is_regex: bool) -> str:
    """What stands before a pattern."""
    return "~ " if is_regex else ""


def term(wanted: str | None, is_regex: bool) -> str:
    """What a match asks for."""
    return "(any)" if wanted is None else f"~ {wanted}" if is_regex else wanted


def text_of(octets: bytes) -> str:
    """Octets of a request in a message."""
    return repr(octets.decode(errors="backslashreplace"))


def named(matches: tuple[HeaderMatch, ...], what: str) -> list[str]:
    """`header x-env = prod`, one each."""
    return [f"{what} {match.name} {'~' if match.is_regex else '='} {match.value}" for match in matches]
