"""Three replicas: all serve, one writes statuses, and its death is noticed by nobody who calls."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.conformance.rig import gateway, tools
from tests.conformance.rig.cluster import Cluster, class_object
from tests.conformance.rig.rest import Api, Object
from tests.conformance.world import World, condition, eventually
from tests.doubles.load import Load
from tests.doubles.objects import listener, ref, route, rule

pytestmark = pytest.mark.cluster

ADDRESSES = [f"10.245.0.{number}" for number in (11, 12, 13)]
# Longer than a Lease is held by one who is gone.
TAKEOVER_PATIENCE = 60.0


@pytest.fixture
def replicas(cluster: Cluster, api: Api) -> Iterator[dict[str, str]]:
    """Three gateways; name of each process: its address. A killed one is not missed at the end."""
    api.apply(class_object(gateway.CLASS_NAME, gateway.CONTROLLER))
    names = {f"replica-{number}": address for number, address in enumerate(ADDRESSES)}
    for name, address in names.items():
        own = ["--bind", address, "--admin", f"{address}:9901", "--workers", "1"]
        shared = [option for one in ADDRESSES for option in ("--gateway-address", one)]
        cluster.start_process(name, gateway.command(cluster, *own, *shared), {"POD_NAME": name}, cwd=tools.ROOT)
    yield names
    for name in names:
        cluster.stop(name, timeout=60.0)


def leader(api: Api) -> str:
    """Who holds the Lease of the gateway; empty while nobody does."""
    for lease in api.list("Lease"):
        if "pygw" in lease["metadata"]["name"]:
            return lease["spec"].get("holderIdentity") or ""
    return ""


def test_leader_is_killed(cluster: Cluster, api: Api, world: World, replicas: dict[str, str]) -> None:
    backend = world.backend()
    world.gateway(listener())
    world.route(rule(ref()))
    for address in ADDRESSES:
        world.wait_until_served(world.channel(address=address), backend)
    addresses = world.status("Gateway", "gw")["addresses"]
    assert [one["value"] for one in addresses] == ADDRESSES

    first = eventually(lambda: leader(api), "led")
    dead = next((name for name in replicas if name in first), "")
    assert dead, f"{first} is none of {list(replicas)}"
    survivors = [address for name, address in replicas.items() if name != dead]
    loads = [Load(lambda address=address: world.channel(address=address)) for address in survivors]  # type: ignore[misc]
    with loads[0], loads[1]:
        cluster.stop(dead, signal.SIGKILL)
        # A change while there is no leader is served at once, and its status comes with the next one.
        other = world.backend("other")
        changed = world.apply(route(rule(ref("other")), name="r"))
        for address in survivors:
            world.wait_until_served(world.channel(address=address), other)

        def is_written() -> bool:
            parents: list[Object] = world.status("GRPCRoute", "r").get("parents", [])
            generations = {one["observedGeneration"] for parent in parents for one in parent["conditions"]}
            return generations == {changed["metadata"]["generation"]}

        eventually(is_written, "written by another leader", patience=TAKEOVER_PATIENCE)
        second = leader(api)
        for load in loads:
            load.wait_for(20)
    for load in loads:
        assert not load.failed, load.details
    assert second != first
    status = world.status("Gateway", "gw")
    assert status["addresses"] == addresses
    assert condition(status, "Programmed") == ("True", "Programmed")


def test_no_rights_for_leases_is_said(cluster: Cluster, api: Api) -> None:
    """Whoever may not hold the Lease must not write; the log names what is missing."""
    api.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "powerless", "namespace": "default"}})
    kubeconfig = cluster.account_kubeconfig("default", "powerless")
    command = [*gateway.command(cluster), "--admin", "off", "--bind", "10.245.0.20"]
    command[command.index(str(cluster.kubeconfig))] = str(kubeconfig)
    cluster.start_process("powerless", command, cwd=tools.ROOT)
    log = cluster.folder / "powerless.log"
    try:
        eventually(lambda: "403" in log.read_text() or "forbidden" in log.read_text().lower(), "named in the log")
    finally:
        cluster.stop("powerless")
        api.delete("ServiceAccount", "powerless")
