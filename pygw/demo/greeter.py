"""The example backend: helloworld.Greeter in one version, with health and reflection, on a free loopback port."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pygw.demo.reflection import add_reflection
from pygw.demo.services import GREETER, message_class, pool_of

POOL = pool_of([GREETER])
HelloRequest = message_class(POOL, GREETER, GREETER.request)
HelloReply = message_class(POOL, GREETER, GREETER.reply)
REPLIES_PER_STREAM = 3

# Every answer carries the name of the backend that gave it in this field of its initial metadata.
SERVED_BY = "served-by"


class GreeterBackend:
    """A gRPC server named `name` that greets; a context manager that stops it."""

    def __init__(self, name: str) -> None:
        self.name = name
        # grpcio's server takes a thread for each call that is open; the demo has a handful.
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16, thread_name_prefix=name))
        self._server.add_generic_rpc_handlers([self._greeter_handlers()])
        status = health.HealthServicer()
        for service in ("", GREETER.full_name):
            status.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(status, self._server)
        add_reflection(self._server, pool_of([GREETER]), [GREETER.full_name, health.SERVICE_NAME])
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> GreeterBackend:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def _greeter_handlers(self) -> grpc.GenericRpcHandler:
        codec = {"request_deserializer": HelloRequest.FromString, "response_serializer": HelloReply.SerializeToString}
        return grpc.method_handlers_generic_handler(
            GREETER.full_name,
            {
                "SayHello": grpc.unary_unary_rpc_method_handler(self._say_hello, **codec),
                "SayHelloStreamReply": grpc.unary_stream_rpc_method_handler(self._say_hello_stream_reply, **codec),
                "SayHelloBidiStream": grpc.stream_stream_rpc_method_handler(self._say_hello_bidi_stream, **codec),
            },
        )

    def _greeting(self, request: Any) -> Any:
        return HelloReply(message=f"Hello, {request.name or 'stranger'}! This is {self.name}.")

    def _say_hello(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.send_initial_metadata(((SERVED_BY, self.name),))
        return self._greeting(request)

    def _say_hello_stream_reply(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.send_initial_metadata(((SERVED_BY, self.name),))
        for _ in range(REPLIES_PER_STREAM):
            yield self._greeting(request)

    def _say_hello_bidi_stream(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        context.send_initial_metadata(((SERVED_BY, self.name),))
        for request in requests:
            yield self._greeting(request)
