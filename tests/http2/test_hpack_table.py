"""The static table, tokens, hashes, and which octets names and values may hold (RFC 7541 App. A, RFC 9113 §8.2.1)."""

import re
from pathlib import Path

import pytest
from hpack.table import HeaderTable
from hypothesis import assume, given
from hypothesis import strategies as st

from pygw.http2.recording_hpack import (
    BAD_NAME,
    BAD_VALUE,
    INDEXED,
    classify,
    hash_field,
    static_table,
    token_of,
)

# The enumeration of field.pxd, in its order.
TOKENS = re.findall(r"^    (TOKEN_\w+)", (Path(__file__).parents[2] / "pygw" / "field.pxd").read_text(), re.MULTILINE)
# Tokens whose spelling is not the name of the token.
SPELLINGS = {
    "TOKEN_AUTHORITY": b":authority",
    "TOKEN_METHOD": b":method",
    "TOKEN_PATH": b":path",
    "TOKEN_SCHEME": b":scheme",
    "TOKEN_STATUS": b":status",
    "TOKEN_PROTOCOL": b":protocol",
    "TOKEN_UNKNOWN_PSEUDO": b":other",
    "TOKEN_OTHER": b"x-other",
}
OTHER, UNKNOWN_PSEUDO = TOKENS.index("TOKEN_OTHER"), TOKENS.index("TOKEN_UNKNOWN_PSEUDO")
TOKEN_OCTETS = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"


def spelling(token: str) -> bytes:
    return SPELLINGS.get(token, token.removeprefix("TOKEN_").lower().replace("_", "-").encode())


def test_the_static_table_is_that_of_another_implementation():
    table = static_table()
    assert [(field.name, field.value) for field in table] == list(HeaderTable.STATIC_TABLE)
    assert [field.static_index for field in table] == list(range(1, 62))
    for field in table:
        assert field.flags == INDEXED
        assert field.token == token_of(field.name)
        assert field.hash == hash_field(field.name, field.value)
        assert not field.has_memo


@pytest.mark.parametrize(("number", "token"), list(enumerate(TOKENS)))
def test_every_token_has_its_name(number, token):
    assert token_of(spelling(token)) == number


def test_tokens_are_found_by_the_whole_name_only():
    for token in TOKENS:
        name = spelling(token)
        for other in (name + b"x", b"x" + name, name[:-1], name.upper(), name[1:], name.replace(b"-", b"_") + b"_"):
            expected = UNKNOWN_PSEUDO if other.startswith(b":") else OTHER
            if other not in map(spelling, TOKENS):
                assert token_of(other) == expected, other
    assert token_of(b"") == OTHER
    assert token_of(b":") == UNKNOWN_PSEUDO


@given(st.binary(max_size=40))
def test_any_other_name_has_no_token(name):
    assume(name not in map(spelling, TOKENS))
    assert token_of(name) == (UNKNOWN_PSEUDO if name.startswith(b":") else OTHER)


def expected_flags(name: bytes, value: bytes) -> int:
    tail = name.removeprefix(b":")
    good_name = bool(tail) and all(octet in TOKEN_OCTETS for octet in tail)
    good_value = not any(octet in value for octet in b"\0\r\n") and value.strip(b" \t") == value
    return (0 if good_name else BAD_NAME) | (0 if good_value else BAD_VALUE)


@pytest.mark.parametrize("octet", range(256))
def test_every_octet_in_every_place(octet):
    one = bytes([octet])
    for name in (one, one + b"a", b"a" + one, b"abcdefghi" + one + b"j", b":" + one, b":a" + one):
        assert classify(name, b"v") == expected_flags(name, b"v"), name
    # Eight octets are looked at as one word, so each place in a word and behind the last one counts.
    for before in range(18):
        for after in range(10):
            value = b"v" * before + one + b"v" * after
            assert classify(b"n", value) == expected_flags(b"n", value), value


@given(st.binary(max_size=12), st.binary(max_size=40))
def test_any_name_and_value(name, value):
    assert classify(name, value) == expected_flags(name, value)


def test_what_is_good_and_what_is_not():
    assert classify(b"x-tenant-id", b"acme corp") == 0
    assert classify(b":path", b"") == 0
    assert classify(b"", b"v") == BAD_NAME
    assert classify(b":", b"v") == BAD_NAME
    assert classify(b"::path", b"v") == BAD_NAME
    assert classify(b"X", b" v") == BAD_NAME | BAD_VALUE


def test_the_hash_tells_where_the_name_ends():
    pairs = [(b"ab", b"c"), (b"a", b"bc"), (b"abc", b""), (b"", b"abc"), (b"abcdefgh", b""), (b"abcdefg", b"h")]
    pairs += [(b"x" * length, b"x" * (40 - length)) for length in range(41)]
    assert len({hash_field(*pair) for pair in pairs}) == len(pairs)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_the_hash_depends_on_the_octets_alone_and_is_never_0(name, value):
    assert hash_field(name, value) == hash_field(bytes(bytearray(name)), bytes(bytearray(value)))
    assert 0 < hash_field(name, value) < 2**32


def test_the_hash_spreads():
    hashes = {hash_field(b"grpc-timeout", b"%du" % number) for number in range(20000)}
    assert len(hashes) > 19990
    assert len({value & 127 for value in list(hashes)[:2000]}) == 128
