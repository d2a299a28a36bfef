"""Network namespaces: where a rig runs, so that its ports, addresses and processes meet nobody else's.

10.244.0.1 is the node (API server :6443), 10.244.1.0 and up are Pods on a bridge, each in a namespace of its own.
All of 10.245.0.0/16 is local ("AnyIP"): a gateway may bind any of these addresses without adding it first. Service
addresses (10.96.0.0/16) are unreachable on purpose: there is no kube-proxy, so a gateway must use EndpointSlices.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

NODE_ADDRESS = "10.244.0.1"
BRIDGE = "rig0"
_CLONE_NEWNET = 0x40000000


def run_ip(*arguments: str) -> None:
    """`ip ARGUMENTS`. Raises RuntimeError with what it said."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Namespace:
    """A named network namespace, as `ip netns` knows it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns", name)

    def exists(self) -> bool:
        return self.path.exists()

    def command(self, *command: str) -> list[str]:
        """`command`, to be run inside. `ip netns exec` becomes it, so the process id is the program's own."""
        return ["ip", "netns", "exec", self.name, *command]

    def ip(self, *arguments: str) -> None:
        """`ip ARGUMENTS` inside."""
        run_ip("-n", self.name, *arguments)

    def delete(self) -> None:
        if self.exists():
            run_ip("netns", "del", self.name)

    def pods(self) -> list[Namespace]:
        """The namespaces of Pods that belong to this one."""
        return [Namespace(path.name) for path in Path("/run/netns").glob(f"{self.name}-*")]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Within, this thread's new sockets belong to the namespace; threads started within stay there for good."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_namespace(there)
            yield
        finally:
            _set_namespace(here)
            os.close(there)
            os.close(here)


def _set_namespace(descriptor: int) -> None:
    """setns(2) for this thread; os.setns is new in Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "setns")


def create_node(name: str) -> Namespace:
    """The namespace of a rig, with the bridge that its Pods hang on."""
    run_ip("netns", "add", name)
    node = Namespace(name)
    node.ip("link", "set", "lo", "up")
    node.ip("link", "add", BRIDGE, "type", "bridge")
    node.ip("addr", "add", f"{NODE_ADDRESS}/16", "dev", BRIDGE)
    node.ip("link", "set", BRIDGE, "up")
    node.ip("route", "add", "local", "10.245.0.0/16", "dev", "lo")
    node.ip("route", "add", "unreachable", "10.96.0.0/16")
    forwarding = node.command("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.ip_unprivileged_port_start=0")
    subprocess.run(forwarding, check=True)
    return node


def create_pod(name: str, veth: str, address: str) -> Namespace:
    """The namespace of a Pod, on the bridge; to be called by a process inside the rig's namespace."""
    run_ip("netns", "add", name)
    pod = Namespace(name)
    run_ip("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", name)
    run_ip("link", "set", veth, "master", BRIDGE, "up")
    pod.ip("link", "set", "lo", "up")
    pod.ip("link", "set", "eth0", "up")
    pod.ip("addr", "add", f"{address}/16", "dev", "eth0")
    pod.ip("route", "add", "default", "via", NODE_ADDRESS)
    return pod
