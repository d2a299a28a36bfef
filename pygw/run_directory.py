"""The run directory (--run-dir): which instance of pygw is the running one, and the way to its control socket.

The directory belongs to our user alone (mode 0700), so only who may stop us anyway may talk to us. The running
instance holds a lock on the directory itself (flock(2)); the lock belongs to the open file description, so it goes
to a successor with the descriptor and ends with the last process that has it: there are no stale locks. A socket
file without a lock is a leftover of an instance that was killed. Knows nothing of what is said over the socket.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from dataclasses import dataclass

from pygw.errors import StartError

SOCKET_NAME = "control.sock"
BACKLOG = 4


@dataclass(slots=True)
class RunDirectory:
    """An open run directory; `path` is for messages, everything goes by the descriptor."""

    path: str
    fd: int

    @classmethod
    def open(cls, path: str) -> RunDirectory:
        """Open it, made where it is absent. Raises StartError unless it is ours alone."""
        path = path.rstrip("/") or "/"  # with a slash at the end O_NOFOLLOW would follow a link
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            # For a symbolic link O_DIRECTORY says "not a directory" before O_NOFOLLOW says anything.
            is_link = error.errno in (errno.ENOTDIR, errno.ELOOP) and os.path.islink(path)
            why = "it is a symbolic link; name the directory itself" if is_link else error.strerror
            raise StartError(f"--run-dir {path}: {why}") from None
        status = os.fstat(fd)
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid != os.geteuid():
            problem = f"it belongs to user {status.st_uid}, and we are user {os.geteuid()}"
        elif mode & 0o077:
            problem = f"its mode is {mode:04o}, so that others could take our sockets; chmod 700 it"
        else:
            return cls(path, fd)
        os.close(fd)
        raise StartError(f"--run-dir {path}: {problem}")

    def lock(self) -> bool:
        """Become the running instance; False where there is one."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def listen(self) -> socket.socket:
        """The control socket of the running instance, which must hold the lock. Raises StartError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            self.unlink()
            os.fchmod(sock.fileno(), 0o600)
            sock.bind(self._socket_path())
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise StartError(f"--run-dir {self.path}: cannot make the control socket: {error.strerror}") from None
        return sock

    def connect(self) -> socket.socket | None:
        """A connection to the running instance; None where none listens (any more, or yet)."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            status = os.stat(SOCKET_NAME, dir_fd=self.fd, follow_symlinks=False)
            if not stat.S_ISSOCK(status.st_mode):
                raise StartError(f"--run-dir {self.path}: {SOCKET_NAME} in it is no socket; remove it")
            sock.connect(self._socket_path())
        except OSError:  # absent, refused, or its queue is full
            sock.close()
            return None
        except StartError:
            sock.close()
            raise
        return sock

    def unlink(self) -> None:
        """Remove the socket file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=self.fd)

    def close(self) -> None:
        """Let go of the directory, and of the lock if nobody else has the descriptor."""
        os.close(self.fd)

    def _socket_path(self) -> str:
        # By the descriptor: nobody can put another directory there, and no path is longer than sun_path (unix(7)).
        return f"/proc/self/fd/{self.fd}/{SOCKET_NAME}"


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Process and user at the other end (SO_PEERCRED, unix(7))."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid
