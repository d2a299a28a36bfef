"""A steady load of calls, from threads, that counts how each ended."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import grpc

from tests.doubles.backend import ECHO
from tests.doubles.client import stream_stream, unary_unary

TIMEOUT = 30.0
MESSAGES_PER_STREAM = 20


class Load:
    """Unary and streaming calls, one after the other on each of some channels; a context manager that ends it.

    `connecting` threads open a connection for each call, so that none may be refused. `ended` counts calls by status.
    Calls that are open when the load ends are finished, not cancelled.
    """

    def __init__(
        self, open_channel: Callable[[], grpc.Channel], *, unary: int = 2, streaming: int = 2, connecting: int = 0
    ) -> None:
        self.ended: Counter[str] = Counter()
        self.details: list[str] = []
        self._failures: list[float] = []  # when they began, by time.monotonic()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._channels = ExitStack()
        self._threads = []
        for kind in [self._call_unary] * unary + [self._call_streaming] * streaming:
            channel = self._channels.enter_context(open_channel())
            self._threads.append(threading.Thread(target=self._run, args=(kind, channel)))
        for _ in range(connecting):
            self._threads.append(threading.Thread(target=self._run, args=(self._call_connecting, open_channel)))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Make no further call and wait for those that are open."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT)
            assert not thread.is_alive(), "a call neither ended nor kept its deadline"
        self._channels.close()

    @property
    def failed(self) -> dict[str, int]:
        """Calls that did not end well, by status."""
        return {status: count for status, count in self.ended.items() if status != "OK"}

    def failed_since(self, began: float) -> int:
        """How many calls that began at `began` (time.monotonic()) or later did not end well."""
        return sum(at >= began for at in list(self._failures))

    def wait_for(self, calls: int) -> None:
        """Until so many more calls have ended."""
        with self._changed:
            wanted = self.ended.total() + calls
            assert self._changed.wait_for(lambda: self.ended.total() >= wanted, TIMEOUT), "the load has stalled"

    def _run(self, kind: Callable[[Any], None], channel: Any) -> None:
        while not self._stop.is_set():
            status, details = "OK", ""
            began = time.monotonic()
            try:
                kind(channel)
            except grpc.RpcError as error:
                status, details = error.code().name, f"{error.code().name}: {error.details()}"
            except AssertionError as error:
                status, details = "WRONG", str(error)
            with self._changed:
                self.ended[status] += 1
                if details:
                    self.details.append(details)
                    self._failures.append(began)
                self._changed.notify_all()

    @classmethod
    def _call_connecting(cls, open_channel: Callable[[], grpc.Channel]) -> None:
        with open_channel() as channel:
            cls._call_unary(channel)

    @staticmethod
    def _call_unary(channel: grpc.Channel) -> None:
        assert unary_unary(channel, f"{ECHO}/Unary")(b"payload", timeout=TIMEOUT) == b"payload"

    @staticmethod
    def _call_streaming(channel: grpc.Channel) -> None:
        sent = [b"%d" % number for number in range(MESSAGES_PER_STREAM)]
        assert list(stream_stream(channel, f"{ECHO}/Chat")(iter(sent), timeout=TIMEOUT)) == sent


class Gate:
    """The messages of a call, which a test sends by hand."""

    def __init__(self) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue()

    def __iter__(self) -> Gate:
        return self

    def __next__(self) -> bytes:
        message = self._queue.get(timeout=TIMEOUT)
        if message is None:
            raise StopIteration
        return message

    def send(self, message: bytes) -> None:
        self._queue.put(message)

    def close(self) -> None:
        self._queue.put(None)
