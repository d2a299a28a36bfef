"""Names of backends: look-ups, their repetition by TTL, what is kept when they fail. No real DNS, no real time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from pygw.control import dns as dns_module
from pygw.control.dns import Answer, LookupFailedError, Names, SystemLookup, parse_hosts, preferred
from pygw.model import BackendConfig

OK = Answer(("10.0.0.1",), 30.0)
FAILED = LookupFailedError("timed out")
ABSENT = LookupFailedError("no such name", is_absent=True)


class World:
    """Answers to give, the changes told, and sleeps that end when the test says so."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | LookupFailedError] = {}
        self.asked: list[str] = []
        self.changes: list[str] = []
        self.sleeps: list[tuple[float, asyncio.Event]] = []
        self.slept = asyncio.Event()
        self.names = Names(self.lookup, self.changes.append, self.sleep, jitter=lambda: 0.5)

    async def lookup(self, host: str) -> Answer:
        self.asked.append(host)
        answer = self.answers[host]
        if isinstance(answer, Answer):
            return answer
        raise answer

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self.sleeps.append((seconds, event))
        self.slept.set()
        await event.wait()

    async def asleep(self, count: int) -> list[float]:
        """Wait for so many sleeps; their lengths."""
        while len(self.sleeps) < count:
            self.slept.clear()
            await asyncio.wait_for(self.slept.wait(), 5)
        return [round(seconds, 3) for seconds, _ in self.sleeps]

    async def again(self) -> float:
        """End the last sleep; the length of the one after the next look-up."""
        self.sleeps[-1][1].set()
        return (await self.asleep(len(self.sleeps) + 1))[-1]


def run(test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        try:
            await test(world)
        finally:
            world.names.close()

    asyncio.run(main())


def backend(*names: tuple[str, int], endpoints: tuple[tuple[str, int], ...] = ()) -> BackendConfig:
    return BackendConfig("ns/b:80", "ns", "b", 80, endpoints, names)


def test_a_name_is_asked_for_again_as_its_records_expire() -> None:
    async def test(world: World) -> None:
        world.answers["a"] = OK
        world.names.watch({"a"})
        assert await world.asleep(1) == [31.5]  # the TTL and half of the jitter
        assert world.names.endpoints(backend(("a", 80))) == (("10.0.0.1", 80),)
        assert await world.again() == 31.5
        assert world.changes == ["a"]  # the second answer was the same
        world.answers["a"] = Answer(("10.0.0.1", "10.0.0.2"), 5.0)
        assert await world.again() == 5.25
        assert world.changes == ["a", "a"]
        assert world.names.endpoints(backend(("a", 80))) == (("10.0.0.1", 80), ("10.0.0.2", 80))

    run(test)


@pytest.mark.parametrize(("ttl", "delay"), [(0.0, 1.05), (0.5, 1.05), (86400.0, 630.0)])
def test_ttls_are_kept_within_bounds(ttl: float, delay: float) -> None:
    async def test(world: World) -> None:
        world.answers["a"] = Answer(("10.0.0.1",), ttl)
        world.names.watch({"a"})
        assert await world.asleep(1) == [delay]

    run(test)


def test_failures_keep_the_last_good_answer_and_back_off() -> None:
    async def test(world: World) -> None:
        world.answers["a"] = OK
        world.names.watch({"a"})
        await world.asleep(1)
        world.answers["a"] = FAILED
        assert [await world.again() for _ in range(6)] == [1.05, 2.1, 5.25, 10.5, 31.5, 31.5]
        assert world.names.endpoints(backend(("a", 80))) == (("10.0.0.1", 80),)
        assert world.names.states() == [{"host": "a", "addresses": ["10.0.0.1"], "ttl": 30.0, "error": "timed out"}]
        assert world.changes == ["a"]
        world.answers["a"] = OK
        assert await world.again() == 31.5
        assert world.names.states()[0]["error"] is None

    run(test)


def test_the_first_name_that_answers_is_used() -> None:
    async def test(world: World) -> None:
        world.answers = {"b.ns": ABSENT, "b": Answer(("10.0.0.2",), 30.0)}
        names = backend(("b.ns", 80), ("b", 81))
        world.names.watch({"b.ns", "b"})
        await world.asleep(2)
        assert world.names.endpoints(names) == (("10.0.0.2", 81),)

    run(test)


def test_a_name_that_is_gone_yields_to_one_that_answers_and_else_is_kept() -> None:
    async def test(world: World) -> None:
        world.answers = {"b.ns": OK}
        world.names.watch({"b.ns"})
        await world.asleep(1)
        world.answers = {"b.ns": ABSENT, "b": Answer(("10.0.0.2",), 30.0)}
        await world.again()
        assert world.changes == ["b.ns", "b.ns"]
        names = backend(("b.ns", 80), ("b", 80))
        assert world.names.endpoints(names) == (("10.0.0.1", 80),)
        world.names.watch({"b.ns", "b"})
        await world.asleep(3)
        assert world.names.endpoints(names) == (("10.0.0.2", 80),)

    run(test)


def test_addresses_are_no_names() -> None:
    async def test(world: World) -> None:
        world.names.watch({"127.0.0.1", "::1"})
        await world.names.settle({"127.0.0.1", "::1"})
        assert world.asked == []
        assert world.names.endpoints(backend(("127.0.0.1", 80))) == (("127.0.0.1", 80),)
        assert world.names.endpoints(backend(("0:0::1", 80))) == (("::1", 80),)

    run(test)


def test_endpoint_slices_come_before_names() -> None:
    async def test(world: World) -> None:
        assert world.names.endpoints(backend(("a", 80), endpoints=(("10.9.9.9", 1),))) == (("10.9.9.9", 1),)
        assert world.names.endpoints(backend()) == ()
        assert world.names.endpoints(backend(("never-asked", 80))) == ()

    run(test)


def test_settle_waits_for_the_first_answer_of_each() -> None:
    async def test(world: World) -> None:
        gate = asyncio.Event()
        plain = world.lookup

        async def gated(host: str) -> Answer:
            if host == "slow":
                await gate.wait()
            return await plain(host)

        world.names._lookup = gated
        world.answers = {"slow": OK, "quick": FAILED}
        world.names.watch({"slow", "quick"})
        settled = asyncio.create_task(world.names.settle({"slow", "quick"}))
        await world.asleep(1)
        assert not settled.done()
        gate.set()
        await asyncio.wait_for(settled, 5)

    run(test)


def test_names_that_are_no_longer_watched_are_not_asked_for() -> None:
    async def test(world: World) -> None:
        world.answers = {"a": OK, "b": OK}
        world.names.watch({"a", "b"})
        await world.asleep(2)
        world.names.watch({"b"})
        for _, event in world.sleeps:
            event.set()
        await world.asleep(3)
        assert world.asked.count("a") == 1
        assert world.asked.count("b") == 2

    run(test)


def test_lookups_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_module, "MAX_LOOKUPS", 3)

    async def test(world: World) -> None:
        running, most, gate = 0, 0, asyncio.Event()

        async def lookup(host: str) -> Answer:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                gate.set()
            await gate.wait()
            running -= 1
            return OK

        world.names._lookup = lookup
        world.names.watch({f"name-{number}" for number in range(20)})
        await world.asleep(20)
        assert most == 3

    run(test)


