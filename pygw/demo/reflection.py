"""gRPC server reflection in both versions, grpc.reflection.v1 and grpc.reflection.v1alpha.

grpcio-reflection serves v1alpha alone. The two protocols have the same messages on the wire (v1 is v1alpha with
another package name), so one servicer answers both; what a client sees of v1's own descriptor is v1alpha's with
the package renamed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

VERSIONS = ("v1", "v1alpha")


def service_name(version: str) -> str:
    """The full name of the reflection service of `version`."""
    return f"grpc.reflection.{version}.ServerReflection"


def add_reflection(
    server: grpc.Server,
    pool: descriptor_pool.DescriptorPool,
    service_names: Iterable[str],
    versions: Sequence[str] = VERSIONS,
) -> None:
    """Let `server` answer reflection in `versions` for these services, described in `pool`.

    The descriptors of reflection itself and of grpc.health.v1 are added to the pool.
    """
    pool.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
    for version in versions:
        pool.AddSerializedFile(_reflection_file(version).SerializeToString())
    names = [*service_names, *(service_name(version) for version in versions)]
    servicer = reflection.ReflectionServicer(names, pool=pool)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = [
        grpc.method_handlers_generic_handler(service_name(version), {"ServerReflectionInfo": handler})
        for version in versions
    ]
    server.add_generic_rpc_handlers(handlers)


def _reflection_file(version: str) -> descriptor_pb2.FileDescriptorProto:
    """The descriptor of v1alpha, renamed to `version`."""
    file = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)

    def renamed(name: str) -> str:
        return name.replace("v1alpha", version)

    file.name = renamed(file.name)
    file.package = renamed(file.package)
    nodes: list[Any] = list(file.message_type)
    while nodes:
        message = nodes.pop()
        nodes.extend(message.nested_type)
        for field in message.field:
            if field.type_name:  # setting even "" would make a scalar field one of a message type
                field.type_name = renamed(field.type_name)
    for service in file.service:
        for method in service.method:
            method.input_type = renamed(method.input_type)
            method.output_type = renamed(method.output_type)
    return file
