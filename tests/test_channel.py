"""Channel: messages and descriptors over a socket pair, its bounds, and the end of a peer."""

import asyncio
import fcntl
import mmap
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from pygw import channel as channel_module
from pygw.channel import PACKET_SIZE, Channel, ChannelError, channel_pair, check_sealed, sealed_memfd


class End:
    """One end that keeps what it got and lets a test wait for it."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[dict[str, Any]] = []
        self.fds: list[int] = []
        self.arrived = asyncio.Event()
        self.closed = asyncio.Event()
        self.channel = Channel(sock, self.on_message, self.closed.set)

    def on_message(self, message: dict[str, Any], fds: list[int]) -> None:
        self.messages.append(message)
        self.fds.extend(fds)
        fds.clear()
        self.arrived.set()

    async def wait(self, count: int) -> list[dict[str, Any]]:
        while len(self.messages) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 5)
        return self.messages


def run(test: Callable[[End, End], Awaitable[None]], factory: Any = None) -> None:
    async def main() -> None:
        left_socket, right_socket = channel_pair()
        left, right = End(left_socket), End(right_socket)
        before = open_fds()
        try:
            await test(left, right)
        finally:
            for fd in left.fds + right.fds:
                os.close(fd)
            left.fds.clear()
            right.fds.clear()
            left.channel.close()
            right.channel.close()
        assert open_fds() < before

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_messages_both_ways_in_order(factory: Any) -> None:
    async def test(left: End, right: End) -> None:
        for number in range(100):
            left.channel.send({"type": "count", "number": number})
        right.channel.send({"type": "hello", "text": "grüß dich"})
        assert [message["number"] for message in await right.wait(100)] == list(range(100))
        assert await left.wait(1) == [{"type": "hello", "text": "grüß dich"}]

    run(test, factory)


def test_descriptors_are_copies() -> None:
    async def test(left: End, right: End) -> None:
        fd = sealed_memfd("x", b"content")
        left.channel.send({"type": "file"}, [fd])
        os.close(fd)
        await right.wait(1)
        assert os.pread(right.fds[0], 100, 0) == b"content"
        assert not os.get_inheritable(right.fds[0])

    run(test)


def test_descriptors_not_taken_are_closed() -> None:
    async def test(left: End, right: End) -> None:
        seen: list[int] = []
        right.channel.on_message = lambda message, fds: (seen.extend(fds), right.arrived.set())  # type: ignore[func-returns-value,assignment]
        fd = sealed_memfd("x", b"")
        left.channel.send({"type": "file"}, [fd])
        os.close(fd)
        await asyncio.wait_for(right.arrived.wait(), 5)
        with pytest.raises(OSError):
            os.fstat(seen[0])

    run(test)


@pytest.mark.parametrize("size", [PACKET_SIZE - 40, PACKET_SIZE - 20, PACKET_SIZE, 3_000_000])
def test_large_messages_travel_whole(size: int) -> None:
    async def test(left: End, right: End) -> None:
        fd = sealed_memfd("x", b"beside")
        left.channel.send({"type": "large", "text": "x" * size}, [fd])
        os.close(fd)
        assert len((await right.wait(1))[0]["text"]) == size
        assert os.pread(right.fds[0], 100, 0) == b"beside"
        assert len(right.fds) == 1

    run(test)


def test_what_does_not_fit_the_socket_waits() -> None:
    async def test(left: End, right: End) -> None:
        for number in range(50):  # more than a socket buffer holds
            left.channel.send({"type": "count", "number": number, "text": "x" * 30_000})
        assert left.channel._queue
        assert [message["number"] for message in await right.wait(50)] == list(range(50))

    run(test)


def test_a_peer_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "QUEUE_LENGTH", 5)

    async def test(left: End, right: End) -> None:
        asyncio.get_running_loop().remove_reader(right.channel._sock.fileno())
        fd = sealed_memfd("x", b"")

        def flood() -> None:
            for _ in range(1000):
                left.channel.send({"type": "flood", "text": "x" * 60_000}, [fd])

        with pytest.raises(ChannelError, match="did not read 5 messages"):
            flood()
        os.close(fd)
        await asyncio.wait_for(left.closed.wait(), 5)
        with pytest.raises(ChannelError):
            left.channel.send({"type": "late"})

    run(test)


def test_the_end_of_the_peer_comes_after_its_last_message() -> None:
    async def test(left: End, right: End) -> None:
        left.channel.send({"type": "last"})
        left.channel.close()
        await asyncio.wait_for(right.closed.wait(), 5)
        assert right.messages == [{"type": "last"}]
        assert right.channel.is_closed
        assert not left.closed.is_set()  # its own close() is no news to it

    run(test)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"j{", "not JSON"),
        (b"j[]", "not a message"),
        (b'j{"type": 1}', "not a message"),
        (b"f", "without its body"),
        (b"\xff\xff", "not JSON"),
    ],
)
def test_what_is_no_message_closes(packet: bytes, reason: str) -> None:
    async def test(left: End, right: End) -> None:
        left.channel._sock.send(packet)
        await asyncio.wait_for(right.closed.wait(), 5)
        assert reason in right.channel.close_reason
        assert right.messages == []

    run(test)


def test_a_body_that_could_still_change_is_refused() -> None:
    async def test(left: End, right: End) -> None:
        fd = os.memfd_create("open", os.MFD_ALLOW_SEALING)
        os.write(fd, b'{"type":"x"}')
        socket.send_fds(left.channel._sock, [b"f"], [fd])
        os.close(fd)
        await asyncio.wait_for(right.closed.wait(), 5)
        assert "not sealed" in right.channel.close_reason

    run(test)


def test_a_sealed_memfd_can_be_mapped_and_not_written() -> None:
    fd = sealed_memfd("image", b"octets" * 1000)
    try:
        assert check_sealed(fd) == 6000
        with mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as mapped:
            assert mapped[:6] == b"octets"
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    finally:
        os.close(fd)
