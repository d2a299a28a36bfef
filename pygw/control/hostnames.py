"""Hostname intersection of listeners and routes (Gateway API, docs/concepts/hostnames).

`*.example.com` stands for one or more labels before `.example.com`, never for `example.com` itself. The empty string
is "any hostname".
"""

from __future__ import annotations

from collections.abc import Iterable


def covers(pattern: str, hostname: str) -> bool:
    """Whether everything that `hostname` (itself perhaps a wildcard) can stand for is matched by `pattern`."""
    if not pattern or pattern == hostname:
        return True
    return pattern.startswith("*.") and len(hostname) > len(pattern) - 1 and hostname.endswith(pattern[1:])


def intersects(listener: str, hostnames: Iterable[str]) -> bool:
    """Whether a listener's hostname has anything in common with one of a route's; no hostnames at all means any."""
    hostnames = tuple(hostnames)
    if not listener or not hostnames:
        return True
    return any(covers(listener, hostname) or covers(hostname, listener) for hostname in hostnames)
