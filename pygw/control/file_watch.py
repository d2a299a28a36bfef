"""Tells when files or folders may have changed: `async for _ in watch(paths)`.

The truth is a fingerprint of everything that `YamlSource` would look at (names, inodes, sizes, times), taken again
every POLL_INTERVAL: so editors that rename, a ConfigMap's swapped ..data link, files created or replaced later and
network file systems without notification are all seen. inotify only makes it quick: any event in a folder concerned
takes the fingerprint at once. Nothing is read of the event but that it came, so three calls through ctypes serve; a
library (watchfiles starts a thread that wakes 20 times a second, asyncinotify parses events) would not spare us the
fingerprint. On another system than Linux, or where the kernel's watches are used up, polling alone remains.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import stat
import time
from collections.abc import AsyncGenerator, Iterable, Sequence

from .yaml_source import SUFFIXES

POLL_INTERVAL = 1.0  # seconds between two looks where no notification comes, or POLL_REST times what the last look took
POLL_REST = 1000  # so that looking at thousands of files (some 3 us each) never takes more than 0.1 % of a CPU
SETTLE = 0.05  # seconds without a further change before a change is told: writers need time for their last write
MAX_DELAY = 0.5  # seconds after which a change is told even though more follow
MIN_PAUSE = 0.01  # seconds between two looks: bounds the work where others write to the same folder all the time

# inotify(7): IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF.
# Not IN_MODIFY: a file that is being written is none of ours until it is closed.
_EVENTS = 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800

_LOG = logging.getLogger(__name__)

_Fingerprint = dict[str, tuple[int, ...]]


async def watch(
    paths: Sequence[str], poll_interval: float = POLL_INTERVAL, settle: float = SETTLE, use_inotify: bool = True
) -> AsyncGenerator[None]:
    """Yields once for each change, or group of changes, of the paths; "-" is passed over. Never ends by itself.

    Changes count from the first iteration on. Close the generator (aclose) to stop it and free its watches.
    """
    names = [path for path in paths if path != "-"]
    notifier = _Notifier(use_inotify)
    try:
        notifier.watch(_folders(names))
        known = fingerprint(names)
        while True:
            begun = time.thread_time()
            current = fingerprint(names)
            if current == known:
                await notifier.wait(max(poll_interval, POLL_REST * (time.thread_time() - begun)))
                continue
            known = await _settled(names, current, settle)
            notifier.watch(_folders(names))  # before the next fingerprint, so that nothing falls between
            yield
    finally:
        notifier.close()


async def _settled(names: list[str], current: _Fingerprint, settle: float) -> _Fingerprint:
    """Wait until nothing changes for `settle` seconds, MAX_DELAY at most."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + MAX_DELAY
    while loop.time() < deadline:
        await asyncio.sleep(settle)
        before, current = current, fingerprint(names)
        if before == current:
            break
    return current


def fingerprint(paths: Iterable[str]) -> _Fingerprint:
    """What tells two states of the paths apart, without reading a file."""
    found: _Fingerprint = {}
    for path in paths:
        found[path] = _stat(path)
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIXES) and not entry.name.startswith("."):
                    found[entry.path] = _stat(entry.path)
    return found


def _stat(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    if stat.S_ISDIR(status.st_mode):
        return status.st_dev, status.st_ino  # its times move with each temporary file in it
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _folders(paths: Iterable[str]) -> set[str]:
    """The folders in which something happens when a path changes: where it is written, and where its links lead."""
    found = set()
    for path in paths:
        for name in (os.path.abspath(path), os.path.realpath(path)):
            found.add(os.path.dirname(name))
            if os.path.isdir(name):
                found.add(name)
    return {folder for folder in found if os.path.isdir(folder)}


class _Notifier:
    """Wakes when the kernel tells of something in one of the watched folders, or when the time is up."""

    def __init__(self, use_inotify: bool) -> None:
        self._libc = _inotify_library() if use_inotify else None
        self._descriptor = -1
        self._event = asyncio.Event()

    def watch(self, folders: set[str]) -> None:
        """Watch these folders and no others; anew, because a path may lead to another inode than before."""
        if self._libc is None:
            return
        self.close()
        descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            _LOG.warning("no file notifications, polling", extra={"reason": os.strerror(ctypes.get_errno())})
            self._libc = None
            return
        for folder in folders:
            if self._libc.inotify_add_watch(descriptor, os.fsencode(folder), _EVENTS) < 0:
                reason = os.strerror(ctypes.get_errno())
                _LOG.warning("no file notifications, polling", extra={"path": folder, "reason": reason})
        asyncio.get_running_loop().add_reader(descriptor, self._drain)
        self._descriptor = descriptor

    async def wait(self, seconds: float) -> None:
        """Until an event comes, so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
            await asyncio.sleep(MIN_PAUSE)
        self._event.clear()

    def close(self) -> None:
        """Free the kernel's watches."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 65536)
        self._event.set()


def _inotify_library() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None, use_errno=True)
    return library if hasattr(library, "inotify_init1") and hasattr(library, "inotify_add_watch") else None
