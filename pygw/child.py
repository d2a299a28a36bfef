"""What the control process and the workers have in common: how the launcher starts them and watches them.

Each has one end of a channel to the launcher as descriptor 3. The launcher alone answers signals: Ctrl-C goes to
the whole terminal group and systemd's SIGTERM to every process of the service, and both must drain, not kill.
Imports of pygw only channel and errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pygw.channel import Channel, ChannelError, Message
from pygw.errors import StartError

CHANNEL_FD = 3
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def spawn(module: str, arguments: list[str], channel: socket.socket, keep_stdin: bool = False) -> int:
    """Start `python -m MODULE ARGUMENTS…` with this end of a channel; the process id. Raises OSError."""
    package_folder = str(Path(__file__).resolve().parent.parent)
    # -P: `-m` would put the working folder first in sys.path, and a logging.py in the user's folder would break
    # us. From a checkout that is not installed the working folder is where we are.
    options = [] if os.getcwd() == package_folder else ["-P"]
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, channel.fileno(), CHANNEL_FD)]
    if not keep_stdin:
        actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *options, "-m", module, *arguments],
        os.environ,
        file_actions=actions,
        setsigmask=IGNORED,  # until the child ignores them itself
    )


def inherited_channel() -> socket.socket:
    """In a child, first thing: ignore the signals that the launcher answers, and take the channel to it."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        sock = socket.socket(fileno=CHANNEL_FD)
        if sock.family != socket.AF_UNIX:
            raise OSError
    except OSError:
        raise StartError("this is a part of pygw; start it with: pygw run") from None
    sock.set_inheritable(False)
    return sock


def join_launcher(
    sock: socket.socket,
    on_message: Callable[[Message, list[int]], None],
    on_end: Callable[[], None] | None = None,
) -> Channel:
    """The channel to the launcher, which answers its pings; its end is the end of this process.

    `on_end` may finish something first, but must end the process soon: the launcher kills it after some seconds.
    """

    def on_any(message: Message, fds: list[int]) -> None:
        if message["type"] == "ping":
            with contextlib.suppress(ChannelError):
                channel.send({"type": "alive"})
        else:
            on_message(message, fds)

    channel = Channel(sock, on_any, on_end or _launcher_is_gone, asyncio.get_running_loop())
    return channel


def _launcher_is_gone() -> None:
    # No clean-up: whatever it would wait for may hang, and nobody is left who would notice.
    os._exit(1)
