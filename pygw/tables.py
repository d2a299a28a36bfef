"""From a GatewayConfig to an image: which listeners answer at which address, and which routes at which hostname.

The image (match/image_layout.pxd) is flat and position-independent: the control process compiles it once, all workers
map it read-only. Decided here: how Gateways that share a port are merged, and the order of routes by age and name
(Gateway API, GRPCRouteRule.matches, precedence steps 6 and 7). All else is decided where a request is matched, in
_fastmatch.pyx.

What an image costs: each match is indexed once for every distinct set of routes that shares a hostname with its route,
however many listeners and hostnames lead there. A call costs the same whether there are ten rules or ten thousand, but
for two things. Matches with RegularExpression: one look-up in the cache of decisions for each distinct pattern of the
hostname that precedence has to consider (1-2 us where the cache does not hold it). Matches with equal service and
method that ask for several Exact headers: one look-up for each distinct *set of header names* that includes a name the
request carries (filed under the set's rarest name), however many values there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pygw.local_address import canonical_address
from pygw.match.image_builder import ImageBuilder
from pygw.model import GatewayConfig, ListenerConfig, RouteConfig, TlsConfig
from pygw.tls_snapshot import TlsSnapshot


@dataclass(frozen=True, slots=True)
class Image:
    """A compiled GatewayConfig: the octets for RouteTable, and what its backend indices mean."""

    octets: bytes
    backend_keys: tuple[str, ...]


def compile_image(config: GatewayConfig, seed: bytes | None = None) -> Image:
    """Compile the routes of all listeners.

    `seed` (16 octets, default random) is the key of the image's hash tables. Raises ValueError only where an
    image would pass 4 GiB; whatever else a GatewayConfig holds compiles, and what can never match never does.
    """
    builder = ImageBuilder(os.urandom(16) if seed is None else seed)
    attached = {key for listener in config.listeners for key in listener.routes}
    ordered = sorted((route for key, route in config.routes.items() if key in attached), key=precedence)
    numbers = {route.key: builder.add_route(route) for route in ordered}
    for listener in config.listeners:
        builder.add_listener(listener.key)
    scopes = _Scopes(builder, [route.hostnames for route in ordered])
    for (address, port), hostnames in sites(config.listeners).items():
        groups = {
            hostname: _add_group(builder, scopes, config.listeners, members, numbers)
            for hostname, members in hostnames.items()
        }
        builder.add_site(address, port, builder.add_scope(groups, is_site=True))
    return Image(builder.finish(), tuple(builder.backend_keys))


def precedence(route: RouteConfig) -> tuple[bool, float, str, str]:
    """Sorts routes by age, then by `namespace/name`; without a valid creationTimestamp one is newer than any with."""
    created = _seconds(route.created)
    return (created is None, created or 0.0, f"{route.namespace}/{route.name}", route.kind)


def _seconds(created: str) -> float | None:
    if not created:
        return None
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def sites(listeners: Iterable[ListenerConfig]) -> dict[tuple[str, int], dict[str, list[int]]]:
    """Listeners (by place) by hostname, for each local address and port; the address "" stands for the shared ones.

    On an address that Gateways bind as their own, they alone answer; all others share the other addresses.
    """
    found: dict[tuple[str, int], dict[str, list[int]]] = {}
    for place, listener in enumerate(listeners):
        for address in dict.fromkeys(map(canonical_address, listener.addresses)) or ("",):
            found.setdefault((address, listener.port), {}).setdefault(listener.hostname, []).append(place)
    return found


def compile_tls(config: GatewayConfig) -> TlsSnapshot:
    """The TLS settings that belong to the image of a configuration."""
    found: dict[tuple[str, int], dict[str, TlsConfig]] = {}
    for site, hostnames in sites(config.listeners).items():
        secured: dict[str, TlsConfig] = {}
        for hostname, places in hostnames.items():
            merged = _merge_tls([config.listeners[place] for place in places])
            if merged is not None:
                secured[hostname] = merged
        if secured:
            found[site] = secured
    clients = tuple(listener.client_certificate for listener in config.listeners)
    upstreams = {key: backend.tls for key, backend in config.backends.items() if backend.tls is not None}
    return TlsSnapshot(found, upstreams, clients if any(clients) else ())


def _merge_tls(listeners: list[ListenerConfig]) -> TlsConfig | None:
    """Listeners with one hostname on one site: they validate clients alike, and each brings its certificates."""
    configs = [listener.tls for listener in listeners if listener.tls is not None]
    if not configs:
        return None
    certificates = dict.fromkeys(certificate for config in configs for certificate in config.certificates)
    return TlsConfig(tuple(certificates), configs[0].validation)


def _add_group(
    builder: ImageBuilder,
    scopes: _Scopes,
    listeners: tuple[ListenerConfig, ...],
    members: list[int],
    numbers: dict[str, int],
) -> int:
    via: dict[int, int] = {}
    for place in members:
        for key in listeners[place].routes:
            if key in numbers:
                via.setdefault(numbers[key], place)
    attachments = sorted(via.items()) if len(members) > 1 else []
    has_http = any(key.startswith("HTTPRoute/") for place in members for key in listeners[place].routes)
    return builder.add_group(scopes.of(tuple(sorted(via))), members[0], attachments, has_http)


class _Scopes:
    """Hostname maps of sets of routes, each set and each bucket made once."""

    def __init__(self, builder: ImageBuilder, hostnames: list[tuple[str, ...]]) -> None:
        self._builder = builder
        self._hostnames = hostnames
        self._scopes: dict[tuple[int, ...], int] = {}
        self._buckets: dict[tuple[int, ...], int] = {}

    def of(self, routes: tuple[int, ...]) -> int:
        """The scope of these routes (numbers, ascending)."""
        scope = self._scopes.get(routes)
        if scope is None:
            scope = self._scopes[routes] = self._builder.add_scope(
                {hostname: self._bucket(tuple(found)) for hostname, found in self._by_hostname(routes).items()}
            )
        return scope

    def _by_hostname(self, routes: tuple[int, ...]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number in routes:
            for hostname in dict.fromkeys(self._hostnames[number]) or ("",):
                found.setdefault(hostname, []).append(number)
        return found

    def _bucket(self, routes: tuple[int, ...]) -> int:
        bucket = self._buckets.get(routes)
        if bucket is None:
            bucket = self._buckets[routes] = self._builder.add_bucket(list(routes))
        return bucket
