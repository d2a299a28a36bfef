"""gRPC methods called with octets: messages go out and come back as they are, whatever they mean."""

from __future__ import annotations

import grpc


def unary_unary(channel: grpc.Channel, method: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    """One message each way. `method` is "package.Service/Method"."""
    return channel.unary_unary(f"/{method}", request_serializer=bytes, response_deserializer=bytes)


def unary_stream(channel: grpc.Channel, method: str) -> grpc.UnaryStreamMultiCallable[bytes, bytes]:
    """One message out, many back."""
    return channel.unary_stream(f"/{method}", request_serializer=bytes, response_deserializer=bytes)


def stream_unary(channel: grpc.Channel, method: str) -> grpc.StreamUnaryMultiCallable[bytes, bytes]:
    """Many messages out, one back."""
    return channel.stream_unary(f"/{method}", request_serializer=bytes, response_deserializer=bytes)


def stream_stream(channel: grpc.Channel, method: str) -> grpc.StreamStreamMultiCallable[bytes, bytes]:
    """Many messages each way."""
    return channel.stream_stream(f"/{method}", request_serializer=bytes, response_deserializer=bytes)


def status_of(method: grpc.UnaryUnaryMultiCallable[bytes, bytes], timeout: float = 10.0) -> grpc.StatusCode:
    """How one call of `method` ends."""
    return method.future(b"", timeout=timeout).code()
