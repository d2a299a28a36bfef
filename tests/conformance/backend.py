"""The backend of the cluster tests: the echo server of tests/doubles at an address of the rig, with TLS where asked.

As a program it is the image pygw.dev/test-backend: `python -m tests.conformance.backend --port 8080`. On SIGTERM it
finishes the calls that are open.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Sequence
from typing import Any

import grpc

from tests.doubles.backend import Backend, SeenCall

GRACE = 10.0
# The name that a call's client certificate was issued to, as metadata of the call that Backend.calls shows.
PEER_NAME = "test-peer-name"


class ClusterBackend(Backend):
    """A Backend at `address`:`port`, an address that an EndpointSlice may hold."""

    def __init__(
        self, name: str, address: str, port: int = 8080, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        super().__init__(name)
        self.address = address
        target = f"{address}:{port}"
        if credentials:
            self.port = self._server.add_secure_port(target, credentials)
        else:
            self.port = self._server.add_insecure_port(target)

    def __enter__(self) -> ClusterBackend:
        super().__enter__()
        return self

    def arrive(self, path: str, context: grpc.ServicerContext) -> SeenCall:
        """Remember a call, with who the client certificate says it is."""
        call = super().arrive(path, context)
        names: Sequence[Any] = context.auth_context().get("x509_common_name", ())
        call.metadata.extend((PEER_NAME, name.decode()) for name in names)
        return call


def main() -> None:
    """Serve until SIGTERM, then finish what is open."""
    parser = argparse.ArgumentParser(description="echo server of the cluster tests")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--name", default="pod")
    options = parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    backend = ClusterBackend(options.name, "0.0.0.0", options.port)
    with backend:
        ended.wait()
        backend.stop(GRACE)


if __name__ == "__main__":
    main()
