"""gRPC's own octets, against the grammar of PROTOCOL-HTTP2.md and plain Python."""

import re
import struct
from fractions import Fraction
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygw.proxy.grpc_wire import (
    follow_messages,
    format_grpc_timeout,
    parse_grpc_timeout,
    percent_encode_message,
)

MICROSECONDS = {
    b"H": 3_600_000_000, b"M": 60_000_000, b"S": 1_000_000, b"m": 1000, b"u": 1, b"n": Fraction(1, 1000),
}

# ===== grpc-timeout =====


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        (b"1S", 1_000_000),
        (b"100m", 100_000),
        (b"0S", 0),
        (b"00000001u", 1),
        (b"1n", 1),
        (b"999n", 1),
        (b"1000n", 1),
        (b"1001n", 2),
        (b"0n", 0),
        (b"99999999H", 99999999 * 3_600_000_000),
        (b"99999999M", 99999999 * 60_000_000),
    ],
)
def test_timeouts(text, microseconds):
    assert parse_grpc_timeout(text) == microseconds


@pytest.mark.parametrize(
    "text",
    [
        b"", b"1", b"S", b"1s", b"1h", b"1U", b"1N", b" 1S", b"1S ", b"1 S", b"-1S", b"+1S", b"1.5S", b"0x1S",
        b"123456789S", b"1234567890", b"1SS", b"\xb21S", b"1S\0", b"1" * 100, b":S", b"/S",
    ],
)
def test_malformed_timeouts(text):
    assert parse_grpc_timeout(text) == -1


@given(st.one_of(st.binary(max_size=12), st.from_regex(rb"[0-9]{0,10}[HMSmunx]?", fullmatch=True)))
def test_timeouts_are_read_by_the_grammar(text):
    match = re.fullmatch(rb"([0-9]{1,8})([HMSmun])", text)
    expected = -1 if match is None else -(-int(match[1]) * MICROSECONDS[match[2]] // 1)
    assert parse_grpc_timeout(text) == expected


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (1, b"1u"),
        (99_999_999, b"99999999u"),
        (100_000_000, b"100000m"),
        (100_000_999, b"100000m"),
        (99_999_999_999, b"99999999m"),
        (100_000_000_000, b"100000S"),
        (2**63 - 1, b"99999999H"),
        (0, b"1n"),
        (-1, b"1n"),
        (-(2**63), b"1n"),
    ],
)
def test_timeouts_as_written(microseconds, text):
    assert format_grpc_timeout(microseconds) == text


@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 63).map(lambda bits: (1 << bits) - 1)))
def test_what_is_written_reads_as_no_more_and_hardly_less(microseconds):
    text = format_grpc_timeout(microseconds)
    assert re.fullmatch(rb"[0-9]{1,8}[HMSmun]", text)
    if microseconds <= 0:
        return
    again = parse_grpc_timeout(text)
    assert 0 < again <= microseconds
    if microseconds < 99_999_999 * 3_600_000_000:
        # The unit is chosen so that less than a part in 10,000 is lost.
        assert microseconds - again <= microseconds / 10_000


# ===== grpc-message =====


@given(st.binary(max_size=300))
def test_messages_decode_to_what_they_were(text):
    encoded = percent_encode_message(text)
    assert unquote_to_bytes(encoded) == text
    assert re.fullmatch(rb"([\x20-\x24\x26-\x7e]|%[0-9A-F]{2})*", encoded)
    assert encoded == encoded.strip(b" ")


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        (b"", b""),
        (b"no rule matches", b"no rule matches"),
        (b"100%", b"100%25"),
        (b"a\r\nb\0", b"a%0D%0Ab%00"),
        ("é".encode(), b"%C3%A9"),
        (b"\x7f~ ", b"%7F~%20"),
        (b"  two words ", b"%20 two words%20"),
        (b" ", b"%20"),
        (b"%41", b"%2541"),
    ],
)
def test_messages(text, encoded):
    assert percent_encode_message(text) == encoded


def test_every_octet():
    for octet in range(256):
        plain = 0x20 < octet <= 0x7E and octet != 0x25
        assert percent_encode_message(bytes([octet])) == (bytes([octet]) if plain else b"%%%02X" % octet)


# ===== message prefixes =====


def message(length: int, compressed: int = 0) -> bytes:
    return struct.pack("!BI", compressed, length) + bytes(length)


MESSAGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1)), max_size=6)


@given(MESSAGES, st.data())
def test_messages_are_counted_wherever_they_are_cut(messages, data):
    octets = b"".join(message(length, compressed) for length, compressed in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    chunks = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    assert follow_messages(chunks) == (len(messages), True)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4))
def test_every_beginning(lengths):
    octets = b"".join(map(message, lengths))
    ends, end = [0], 0
    for length in lengths:
        end += 5 + length
        ends.append(end)
    for cut in range(len(octets) + 1):
        whole = sum(end <= cut for end in ends) - 1
        assert follow_messages([octets[:cut]]) == (whole, cut in ends)
        assert follow_messages([octets[i : i + 1] for i in range(cut)]) == (whole, cut in ends)


def test_nothing():
    assert follow_messages([]) == (0, True)
    assert follow_messages([b"", b""]) == (0, True)


def test_lengths_use_all_32_bits():
    prefix = b"\0\xff\xff\xff\xff"
    assert follow_messages([prefix]) == (0, False)
    assert follow_messages([prefix, bytes(1 << 20)]) == (0, False)
    assert follow_messages([b"\0\0\x10\0\0", bytes((1 << 20) - 1)]) == (0, False)
    assert follow_messages([b"\0\0\x10\0\0", bytes(1 << 20)]) == (1, True)


def test_many_empty_messages():
    assert follow_messages([message(0) * 100_000]) == (100_000, True)
    assert follow_messages([message(0) * 1000 + b"\0"]) == (1000, False)
