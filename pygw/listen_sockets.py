"""Listening sockets: one for each worker and local address, sharing a port by SO_REUSEPORT (socket(7)).

The kernel spreads new connections over the sockets of a port, and each socket has an accept queue of its own.
They belong to the launcher, so the queue of a worker that dies waits for its replacement. Knows nothing of
processes or of what is served.

SO_REUSEPORT would also let a second instance of the same user join silently and take half of the connections.
So the first socket of a port is bound without it, which fails where anybody else holds the port, and gets the
option afterwards; only then the others are bound beside it.

After a takeover (pygw/takeover.py) a port keeps the sockets of the instance before: closing one would reset what
waits in its queue. Where they are more than our workers, some workers get several.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

from pygw.errors import StartError

ALL_ADDRESSES = "*"  # 0.0.0.0 and [::] where there is IPv6
BACKLOG = 4096  # connections in one worker's accept queue; the kernel cuts it to net.core.somaxconn
PORT_ATTEMPTS = 20  # to find a port that is free in both IPv4 and IPv6, where the system chooses it

FATAL_AT_START = ("EADDRINUSE", "EACCES")  # what the user must mend before we serve anything

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


@dataclass(frozen=True, slots=True)
class Site:
    """A port of the configuration, and where it is bound."""

    address: str  # of the Gateway that binds its own address; "": shared
    port: int  # the listener's own
    host: str  # an IP address, or ALL_ADDRESSES
    local_port: int  # after --port-map; 0: the system chooses


@dataclass(frozen=True, slots=True)
class Bound:
    """One local address of a site: a listening socket for each worker, or for the first ones."""

    number: int  # names it between launcher and worker
    site: Site
    host: str
    port: int
    sockets: tuple[socket.socket, ...]


@dataclass(slots=True)
class Inherited:
    """One local address of a site of the instance before us, with its sockets."""

    site: Site
    host: str
    port: int
    sockets: list[socket.socket]

    def close(self) -> None:
        """Let go of our copies."""
        _close(self.sockets)


class BindError(OSError):
    """A site cannot be bound; str() is a message for the user."""

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(slots=True)
class ListenSockets:
    """The listening sockets of all sites, for a fixed number of workers."""

    workers: int
    bound: dict[Site, list[Bound]] = field(default_factory=dict)
    inherited: list[Inherited] = field(default_factory=list)  # during a takeover
    _last_number: int = 0

    def __iter__(self) -> Iterator[Bound]:
        for of_site in self.bound.values():
            yield from of_site

    def bind(self, site: Site) -> list[Bound]:
        """Bind and listen, for all workers; all or nothing. Raises BindError."""
        for attempt in range(PORT_ATTEMPTS):
            try:
                self.bound[site] = self._bind_all(site)
                return self.bound[site]
            except OSError as error:
                # The port that IPv4 got can be taken in IPv6: ask for another.
                if error.errno == errno.EADDRINUSE and site.local_port == 0 and attempt < PORT_ATTEMPTS - 1:
                    continue
                raise BindError(error.errno, explain(error, site.host, site.local_port, site.port)) from None
        raise AssertionError("unreachable")

    def close(self, site: Site) -> list[int]:
        """Close the sockets of a site and return their numbers."""
        gone = self.bound.pop(site, [])
        for bound in gone:
            _close(bound.sockets)
        return [bound.number for bound in gone]

    def close_all(self) -> None:
        """Close everything."""
        for site in list(self.bound):
            self.close(site)

    def _bind_all(self, site: Site) -> list[Bound]:
        hosts = ("0.0.0.0", "::") if site.host == ALL_ADDRESSES else (site.host,)
        port = site.local_port
        made: list[Bound] = []
        try:
            for host in hosts:
                try:
                    sockets = self._inherit(site, host, port) or self._bind_workers(host, port)
                except OSError as error:
                    if made and host == "::" and error.errno in _NO_IPV6:
                        break
                    raise
                port = int(sockets[0].getsockname()[1])
                for start in range(0, len(sockets), self.workers):
                    self._last_number += 1
                    some = tuple(sockets[start : start + self.workers])
                    made.append(Bound(self._last_number, site, host, port, some))
        except OSError:
            for bound in made:
                _close(bound.sockets)
            raise
        return made

    def _inherit(self, site: Site, host: str, port: int) -> list[socket.socket]:
        """Copies of the sockets that the instance before us has there, and more for more workers; none: it has none."""
        for entry in self.inherited:
            if entry.host == host and (entry.port == port if port else entry.site == site):
                sockets = [sock.dup() for sock in entry.sockets]
                try:
                    while len(sockets) < self.workers:
                        sockets.append(bind_socket(host, entry.port, shared=True))
                        sockets[-1].listen(BACKLOG)
                except OSError:
                    _close(sockets)
                    raise
                return sockets
        return []

    def _bind_workers(self, host: str, port: int) -> list[socket.socket]:
        known = [sock for entry in [*self, *self.inherited] if entry.port == port for sock in entry.sockets]
        ours = {os.fstat(sock.fileno()).st_ino for sock in known}
        if ours and any(inode not in ours for inode in listening_inodes(port)):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        sockets: list[socket.socket] = []
        try:
            # Beside sockets of our own (a Gateway's own address beside the shared ones; those of the instance before
            # us) the first one needs
            # SO_REUSEPORT too; the look at /proc above then stands in for the exclusive bind.
            sockets.append(bind_socket(host, port, shared=bool(ours)))
            port = sockets[0].getsockname()[1]
            sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            while len(sockets) < self.workers:
                sockets.append(bind_socket(host, port, shared=True))
            for sock in sockets:
                sock.listen(BACKLOG)
        except OSError:
            _close(sockets)
            raise
        return sockets


def bind_socket(host: str, port: int, shared: bool = False) -> socket.socket:
    """A bound TCP socket, not yet listening. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Connections of a former run in TIME_WAIT must not keep us out.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def received_socket(fd: int) -> socket.socket:
    """A listening socket that another process has, too. Python must know that it does not block: O_NONBLOCK is one for
    all who have the socket (open(2), "open file description"), dup() of a socket that is taken for a blocking one
    clears it, and then their accept() hangs."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def bind_admin(option: str, host: str, port: int) -> socket.socket:
    """The listening socket of the admin server or the probes. Raises StartError with what to do."""
    try:
        sock = bind_socket(host, port)
        sock.listen(128)
    except OSError as error:
        remedy = "choose another with" if option != "--admin" else "choose another, or none with '--admin off':"
        raise StartError(f"{_cause(error, host, port)}; {remedy} {option} HOST:PORT") from None
    return sock


def explain(error: OSError, host: str, local_port: int, listener_port: int) -> str:
    """Why a listener's port cannot be bound, and what to do about it."""
    cause = _cause(error, host, local_port)
    if error.errno not in (errno.EADDRINUSE, errno.EACCES):
        return cause
    other = listener_port + 18000 if listener_port + 18000 < 32768 else 0
    return f"{cause}; free it, or serve the listener on another local port: --port-map {listener_port}={other}"