def test_addresses_of_one_name_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_module, "MAX_ADDRESSES", 2)

    async def test(world: World) -> None:
        world.answers["a"] = Answer(("10.0.0.1", "10.0.0.2", "10.0.0.3"), 30.0)
        world.names.watch({"a"})
        await world.asleep(1)
        assert len(world.names.endpoints(backend(("a", 80)))) == 2
        await world.again()
        assert world.changes == ["a"]  # cut to the same

    run(test)


# ===== SystemLookup =====


class NameServer(asyncio.DatagramProtocol):
    """A DNS server with the records {(name, type): (ttl, values) or an rcode}; other names do not exist."""

    def __init__(self, records: dict[tuple[str, str], tuple[int, list[str]] | int]) -> None:
        self.records = records
        self.asked: list[tuple[str, str]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        reply = dns.message.make_response(query)
        found = self.records.get((name, kind))
        if isinstance(found, tuple):
            reply.answer.append(dns.rrset.from_text_list(question.name, found[0], "IN", kind, found[1]))
        elif isinstance(found, int):
            reply.set_rcode(dns.rcode.Rcode(found))
        elif not any(known == name for known, _ in self.records):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(reply.to_wire(), address)


def look_up(
    host: str,
    records: dict[tuple[str, str], tuple[int, list[str]] | int],
    hosts: str = "",
    tmp_path: Path | None = None,
) -> tuple[Answer, NameServer]:
    async def main() -> tuple[Answer, NameServer]:
        server = NameServer(records)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: server, local_addr=("127.0.0.1", 0)
        )
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = transport.get_extra_info("sockname")[1]
        resolver.search = [dns.name.from_text("search.example")]
        hosts_file = "/no/such/file"
        if tmp_path is not None:
            (tmp_path / "hosts").write_text(hosts)
            hosts_file = str(tmp_path / "hosts")
        try:
            return await SystemLookup(hosts_file, resolver=resolver)(host), server
        finally:
            transport.close()

    return asyncio.run(main())


