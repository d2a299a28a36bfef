"""A takeover: a new instance gets the listening sockets of the running one, and then the running one drains.

Both have the same sockets for a while, so no connection is refused and none waits in a queue that is closed. The
new one accepts nothing before it could serve every port, and whatever becomes of it until then leaves the running
one as it was. Messages (pygw/channel.py), all but the first two with descriptors:
  to the running instance    takeover {protocol, release}; ready
  from the running instance  refused {reason}; listening {site, host, port} + sockets; admin {host, port} + socket;
                             complete {release} + run directory (which is its lock), control socket
Knows nothing of processes or of what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pygw import __version__
from pygw.channel import Channel, ChannelError, Message
from pygw.errors import StartError
from pygw.listen_sockets import Inherited, Site, received_socket
from pygw.run_directory import RunDirectory, peer_of

log = logging.getLogger(__name__)

PROTOCOL = 1  # changes with whatever an older release would misunderstand
MAX_CALLERS = 4  # connections to the control socket at a time; one of them can be the successor
HELLO_TIMEOUT = 10.0  # seconds for a caller to say what it wants
OFFER_TIMEOUT = 10.0  # seconds for the running instance to hand its sockets over
MEET_TIMEOUT = 10.0  # seconds for a running instance that starts or stops to do so
MEET_INTERVAL = 0.05  # seconds between two looks

Offer = Iterable[tuple[Message, list[int]]]


@dataclass(slots=True)
class Handover:
    """The running instance's end. `offer()` gives the messages with its sockets; `on_taken_over(pid)` is called once
    a successor serves them."""

    directory: RunDirectory
    listener: socket.socket
    offer: Callable[[], Offer]
    on_taken_over: Callable[[int], None]
    _is_serving: bool = False
    _callers: set[Channel] = field(default_factory=set)
    _successor: tuple[Channel, int] | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._is_serving = True
        asyncio.get_running_loop().add_reader(self.listener.fileno(), self._accept)

    def close(self) -> None:
        """Answer no more; the directory is free, unless a successor or (before start) a predecessor has it."""
        asyncio.get_running_loop().remove_reader(self.listener.fileno())
        for channel in list(self._callers):
            self._close(channel)
        self.listener.close()
        if self._is_serving and self._successor is None:
            self.directory.unlink()
        self.directory.close()

    def _accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return
        pid, uid = peer_of(sock)
        if uid not in (0, os.geteuid()) or len(self._callers) >= MAX_CALLERS:
            log.warning("control socket: a caller is refused", extra={"pid": pid, "uid": uid})
            sock.close()
            return
        channel = Channel(
            sock, lambda message, fds: self._on_message(channel, pid, message), lambda: self._on_end(channel)
        )
        self._callers.add(channel)
        asyncio.get_running_loop().call_later(HELLO_TIMEOUT, self._lose_patience, channel)

    def _lose_patience(self, channel: Channel) -> None:
        if self._successor is None or self._successor[0] is not channel:
            self._close(channel)

    def _on_message(self, channel: Channel, pid: int, message: Message) -> None:
        if message["type"] == "takeover":
            self._on_takeover(channel, pid, message)
        elif message["type"] == "ready" and self._successor == (channel, pid):
            self.close()
            self.on_taken_over(pid)
        else:
            self._close(channel)

    def _on_takeover(self, channel: Channel, pid: int, message: Message) -> None:
        reason = ""
        if message.get("protocol") != PROTOCOL:
            reason = (
                f"it is pygw {__version__} and speaks version {PROTOCOL} of the takeover protocol, the new one version "
                f"{message.get('protocol')}; stop it, then start the new one"
            )
        elif self._successor is not None:
            reason = f"pid {self._successor[1]} is taking over from it already"
        log.info("takeover", extra={"pid": pid, "release": message.get("release"), "refused": reason or None})
        with contextlib.suppress(ChannelError):
            if reason:
                channel.send({"type": "refused", "reason": reason})
                self._close(channel)
                return
            self._successor = channel, pid
            for part, fds in self.offer():
                channel.send(part, fds)
            whole = {"type": "complete", "release": __version__}
            channel.send(whole, [self.directory.fd, self.listener.fileno()])

    def _on_end(self, channel: Channel) -> None:
        self._callers.discard(channel)
        if self._successor is not None and self._successor[0] is channel:
            log.warning("the takeover was given up; serving on", extra={"pid": self._successor[1]})
            self._successor = None

    def _close(self, channel: Channel) -> None:
        self._callers.discard(channel)
        channel.close()


@dataclass(slots=True)
class Predecessor:
    """The successor's end: the instance that runs, and what we got of it."""

    pid: int
    release: str = ""
    listening: list[Inherited] = field(default_factory=list)
    admin: dict[tuple[str, int], socket.socket] = field(default_factory=dict)
    directory_fd: int = -1
    control: socket.socket | None = None
    is_gone: bool = False
    _channel: Channel = field(init=False)
    _told: asyncio.Future[str] = field(init=False)  # why it refuses; "": it does not

    def join(self, sock: socket.socket) -> None:
        """Ask for the sockets."""
        self._told = asyncio.get_running_loop().create_future()
        self._channel = Channel(sock, self._on_message, self._on_end)
        self._channel.send({"type": "takeover", "protocol": PROTOCOL, "release": __version__})

    async def receive(self) -> bool:
        """Wait for all sockets; False where it ended before. Raises StartError where it refuses."""
        try:
            async with asyncio.timeout(OFFER_TIMEOUT):
                refusal = await self._told
        except TimeoutError:
            refusal = f"it did not answer within {OFFER_TIMEOUT:g} s"
        if refusal:
            raise StartError(f"--takeover: the running instance (pid {self.pid}) keeps its sockets: {refusal}")
        return self.control is not None

    def tell_ready(self) -> None:
        """We serve: it may go."""
        with contextlib.suppress(ChannelError):
            self._channel.send({"type": "ready"})

    def close(self) -> None:
        """Let go of what nobody took. Without tell_ready() it serves on."""
        self._channel.close()
        for entry in self.listening:
            entry.close()
        for sock in self.admin.values():
            sock.close()
        self.listening, self.admin = [], {}

    def _on_message(self, message: Message, fds: list[int]) -> None:
        sockets = [] if message["type"] in ("refused", "complete") else [received_socket(fd) for fd in fds]
        match message["type"]:
            case "listening":
                fds.clear()
                self._add(Site(*message["site"]), message["host"], message["port"], sockets)
            case "admin":
                fds.clear()
                self.admin[message["host"], message["port"]] = sockets[0]
            case "complete":
                self.directory_fd, self.control = fds[0], received_socket(fds[1])
                fds.clear()
                self.release = message["release"]
                self._tell("")
            case "refused":
                self._tell(message["reason"])

    def _add(self, site: Site, host: str, port: int, sockets: list[socket.socket]) -> None:
        for entry in self.listening:
            if (entry.site, entry.host, entry.port) == (site, host, port):
                entry.sockets += sockets
                return
        self.listening.append(Inherited(site, host, port, sockets))

    def _tell(self, refusal: str) -> None:
        if not self._told.done():
            self._told.set_result(refusal)

    def _on_end(self) -> None:
        self.is_gone = True
        self._tell("")


