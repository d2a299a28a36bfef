"""Log formats, and LineWriter, which never waits for its reader."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pygw import logs
from pygw.logs import ConsoleFormatter, JsonFormatter, LineWriter, rfc3339


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("pygw.x").makeRecord("pygw.x", level, "f.py", 1, message, (), None, extra=extra)
    made.created, made.msecs = 1700000000.5, 500
    return made


def test_json_has_one_object_a_line() -> None:
    line = JsonFormatter("worker 0").format(record("it\nhappened", worker=0, path=Path("/x"), text="ü\n"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.500Z",
        "level": "info",
        "process": "worker 0",
        "logger": "pygw.x",
        "message": "it\nhappened",
        "worker": 0,
        "path": "/x",
        "text": "ü\n",
    }


def test_json_carries_a_traceback() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    assert "ValueError: bad" in json.loads(JsonFormatter("p").format(made))["traceback"]


def test_json_moves_no_terminal() -> None:
    line = JsonFormatter("p").format(record("\x9b31m", text="\x7f\u2028é"))
    assert line.isprintable()
    assert (json.loads(line)["message"], json.loads(line)["text"]) == ("\x9b31m", "\x7f\u2028é")


def test_a_traceback_forges_no_record() -> None:
    made = record("failed")
    try:
        raise ValueError("bad\n12:00:00.000 info    all is well\x1b[31m")
    except ValueError:
        made.exc_info = sys.exc_info()
    first, *others = ConsoleFormatter().format(made).split("\n")
    assert first.endswith("failed")
    assert "  12:00:00.000 info    all is well\\u001b[31m" in others
    assert all(line.startswith("  ") for line in others)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        (7, "7"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ("line\nbreak\x1b[31m", '"line\\nbreak\\u001b[31m"'),
        ("\x9b31m\x7f\u202e", '"\\u009b31m\\u007f\\u202e"'),
    ],
)
def test_console_quotes_what_could_mislead(value: object, shown: str) -> None:
    line = ConsoleFormatter().format(record("it happened", logging.WARNING, key=value))
    assert line.endswith(f".500 warning it happened key={shown}")


def test_console_keeps_a_message_on_its_line() -> None:
    assert "\n" not in ConsoleFormatter().format(record("forged\n12:00:00.000 info  all is well"))


def test_rfc3339() -> None:
    assert rfc3339(0.0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1.9996) == "1970-01-01T00:00:01.999Z"


def test_set_up_writes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    saved, level = root.handlers[:], root.level
    try:
        logs.set_up("launcher", "json", "warning")
        logging.getLogger("pygw.x").info("not shown")
        logging.getLogger("pygw.x").warning("shown", extra={"key": 1})
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = saved
        root.setLevel(level)
    line = json.loads(capfd.readouterr().err)
    assert (line["message"], line["key"], line["process"]) == ("shown", 1, "launcher")


# ===== LineWriter =====


@pytest.fixture
def standard_error() -> Iterator[list[int]]:
    """Descriptor 2, to be replaced by what the test puts there."""
    saved = os.dup(2)
    opened: list[int] = []
    yield opened
    os.dup2(saved, 2)
    for fd in [saved, *opened]:
        os.close(fd)


def test_files_are_appended_to_by_several_writers(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writers = [LineWriter(str(path)) for _ in range(3)]
    for number in range(100):
        for name, writer in enumerate(writers):
            writer.write(f"{name} {number} {'x' * 2000}\n".encode())
    for writer in writers:
        writer.close()
    lines = path.read_text().splitlines()
    assert len(lines) == 300
    assert {len(line) for line in lines} <= {2004, 2005}


def test_many_lines_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(str(path))
    text = b"".join(b"%d\n" % number for number in range(50_000)) + b"y" * 100_000 + b"\n"
    writer.write(text)
    writer.close()
    assert path.read_bytes() == text
    assert writer.dropped == 0


def test_reopen_follows_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(str(path))
    writer.write(b"1\n")
    path.rename(tmp_path / "log.1")
    writer.write(b"2\n")
    writer.reopen()
    writer.write(b"3\n")
    assert (tmp_path / "log.1").read_bytes() == b"1\n2\n"
    assert path.read_bytes() == b"3\n"
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError):
        writer.reopen()
    writer.write(b"4\n")  # into the old file, which has no name any more
    writer.close()
    assert writer.dropped == 0


def test_a_pipe_that_nobody_reads_drops_lines_and_does_not_wait(standard_error: list[int]) -> None:
    read_end, write_end = os.pipe()
    standard_error.append(read_end)
    os.dup2(write_end, 2)
    os.close(write_end)
    writer = LineWriter(None)
    line = b"x" * 999 + b"\n"
    for _ in range(500):  # a pipe holds 64 KiB
        writer.write(line)
    kept = 500 - writer.dropped
    assert 10 < kept < 100
    assert os.get_blocking(2)  # the descriptor that others have is as it was
    assert os.read(read_end, 1 << 20) == line * kept
    writer.write(b"again\n")
    assert os.read(read_end, 100) == b"again\n"
    writer.close()


def test_a_long_line_is_finished_before_the_next(standard_error: list[int]) -> None:
    read_end, write_end = os.pipe()
    standard_error.append(read_end)
    os.dup2(write_end, 2)
    os.close(write_end)
    writer = LineWriter(None)
    writer.write(b"a" * 100_000 + b"\n")  # longer than the pipe: taken in part
    first = os.read(read_end, 1 << 20)
    writer.write(b"next\n")
    second = os.read(read_end, 1 << 20)
    assert (first + second).splitlines() == [b"a" * 100_000, b"next"]
    assert writer.dropped == 0
    writer.close()


def test_a_pipe_without_a_reader(standard_error: list[int]) -> None:
    read_end, write_end = os.pipe()
    os.dup2(write_end, 2)
    os.close(write_end)
    writer = LineWriter(None)
    os.close(read_end)
    writer.write(b"1\n2\n")
    assert writer.dropped == 2
    writer.close()


def test_a_socket_as_standard_error(standard_error: list[int]) -> None:
    """As systemd's journal gives it; it cannot be opened again through /proc."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.dup2(theirs.fileno(), 2)
        writer = LineWriter(None)
        writer.write(b"hello\n")
        assert ours.recv(100) == b"hello\n"
        while not writer.dropped:
            writer.write(b"x" * 999 + b"\n")
        writer.close()
