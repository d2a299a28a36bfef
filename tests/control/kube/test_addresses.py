"""What Gateways show as their addresses, the same on every replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pygw.control.kube.addresses import GatewayAddresses
from tests.doubles.kube_api import KubeApi, connect, running, until

IN_A_POD = {"POD_NAME": "pygw-a", "POD_NAMESPACE": "pygw-system"}


def pod(name: str, *addresses: str, ready: bool = True, **labels: str) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "pygw-system",
            "labels": {"app": "pygw", "pod-template-hash": name[-1], **labels},
        },
        "status": {
            "hostIP": addresses[0],
            "hostIPs": [{"ip": address} for address in addresses],
            "conditions": [{"type": "Ready", "status": str(ready)}, {"type": "Initialized", "status": "True"}],
        },
    }  # fmt: skip


def service(*ingress: dict[str, str]) -> dict[str, Any]:
    return {
        "kind": "Service", "metadata": {"name": "front", "namespace": "pygw-system"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": list(ingress)}},
    }  # fmt: skip


def play(
    scenario: Callable[[KubeApi, GatewayAddresses, list[int]], Awaitable[None]],
    *objects: dict[str, Any],
    static: tuple[str, ...] = (),
    name: str = "",
    environment: dict[str, str] | None = None,
) -> None:
    changes: list[int] = []

    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[tuple[KubeApi, GatewayAddresses]]:
        async with KubeApi() as server:
            for item in objects:
                server.put(item)
            api = await connect(server)
            part = GatewayAddresses(
                api, static, name, lambda: changes.append(1), IN_A_POD if environment is None else environment
            )
            try:
                async with running(part.run()):
                    await part.known()
                    yield server, part
            finally:
                await api.close()

    async def main() -> None:
        async with asyncio.timeout(8), world() as (server, part):
            await scenario(server, part, changes)

    asyncio.run(main())


def test_those_given_stand_above_all() -> None:
    async def scenario(server: KubeApi, part: GatewayAddresses, changes: list[int]) -> None:
        assert part.current() == ("192.0.2.1",)
        assert not server.requests

    play(scenario, pod("pygw-a", "10.0.0.1"), static=("192.0.2.1",), name="pygw-system/front")


def test_those_of_the_load_balancer() -> None:
    async def scenario(server: KubeApi, part: GatewayAddresses, changes: list[int]) -> None:
        assert part.current() == ("192.0.2.9", "192.0.2.10", "2001:db8::1", "lb.example.com")
        server.put(service({"ip": "192.0.2.3"}))
        await until(lambda: part.current() == ("192.0.2.3",))
        assert len(changes) == 2

    play(
        scenario,
        service({"hostname": "lb.example.com"}, {"ip": "2001:db8::1"}, {"ip": "192.0.2.10"}, {"ip": "192.0.2.9"}),
        pod("pygw-a", "10.0.0.1"),
        name="pygw-system/front",
    )


def test_a_load_balancer_that_has_none_yet() -> None:
    async def scenario(server: KubeApi, part: GatewayAddresses, changes: list[int]) -> None:
        assert part.current() == ()
        server.put(service({"ip": "192.0.2.3"}))
        await until(lambda: part.current() == ("192.0.2.3",))

    play(scenario, service(), name="pygw-system/front")


def test_the_nodes_of_all_ready_replicas() -> None:
    async def scenario(server: KubeApi, part: GatewayAddresses, changes: list[int]) -> None:
        assert part.current() == ("10.0.0.1", "10.0.0.2", "2001:db8::1")
        server.put(pod("pygw-c", "10.0.0.3", ready=True))
        await until(lambda: "10.0.0.3" in part.current())
        gone = pod("pygw-b", "10.0.0.2")
        gone["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
        server.put(gone)
        await until(lambda: part.current() == ("10.0.0.1", "10.0.0.3", "2001:db8::1"))

    play(
        scenario,
        pod("pygw-b", "10.0.0.2"),
        pod("pygw-a", "10.0.0.1", "2001:db8::1"),
        pod("pygw-c", "10.0.0.3", ready=False),
        pod("other-d", "10.0.0.4", app="other"),
    )


def test_two_replicas_on_one_node_count_once_and_sixteen_are_enough() -> None:
    async def scenario(server: KubeApi, part: GatewayAddresses, changes: list[int]) -> None:
        assert part.current() == tuple(f"10.0.0.{number}" for number in range(1, 17))

    pods = [pod(f"pygw-{number}", f"10.0.0.{number}") for number in range(1, 21)]
    play(scenario, pod("pygw-a", "10.0.0.1"), *pods)


def test_nobody_ready_for_a_moment_takes_nothing_away() -> None:
    async def scenario(server: KubeApi, part: GatewayAddresses, changes: list[int]) -> None:
        server.put(pod("pygw-a", "10.0.0.1", ready=False))
        await until(lambda: len(server.watchers) == 1)
        server.bookmark("pods")
        await asyncio.sleep(0.02)
        assert part.current() == ("10.0.0.1",)
        assert len(changes) == 1

    play(scenario, pod("pygw-a", "10.0.0.1"))


def test_outside_of_a_pod_there_are_none() -> None:
    async def scenario(server: KubeApi, part: GatewayAddresses, changes: list[int]) -> None:
        assert part.current() == ()
        assert not server.requests

    play(scenario, environment={})
