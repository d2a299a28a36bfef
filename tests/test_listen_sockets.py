"""Listening sockets: sharing among workers, nobody else's share, messages for what cannot be bound."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pygw.errors import StartError
from pygw.listen_sockets import (
    ALL_ADDRESSES,
    BindError,
    Inherited,
    ListenSockets,
    Site,
    bind_admin,
    explain,
    listening_inodes,
    port_holder,
    received_socket,
)

OWN_NAME = Path("/proc/self/comm").read_text().strip()


@pytest.fixture
def sockets() -> Iterator[ListenSockets]:
    made = ListenSockets(3)
    yield made
    made.close_all()


def accepted(sockets: tuple[socket.socket, ...]) -> list[int]:
    """How many connections wait in each queue."""
    counts = []
    for sock in sockets:
        count = 0
        while True:
            try:
                connection, _ = sock.accept()
            except BlockingIOError:
                break
            connection.close()
            count += 1
        counts.append(count)
    return counts


def connect(host: str, port: int, times: int) -> None:
    for _ in range(times):
        socket.create_connection((host, port), 5).close()


def test_connections_spread_over_the_workers(sockets: ListenSockets) -> None:
    (bound,) = sockets.bind(Site("", 80, "127.0.0.1", 0))
    connect("127.0.0.1", bound.port, 120)
    counts = accepted(bound.sockets)
    assert sum(counts) == 120
    assert all(counts)


def test_all_addresses_are_v4_and_v6_on_one_port(sockets: ListenSockets) -> None:
    bound = sockets.bind(Site("", 80, ALL_ADDRESSES, 0))
    assert [b.host for b in bound] == ["0.0.0.0", "::"][: len(bound)]
    assert len({b.port for b in bound}) == 1
    for b, client in zip(bound, ("127.0.0.1", "::1"), strict=False):
        connect(client, b.port, 1)
        assert sum(accepted(b.sockets)) == 1


def test_only_v4_where_there_is_no_v6(sockets: ListenSockets, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_v6(family: int = socket.AF_INET, *arguments: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6 here")
        return real(family, *arguments)

    monkeypatch.setattr(socket, "socket", without_v6)
    assert [b.host for b in sockets.bind(Site("", 80, ALL_ADDRESSES, 0))] == ["0.0.0.0"]
    with pytest.raises(BindError, match="no IPv6 here"):
        sockets.bind(Site("::1", 80, "::1", 0))


def test_a_second_instance_gets_no_share(sockets: ListenSockets) -> None:
    (bound,) = sockets.bind(Site("", 80, "127.0.0.1", 0))
    second = ListenSockets(2)
    for host in ("127.0.0.1", ALL_ADDRESSES):
        with pytest.raises(BindError) as caught:
            second.bind(Site("", 80, host, bound.port))
        assert caught.value.errno == errno.EADDRINUSE
        assert f"it is in use by {OWN_NAME} (pid {os.getpid()})" in str(caught.value)
        assert "--port-map 80=18080" in str(caught.value)
    assert second.bound == {}


def test_a_gateways_own_address_beside_the_shared_ones(sockets: ListenSockets) -> None:
    shared, *_ = sockets.bind(Site("", 80, "0.0.0.0", 0))
    (own,) = sockets.bind(Site("127.0.0.5", 80, "127.0.0.5", shared.port))
    connect("127.0.0.5", shared.port, 5)
    assert sum(accepted(own.sockets)) == 5
    connect("127.0.0.1", shared.port, 5)
    assert sum(accepted(shared.sockets)) == 5


def test_the_shared_addresses_after_an_own_one(sockets: ListenSockets) -> None:
    (own,) = sockets.bind(Site("127.0.0.5", 80, "127.0.0.5", 0))
    (shared,) = sockets.bind(Site("", 80, "0.0.0.0", own.port))
    connect("127.0.0.1", own.port, 1)
    assert sum(accepted(shared.sockets)) == 1


def test_the_shared_addresses_after_an_own_one_with_somebody_else_there(sockets: ListenSockets) -> None:
    """SO_REUSEPORT alone would let us in beside a stranger who set it too."""
    (own,) = sockets.bind(Site("127.0.0.5", 80, "127.0.0.5", 0))
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.6", own.port))
        stranger.listen()
        with pytest.raises(BindError, match="in use"):
            sockets.bind(Site("", 80, "0.0.0.0", own.port))


def test_closing_a_site_frees_its_port(sockets: ListenSockets) -> None:
    site = Site("", 80, "127.0.0.1", 0)
    (bound,) = sockets.bind(site)
    assert sockets.close(site) == [bound.number]
    with pytest.raises(ConnectionRefusedError):
        connect("127.0.0.1", bound.port, 1)
    (again,) = sockets.bind(Site("", 80, "127.0.0.1", bound.port))  # TIME_WAIT does not keep us out
    assert again.number > bound.number


def test_nothing_is_left_of_a_bind_that_fails(sockets: ListenSockets) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError):
            sockets.bind(Site("", 80, ALL_ADDRESSES, port))
        assert sockets.bound == {}
        socket.create_server(("127.0.0.1", port)).close()  # IPv4, which came first, is free again
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("code", "host", "port", "listener", "text"),
    [
        (errno.EACCES, ALL_ADDRESSES, 80, 80,
         "cannot bind port 80: not permitted (ports below 1024 need root or CAP_NET_BIND_SERVICE); free it, or serve "
         "the listener on another local port: --port-map 80=18080"),
        (errno.EADDRNOTAVAIL, "192.0.2.1", 80, 80, "cannot bind 192.0.2.1:80: this machine has no such address"),
        (errno.EADDRNOTAVAIL, "2001:db8::1", 80, 80, "cannot bind [2001:db8::1]:80: this machine has no such address"),
        (errno.EMFILE, "::", 80, 80, "cannot bind [::]:80: Too many open files"),
    ],
)  # fmt: skip
def test_messages(code: int, host: str, port: int, listener: int, text: str) -> None:
    assert explain(OSError(code, os.strerror(code)), host, port, listener) == text


def test_an_address_that_is_not_ours(sockets: ListenSockets) -> None:
    with pytest.raises(BindError, match="no such address") as caught:
        sockets.bind(Site("192.0.2.1", 80, "192.0.2.1", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_admin_address_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"cannot bind 127.0.0.1:{port}: it is in use by .*--probe-address"):
            bind_admin("--probe-address", "127.0.0.1", port)
        assert os.fstat(taken.fileno()).st_ino in listening_inodes(port)
        assert port_holder(port) == f" by {OWN_NAME} (pid {os.getpid()})"
    assert listening_inodes(port) == set()
    assert port_holder(port) == ""


def test_what_a_successor_does_with_a_socket_does_not_make_it_block(sockets: ListenSockets) -> None:
    """O_NONBLOCK is shared with the running instance, whose accept() would hang."""
    (running,) = sockets.bind(Site("", 80, "127.0.0.1", 0))
    handed_over = [received_socket(os.dup(sock.fileno())) for sock in running.sockets]
    entry = Inherited(running.site, running.host, running.port, handed_over)
    successor = ListenSockets(3, inherited=[entry])
    (bound,) = successor.bind(running.site)
    in_workers = [received_socket(os.dup(sock.fileno())) for sock in bound.sockets]
    served = [sock.dup() for sock in in_workers]
    assert not any(os.get_blocking(sock.fileno()) for sock in running.sockets)
    entry.close()
    successor.close_all()
    for sock in (*in_workers, *served):
        sock.close()