async def enter(path: str, takeover: bool) -> tuple[RunDirectory, socket.socket, Predecessor | None]:
    """Become the running instance of a run directory, or the successor of the one that is.

    The directory, its control socket, and the predecessor where there is one. Raises StartError.
    """
    directory = RunDirectory.open(path)
    try:
        deadline = asyncio.get_running_loop().time() + MEET_TIMEOUT
        while not directory.lock():
            if not takeover:
                raise StartError(f"--run-dir {directory.path}: {_who(directory)} runs there; take over from it with "
                                 "--takeover, or choose another directory")  # fmt: skip
            predecessor = await _meet(directory)
            if predecessor is not None:
                assert predecessor.control is not None
                directory.close()
                return RunDirectory(directory.path, predecessor.directory_fd), predecessor.control, predecessor
            if asyncio.get_running_loop().time() > deadline:
                raise StartError(f"--takeover: an instance runs in {directory.path} but does not answer; stop it first")
            await asyncio.sleep(MEET_INTERVAL)  # it has only begun, or it ends
        if takeover:
            log.info("no instance runs; nothing to take over", extra={"run_dir": directory.path})
        return directory, directory.listen(), None
    except BaseException:
        directory.close()
        raise


async def _meet(directory: RunDirectory) -> Predecessor | None:
    sock = directory.connect()
    if sock is None:
        return None
    pid, uid = peer_of(sock)
    if uid not in (0, os.geteuid()):
        sock.close()
        raise StartError(f"--takeover: user {uid} (pid {pid}) serves {directory.path}, and we are {os.geteuid()}")
    predecessor = Predecessor(pid)
    try:
        predecessor.join(sock)
        if await predecessor.receive():
            return predecessor
    except ChannelError:
        pass  # it has just ended
    except StartError:
        predecessor.close()
        raise
    predecessor.close()
    return None


def _who(directory: RunDirectory) -> str:
    sock = directory.connect()
    if sock is None:
        return "an instance of pygw"
    with sock:
        return f"an instance of pygw (pid {peer_of(sock)[0]})"
