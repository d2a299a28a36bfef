"""Fixtures of the cluster tests. They run in a rig's network namespace, where `make conformance` puts them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance.certificates import Authority
from tests.conformance.rig import gateway
from tests.conformance.rig.cluster import Cluster
from tests.conformance.rig.rest import Api
from tests.conformance.world import World

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: needs a real Kubernetes API server; run by make conformance")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that tests have recorded (record_property)."""
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            terminalreporter.line(f"{report.nodeid}: {name} {value}")


def is_inside(cluster: Cluster) -> bool:
    """Whether this process is in the network namespace of a rig that runs."""
    try:
        return os.stat("/proc/self/ns/net").st_ino == cluster.namespace.path.stat().st_ino
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The rig around the test."""
    found = Cluster()
    if not is_inside(found):
        pytest.skip("not inside a rig: make conformance, or python -m tests.conformance tests")
    return found


@pytest.fixture(scope="session")
def api(cluster: Cluster) -> Iterator[Api]:
    """The API server, as the cluster's admin."""
    opened = cluster.api()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pygw(cluster: Cluster) -> Iterator[Cluster]:
    """One gateway for the tests of a module, at gateway.ADDRESS; gives the rig, whose process "pygw" it is."""
    gateway.start(cluster, "--bind", gateway.ADDRESS)
    yield cluster
    gateway.stop(cluster)


@pytest.fixture
def world(api: Api) -> Iterator[World]:
    """A fresh namespace; it and what the test opened are gone after the test."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    with ExitStack() as stack:
        yield World(api, name, stack)
    # Its Gateways first: the namespace's controller takes its time, and the next test wants the ports for itself.
    for kind in ("Gateway", "GRPCRoute"):
        for item in api.list(kind, name):
            api.delete(kind, item["metadata"]["name"], name)
    api.delete("Namespace", name)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority for a test's servers and clients."""
    return Authority(tmp_path_factory.mktemp("authority"), "test-ca")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another one, that nobody was told to trust."""
    return Authority(Path(tmp_path_factory.mktemp("other")), "other-ca")
