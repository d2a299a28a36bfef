"""Header validation: any fields as a request, a response or trailers, judged as by tests/doubles/reference_message.py.

The first octet chooses which; fields end with 0xfe, and 0xfd parts name from value: no name or value needs those two.
"""

from __future__ import annotations

from collections.abc import Iterable

from pygw.http2 import message
from tests.doubles import frames, reference_message

MAX_FIELDS = 40

_CHECKS = (
    (message.check_request_fields, reference_message.is_request),
    (message.check_response_fields, reference_message.is_response),
    (message.check_trailer_fields, reference_message.is_trailers),
)


def _packed(kind: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return bytes([kind]) + b"\xfe".join(name + b"\xfd" + value for name, value in fields)


_OTHERS = [(b"host", b"Greeter.example.com:80"), (b"content-length", b"12"), (b"content-length", b"012"),
           (b"grpc-timeout", b"1S"), (b"x-forwarded-for", b"::1"), (b"user-agent", b"grpc")]  # fmt: skip
SEEDS = (
    _packed(0, [*frames.REQUEST, *_OTHERS]),
    _packed(0, [(b":method", b"OPTIONS"), (b":scheme", b"https"), (b":path", b"*"), (b"host", b"a:443")]),
    _packed(0, [(b":method", b"GET"), (b":scheme", b"coap+ws"), (b":path", b"/a?b#c"), (b":authority", b"[::1]:1")]),
    _packed(1, [*frames.RESPONSE, *_OTHERS[1:], *frames.TRAILERS]),
    _packed(2, [*frames.TRAILERS, (b"grpc-message", b"a%20b"), (b"x-bin", b"AAE=")]),
)
WORDS = (
    b":method", b":scheme", b":path", b":authority", b":status", b":protocol", b"host", b"te", b"trailers", b"TRAILERS",
    b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"content-length",
    b"content-type", b"application/grpc", b"grpc-status", b"CONNECT", b"OPTIONS", b"HTTP", b"https", b":80", b":443",
    b"9223372036854775807", b"9223372036854775808", b"101", b"\xfd", b"\xfe", b"\r\n", b"\0", b"@",
)  # fmt: skip


def check(data: bytes) -> None:
    """See the module."""
    if not data:
        return
    ours, reference = _CHECKS[data[0] % len(_CHECKS)]
    parted = (field.partition(b"\xfd") for field in data[1:].split(b"\xfe")[:MAX_FIELDS])
    fields = [(name, value) for name, _, value in parted]
    reason = ours(fields)
    assert (reason is None) == reference(fields), f"{fields}: {reason}"
    if data[0] % len(_CHECKS) == 0 and reason is None:
        head = message.request_head(fields)
        for name in ("method", "scheme", "path"):
            assert head[name] == dict(fields)[b":" + name.encode()]
