"""Channel: messages between the launcher, the control process and the workers.

One Unix SOCK_SEQPACKET socket pair; one packet is one JSON object, with file descriptors beside it
(SCM_RIGHTS, unix(7)). A message too large for a packet travels as a sealed memfd. The end of the peer's process
is the end of the channel, which is how nobody outlives the launcher. Knows nothing of what the messages mean.

Bounds: a packet is at most PACKET_SIZE octets, a message at most MESSAGE_SIZE, and a peer that does not read
lets at most QUEUE_LENGTH messages wait; then the channel closes, because its peer hangs.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

PACKET_SIZE = 65536
MESSAGE_SIZE = 256 * 1024 * 1024
QUEUE_LENGTH = 1024
MAX_FDS = 250  # SCM_MAX_FD of Linux is 253
READS_PER_TURN = 32

Message = dict[str, Any]

# F_ADD_SEALS of fcntl(2): nobody can change the content or the size any more, so mapping it can never fault.
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NEEDED_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE
_INLINE, _IN_FD = b"j", b"f"


class ChannelError(Exception):
    """The channel is closed, or the peer sent what is no message."""


class Channel:
    """One end of a channel, driven by an event loop.

    `on_message(message, fds)` gets each message; the file descriptors that it takes it removes from the list,
    the rest are closed. `on_close()` is called once, when the peer is gone or the channel broke; not by close().
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message, list[int]], None],
        on_close: Callable[[], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._loop = loop or asyncio.get_running_loop()
        self._sock = sock
        self.on_message = on_message
        self._on_close = on_close
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self.is_closed = False
        self.close_reason = ""
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send or queue one message. The file descriptors are duplicated: the caller keeps its own.

        Raises ChannelError where the channel is closed; ValueError for what is too large.
        """
        if self.is_closed:
            raise ChannelError("the channel is closed")
        if len(fds) > MAX_FDS - 1:
            raise ValueError(f"{len(fds)} file descriptors in one message; the most is {MAX_FDS - 1}")
        body = json.dumps(message, separators=(",", ":")).encode()
        if len(body) > MESSAGE_SIZE:
            raise ValueError(f"a message of {len(body)} octets; the most is {MESSAGE_SIZE}")
        copies = [os.dup(fd) for fd in fds]
        if len(body) < PACKET_SIZE:
            packet = _INLINE + body
        else:
            packet = _IN_FD
            copies.insert(0, sealed_memfd("pygw-message", body))
        if not self._queue and self._send_packet(packet, copies):
            return
        if self.is_closed:
            raise ChannelError(self.close_reason)
        if len(self._queue) >= QUEUE_LENGTH:
            _close_all(copies)
            self._break(f"the peer did not read {QUEUE_LENGTH} messages")
            raise ChannelError(self.close_reason)
        if not self._queue:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._queue.append((packet, copies))

    def close(self) -> None:
        """Close this end; what waits is dropped. The peer sees the end of the channel."""
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        for _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()
        self._sock.close()

    def _break(self, reason: str) -> None:
        if not self.is_closed:
            self.close_reason = reason
            self.close()
            self._loop.call_soon(self._on_close)

    def _send_packet(self, packet: bytes, fds: list[int]) -> bool:
        """True when it is sent (or the channel broke on it), and then the fds are closed."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([packet], ancillary)
        except BlockingIOError:
            return False
        except OSError as error:
            _close_all(fds)
            self._break(f"cannot send: {error.strerror}")
            return False
        _close_all(fds)
        return True

    def _writable(self) -> None:
        while self._queue:
            packet, fds = self._queue[0]
            if not self._send_packet(packet, fds):
                return
            self._queue.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(READS_PER_TURN):
            if self.is_closed or not self._read_one():
                return

    def _read_one(self) -> bool:
        fds: list[int] = []
        try:
            packet = self._receive_packet(fds)
            if packet is None:
                return False
            message = _decode(packet, fds)
        except (OSError, ChannelError) as error:
            _close_all(fds)
            self._break(str(error))
            return False
        try:
            self.on_message(message, fds)
        finally:
            _close_all(fds)
        return True

    def _receive_packet(self, fds: list[int]) -> bytes | None:
        """One packet, its descriptors added to `fds`; None when there is none yet."""
        item_size = array.array("i").itemsize
        try:
            packet, ancillary, flags, _ = self._sock.recvmsg(
                PACKET_SIZE, socket.CMSG_SPACE(MAX_FDS * item_size), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(data[: len(data) - len(data) % item_size])
                fds.extend(received)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ChannelError("a packet was cut short (file descriptor limit reached?)")
        if not packet:
            raise ChannelError("the peer closed the channel")
        return packet


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """The two sockets of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def sealed_memfd(name: str, octets: bytes | bytearray | memoryview) -> int:
    """A new memory file with this content that nobody can change any more; the caller closes it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(fd, rest) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_sealed(fd: int) -> int:
    """The size of a sealed memory file; ChannelError where it is none, and could change under our feet."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ChannelError(f"not a memory file: {error.strerror}") from None
    if seals & _NEEDED_SEALS != _NEEDED_SEALS:
        raise ChannelError("a memory file that is not sealed")
    return os.fstat(fd).st_size


def _decode(packet: bytes, fds: list[int]) -> Message:
    """The message of a packet; a body in a descriptor is read, and that descriptor closed."""
    body = packet[1:]
    if packet[:1] == _IN_FD:
        if not fds:
            raise ChannelError("a message without its body")
        size = check_sealed(fds[0])
        if size > MESSAGE_SIZE:
            raise ChannelError(f"a message of {size} octets; the most is {MESSAGE_SIZE}")
        body = os.pread(fds[0], size, 0)
        os.close(fds.pop(0))
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ChannelError(f"not JSON: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ChannelError("not a message: an object with a type is due")
    return message


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
