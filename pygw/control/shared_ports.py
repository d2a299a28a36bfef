"""Gateways that share an address and a port: whose listeners serve there.

Listeners of different Gateways never conflict: those that speak alike are merged by hostname in the data plane. But a
port speaks one protocol, and a hostname validates clients in one way: a route must never be reached with less than its
own listener asks for. Where they differ, the older Gateway's listener serves, and the other says so in its status.
Certificates that differ are no conflict: each is used for the names that it fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pygw.control.attach import ListenerKey
from pygw.control.cluster_state import by_age
from pygw.control.gateways import Gateway, Gateways, Parent
from pygw.control.listeners import Listener
from pygw.control.tls_listeners import mark_overlaps
from pygw.model import ClientValidation

_Place = tuple[Parent, Listener]


def share_ports(gateways: Gateways) -> Gateways:
    """The Gateways, with Listener.displaced and Listener.overlapping set."""
    found = [gateway.with_listeners(mark_overlaps(gateway.listeners)) for gateway in gateways.gateways]
    displaced = _displaced(found)
    if displaced:
        found = [_marked(gateway, displaced) for gateway in found]
    return replace(gateways, gateways=tuple(found))


def _displaced(gateways: Iterable[Gateway]) -> dict[ListenerKey, str]:
    protocols: dict[tuple[str, int], _Place] = {}
    owners: dict[tuple[str, int, str], _Place] = {}
    displaced: dict[ListenerKey, str] = {}
    for gateway in sorted(gateways, key=lambda one: by_age(one.item)):
        for parent, listener in _serving(gateway):
            for address in gateway.bind_addresses or ("",):
                site = address, listener.port
                first = protocols.setdefault(site, (parent, listener))
                owner = owners.setdefault((*site, listener.hostname), (parent, listener))
                message = _difference(listener, first, owner, address)
                if message:
                    displaced[parent.key, listener.name] = message
    return displaced


def _serving(gateway: Gateway) -> Iterator[_Place]:
    for parent in gateway.parents:
        for listener in parent.listeners:
            if parent.is_served and listener.is_valid:
                yield parent, listener


def _difference(listener: Listener, first: _Place, owner: _Place, address: str) -> str:
    where = f"port {listener.port} of {address or 'the shared addresses'}"
    if first[1].protocol != listener.protocol:
        return f"{where} speaks {first[1].protocol} for the older {_name(first)}, not {listener.protocol}"
    if _validation(owner[1]) != _validation(listener):
        hostname = listener.hostname or "(any)"
        return (
            f"hostname {hostname} on {where} belongs to the older {_name(owner)}, which validates client certificates "
            f"in another way"
        )
    return ""


def _validation(listener: Listener) -> ClientValidation | None:
    return None if listener.tls is None else listener.tls.validation


def _name(place: _Place) -> str:
    parent, listener = place
    return f"listener {listener.name} of {parent.kind} {parent.namespace}/{parent.name}"


def _marked(gateway: Gateway, displaced: dict[ListenerKey, str]) -> Gateway:
    return gateway.with_listeners(
        replace(listener, displaced=displaced.get((parent.key, listener.name), ""))
        for parent in gateway.parents
        for listener in parent.listeners
    )
