"""Requests that RFC 9113 §8 and §10.3 call malformed, octet by octet: each is refused alone, none reaches a backend."""

import pytest

from tests.doubles import frames
from tests.doubles.in_process import Backend, gateway, message, one_route, run

METHOD, SCHEME, PATH, AUTHORITY, CONTENT_TYPE, TE = frames.REQUEST


def replaced(name: bytes, value: bytes) -> list[frames.Field]:
    """A request in which one field has another value."""
    return [(known, value if known == name else old) for known, old in frames.REQUEST]


def added(*fields: frames.Field) -> list[frames.Field]:
    """A request with more fields."""
    return [*frames.REQUEST, *fields]


MALFORMED = {
    "CR in a value": added((b"x-a", b"a\rb")),
    "LF in a value": added((b"x-a", b"a\nb")),
    "NUL in a value": added((b"x-a", b"a\0b")),
    "a request in a value": added((b"x-a", b"a\r\n\r\nGET / HTTP/1.1")),
    "CR in a name": added((b"x\ra", b"b")),
    "upper case in a name": added((b"X-A", b"b")),
    "blank in a name": added((b"x a", b"b")),
    "colon in a name": added((b"x:a", b"b")),
    "no name": added((b"", b"b")),
    "leading blank": added((b"x-a", b" b")),
    "trailing blank": added((b"x-a", b"b ")),
    "leading tab": added((b"x-a", b"\tb")),
    "trailing tab": added((b"x-a", b"b\t")),
    "unknown pseudo-header": [*frames.REQUEST[:4], (b":x", b"1"), *frames.REQUEST[4:]],
    "response pseudo-header": [*frames.REQUEST[:4], (b":status", b"200"), *frames.REQUEST[4:]],
    "pseudo-header twice": [METHOD, METHOD, *frames.REQUEST[1:]],
    "pseudo-header late": [*frames.REQUEST[:3], CONTENT_TYPE, AUTHORITY, TE],
    "no method": frames.REQUEST[1:],
    "no scheme": [METHOD, *frames.REQUEST[2:]],
    "no path": [METHOD, SCHEME, *frames.REQUEST[3:]],
    "empty path": replaced(b":path", b""),
    "path without slash": replaced(b":path", b"a.B/C"),
    "fragment in the path": replaced(b":path", b"/a.B/C#d"),
    "blank in the path": replaced(b":path", b"/a.B/C d"),
    "LF in the path": replaced(b":path", b"/a.B/C\nd"),
    "user in the authority": replaced(b":authority", b"user@greeter.example.com"),
    "blank in the authority": replaced(b":authority", b"greeter example.com"),
    "another host": added((b"host", b"other.example.com")),
    "connection": added((b"connection", b"close")),
    "keep-alive": added((b"keep-alive", b"timeout=5")),
    "proxy-connection": added((b"proxy-connection", b"keep-alive")),
    "transfer-encoding": added((b"transfer-encoding", b"chunked")),
    "upgrade": added((b"upgrade", b"websocket")),
    "te that is not trailers": replaced(b"te", b"gzip"),
    "content-length that is none": added((b"content-length", b"5x")),
    "content-length with a sign": added((b"content-length", b"+5")),
    "content-length twice": added((b"content-length", b"5"), (b"content-length", b"6")),
    "content-length over the body": added((b"content-length", b"50")),
    "content-length under the body": added((b"content-length", b"3")),
}
ANSWERED = {"fragment in the path"}


def send(client, stream_id: int, fields: list[frames.Field]) -> None:
    """Send a whole request octet by octet. h2 must know the stream, but what it would send is thrown away."""
    client.h2.send_headers(stream_id, [(name.decode(), value.decode()) for name, value in frames.REQUEST])
    client.h2.data_to_send()
    client.writer.write(frames.headers(stream_id, fields) + frames.data(stream_id, message(b""), end_stream=True))


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_request_is_refused_and_no_backend_hears_of_it(kind):
    async def test():
        backend = await Backend().start()
        async with gateway(one_route([backend])) as served:
            client = await served.client()
            await client.until(lambda: client.h2.remote_settings.max_concurrent_streams == 1000)
            send(client, 1, MALFORMED[kind])
            refused = await client.over(1)
            # A path that no gRPC call has is answered: it matches no rule, whatever there is.
            assert refused.reset == frames.PROTOCOL_ERROR or (kind in ANSWERED and refused.status == "12")
            send(client, 3, frames.REQUEST)
            peer = await backend.connected()
            assert await peer.open(1) == [1]
            peer.respond(1)
            assert (await client.over(3)).status == "0"
            assert len(peer.streams) == 1

    run(test)
