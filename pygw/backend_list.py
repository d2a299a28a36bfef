"""The backends of an image with their endpoints, as they travel to the workers: a sealed memory file of JSON lines.

Each line holds some backends, so that a worker takes in thousands of them piece by piece, between calls: to parse one
text with all of them would stop its loop. Knows neither the image nor what a worker makes of it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from pygw.channel import check_sealed, sealed_memfd

CHUNK = 128  # backends of a line: a worker takes some 0.3 ms for them

Endpoints = tuple[tuple[str, int], ...]
Backends = list[tuple[str, list[tuple[str, int]]]]


def write_backends(rows: Iterable[tuple[str, Endpoints]]) -> int:
    """A new memory file with (key, endpoints) of these backends; the caller closes it."""
    rest = iter(rows)
    lines = []
    while chunk := list(islice(rest, CHUNK)):
        lines.append(json.dumps(chunk, separators=(",", ":")))
    return sealed_memfd("pygw-backends", "".join(f"{line}\n" for line in lines).encode())


def read_backends(fd: int) -> Iterator[Backends]:
    """The backends of such a file, chunk by chunk; it is read at once, and parsed as the iterator goes on.

    Raises ChannelError where the file could change under our feet, ValueError where it is no such file.
    """
    return map(backends_of, io.BytesIO(os.pread(fd, check_sealed(fd), 0)))


def backends_of(line: bytes | list[Any]) -> Backends:
    """One chunk, as text or as it came in a message."""
    rows: list[Any] = json.loads(line) if isinstance(line, bytes) else line
    return [(key, [(host, port) for host, port in endpoints]) for key, endpoints in rows]
