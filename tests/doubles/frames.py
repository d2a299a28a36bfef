"""HTTP/2 frames as octets, by name (RFC 9113 §6): what tests feed to a connection, valid or not."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

HEAD = struct.Struct(">BHBBI")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
ENHANCE_YOUR_CALM = 0xB

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

Field = tuple[bytes, bytes]

REQUEST: list[Field] = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/helloworld.Greeter/SayHello"),
    (b":authority", b"greeter.example.com"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
]
RESPONSE: list[Field] = [(b":status", b"200"), (b"content-type", b"application/grpc")]
TRAILERS: list[Field] = [(b"grpc-status", b"0")]


def frame(type: int, flags: int, stream_id: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Any frame; `length` lies about the payload."""
    size = len(payload) if length is None else length
    return HEAD.pack(size >> 16, size & 0xFFFF, type, flags, stream_id) + payload


def integer(value: int, bits: int, first: int) -> bytes:
    """RFC 7541 §5.1."""
    limit = 2**bits - 1
    if value < limit:
        return bytes([first | value])
    octets, value = [first | limit], value - limit
    while value >= 128:
        octets.append(value % 128 + 128)
        value //= 128
    return bytes([*octets, value])


def block(fields: Iterable[Field]) -> bytes:
    """A header block without tables or Huffman: literals only, so that it can be sent any number of times."""
    octets = b""
    for name, value in fields:
        octets += b"\0" + integer(len(name), 7, 0) + name + integer(len(value), 7, 0) + value
    return octets


def padded(payload: bytes, padding: int | None) -> bytes:
    return payload if padding is None else bytes([padding]) + payload + bytes(padding)


def data(stream_id: int, payload: bytes = b"", *, end_stream: bool = False, padding: int | None = None) -> bytes:
    flags = end_stream * END_STREAM | (padding is not None) * PADDED
    return frame(DATA, flags, stream_id, padded(payload, padding))


def headers(
    stream_id: int,
    fields: Iterable[Field] | bytes = REQUEST,
    *,
    end_stream: bool = False,
    end_headers: bool = True,
    padding: int | None = None,
    depends_on: int | None = None,
) -> bytes:
    """HEADERS; `fields` may be a header block already."""
    octets = fields if isinstance(fields, bytes) else block(fields)
    if depends_on is not None:
        octets = struct.pack(">IB", depends_on, 15) + octets
    flags = end_stream * END_STREAM | end_headers * END_HEADERS | (padding is not None) * PADDED
    return frame(HEADERS, flags | (depends_on is not None) * PRIORITY_FLAG, stream_id, padded(octets, padding))


def continuation(stream_id: int, fragment: bytes = b"", *, end_headers: bool = False) -> bytes:
    return frame(CONTINUATION, end_headers * END_HEADERS, stream_id, fragment)


def priority(stream_id: int, depends_on: int = 0) -> bytes:
    return frame(PRIORITY, 0, stream_id, struct.pack(">IB", depends_on, 15))


def rst_stream(stream_id: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", setting, value) for setting, value in pairs))


def settings_ack() -> bytes:
    return frame(SETTINGS, ACK, 0)


def ping(payload: bytes = b"12345678", *, ack: bool = False) -> bytes:
    return frame(PING, ack * ACK, 0, payload)


def goaway(last_stream_id: int, code: int = NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream_id, code) + debug)


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def take_frames(octets: bytearray, at: int = 0) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, stream id, payload) of each whole frame from `at` on; what was taken goes, half a frame stays."""
    while len(octets) - at >= HEAD.size:
        high, low, type, flags, stream_id = HEAD.unpack_from(octets, at)
        end = at + HEAD.size + (high << 16 | low)
        if len(octets) < end:
            break
        payload = bytes(octets[at + HEAD.size : end])
        at = end
        yield type, flags, stream_id & 0x7FFFFFFF, payload
    del octets[:at]


def parse(octets: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, stream id, payload) of each frame; the octets must hold whole ones."""
    octets = octets.removeprefix(PREFACE)
    while octets:
        high, low, type, flags, stream_id = HEAD.unpack(octets[:9])
        size = high << 16 | low
        assert len(octets) >= 9 + size, "half a frame"
        yield type, flags, stream_id, octets[9 : 9 + size]
        octets = octets[9 + size :]
