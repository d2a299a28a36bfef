"""Which local addresses and ports the listeners of a configuration want, after --bind and --port-map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pygw.listen_sockets import Site
from pygw.model import ListenerConfig


def sites_of(
    listeners: Iterable[ListenerConfig], bind: Iterable[str], port_map: Mapping[int, int]
) -> tuple[list[Site], list[str]]:
    """The sites to bind, and what cannot be bound because two listeners want one local port.

    Gateways with addresses of their own bind these, all others the addresses of `bind`. An address that is in both
    is bound once, as a shared one: the data plane tells Gateways apart by the local address of a connection.
    """
    wanted: dict[Site, None] = {}
    for listener in listeners:
        for address in listener.addresses or ("",):
            for host in (address,) if address else bind:
                wanted[Site(address, listener.port, host, port_map.get(listener.port, listener.port))] = None
    chosen: dict[tuple[str, int], Site] = {}
    conflicts = []
    for site in sorted(wanted, key=lambda site: (site.address, site.port)):
        # Each site with local port 0 gets a port of its own.
        place = (site.host, site.local_port) if site.local_port else (f"{site.address} {site.host}", -site.port)
        other = chosen.setdefault(place, site)
        if other.port != site.port:
            conflicts.append(
                f"listener ports {other.port} and {site.port} would both be bound as local port {site.local_port}; "
                f"change --port-map"
            )
    return list(chosen.values()), conflicts
