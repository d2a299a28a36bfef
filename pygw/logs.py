"""Structured logs on standard error, and the file of the access log.

Every record is a constant message with key/values beside it (`log.info("worker started", extra={"worker": 0})`),
so that logs can be searched by message and filtered by key. `json` writes one object a line, `console` one
readable line. Knows nothing of what is logged.

LineWriter never waits for whoever reads: a log collector that stalls must not stall the data path. What does not
fit is dropped and counted.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import stat
import sys
import textwrap
import time
from typing import Any

from pygw.printable import each_line, one_line

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "console")

_OWN_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, process, logger, message, then the key/values of the record."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        entry: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **extras(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return one_line(json.dumps(entry, default=str, ensure_ascii=False))


class ConsoleFormatter(logging.Formatter):
    """`12:34:56.789 info  worker started worker=0 pid=71`: for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; more only for a traceback, indented, or a text in it could pass for a record."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        pairs = "".join(f" {key}={_plain(value)}" for key, value in extras(record).items())
        milliseconds = int(record.msecs)
        level = record.levelname.lower()
        line = f"{clock}.{milliseconds:03d} {level:<7} {one_line(record.getMessage())}{pairs}"
        if record.exc_info:
            line += "\n" + each_line(textwrap.indent(self.formatException(record.exc_info), "  ", lambda _: True))
        return line


class LineWriter:
    """Appends whole lines to a file, or to standard error where `path` is None, without ever waiting.

    Several processes may append to the same file: O_APPEND keeps their lines apart, and so do pipes for pieces
    up to PIPE_BUF octets (pipe(7)).
    """

    def __init__(self, path: str | None) -> None:
        """Raises OSError where the file cannot be opened for appending."""
        self.path = path
        self.dropped = 0  # lines
        self._rest = b""  # of a line that the reader took only in part
        self._fd = self._open()

    def reopen(self) -> None:
        """Open the path again, after log rotation moved the file; the old file stays where that fails (OSError)."""
        fd = self._open()
        os.close(self._fd)
        self._fd, self._rest = fd, b""

    def write(self, lines: bytes) -> None:
        """Append these lines; each ends with a newline. What cannot be taken now is dropped."""
        while lines:
            piece = lines[: self._piece_size]
            end = piece.rfind(b"\n") + 1 or lines.find(b"\n") + 1 or len(lines)
            self._write_piece(lines[:end])
            lines = lines[end:]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> int:
        if self.path is not None:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        else:
            # A description of our own: O_NONBLOCK on the inherited one would change it for the parent's shell too.
            try:
                fd = os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:  # a socket (ENXIO: systemd's journal), or no /proc
                fd = os.dup(2)
        mode = os.fstat(fd).st_mode
        self._is_socket = stat.S_ISSOCK(mode)
        self._piece_size = 65536 if stat.S_ISREG(mode) else select.PIPE_BUF
        return fd

    def _write_piece(self, piece: bytes) -> None:
        try:
            if self._rest:
                self._rest = self._rest[self._send(self._rest) :]
            if not self._rest:
                taken = self._send(piece)
                self._rest = piece[taken:] if taken else b""
                if taken:
                    return
        except OSError:  # full, or nobody reads any more
            pass
        self.dropped += piece.count(b"\n")

    def _send(self, octets: bytes) -> int:
        if not self._is_socket:
            return os.write(self._fd, octets)
        with socket.socket(fileno=os.dup(self._fd)) as sock:
            return sock.send(octets, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class LineHandler(logging.Handler):
    """Sends formatted records to a LineWriter."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Format and append one record."""
        try:
            self._writer.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
        except Exception:  # as logging.StreamHandler does: a bad record must not stop the program
            self.handleError(record)


def default_format() -> str:
    """console on a terminal, json otherwise."""
    return "console" if sys.stderr.isatty() else "json"


def set_up(process: str, log_format: str, level: str) -> None:
    """Send all logs of this process to standard error; called once, first thing."""
    handler = LineHandler(LineWriter(None))
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.captureWarnings(True)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """The key/values that the caller gave with `extra`."""
    return {key: value for key, value in record.__dict__.items() if key not in _OWN_FIELDS}


def rfc3339(seconds: float) -> str:
    """A time as RFC 3339 in UTC, to the millisecond."""
    whole = int(seconds)
    milliseconds = int((seconds - whole) * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


def _plain(value: object) -> str:
    """A value as it is where that is clear, else quoted as JSON: no line breaks, no control octets."""
    text = str(value)
    if text and text.isprintable() and not any(mark in text for mark in " \"'="):
        return text
    return one_line(json.dumps(text, ensure_ascii=False))
