"""Fixtures of the end-to-end tests: real clients, `pygw run` as a process, real backends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from tests.doubles.backend import Backend, StartBackend
from tests.doubles.gateway import Gateway, StartGateway
from tests.doubles.manifests import GATEWAY, route, to


@pytest.fixture
def open_stack() -> Iterator[ExitStack]:
    """What is entered here is left after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def start_backend() -> Iterator[StartBackend]:
    """Start a Backend by name and keyword arguments; all are stopped after the test."""
    with ExitStack() as stack:
        yield lambda name, **options: stack.enter_context(Backend(name, **options))


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Start a Gateway serving a YAML text; it is stopped after the test, and must end well."""
    with ExitStack() as stack:

        def start(yaml: str, *arguments: str, **options: object) -> Gateway:
            folder = tmp_path / f"config-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            (folder / "config.yaml").write_text(yaml)
            return stack.enter_context(Gateway(folder, *arguments, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """One backend for the tests of a module that only need some backend."""
    with Backend("backend") as started:
        yield started


@pytest.fixture(scope="module")
def gateway(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for the tests of a module, which sends every call to `backend`."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.yaml").write_text(GATEWAY + route(to("backend")))
    with Gateway(folder, resolve={"default/backend": backend.port}) as started:
        yield started


@pytest.fixture(params=["direct", "gateway"])
def channel(request: pytest.FixtureRequest, backend: Backend) -> Iterator[grpc.Channel]:
    """A channel to `backend`, once without the gateway: what fails there is not the gateway's doing."""
    if request.param == "direct":
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{backend.port}", options=options) as opened:
            yield opened
    else:
        gateway: Gateway = request.getfixturevalue("gateway")
        with gateway.channel() as opened:
            yield opened
