"""Every example of the GRPCRoute page (examples/grpcroute/), served as it stands, with grpcio clients.

The examples name Services without endpoints; --resolve gives each a backend of that name.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.doubles.backend import SERVED_BY, Backend, StartBackend
from tests.doubles.client import status_of, unary_unary
from tests.doubles.gateway import ROOT, Gateway

EXAMPLES = ROOT / "examples"
TIMEOUT = 10.0

# The example, the call, and who answers: the name of a backend, or the gateway's own status.
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED
CASES: dict[str, list[tuple[str, dict[str, str], str | grpc.StatusCode]]] = {
    "basic": [
        ("helloworld.Greeter/SayHello", {}, "grpc-service"),
        ("any.Service/AnyMethod", {}, "grpc-service"),
    ],
    "method": [
        ("helloworld.Greeter/SayHello", {}, "greeter-service"),
        ("helloworld.Greeter/SayGoodbye", {}, UNIMPLEMENTED),
        ("helloworld.Greeters/SayHello", {}, UNIMPLEMENTED),
        ("helloworld.greeter/SayHello", {}, UNIMPLEMENTED),
    ],
    "service": [
        ("helloworld.Greeter/SayHello", {}, "greeter-service"),
        ("helloworld.Greeter/SayGoodbye", {}, "greeter-service"),
        ("user.UserService/GetUser", {}, UNIMPLEMENTED),
    ],
    "regex": [
        ("pkg.v2.Thing/Get", {}, "v2-service"),
        ("a.b.v2.c.D/Any", {}, "v2-service"),
        ("pkg.v1.Thing/Get", {}, UNIMPLEMENTED),
        ("pkg.v2/Get", {}, UNIMPLEMENTED),
    ],
    "headers": [
        ("user.UserService/GetUser", {"x-tenant-id": "acme"}, "acme-backend"),
        ("user.UserService/GetUser", {"x-tenant-id": "globex"}, "globex-backend"),
        ("user.UserService/GetUser", {"x-tenant-id": "Acme"}, UNIMPLEMENTED),
        ("user.UserService/GetUser", {}, UNIMPLEMENTED),
    ],
    "method-and-header": [
        ("helloworld.Greeter/SayHello", {"x-environment": "staging"}, "staging-greeter"),
        ("helloworld.Greeter/SayHello", {"x-environment": "production"}, UNIMPLEMENTED),
        ("helloworld.Greeter/SayHello", {}, UNIMPLEMENTED),
        ("user.UserService/GetUser", {"x-environment": "staging"}, UNIMPLEMENTED),
    ],
    "multiple-services": [
        ("user.UserService/GetUser", {}, "user-service"),
        ("order.OrderService/GetOrder", {}, "order-service"),
        ("other.Service/Method", {}, "default-grpc"),
    ],
    "health": [
        ("helloworld.Greeter/SayHello", {}, "app-service"),
    ],
    "reflection": [
        ("helloworld.Greeter/SayHello", {}, UNIMPLEMENTED),
    ],
    "complete": [
        ("user.UserService/GetUser", {"x-canary": "true"}, "user-service-canary"),
        ("order.OrderService/GetOrder", {}, "order-service"),
        ("helloworld.Greeter/SayHello", {}, "default-grpc-backend"),
    ],
}
# The weighted examples and the share of each backend in 1,000 calls.
SHARES = {
    "weighted": ("payment.PaymentService/Pay", {"payment-v1": 800, "payment-v2": 200}),
    "complete": ("user.UserService/GetUser", {"user-service": 950, "user-service-canary": 50}),
}


def services_of(example: Path) -> set[str]:
    """`namespace/name` of every Service that the backendRefs of an example name."""
    found = set()
    for document in yaml.safe_load_all(example.read_text()):
        namespace = document["metadata"].get("namespace", "default")
        for rule in document["spec"].get("rules", []):
            found |= {f"{ref.get('namespace', namespace)}/{ref['name']}" for ref in rule["backendRefs"]}
    return found


class Example:
    """One example being served: its gateway and its backends by name."""

    def __init__(self, gateway: Gateway, backends: dict[str, Backend], hostname: str) -> None:
        self.gateway = gateway
        self.backends = backends
        self.channel = gateway.channel(f"{hostname}:80")

    def who_answers(self, method: str, metadata: dict[str, str]) -> str | grpc.StatusCode:
        call = unary_unary(self.channel, method)
        try:
            _, made = call.with_call(b"", metadata=tuple(metadata.items()), timeout=TIMEOUT)
        except grpc.RpcError as error:
            return error.code()
        return str(dict(made.initial_metadata())[SERVED_BY])


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Example]]:
    """Examples by name, started when first asked for."""

    class Started(dict[str, Example]):
        def __missing__(self, name: str) -> Example:
            folder = tmp_path_factory.mktemp(name)
            for source in ("gateway.yaml", "services.yaml", f"grpcroute/{name}.yaml"):
                shutil.copy(EXAMPLES / source, folder)
            services = services_of(EXAMPLES / "grpcroute" / f"{name}.yaml")
            backends = {}
            for service in services:
                short = service.partition("/")[2]
                # Where the page routes v1alpha alone, so does the backend speak it alone.
                versions = ["v1alpha"] if name == "reflection" else ["v1", "v1alpha"]
                backends[short] = Backend(short, reflection=versions).__enter__()
            resolve = {service: backends[service.partition("/")[2]].port for service in services}
            gateway = Gateway(folder, resolve=resolve, workers=1).__enter__()
            hostname = "api.example.com" if name == "multiple-services" else "grpc.example.com"
            self[name] = Example(gateway, backends, hostname)
            return self[name]

    started = Started()
    yield started
    for example in started.values():
        example.channel.close()
        for backend in example.backends.values():
            backend.stop()
    for example in started.values():
        example.gateway.__exit__(None)


def test_every_example_is_tested() -> None:
    files = {path.stem for path in (EXAMPLES / "grpcroute").glob("*.yaml")}
    assert files == CASES.keys() | SHARES.keys() | {"cross-namespace", "reference-grant"}


@pytest.mark.parametrize(
    ("name", "method", "metadata", "expected"),
    [(name, *case) for name, cases in CASES.items() for case in cases],
)
def test_example(
    examples: dict[str, Example], name: str, method: str, metadata: dict[str, str], expected: str | grpc.StatusCode
) -> None:
    assert examples[name].who_answers(method, metadata) == expected


@pytest.mark.parametrize("name", CASES)
def test_no_example_serves_another_hostname(examples: dict[str, Example], name: str) -> None:
    method, metadata, _ = CASES[name][0]
    with examples[name].gateway.channel("other.example.com") as channel, pytest.raises(grpc.RpcError) as error:
        unary_unary(channel, method)(b"", metadata=tuple(metadata.items()), timeout=TIMEOUT)
    assert error.value.code() is UNIMPLEMENTED


@pytest.mark.parametrize("name", SHARES)
def test_shares(examples: dict[str, Example], name: str) -> None:
    """The picker is smooth: the shares of 1,000 calls are exact but for where its cycle started."""
    method, expected = SHARES[name]
    counted = Counter(examples[name].who_answers(method, {}) for _ in range(1000))
    assert counted.keys() == expected.keys()
    for backend, calls in expected.items():
        assert abs(counted[backend] - calls) <= 10, counted


def test_weighted_serves_nothing_else(examples: dict[str, Example]) -> None:
    assert examples["weighted"].who_answers("helloworld.Greeter/SayHello", {}) is UNIMPLEMENTED


@pytest.mark.parametrize(
    ("name", "backend"),
    [("health", "health-service"), ("complete", "health-service"), ("basic", "grpc-service")],
)
def test_health_checks(examples: dict[str, Example], name: str, backend: str) -> None:
    # Each backend's health service knows "" and its own name, so the answer tells who gave it.
    check = examples[name].channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer = check(health_pb2.HealthCheckRequest(service=backend), timeout=TIMEOUT)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(("version", "is_served"), [("v1alpha", True), ("v1", False)])
def test_reflection(examples: dict[str, Example], version: str, is_served: bool) -> None:
    """The page routes v1alpha alone: v1 gets 12, at which grpcurl falls back."""
    call = examples["reflection"].channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answers = call(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=TIMEOUT)
    if is_served:
        (answer,) = answers
        listed = [service.name for service in answer.list_services_response.service]
        assert "helloworld.Greeter" in listed
    else:
        with pytest.raises(grpc.RpcError) as error:
            next(answers)
        assert error.value.code() is UNIMPLEMENTED


def test_cross_namespace_needs_a_reference_grant(tmp_path: Path, start_backend: StartBackend) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    shutil.copy(EXAMPLES / "gateway.yaml", folder)
    shutil.copy(EXAMPLES / "grpcroute" / "cross-namespace.yaml", folder)
    backend = start_backend("auth-service")
    with Gateway(folder, resolve={"auth-system/auth-service": backend.port}) as gateway, gateway.channel() as channel:
        check = unary_unary(channel, "shared.AuthService/Check")
        with pytest.raises(grpc.RpcError) as error:
            check(b"", timeout=TIMEOUT)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "ReferenceGrant" in str(error.value.details())

        gateway.write("grant.yaml", (EXAMPLES / "grpcroute" / "reference-grant.yaml").read_text())
        assert gateway.eventually(lambda: status_of(check) is grpc.StatusCode.OK, "served") < 1.0
        (folder / "grant.yaml").unlink()
        assert gateway.eventually(lambda: status_of(check) is grpc.StatusCode.UNAVAILABLE, "refused") < 1.0
