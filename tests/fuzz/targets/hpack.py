"""HPACK: blocks after blocks to one decoder, beside PyPI's `hpack`.

Both must judge alike and find the same fields; what was decoded is encoded, and must decode to the same again.
The first octet chooses the limit of the list; each block is an octet of length and its octets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import hpack

from pygw.http2.recording_hpack import RecordingDecoder, RecordingEncoder
from tests.doubles import frames

MAX_FIELDS = 50
LIST_SIZES = (100, 1000, 10**6)

_EXAMPLES = Path(__file__).parents[2] / "data" / "hpack" / "rfc7541_appendix_c.json"


def _packed(*blocks: bytes) -> bytes:
    return b"\x02" + b"".join(bytes([len(block)]) + block for block in blocks if len(block) < 256)


def _examples() -> Iterator[bytes]:
    """The blocks of RFC 7541 Appendix C, as one connection has them."""
    for section in json.loads(_EXAMPLES.read_text()):
        yield _packed(*(bytes.fromhex(block["wire"]) for block in section["blocks"]))


SEEDS = (
    *_examples(),
    _packed(frames.block(frames.REQUEST), frames.block(frames.TRAILERS)),
    _packed(hpack.Encoder().encode(frames.REQUEST), b"\xbe\xbf\xc0", b"\x20\x3f\xe1\x1f\x82"),
)
WORDS = (
    b"\x20", b"\x3f\xe1\x1f", b"\x3f\x80\x80\x80\x80\x00", b"\x40\x0a", b"\x10\x03", b"\xbe", b"\xff\x80\x01", b"\x82",
    b"\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", b"\xff\xff\xff\xff", b"cookie", b":path",
)  # fmt: skip


def check(data: bytes) -> None:
    """See the module."""
    if not data:
        return
    list_size = LIST_SIZES[data[0] % len(LIST_SIZES)]
    ours, theirs = RecordingDecoder(4096, list_size, MAX_FIELDS), hpack.Decoder(max_header_list_size=10**7)
    again, encoder = RecordingDecoder(4096, 10**7, MAX_FIELDS), RecordingEncoder(4096)
    for block in blocks(data[1:]):
        decoded = ours.decode_block(block)
        expected = their_fields(theirs, block)
        if isinstance(expected, str):
            # Theirs takes four octets behind an integer's prefix, ours five. What theirs refuses ends the story.
            assert decoded.result != "decoded" or "integer representation is too long" in expected, expected
            return
        size = sum(len(name) + len(value) + 32 for name, value in expected)
        assert decoded.result != "error", f"refused only by us: {decoded.error}"
        if size <= list_size and len(expected) <= MAX_FIELDS:
            assert decoded.result == "decoded"
        if decoded.result == "abuse":
            return
        assert ours.table_size == theirs.header_table._current_size
        entries = [(entry.name, entry.value) for entry in ours.table_entries()]
        assert entries == list(theirs.header_table.dynamic_entries)
        if decoded.result != "decoded":
            continue
        found = [(field.name, field.value) for field in decoded.fields]
        assert found == expected
        repeated = again.decode_block(encoder.relay_block(ours))
        assert [(field.name, field.value) for field in repeated.fields] == expected


def blocks(data: bytes) -> Iterator[bytes]:
    """The blocks of an input."""
    while data:
        yield data[1 : 1 + data[0]]
        data = data[1 + data[0] :]


def their_fields(theirs: hpack.Decoder, block: bytes) -> list[tuple[bytes, bytes]] | str:
    """What theirs makes of a block, or why it makes nothing of it."""
    try:
        return [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
    except (hpack.HPACKError, IndexError) as error:
        return str(error)
