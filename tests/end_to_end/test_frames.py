"""Single frames through the relay: header blocks, resets and fields arrive as they were sent, or not at all.

What must pass unchanged is also tried without the gateway, between the two raw peers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.doubles.gateway import StartGateway
from tests.doubles.manifests import GATEWAY, route, to
from tests.doubles.raw_peers import (
    GRPC_REQUEST,
    GRPC_RESPONSE,
    Answer,
    H2Client,
    H2Peer,
    Headers,
    Stream,
    h2_server,
    message,
)

NO_ERROR, PROTOCOL_ERROR, CANCEL = 0x0, 0x1, 0x8
TRAILERS_ONLY: Headers = (
    *GRPC_RESPONSE,
    (b"grpc-status", b"9"),
    (b"grpc-message", b"percent %25 and %E2%98%83"),
    (b"grpc-status-details-bin", b"AAEC/w"),
    (b"x-repeated", b"a"),
    (b"x-repeated", b"b"),
)


def answer_trailers_only(peer: H2Peer, stream: Stream) -> None:
    peer.send_headers(stream.stream_id, TRAILERS_ONLY, end_stream=True)


Connect = Callable[[Answer], tuple[H2Client, list[Stream]]]


@pytest.fixture
def connect(open_stack: ExitStack, start_gateway: StartGateway) -> Connect:
    """A raw client whose calls are answered, through the gateway, by the given Answer; and the requests it saw."""

    def start(answer: Answer) -> tuple[H2Client, list[Stream]]:
        seen: list[Stream] = []
        port = open_stack.enter_context(h2_server(answer, seen))
        gateway = start_gateway(GATEWAY + route(to("raw")), resolve={"default/raw": port}, workers=1)
        return open_stack.enter_context(H2Client(gateway.port)), seen

    return start


@pytest.fixture(params=["direct", "gateway"])
def connect_both(request: pytest.FixtureRequest, open_stack: ExitStack) -> Connect:
    """As `connect`, and once more without the gateway."""

    def start_direct(answer: Answer) -> tuple[H2Client, list[Stream]]:
        seen: list[Stream] = []
        port = open_stack.enter_context(h2_server(answer, seen))
        return open_stack.enter_context(H2Client(port)), seen

    if request.param == "direct":
        return start_direct
    through_gateway: Connect = request.getfixturevalue("connect")
    return through_gateway


def test_trailers_only_stays_one_header_block(connect_both: Connect) -> None:
    client, _ = connect_both(answer_trailers_only)
    answer = client.call()
    assert len(answer.header_blocks) == 1
    assert answer.ended
    assert [field for field in answer.header_blocks[0] if field in TRAILERS_ONLY] == list(TRAILERS_ONLY)


def test_informational_responses_pass(connect_both: Connect) -> None:
    def answer(peer: H2Peer, stream: Stream) -> None:
        peer.send_headers(stream.stream_id, [(b":status", b"103"), (b"x-early", b"hint")])
        peer.send_headers(stream.stream_id, TRAILERS_ONLY, end_stream=True)

    client, _ = connect_both(answer)
    got = client.call()
    assert [block[0] for block in got.header_blocks] == [(b":status", b"103"), (b":status", b"200")]


def test_early_response_ends_the_call_while_the_client_uploads(connect_both: Connect) -> None:
    client, _ = connect_both(answer_trailers_only)
    client.send_headers(1, GRPC_REQUEST)
    client.send_data(1, message(b"first")[:-2])
    assert client.finish(1).fields()[b"grpc-status"] == b"9"


def test_cancellation_reaches_the_backend_as_cancel(connect: Connect) -> None:
    def answer(peer: H2Peer, stream: Stream) -> None:
        peer.send_headers(stream.stream_id, GRPC_RESPONSE)
        peer.read_until(lambda: stream.is_over)
        codes.append(stream.reset_code)

    codes: list[int | None] = []
    client, _ = connect(answer)
    client.send_headers(1, GRPC_REQUEST)
    client.read_until(lambda: bool(client.streams.get(1, Stream(1)).header_blocks))
    client.reset(1, NO_ERROR)
    # A call after it shows that the backend has read on.
    client.send_headers(3, GRPC_REQUEST)
    client.read_until(lambda: bool(client.streams.get(3, Stream(3)).header_blocks))
    assert codes == [CANCEL]
    client.reset(3, CANCEL)


def test_authority_path_and_te_pass_unchanged(connect_both: Connect) -> None:
    client, seen = connect_both(answer_trailers_only)
    request = [*GRPC_REQUEST, (b"x-octets-bin", b"AP8B"), (b"user-agent", b"raw/1.0")]
    request[3] = (b":authority", b"Grpc.Example.com:8080")
    client.call(request)
    assert set(request) <= set(seen[0].header_blocks[0])


@pytest.mark.parametrize(
    "field",
    [
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"te", b"gzip"),
        (b"x-upper-Case", b"a"),
        (b"x-nul", b"a\x00b"),
        (b"x-line", b"a\r\nb: c"),
        (b"x-blank", b" a"),
        (b":path", b"/test.Raw/Other"),
        (b":unknown", b"a"),
    ],
    ids=lambda field: repr(field[0]),
)
def test_malformed_requests_never_reach_a_backend(connect: Connect, field: tuple[bytes, bytes]) -> None:
    client, seen = connect(answer_trailers_only)
    assert client.call([*GRPC_REQUEST, field]).reset_code == PROTOCOL_ERROR
    assert client.call().fields()[b"grpc-status"] == b"9"  # the connection lives on
    assert len(seen) == 1
