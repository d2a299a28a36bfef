"""The commands of the GRPCRoute page, typed into the real grpcurl."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.backend import StartBackend
from tests.doubles.gateway import ROOT, Gateway, StartGateway
from tests.doubles.go_tools import go_tool, run
from tests.doubles.manifests import GATEWAY, route, to

pytestmark = pytest.mark.full

REFLECTION = "[{method: {service: grpc.reflection.%s.ServerReflection}}]"
Grpcurl = Callable[..., str]


@pytest.fixture
def grpcurl() -> Grpcurl:
    """Run grpcurl against a gateway, as the host grpc.example.com:80; what it prints."""
    program = go_tool("grpcurl")

    def call(gateway: Gateway, *arguments: str, options: tuple[str, ...] = ()) -> str:
        address = f"127.0.0.1:{gateway.port}"
        done = run(program, "-plaintext", "-authority", "grpc.example.com:80", *options, address, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.mark.parametrize("versions", [["v1alpha"], ["v1"], ["v1", "v1alpha"]], ids="+".join)
def test_list(
    grpcurl: Grpcurl, start_backend: StartBackend, start_gateway: StartGateway, versions: list[str]
) -> None:
    """Where only v1alpha is routed, v1 gets 12 from the gateway and grpcurl falls back."""
    backend = start_backend("reflection-service", reflection=versions)
    rules = [to("reflection-service", matches=REFLECTION % version) for version in versions]
    gateway = start_gateway(GATEWAY + route(*rules), resolve={"default/reflection-service": backend.port})
    assert "helloworld.Greeter" in grpcurl(gateway, "list").split()
    assert "SayHello" in grpcurl(gateway, "describe", "helloworld.Greeter")


@pytest.fixture
def page(tmp_path: Path, start_backend: StartBackend) -> Callable[..., Gateway]:
    """Serve an example of the page, its Services being backends of those names."""

    def serve(example: str, *services: str) -> Gateway:
        folder = tmp_path / "config"
        folder.mkdir()
        shutil.copy(ROOT / "examples" / "gateway.yaml", folder)
        shutil.copy(ROOT / "examples" / "grpcroute" / f"{example}.yaml", folder)
        return Gateway(folder, resolve={f"default/{name}": start_backend(name).port for name in services})

    return serve


def test_list_and_call(grpcurl: Grpcurl, page: Callable[..., Gateway]) -> None:
    services = ["health-service", "user-service", "user-service-canary", "order-service", "default-grpc-backend"]
    with page("complete", *services) as gateway:
        listed = grpcurl(gateway, "list").split()
        assert {"helloworld.Greeter", "user.UserService"} <= set(listed)
        said = json.loads(grpcurl(gateway, "helloworld.Greeter/SayHello", options=("-d", '{"name": "World"}')))
        assert said == {"message": "/helloworld.Greeter/SayHello by default-grpc-backend"}
        health = grpcurl(gateway, "grpc.health.v1.Health/Check", options=("-d", '{"service": "health-service"}'))
        assert json.loads(health) == {"status": "SERVING"}


def test_call_with_a_header(grpcurl: Grpcurl, start_backend: StartBackend, start_gateway: StartGateway) -> None:
    """The page's last command; reflection has a rule beside the tenants', or grpcurl would not know the method."""
    names = ("acme-backend", "globex-backend")
    rules = [
        to(name, matches=f"[{{headers: [{{name: x-tenant-id, value: {name.partition('-')[0]}}}]}}]") for name in names
    ]
    rules.append(to("acme-backend", matches=REFLECTION % "v1"))
    gateway = start_gateway(
        GATEWAY + route(*rules), resolve={f"default/{name}": start_backend(name).port for name in names}
    )
    for name in names:
        options = ("-H", f"x-tenant-id: {name.partition('-')[0]}", "-d", "{}")
        assert json.loads(grpcurl(gateway, "user.UserService/GetUser", options=options)) == {
            "message": f"/user.UserService/GetUser by {name}"
        }
