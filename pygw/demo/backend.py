"""An example backend: a gRPC server that greets and says who it is, with health and reflection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pygw.demo.reflection import VERSIONS, add_reflection
from pygw.demo.services import GREETER, Method, Service, message_class, pool_of

REPLIES_PER_STREAM = 3

# Every answer carries the name of the backend that gave it in this field of its initial metadata.
SERVED_BY = "served-by"


class ExampleBackend:
    """A gRPC server named `name`, which implements `services`, on loopback; a context manager that stops it.

    `port` 0 takes a free one. `reflection` names the versions of the reflection service.
    """

    def __init__(
        self,
        name: str,
        services: Sequence[Service] = (GREETER,),
        *,
        port: int = 0,
        reflection: Sequence[str] = VERSIONS,
    ) -> None:
        self.name = name
        # grpcio's server takes a thread for each call that is open; an example has a handful.
        self._server = grpc.server(ThreadPoolExecutor(max_workers=16, thread_name_prefix=name))
        pool = pool_of(services)
        names = [service.full_name for service in services]
        self._server.add_generic_rpc_handlers([self._handlers(service, pool) for service in services])
        status = health.HealthServicer()
        for service in ("", *names):
            status.set(service, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(status, self._server)
        add_reflection(self._server, pool, [*names, health.SERVICE_NAME], reflection)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")

    def __enter__(self) -> ExampleBackend:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def _handlers(self, service: Service, pool: Any) -> grpc.GenericRpcHandler:
        request_class = message_class(pool, service, service.request)
        reply_class = message_class(pool, service, service.reply)

        def greet(request: Any) -> Any:
            return reply_class(message=f"Hello, {request.name or 'stranger'}! This is {self.name}.")

        return grpc.method_handlers_generic_handler(
            service.full_name,
            {
                method.name: self._handler(method, greet, request_class.FromString, reply_class.SerializeToString)
                for method in service.methods
            },
        )

    def _handler(
        self, method: Method, greet: Callable[[Any], Any], read: Callable[[bytes], Any], write: Callable[[Any], bytes]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        def identify(context: grpc.ServicerContext) -> None:
            context.send_initial_metadata(((SERVED_BY, self.name),))

        def one_to_one(request: Any, context: grpc.ServicerContext) -> Any:
            identify(context)
            return greet(request)

        def one_to_many(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            identify(context)
            for _ in range(REPLIES_PER_STREAM):
                yield greet(request)

        def many_to_one(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            identify(context)
            return greet(list(requests)[-1])

        def many_to_many(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            identify(context)
            yield from map(greet, requests)

        match method.client_streaming, method.server_streaming:
            case False, False:
                return grpc.unary_unary_rpc_method_handler(one_to_one, read, write)
            case False, True:
                return grpc.unary_stream_rpc_method_handler(one_to_many, read, write)
            case True, False:
                return grpc.stream_unary_rpc_method_handler(many_to_one, read, write)
            case _:
                return grpc.stream_stream_rpc_method_handler(many_to_many, read, write)
