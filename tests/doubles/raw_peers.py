"""Peers that grpcio cannot be made to be: they refuse, die in the middle, speak HTTP/1, or show single frames.

H2Server and H2Client speak HTTP/2 through PyPI's h2, an implementation that shares nothing with ours.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events

PATIENCE = 15.0
Headers = Sequence[tuple[bytes, bytes]]
GRPC_REQUEST: Headers = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/test.Raw/Call"),
    (b":authority", b"grpc.example.com"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)
GRPC_RESPONSE: Headers = ((b":status", b"200"), (b"content-type", b"application/grpc"))


def message(octets: bytes) -> bytes:
    """A gRPC message with its prefix, uncompressed."""
    return b"\x00" + len(octets).to_bytes(4) + octets


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A port at which connections are refused: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port that answers no SYN: its queue of connections is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def tcp_server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose connections are each given to `talk` in a thread, and closed after it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened: list[socket.socket] = []
        threads: list[threading.Thread] = []

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                talk(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    opened.append(connection)
                    threads.append(threading.Thread(target=serve, args=(connection,)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # shutdown() wakes accept() and recv(); close() alone would not.
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(PATIENCE)
            for connection in opened:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(PATIENCE)


def speak_http1(connection: socket.socket) -> None:
    """What an HTTP/1.1 server says to the preface of HTTP/2."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\nconnection: close\r\n\r\nBad Request")


@dataclass(slots=True)
class Stream:
    """One stream as a raw peer saw it."""

    stream_id: int
    header_blocks: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    data: bytes = b""
    ended: bool = False
    reset_code: int | None = None

    def fields(self, block: int = 0) -> dict[bytes, bytes]:
        """A header block as a dict."""
        return dict(self.header_blocks[block])

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.ended or self.reset_code is not None


class H2Peer:
    """One end of an HTTP/2 connection over a blocking socket; `streams` has what came."""

    def __init__(self, connection: socket.socket, *, is_client: bool) -> None:
        # Nothing is checked or normalised on the way out: tests send what no library would.
        config = h2.config.H2Configuration(
            client_side=is_client,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
        # A frame goes out when it is sent, not when the peer has acknowledged the one before (Nagle).
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.h2 = h2.connection.H2Connection(config)
        self.streams: dict[int, Stream] = {}
        self.goaway_code: int | None = None
        self.is_closed = False
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what h2 has to say."""
        self.socket.sendall(self.h2.data_to_send())

    def send_headers(self, stream_id: int, headers: Headers, *, end_stream: bool = False) -> None:
        """Send a HEADERS frame."""
        self.h2.send_headers(stream_id, list(headers), end_stream=end_stream)
        self.flush()

    def send_data(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> None:
        """Send a DATA frame; it must fit the window and the frame size."""
        self.h2.send_data(stream_id, data, end_stream=end_stream)
        self.flush()

    def reset(self, stream_id: int, error_code: int) -> None:
        """Send RST_STREAM."""
        self.h2.reset_stream(stream_id, error_code)
        self.flush()

    def read_until(self, holds: Callable[[], bool]) -> None:
        """Read until `holds()` or the end of the connection."""
        while not holds() and not self.is_closed:
            octets = self.socket.recv(65536)
            if not octets:
                self.is_closed = True
                return
            for event in self.h2.receive_data(octets):
                self._note(event)
            self.flush()

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway_code = event.error_code
        stream_id = getattr(event, "stream_id", None)
        if not stream_id:
            return
        stream = self.streams.setdefault(stream_id, Stream(stream_id))
        match event:
            case (
                h2.events.RequestReceived()
                | h2.events.ResponseReceived()
                | h2.events.TrailersReceived()
                | h2.events.InformationalResponseReceived()
            ):
                stream.header_blocks.append([(bytes(name), bytes(value)) for name, value in event.headers or []])
            case h2.events.DataReceived():
                stream.data += event.data or b""
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, stream_id)
            case h2.events.StreamEnded():
                stream.ended = True
            case h2.events.StreamReset():
                stream.reset_code = int(event.error_code or 0)


class H2Client(H2Peer):
    """A client connection to a local port; a context manager that closes it."""

    def __init__(self, port: int) -> None:
        super().__init__(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE), is_client=True)

    def __enter__(self) -> H2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(self, headers: Headers = GRPC_REQUEST, data: bytes = message(b"")) -> Stream:
        """Send one whole request and wait until its stream is over."""
        stream_id = self.h2.get_next_available_stream_id()
        self.send_headers(stream_id, headers, end_stream=not data)
        if data:
            self.send_data(stream_id, data, end_stream=True)
        return self.finish(stream_id)

    def finish(self, stream_id: int) -> Stream:
        """The stream, once it is over."""
        stream = self.streams.setdefault(stream_id, Stream(stream_id))
        self.read_until(lambda: stream.is_over)
        return stream


Answer = Callable[[H2Peer, Stream], None]


@contextlib.contextmanager
def h2_server(answer: Answer, seen: list[Stream] | None = None) -> Iterator[int]:
    """A port that gives each request to `answer` once its header block is there, and puts it into `seen`.

    What `answer` wants of the rest it reads itself, by peer.read_until().
    """
    requests = [] if seen is None else seen

    def talk(connection: socket.socket) -> None:
        peer = H2Peer(connection, is_client=False)
        answered: set[int] = set()

        def fresh() -> list[Stream]:
            streams = list(peer.streams.values())
            return [stream for stream in streams if stream.header_blocks and stream.stream_id not in answered]

        while not peer.is_closed:
            peer.read_until(lambda: bool(fresh()))
            for stream in fresh():
                answered.add(stream.stream_id)
                requests.append(stream)
                answer(peer, stream)

    with tcp_server(talk) as port:
        yield port
