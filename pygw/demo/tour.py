"""The calls that the demo makes through the gateway, and the account of where each one went.

A step is a call, what should become of it and the rule that says so. The account is printed as the calls are
made; `Tour.run` returns how many did not go where they should.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from pygw.demo.backend import SERVED_BY
from pygw.demo.services import GREETER, message_class, pool_of

POOL = pool_of([GREETER])
HelloRequest = message_class(POOL, GREETER, GREETER.request)
HelloReply = message_class(POOL, GREETER, GREETER.reply)

CALL_TIMEOUT = 5.0  # seconds; a call on loopback takes about a millisecond
WEIGHTED_CALLS = 100
V1_SHARE = range(75, 86)  # of 100 calls at 80/20; the picker is smooth, so it is 80 but for where it started


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: the backend that answered, or the gateway's own status."""

    backend: str | None
    status: grpc.StatusCode
    message: str = ""

    def __str__(self) -> str:
        if self.status is grpc.StatusCode.OK:
            return self.backend or "a backend"
        number: int = self.status.value[0]
        return f"{number} {self.status.name}: {self.message}"


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the tour."""

    method: str  # "package.Service/Method"
    because: str  # the part of gateway.yaml that decides
    backend: str | None  # who should answer; None with a status of OK: anyone
    status: grpc.StatusCode = grpc.StatusCode.OK
    metadata: tuple[tuple[str, str], ...] = ()


STEPS = (
    Step("helloworld.Greeter/SayHelloStreamReply", "rule 0: this method", "greeter-v2"),
    Step("helloworld.Greeter/SayHello", "rule 1: this header", "greeter-v2", metadata=(("x-canary", "true"),)),
    Step("grpc.health.v1.Health/Check", "rule 3: health", None),
    Step("demo.Missing/Call", "rule 4: its backend does not exist", None, grpc.StatusCode.UNAVAILABLE),
    Step("billing.Invoices/List", "no rule matches", None, grpc.StatusCode.UNIMPLEMENTED),
)


class Tour:
    """Makes the calls through the gateway on `port` and tells `say` of each."""

    def __init__(self, port: int, say: Callable[[str], None]) -> None:
        self._port = port
        self._say = say

    def run(self) -> int:
        """Make all calls; return how many did not go where they should."""
        with grpc.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            wrong = sum(self._take(channel, step) for step in STEPS)
            return wrong + self._take_weighted(channel)

    def _take(self, channel: grpc.Channel, step: Step) -> bool:
        outcome = _call(channel, step.method, step.metadata)
        is_right = outcome.status is step.status and (step.backend is None or outcome.backend == step.backend)
        self._say_row(step.method, step.metadata, str(outcome), step.because, is_right)
        return not is_right

    def _take_weighted(self, channel: grpc.Channel) -> bool:
        outcomes = [_call(channel, "helloworld.Greeter/SayHello", ()) for _ in range(WEIGHTED_CALLS)]
        counted = collections.Counter(str(outcome) for outcome in outcomes)
        is_right = set(counted) == {"greeter-v1", "greeter-v2"} and counted["greeter-v1"] in V1_SHARE
        went = ", ".join(f"{count} x {name}" for name, count in sorted(counted.items()))
        method = f"helloworld.Greeter/SayHello ({WEIGHTED_CALLS} calls)"
        self._say_row(method, (), went, "rule 2: weights 80 and 20", is_right)
        return not is_right

    def _say_row(
        self, method: str, metadata: tuple[tuple[str, str], ...], went: str, because: str, is_right: bool
    ) -> None:
        headers = "".join(f"  {name}: {value}" for name, value in metadata)
        self._say(f"  {'ok   ' if is_right else 'WRONG'} {method}{headers}")
        self._say(f"          -> {went}   [{because}]")


def _call(channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...]) -> Outcome:
    """Call `method` and say who answered. A server-streaming method's whole stream is read."""
    call = _start(channel, method, metadata)
    try:
        backend = dict(call.initial_metadata()).get(SERVED_BY)
        for _ in call:
            pass
    except grpc.RpcError:
        # The status says all, below. Rendezvous objects raise themselves, so there is nothing more to learn.
        backend = None
    return Outcome(backend, call.code(), call.details() or "")


def _start(channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...]) -> Any:
    # Every method is called as if it streamed its answer: a unary one is a stream of one message.
    if method.startswith("grpc.health."):
        stub = channel.unary_stream(
            f"/{method}",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return stub(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT, metadata=metadata)
    stub = channel.unary_stream(
        f"/{method}",
        request_serializer=HelloRequest.SerializeToString,
        response_deserializer=HelloReply.FromString,
    )
    return stub(HelloRequest(name="World"), timeout=CALL_TIMEOUT, metadata=metadata)
