"""Descriptors of small gRPC services, built when imported.

A `.proto` file would need protoc or a generated module that is tied to one protobuf release; the two messages
that the examples need are a few lines of descriptor_pb2 instead. Every service gets its own file in the pool,
so that reflection can serve each alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service; unary both ways unless said otherwise."""

    name: str
    client_streaming: bool = False
    server_streaming: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A service whose methods take `{name}` and answer `{message}`, both one string.

    `request` and `reply` are the names of the two messages, which lie in the package of the service.
    """

    full_name: str
    methods: tuple[Method, ...]
    request: str = "Request"
    reply: str = "Reply"

    @property
    def package(self) -> str:
        """The protobuf package: all of the full name but the last part."""
        return self.full_name.rpartition(".")[0]


GREETER = Service(
    "helloworld.Greeter",
    (
        Method("SayHello"),
        Method("SayHelloStreamReply", server_streaming=True),
        Method("SayHelloBidiStream", client_streaming=True, server_streaming=True),
    ),
    request="HelloRequest",
    reply="HelloReply",
)


def service_file(service: Service) -> descriptor_pb2.FileDescriptorProto:
    """The FileDescriptorProto of one service and its two messages."""
    file = descriptor_pb2.FileDescriptorProto(
        name=service.full_name.replace(".", "/") + ".proto", package=service.package, syntax="proto3"
    )
    for message, field in ((service.request, "name"), (service.reply, "message")):
        described = file.message_type.add(name=message)
        described.field.add(
            name=field,
            number=1,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        )
    described_service = file.service.add(name=service.full_name.rpartition(".")[2])
    for method in service.methods:
        described_service.method.add(
            name=method.name,
            input_type=f".{service.package}.{service.request}",
            output_type=f".{service.package}.{service.reply}",
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )
    return file


def pool_of(services: Iterable[Service]) -> descriptor_pool.DescriptorPool:
    """A pool of its own with these services, apart from protobuf's process-wide one."""
    pool = descriptor_pool.DescriptorPool()
    for service in services:
        pool.AddSerializedFile(service_file(service).SerializeToString())
    return pool


def message_class(pool: descriptor_pool.DescriptorPool, service: Service, name: str) -> Any:
    """The Python class of message `name` in the package of `service`."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{service.package}.{name}"))
