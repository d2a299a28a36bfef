"""The ServiceAccount that stands for a Gateway: made, kept, changed, let go, and never somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from pygw.control.kube.informer import Informer
from pygw.control.kube.infrastructure import Infrastructure
from pygw.control.kube.kinds import SERVICE_ACCOUNT
from tests.doubles.kube_api import Alone, KubeApi, connect, running, until
from tests.doubles.objects import gateway

CONTROLLER = "pygw.dev/gateway-controller"


class World:
    def __init__(self, server: KubeApi, api: Any) -> None:
        self.server, self.election = server, Alone()
        self.informer = Informer(api, SERVICE_ACCOUNT, lambda *_: self.part.poke(), lambda: None)
        self.part = Infrastructure(api, self.election, CONTROLLER, [self.informer.objects], self.sleep)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.001)

    def gateway(self, name: str = "gw", **infrastructure: Any) -> dict[str, Any]:
        return self.server.put(gateway(name=name, infrastructure=infrastructure))

    @property
    def accounts(self) -> dict[str, dict[str, Any]]:
        return {name: item for (_, name), item in self.server.objects["serviceaccounts"].items()}


def play(scenario: Callable[[World], Awaitable[None]]) -> None:
    @contextlib.asynccontextmanager
    async def world() -> AsyncIterator[World]:
        async with KubeApi() as server:
            api = await connect(server)
            made = World(server, api)
            try:
                async with running(made.informer.run()), running(made.part.run()):
                    yield made
            finally:
                await api.close()

    async def main() -> None:
        async with asyncio.timeout(8), world() as it:
            await scenario(it)

    asyncio.run(main())


def test_each_gateway_has_one_with_its_labels_and_annotations() -> None:
    async def scenario(it: World) -> None:
        item = it.gateway(labels={"team": "a"}, annotations={"cost": "7"})
        it.part.offer([item])
        await until(lambda: "gw-pygw" in it.accounts)
        account = it.accounts["gw-pygw"]
        assert account["metadata"]["labels"] == {
            "team": "a",
            "gateway.networking.k8s.io/gateway-name": "gw",
            "gateway.networking.k8s.io/gateway-class-name": "pygw",
            "app.kubernetes.io/managed-by": "pygw",
        }
        assert account["metadata"]["annotations"] == {"cost": "7", "pygw.dev/controller-name": CONTROLLER}
        assert [owner["uid"] for owner in account["metadata"]["ownerReferences"]] == [item["metadata"]["uid"]]
        assert account["automountServiceAccountToken"] is False

    play(scenario)


def test_it_rests_once_it_stands() -> None:
    async def scenario(it: World) -> None:
        item = it.gateway()
        it.part.offer([item])
        await until(lambda: len(it.informer.objects) == 1)
        for _ in range(5):
            it.part.offer([item])
            await asyncio.sleep(0.01)
        assert it.server.count("PATCH", "serviceaccounts") == 1

    play(scenario)


def test_changes_are_applied_and_what_is_gone_goes() -> None:
    async def scenario(it: World) -> None:
        it.part.offer([it.gateway(labels={"team": "a", "old": "x"})])
        await until(lambda: len(it.informer.objects) == 1)
        it.part.offer([it.gateway(labels={"team": "b"})])
        await until(lambda: it.accounts["gw-pygw"]["metadata"]["labels"]["team"] == "b")
        assert "old" not in it.accounts["gw-pygw"]["metadata"]["labels"]

    play(scenario)


def test_several_that_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(it: World) -> None:
        names = [f"gw{number}" for number in range(5)]
        it.part.offer([it.gateway(name) for name in names])
        await until(lambda: len(it.informer.objects) == 5)
        delete = it.part._delete

        async def delete_slowly(key: tuple[str, str], uid: str) -> None:
            # Somebody else is quicker with the others, and we hear of it while we delete the first.
            for name in set(it.accounts) - {key[1]}:
                it.server.delete("ServiceAccount", "default", name)
            await delete(key, uid)
            await until(lambda: not it.informer.objects)

        monkeypatch.setattr(it.part, "_delete", delete_slowly)
        it.part.offer([])
        await until(lambda: not it.accounts)
        # Not ended by what it had not expected:
        it.part.offer([it.gateway("again")])
        await until(lambda: "again-pygw" in it.accounts)

    play(scenario)


def test_what_somebody_takes_away_comes_back_and_what_he_adds_stays() -> None:
    async def scenario(it: World) -> None:
        it.part.offer([it.gateway(labels={"team": "a"})])
        await until(lambda: len(it.informer.objects) == 1)
        account = it.accounts["gw-pygw"]
        account["metadata"]["labels"]["mine"] = "1"
        it.server.put(account)
        await until(lambda: "mine" in it.informer.objects["default", "gw-pygw"]["metadata"]["labels"])
        assert it.server.count("PATCH", "serviceaccounts") == 1
        it.server.delete("ServiceAccount", "default", "gw-pygw")
        await until(lambda: "gw-pygw" in it.accounts)

    play(scenario)


def test_a_gateway_that_is_not_ours_any_more_loses_it() -> None:
    async def scenario(it: World) -> None:
        it.part.offer([it.gateway()])
        await until(lambda: len(it.informer.objects) == 1)
        it.part.offer([])
        await until(lambda: not it.accounts)

    play(scenario)


def test_those_of_another_installation_are_left_alone() -> None:
    async def scenario(it: World) -> None:
        labels = {"app.kubernetes.io/managed-by": "pygw"}
        theirs = {"kind": "ServiceAccount", "metadata": {
            "name": "theirs", "namespace": "default", "labels": labels,
            "annotations": {"pygw.dev/controller-name": "example.com/other"},
        }}  # fmt: skip
        it.server.put(theirs)
        await until(lambda: len(it.informer.objects) == 1)
        it.part.offer([it.gateway()])
        await until(lambda: len(it.accounts) == 2)
        it.part.offer([])
        await until(lambda: set(it.accounts) == {"theirs"})

    play(scenario)


def test_one_of_that_name_that_is_somebody_elses_is_never_touched(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(it: World) -> None:
        it.server.put({"kind": "ServiceAccount", "metadata": {"name": "gw-pygw", "namespace": "default"}})
        it.part.offer([it.gateway(), it.gateway("other")])
        await until(lambda: "other-pygw" in it.accounts)
        assert "labels" not in it.accounts["gw-pygw"]["metadata"]
        assert "default/gw-pygw" in {getattr(record, "object", "") for record in caplog.records}

    play(scenario)


def test_nothing_is_done_without_the_lease() -> None:
    async def scenario(it: World) -> None:
        it.election.lose()
        it.part.offer([it.gateway()])
        await asyncio.sleep(0.02)
        assert not it.accounts
        it.election.win()
        it.part.poke()
        await until(lambda: bool(it.accounts))

    play(scenario)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_fails_is_tried_again(status: int) -> None:
    async def scenario(it: World) -> None:
        it.server.refuse(status, method="PATCH", times=3)
        it.part.offer([it.gateway()])
        await until(lambda: bool(it.accounts))

    play(scenario)


def test_what_is_refused_holds_up_no_other_and_is_not_repeated() -> None:
    async def scenario(it: World) -> None:
        it.server.refuse(403, method="PATCH", path="/bad-pygw")
        gateways = [it.gateway("bad"), it.gateway("good")]
        for _ in range(3):
            it.part.offer(gateways)
            await until(lambda: "good-pygw" in it.accounts)
            await asyncio.sleep(0.01)
        assert it.server.count("PATCH", "/bad-pygw") == 1

    play(scenario)


def test_long_names_fit() -> None:
    async def scenario(it: World) -> None:
        it.part.offer([it.gateway("n" * 253), it.gateway("n" * 252 + "m")])
        await until(lambda: len(it.accounts) == 2)
        for name, account in it.accounts.items():
            assert len(name) <= 253
            assert len(account["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"]) <= 63

    play(scenario)
