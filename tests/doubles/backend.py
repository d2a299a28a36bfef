"""gRPC backends for end-to-end tests: each answers any method, says who it is and remembers what it saw.

They run in the test's own process on grpcio's threads, so that a test can look at what reached the backend
(`Backend.calls`) beside what the client got. `test.Echo` has methods that stream, hash, fail, hang and answer
early; every other `/service/method` is unary and answers with the backend's name.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pygw.demo.reflection import VERSIONS, add_reflection
from pygw.demo.services import GREETER, Method, Service, message_class, pool_of

ECHO = "test.Echo"
SERVED_BY = "served-by"
SLOW = 0.02
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

# What the services of the GRPCRoute page look like to reflection.
SERVICES = (
    GREETER,
    Service("user.UserService", (Method("GetUser"),)),
    Service("order.OrderService", (Method("GetOrder"),)),
    Service("payment.PaymentService", (Method("Pay"),)),
    Service("shared.AuthService", (Method("Check"),)),
    Service("pkg.v2.Thing", (Method("Get"),)),
)


@dataclass(slots=True)
class SeenCall:
    """A call as it arrived at a backend."""

    path: str
    metadata: list[tuple[str, str | bytes]]
    time_remaining: float | None  # seconds until its deadline, when it arrived
    messages: int = 0
    ended: threading.Event = field(default_factory=threading.Event)  # finished, failed or cancelled

    def values(self, name: str) -> list[str | bytes]:
        """The values of one metadata key, in order."""
        return [value for key, value in self.metadata if key == name]


class Backend:
    """One backend; a context manager that stops it."""

    def __init__(
        self,
        name: str,
        *,
        port: int = 0,
        reflection: Sequence[str] = VERSIONS,
        services: Iterable[Service] = SERVICES,
        options: Sequence[tuple[str, Any]] = (),
        compression: grpc.Compression | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.name = name
        self.calls: list[SeenCall] = []
        self._arrived = threading.Condition()
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=64, thread_name_prefix=name),
            options=[*UNLIMITED, ("grpc.so_reuseport", 0), *options],
            compression=compression,
        )
        services = list(services)
        pool = pool_of(services)
        names = [service.full_name for service in services]
        add_reflection(self._server, pool, [*names, health.SERVICE_NAME], reflection)
        status = health.HealthServicer()
        status.set("", health_pb2.HealthCheckResponse.SERVING)
        status.set(name, health_pb2.HealthCheckResponse.SERVING)  # a health check for a backend's name tells it apart
        health_pb2_grpc.add_HealthServicer_to_server(status, self._server)
        self._server.add_generic_rpc_handlers([_AnyMethod(self)])
        target = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(target)
        else:
            self.port = self._server.add_secure_port(target, credentials)
        self.reply_class = message_class(pool_of([GREETER]), GREETER, GREETER.reply)

    def __enter__(self) -> Backend:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, grace: float | None = None) -> None:
        """Stop at once, or after `grace` seconds for the calls that are open."""
        self._server.stop(grace).wait()

    def wait_for_calls(self, count: int, timeout: float = 10.0) -> list[SeenCall]:
        """The calls seen so far, once there are at least `count`. Raises AssertionError after `timeout` seconds."""
        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(self.calls) >= count, timeout)
            assert arrived, f"{self.name} saw {len(self.calls)} calls in {timeout} s, not {count}"
            return list(self.calls)

    def arrive(self, path: str, context: grpc.ServicerContext) -> SeenCall:
        """Remember a call that has just arrived, and tell the client who answers."""
        remaining = context.time_remaining()
        # grpcio gives a deadline of years to a call that has none.
        deadline = remaining if remaining is not None and remaining < 86400.0 else None
        call = SeenCall(path, [(key, value) for key, value in context.invocation_metadata()], deadline)
        if not context.add_callback(call.ended.set):
            call.ended.set()
        with self._arrived:
            self.calls.append(call)
            self._arrived.notify_all()
        return call


StartBackend = Callable[..., Backend]  # what the fixture start_backend gives


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        echo = _Echo(backend)
        self._echo: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            f"/{ECHO}/Unary": grpc.unary_unary_rpc_method_handler(echo.unary),
            f"/{ECHO}/Slow": grpc.unary_unary_rpc_method_handler(echo.slow),
            f"/{ECHO}/Download": grpc.unary_stream_rpc_method_handler(echo.download),
            f"/{ECHO}/Upload": grpc.stream_unary_rpc_method_handler(echo.upload),
            f"/{ECHO}/Chat": grpc.stream_stream_rpc_method_handler(echo.chat),
            f"/{ECHO}/Fail": grpc.unary_unary_rpc_method_handler(echo.fail),
            f"/{ECHO}/FailLate": grpc.unary_stream_rpc_method_handler(echo.fail_late),
            f"/{ECHO}/Hang": grpc.unary_unary_rpc_method_handler(echo.hang),
            f"/{ECHO}/HangStream": grpc.stream_stream_rpc_method_handler(echo.hang_stream),
            f"/{ECHO}/AnswerEarly": grpc.stream_unary_rpc_method_handler(echo.answer_early),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        path = handler_call_details.method
        return self._echo.get(path) or grpc.unary_unary_rpc_method_handler(self._identify(path))

    def _identify(self, path: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self._backend.arrive(path, context)
            context.send_initial_metadata(((SERVED_BY, self._backend.name),))
            reply: bytes = self._backend.reply_class(message=f"{path} by {self._backend.name}").SerializeToString()
            return reply

        return answer


class _Echo:
    """The methods of test.Echo. Messages are octets, or JSON where a method takes parameters."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def _open(self, method: str, context: grpc.ServicerContext) -> SeenCall:
        """Send back metadata: what is called `echo-*` as initial metadata, `trail-*` as trailing metadata."""
        call = self._backend.arrive(f"/{ECHO}/{method}", context)
        echoed = [(key, value) for key, value in call.metadata if key.startswith("echo-")]
        context.send_initial_metadata(((SERVED_BY, self._backend.name), *echoed))
        context.set_trailing_metadata(tuple((key, value) for key, value in call.metadata if key.startswith("trail-")))
        return call

    def unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._open("Unary", context)
        return request

    def slow(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """As Unary, but it takes SLOW seconds, and nothing makes it faster."""
        self._backend.arrive(f"/{ECHO}/Slow", context).ended.wait(SLOW)
        return request

    def download(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """`count` messages of `size` octets, each filled with its number."""
        wanted = json.loads(request)
        call = self._open("Download", context)
        for number in range(wanted["count"]):
            call.messages += 1
            yield bytes([number % 256]) * wanted["size"]

    def upload(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """How many messages and octets came, and their SHA-256."""
        call = self._open("Upload", context)
        digest, octets = hashlib.sha256(), 0
        for request in requests:
            call.messages += 1
            octets += len(request)
            digest.update(request)
        return json.dumps({"messages": call.messages, "octets": octets, "sha256": digest.hexdigest()}).encode()

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        call = self._open("Chat", context)
        for request in requests:
            call.messages += 1
            yield request

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Fail as the parameters say before any response: `code`, `message`, `details` (hex of the -bin value)."""
        self._backend.arrive(f"/{ECHO}/Fail", context)
        self._abort(json.loads(request), context)
        return b""

    def fail_late(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """As Fail, after one message."""
        self._open("FailLate", context)
        yield b"one"
        self._abort(json.loads(request), context)

    def hang(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer only when the call is over."""
        self._backend.arrive(f"/{ECHO}/Hang", context).ended.wait()
        return b""

    def hang_stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Send one message, then nothing until the call is over."""
        call = self._open("HangStream", context)
        yield b"one"
        call.ended.wait()

    def answer_early(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Answer after the first message, however many the client would still send."""
        self._open("AnswerEarly", context)
        return next(requests)

    def _abort(self, wanted: dict[str, Any], context: grpc.ServicerContext) -> None:
        if "details" in wanted:
            context.set_trailing_metadata((("grpc-status-details-bin", bytes.fromhex(wanted["details"])),))
        code = next(code for code in grpc.StatusCode if code.value[0] == wanted["code"])
        context.abort(code, wanted["message"])