def _cause(error: OSError, host: str, port: int) -> str:
    where = f"port {port}" if host == ALL_ADDRESSES else show_address(host, port)
    if error.errno == errno.EADDRINUSE:
        return f"cannot bind {where}: it is in use{port_holder(port)}"
    if error.errno == errno.EACCES:
        return f"cannot bind {where}: not permitted (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot bind {where}: this machine has no such address"
    return f"cannot bind {where}: {error.strerror}"


def show_address(host: str, port: int) -> str:
    """`127.0.0.1:80` or `[::1]:80`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listening_inodes(port: int) -> set[int]:
    """The inodes of all sockets that listen on a TCP port in our network namespace (proc(5), /proc/net/tcp)."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/self/net/{name}", encoding="ascii") as table:
                for line in table:
                    words = line.split()
                    # sl local_address remote_address st … inode; 0A is TCP_LISTEN
                    if len(words) > 9 and words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                        inodes.add(int(words[9]))
        except OSError:
            continue
    return inodes


def port_holder(port: int) -> str:
    """` by nginx (pid 71)`, as far as we may see it."""
    wanted = {f"socket:[{inode}]" for inode in listening_inodes(port)}
    if not wanted:
        return ""
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{process}/fd"):
                if os.readlink(f"/proc/{process}/fd/{fd}") in wanted:
                    with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as comm:
                        return f" by {comm.read().strip()} (pid {process})"
        except OSError:
            continue
    return ""


def _close(sockets: list[socket.socket] | tuple[socket.socket, ...]) -> None:
    for sock in sockets:
        sock.close()
