"""Where inputs are kept: `corpus/TARGET.txt`, one input a line in hexadecimal, sorted.

One file a target, since a thousand files of fifty octets are nothing to read, to diff or to check out. libFuzzer wants
a folder with a file for each: unpack() and pack() go between the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from . import targets

FOLDER = Path(__file__).parent / "corpus"


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """The file with the inputs of a target."""
    return folder / f"{name}.txt"


def read(name: str, folder: Path = FOLDER) -> list[bytes]:
    """The inputs of a target; none where there is no file yet."""
    path = path_of(name, folder)
    return [bytes.fromhex(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(name: str, inputs: Iterable[bytes], folder: Path = FOLDER) -> None:
    """Keep these inputs, and no others."""
    lines = sorted({octets.hex() for octets in inputs if octets}, key=lambda line: (len(line), line))
    path_of(name, folder).write_text("".join(f"{line}\n" for line in lines))


def unpack(name: str, folder: Path) -> None:
    """The seeds and kept inputs of a target as files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for octets in [*targets.load(name).SEEDS, *read(name)]:
        (folder / hashlib.sha1(octets).hexdigest()).write_bytes(octets)


def pack(name: str, folder: Path, largest: int) -> None:
    """Keep what is in a folder; inputs over `largest` octets are not worth their place."""
    inputs = (path.read_bytes() for path in folder.iterdir())
    write(name, (octets for octets in inputs if len(octets) <= largest))


def write_dictionary(name: str, path: Path) -> None:
    """The words of a target, as libFuzzer reads them."""
    words = ("".join(f"\\x{octet:02x}" for octet in word) for word in targets.load(name).WORDS)
    path.write_text("".join(f'"{word}"\n' for word in words))
