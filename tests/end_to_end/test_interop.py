"""grpc-go's interop client against grpc-go's interop server: what passes directly passes through the gateway."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from pygw.demo.gateway import free_port
from tests.doubles.gateway import Gateway
from tests.doubles.go_tools import go_tool, run
from tests.doubles.manifests import GATEWAY, route, to

pytestmark = pytest.mark.full

# Every case that passes directly. The others need TLS, somebody's cloud, a server with a name of its own
# (pick_first_unary) or a client with ORCA's load balancer (orca_per_rpc, orca_oob).
CASES = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
]


@pytest.fixture(scope="module")
def server_port() -> Iterator[int]:
    port = free_port()
    with subprocess.Popen([go_tool("interop_server"), "-port", str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            _wait_until_listening(port, server)
            yield port
        finally:
            server.kill()


def _wait_until_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.05)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError(f"interop_server ended with {server.returncode}")


@pytest.fixture(scope="module")
def interop_gateway(server_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.yaml").write_text(GATEWAY + route(to("interop")))
    with Gateway(folder, resolve={"default/interop": server_port}) as gateway:
        yield gateway


@pytest.mark.parametrize("case", CASES)
def test_interop(case: str, server_port: int, interop_gateway: Gateway) -> None:
    client = go_tool("interop_client")
    for port in (server_port, interop_gateway.port):
        done = run(client, "-server_host", "127.0.0.1", "-server_port", str(port), "-test_case", case)
        assert done.returncode == 0, f"port {port} of {server_port} (direct): {done.stderr}"
