"""Leader election by Lease: one at a time, through deaths, silences and handovers; time is the test's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from pygw.control.kube.api import Api
from pygw.control.kube.lease import DEADLINE, DURATION, RENEW, Election, identity, lease_name
from tests.doubles.kube_api import KubeApi, connect, until


class Clock:
    """A time that moves only when told, and sleepers that wake by it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._sleepers.append((self.now + seconds, event))
        await event.wait()

    @property
    def sleeping(self) -> int:
        return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [item for item in self._sleepers if item[0] <= self.now]
        self._sleepers = [item for item in self._sleepers if item[0] > self.now]
        for _, event in due:
            event.set()


class World:
    def __init__(self, server: KubeApi) -> None:
        self.server, self.clock = server, Clock()
        self.apis: list[Api] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def join(self, name: str) -> Election:
        api = await connect(self.server)
        self.apis.append(api)
        election = Election(api, "pygw-system", "lease", name, lambda leads: None, self.clock.sleep, self.clock)
        self.tasks.append(asyncio.ensure_future(election.run()))
        await self.rest()
        return election

    async def rest(self) -> None:
        """Until every candidate has done what it can do now."""
        alive = [task for task in self.tasks if not task.done()]
        await until(lambda: self.clock.sleeping == len(alive))

    async def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            await self.rest()

    async def die(self, number: int) -> None:
        task = self.tasks[number]
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        # what it slept on will never be waited for
        self.clock._sleepers = [item for item in self.clock._sleepers if item[1]._waiters]  # type: ignore[attr-defined]


def play(scenario: Callable[[World], object]) -> None:
    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[World]:
        async with KubeApi() as server:
            made = World(server)
            try:
                yield made
            finally:
                for task in made.tasks:
                    task.cancel()
                await asyncio.gather(*made.tasks, return_exceptions=True)
                for api in made.apis:
                    await api.close()

    async def main() -> None:
        async with asyncio.timeout(8), world() as it:
            await scenario(it)  # type: ignore[misc]

    asyncio.run(main())


def test_the_first_leads_and_renews() -> None:
    async def scenario(it: World) -> None:
        one = await it.join("one")
        assert one.is_leader
        assert one.leading.is_set()
        spec = it.server.get("Lease", "pygw-system", "lease")["spec"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("one", DURATION)
        await it.pass_time(60)
        assert one.is_leader
        now = it.server.get("Lease", "pygw-system", "lease")["spec"]
        assert now["acquireTime"] == spec["acquireTime"]
        assert now["renewTime"] > spec["renewTime"]
        assert it.server.count("PUT", "leases") in range(int(60 / RENEW / 1.2), int(60 / RENEW / 0.9) + 1)

    play(scenario)


def test_a_second_waits_and_takes_over_when_the_first_is_dead() -> None:
    async def scenario(it: World) -> None:
        one, two = await it.join("one"), await it.join("two")
        await it.pass_time(30)
        assert (one.is_leader, two.is_leader) == (True, False)
        assert two.holder == "one"
        await it.die(0)
        await it.pass_time(DEADLINE - RENEW)
        assert not two.is_leader
        await it.pass_time(DURATION)
        assert two.is_leader
        assert it.server.get("Lease", "pygw-system", "lease")["spec"]["leaseTransitions"] == 1

    play(scenario)


def test_never_two_at_a_time_while_the_server_is_away() -> None:
    async def scenario(it: World) -> None:
        one, two = await it.join("one"), await it.join("two")
        await it.server.stop()
        for _ in range(60):
            await it.pass_time(1)
            assert not (one.is_leader and two.is_leader)
        assert not one.is_leader
        assert not two.is_leader
        await it.server.start()
        await it.pass_time(DURATION + 5)
        assert one.is_leader != two.is_leader

    play(scenario)


def test_the_leader_that_cannot_renew_stops_before_another_may_start() -> None:
    async def scenario(it: World) -> None:
        one = await it.join("one")
        it.server.refuse(500, method="PUT")
        it.server.refuse(500, method="GET")
        await it.pass_time(DEADLINE)
        assert not one.is_leader
        await it.pass_time(3)  # until it has told the others of this process
        assert not one.leading.is_set()

    play(scenario)


def test_a_lease_that_is_given_back_is_taken_at_once() -> None:
    async def scenario(it: World) -> None:
        one, two = await it.join("one"), await it.join("two")
        await one.release()
        assert not one.is_leader
        await it.pass_time(3)
        assert two.is_leader
        await it.pass_time(60)
        assert not one.is_leader  # it goes, and does not ask again

    play(scenario)


def test_the_same_identity_takes_its_own_lease_over() -> None:
    """A control process that replaces a dead one."""

    async def scenario(it: World) -> None:
        await it.join("one")
        await it.die(0)
        assert (await it.join("one")).is_leader

    play(scenario)


def test_a_lease_written_under_our_feet_is_read_again() -> None:
    async def scenario(it: World) -> None:
        one = await it.join("one")
        lease = it.server.get("Lease", "pygw-system", "lease")
        it.server.put({**lease, "spec": {**lease["spec"], "holderIdentity": "thief"}})
        await it.pass_time(DEADLINE)
        assert not one.is_leader
        assert one.holder == "thief"
        await it.pass_time(DURATION + 5)
        assert one.is_leader

    play(scenario)


@pytest.mark.parametrize("spec", [{}, {"holderIdentity": "x", "leaseDurationSeconds": "?"}, {"renewTime": 7}, None])
def test_a_lease_that_makes_no_sense_is_taken_in_time(spec: object) -> None:
    async def scenario(it: World) -> None:
        it.server.put({"kind": "Lease", "metadata": {"name": "lease", "namespace": "pygw-system"}, "spec": spec})
        one = await it.join("one")
        await it.pass_time(DURATION + 3)
        assert one.is_leader

    play(scenario)


def test_a_lease_that_may_not_be_had_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: World) -> None:
        it.server.refuse(403, path="leases")
        one = await it.join("one")
        await it.pass_time(30)
        assert not one.is_leader
        assert len([record for record in caplog.records if "lease" in record.message]) == 1

    play(scenario)


@pytest.mark.parametrize(
    ("controller", "namespaces", "name"),
    [
        ("pygw.dev/gateway-controller", (), "pygw.dev-gateway-controller"),
        ("Example.com/A_b", (), "example.com-a-b"),
    ],
)
def test_the_name_of_the_lease(controller: str, namespaces: tuple[str, ...], name: str) -> None:
    assert lease_name(controller, namespaces) == name


def test_installations_for_other_namespaces_have_other_leases() -> None:
    names = {lease_name("a/b", places) for places in ((), ("x",), ("y",), ("x", "y"))}
    assert len(names) == 4
    assert lease_name("a/b", ("x", "y")) == lease_name("a/b", ("y", "x"))
    assert len(lease_name("a/" + "b" * 400)) <= 253


def test_identity_is_the_launchers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "pygw-7")
    assert identity() == identity()
    assert identity().startswith("pygw-7_")
