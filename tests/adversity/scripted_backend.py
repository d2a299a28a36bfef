"""A backend on a fixed port that records what reaches it and does with it what a case says, faults included.

`backend.script(talk=..., answer=...)` sets what new connections (`talk`) and requests (`answer`) get; the default
answers well. Each connection has a thread; between cases all are cut, so that no case finds another's.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from tests.doubles import frames as wire
from tests.doubles.frames import Field

from .raw import RawPeer, Seen

Answer = Callable[["BackendConnection", Seen], None]
Talk = Callable[["BackendConnection"], None]
RESPONSE: list[Field] = [(b":status", b"200"), (b"content-type", b"application/grpc")]
OK: list[Field] = [(b"grpc-status", b"0")]
FENCE_PATH = b"/adversity.Fence/Call"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class BackendConnection(RawPeer):
    """A connection that the proxy made. `number` counts them from 0 since the script was set."""

    def __init__(self, connection: socket.socket, backend: ScriptedBackend, number: int) -> None:
        super().__init__(connection)
        self.backend = backend
        self.number = number

    def greet(self, *settings: tuple[int, int]) -> bool:
        """Take the client's preface and send SETTINGS; False where something else came."""
        while len(self._octets) < len(wire.PREFACE) and not self.is_closed:
            octets = self.socket.recv(65536)
            self.is_closed = not octets
            self._octets += octets
        if not self._octets.startswith(wire.PREFACE):
            return False
        del self._octets[: len(wire.PREFACE)]
        self.send(wire.settings(*settings), wire.window_update(0, 1 << 24))
        self._take_frames()
        return True

    def serve(self, answer: Answer, *settings: tuple[int, int]) -> None:
        """Give each request, once its header section is there, to `answer`."""
        if self.greet(*settings):
            self.serve_on(answer)

    def serve_on(self, answer: Answer) -> None:
        """As serve(), behind the preface."""
        done: set[int] = set()

        def fresh() -> list[Seen]:
            return [seen for seen in self.streams.values() if seen.blocks and seen.stream_id not in done]

        while self.wait(fresh, 60):
            for seen in fresh():
                done.add(seen.stream_id)
                self.backend.note(seen)
                answer(self, seen)
                self.backend.tell()

    def close(self) -> None:
        """Close the socket, and say so."""
        super().close()
        self.backend.tell()

    def _take_frames(self) -> None:
        super()._take_frames()
        self.backend.tell()

    def whole(self, seen: Seen) -> Seen:
        """The request, once it has ended or was reset."""
        self.wait(lambda: seen.is_over, 20)
        return seen

    def cut(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close()


def answer_well(peer: BackendConnection, seen: Seen) -> None:
    """Send the request's data back."""
    peer.whole(seen)
    if not seen.reset:
        peer.send(wire.headers(seen.stream_id, RESPONSE))
        if peer.pour(seen.stream_id, bytes(seen.data)):
            peer.send(wire.headers(seen.stream_id, OK, end_stream=True))


def talk_well(peer: BackendConnection) -> None:
    """HTTP/2, with the answer that the script says."""
    peer.serve(peer.backend.answer)


class ScriptedBackend:
    """Listens on one port for as long as it lives, but for the time in `refusing`. A context manager."""

    def __init__(self) -> None:
        # Also tells wait_for() that something has come, was answered, or has ended.
        self._changed = threading.Condition()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[BackendConnection] = []
        self._threads: list[threading.Thread] = []
        self.reset()
        self._accept()

    def __enter__(self) -> ScriptedBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_listening()
        self.cut_all()

    def reset(self) -> None:
        """Back to answering well, with nothing recorded."""
        self.script()
        with self._changed:
            self.requests: list[Seen] = []
            self.connections = 0

    def script(self, *, talk: Talk = talk_well, answer: Answer = answer_well) -> None:
        """What new connections and new requests get from now on; old connections are cut."""
        self.talk, self.answer = talk, answer
        self.cut_all()
        with self._changed:
            self.connections = 0

    def cut_all(self) -> None:
        """End all connections."""
        with self._changed:
            opened, self._open = self._open, []
            threads, self._threads = self._threads, []
        for peer in opened:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)

    def reset_connections(self) -> None:
        """End all connections by a TCP reset, without a word."""
        with self._changed:
            opened = list(self._open)
        for peer in opened:
            with contextlib.suppress(OSError):
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                # Wakes the thread, whose close() then resets; close() here would wait until it wakes by itself.
                peer.socket.shutdown(socket.SHUT_RD)
        # A call that goes out before the reset would be another case.
        self.wait_for(lambda: all(peer.socket.fileno() == -1 for peer in opened))

    def note(self, seen: Seen) -> None:
        """Record a request."""
        with self._changed:
            self.requests.append(seen)
            self._changed.notify_all()

    def reached(self) -> list[Seen]:
        """The requests that came, without those of the fence."""
        with self._changed:
            return [seen for seen in self.requests if seen.value(b":path") != FENCE_PATH]

    def wait_for(self, holds: Callable[[], object], seconds: float = 5.0) -> bool:
        """Whether something about what is recorded comes to hold."""
        with self._changed:
            return bool(self._changed.wait_for(holds, seconds))

    def tell(self) -> None:
        """Something has changed that wait_for() may wait for."""
        with self._changed:
            self._changed.notify_all()

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens; connections are refused."""
        self._stop_listening()
        self.cut_all()
        try:
            yield
        finally:
            self._listener = self._listen(self.port)
            self._accept()

    # ===== own =====

    @staticmethod
    def _listen(port: int) -> socket.socket:
        return socket.create_server(("127.0.0.1", port), backlog=1024)

    def _stop_listening(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(5)
        self._listener.close()

    def _accept(self) -> None:
        self._acceptor = threading.Thread(target=self._run, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def _run(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with self._changed:
                    peer = BackendConnection(connection, self, self.connections)
                    self.connections += 1
                    self._open.append(peer)
                    thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _serve(self, peer: BackendConnection) -> None:
        with contextlib.suppress(OSError), peer:
            self.talk(peer)