@pytest.fixture
def no_getaddrinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)


@pytest.mark.usefixtures("no_getaddrinfo")
@pytest.mark.parametrize(
    ("records", "answer"),
    [
        ({("a.example", "A"): (17, ["10.0.0.2", "10.0.0.1"])}, Answer(("10.0.0.1", "10.0.0.2"), 17.0)),
        ({("a.example", "AAAA"): (9, ["2001:db8::1"])}, Answer(("2001:db8::1",), 9.0)),
        ({("a.example", "A"): (9, ["10.0.0.1"]), ("a.example", "AAAA"): (9, ["::1"])}, Answer(("10.0.0.1",), 9.0)),
        ({("a.example.search.example", "A"): (9, ["10.0.0.3"])}, Answer(("10.0.0.3",), 9.0)),
    ],
    ids=["A", "AAAA", "A before AAAA", "search domain"],
)
def test_name_servers(
    records: dict[tuple[str, str], tuple[int, list[str]] | int], answer: Answer
) -> None:
    assert look_up("a.example", records)[0] == answer


@pytest.mark.usefixtures("no_getaddrinfo")
@pytest.mark.parametrize(
    ("records", "is_absent", "message"),
    [
        ({}, True, "no such name"),
        ({("a.example", "TXT"): (9, ["x"])}, True, "no address"),
        ({("a.example", "A"): 2}, False, "SERVFAIL"),
    ],
)
def test_name_servers_without_an_answer(
    records: dict[tuple[str, str], tuple[int, list[str]] | int], is_absent: bool, message: str
) -> None:
    with pytest.raises(LookupFailedError, match=message) as caught:
        look_up("a.example", records)
    assert caught.value.is_absent is is_absent


def test_the_hosts_file_comes_first(tmp_path: Path) -> None:
    hosts = "10.1.1.1 A.example other  # comment\n::5 a.example\nnonsense a.example\n10.1.1.2 other\n"
    answer, server = look_up("a.EXAMPLE.", {("a.example", "A"): (9, ["10.0.0.1"])}, hosts, tmp_path)
    assert answer.addresses == ("10.1.1.1",)
    assert server.asked == []
    assert look_up("other", {}, hosts, tmp_path)[0].addresses == ("10.1.1.1", "10.1.1.2")


def test_the_hosts_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("10.1.1.1 a.example\n")

    async def main() -> None:
        lookup = SystemLookup(str(path), "/no/such/file")
        assert (await lookup("a.example")).addresses == ("10.1.1.1",)
        path.write_text("10.1.1.1 b.example\n10.1.1.22 a.example\n")
        assert (await lookup("a.example")).addresses == ("10.1.1.22",)
        path.unlink()
        assert (await lookup("localhost")).addresses == ("127.0.0.1",)

    asyncio.run(main())


def test_what_only_the_system_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(host: str, *arguments: object, **options: object) -> list[object]:
        assert host == "printer.local"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.2.2.2", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", known)
    assert look_up("printer.local", {})[0] == Answer(("10.2.2.2",), 30.0)


@pytest.mark.usefixtures("no_getaddrinfo")
def test_no_name_server_at_all() -> None:
    with pytest.raises(LookupFailedError, match="no name server is configured"):
        asyncio.run(SystemLookup("/no/such/file", "/no/such/file")("a.example"))


@pytest.mark.usefixtures("no_getaddrinfo")
@pytest.mark.parametrize("host", ["a..b", "x" * 64, "ü" * 80, "\0", ""])
def test_names_that_are_none(host: str) -> None:
    with pytest.raises(LookupFailedError):
        look_up(host, {})


def test_parse_hosts() -> None:
    lines = ["127.0.0.1 localhost", "", "# 1.2.3.4 x", "1.2.3.4", "::1\tlocalhost ip6-localhost", "x y"]
    assert parse_hosts(lines) == {"localhost": ["127.0.0.1", "::1"], "ip6-localhost": ["::1"]}


def test_preferred_addresses_are_sorted_as_numbers() -> None:
    assert preferred(["10.0.0.10", "10.0.0.9", "::1", "10.0.0.9", "x"]) == ("10.0.0.9", "10.0.0.10")
    assert preferred(["::2", "::1"]) == ("::1", "::2")
    assert preferred([]) == ()
