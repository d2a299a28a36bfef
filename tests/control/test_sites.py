"""Which local ports the listeners of a configuration need."""

from __future__ import annotations

import pytest

from pygw.control.sites import sites_of
from pygw.listen_sockets import Site
from pygw.model import ListenerConfig


def listener(port: int, *addresses: str) -> ListenerConfig:
    return ListenerConfig("default/gw", f"l{port}", port, addresses=addresses)


@pytest.mark.parametrize(
    ("listeners", "bind", "port_map", "sites"),
    [
        ([listener(80), listener(80)], ["*"], {}, [Site("", 80, "*", 80)]),
        ([listener(80), listener(443)], ["*"], {80: 18080}, [Site("", 80, "*", 18080), Site("", 443, "*", 443)]),
        ([listener(80)], ["127.0.0.1", "::1"], {}, [Site("", 80, "127.0.0.1", 80), Site("", 80, "::1", 80)]),
        ([listener(80, "10.0.0.1"), listener(80)], ["*"], {},
         [Site("", 80, "*", 80), Site("10.0.0.1", 80, "10.0.0.1", 80)]),
        ([listener(80, "127.0.0.1"), listener(80)], ["127.0.0.1"], {}, [Site("", 80, "127.0.0.1", 80)]),
        ([listener(80, "10.0.0.1", "10.0.0.2")], ["*"], {80: 0},
         [Site("10.0.0.1", 80, "10.0.0.1", 0), Site("10.0.0.2", 80, "10.0.0.2", 0)]),
        ([listener(80), listener(81)], ["*"], {80: 0, 81: 0}, [Site("", 80, "*", 0), Site("", 81, "*", 0)]),
        ([], ["*"], {}, []),
    ],
)  # fmt: skip
def test_sites(listeners: list[ListenerConfig], bind: list[str], port_map: dict[int, int], sites: list[Site]) -> None:
    assert sites_of(listeners, bind, port_map) == (sites, [])


def test_two_listener_ports_on_one_local_port_are_a_conflict() -> None:
    sites, conflicts = sites_of([listener(80), listener(8080)], ["*"], {80: 8080})
    assert sites == [Site("", 80, "*", 8080)]
    assert conflicts == ["listener ports 80 and 8080 would both be bound as local port 8080; change --port-map"]
