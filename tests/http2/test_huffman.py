"""Huffman-coded strings (RFC 7541 §5.2, Appendix B): the code, both directions, and every rule of the padding."""

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import example, given
from hypothesis import strategies as st

from pygw.http2.huffman_code import CODE_LENGTHS, EOS, LONGEST_CODE, code_table
from pygw.http2.recording_hpack import huffman_decode, huffman_encode

CODES = {symbol: (code, length) for symbol, code, length in code_table()}
SYMBOLS = {code: symbol for symbol, code in CODES.items()}

# From RFC 7541 Appendix C.
EXAMPLES = [
    (b"www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
    (b"no-cache", "a8eb10649cbf"),
    (b"custom-key", "25a849e95ba97d7f"),
    (b"custom-value", "25a849e95bb8e8b4bf"),
    (b"302", "6402"),
    (b"307", "640eff"),
    (b"private", "aec3771a4b"),
    (b"Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
    (b"https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"),
    (b"gzip", "9bd9ab"),
]


def bits_of(octets: bytes) -> str:
    return "".join(f"{octet:08b}" for octet in octets)


def octets_of(bits: str) -> bytes:
    assert len(bits) % 8 == 0
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def code_bits(symbol: int) -> str:
    code, length = CODES[symbol]
    return f"{code:0{length}b}"


def decode_slowly(octets: bytes) -> bytes | None:
    """RFC 7541 §5.2, bit by bit; None where it refuses."""
    decoded = []
    code = length = 0
    for bit in bits_of(octets):
        code, length = code << 1 | int(bit), length + 1
        symbol = SYMBOLS.get((code, length))
        if symbol == EOS:
            return None
        if symbol is not None:
            decoded.append(symbol)
            code = length = 0
    return bytes(decoded) if length < 8 and code == (1 << length) - 1 else None


def padded(bits: str) -> bytes:
    return octets_of(bits + "1" * (-len(bits) % 8))


def test_the_code_is_that_of_another_implementation():
    assert [CODES[symbol][0] for symbol in range(257)] == list(REQUEST_CODES)
    assert list(CODE_LENGTHS) == list(REQUEST_CODES_LENGTH)
    assert CODES[EOS] == (0x3FFFFFFF, LONGEST_CODE)


def test_the_code_is_complete_and_without_common_prefixes():
    # Kraft's equality: neither is a bit string left over nor one used twice.
    assert sum(2 ** (LONGEST_CODE - length) for _, _, length in code_table()) == 2**LONGEST_CODE
    aligned = [code << (LONGEST_CODE - length) for _, code, length in code_table()]
    assert aligned == sorted(set(aligned))


@pytest.mark.parametrize(("text", "wire"), EXAMPLES)
def test_examples_of_the_rfc(text, wire):
    assert huffman_encode(text).hex() == wire
    assert huffman_decode(bytes.fromhex(wire)) == text


@pytest.mark.parametrize("octet", range(256))
def test_every_octet_alone_and_among_others(octet):
    for text in (bytes([octet]), b"a" + bytes([octet]), bytes([octet]) * 9, b"abc" + bytes([octet]) * 3 + b"xyz!"):
        assert huffman_encode(text) == padded("".join(map(code_bits, text)))
        assert huffman_decode(huffman_encode(text)) == text


@given(st.binary(max_size=300))
def test_encoding_is_that_of_another_implementation_and_decodes_again(text):
    wire = huffman_encode(text)
    assert wire == HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)
    assert huffman_decode(wire) == text


def check_against_the_slow_decoder(octets: bytes) -> None:
    expected = decode_slowly(octets)
    if expected is None:
        with pytest.raises(ValueError, match="Huffman"):
            huffman_decode(octets)
    else:
        assert huffman_decode(octets) == expected


@given(st.binary(max_size=40))
@example(b"\xff" * 3)
@example(b"\xff" * 4)
@example(b"\xff" * 20)
def test_any_octets_decode_as_bit_by_bit(octets):
    check_against_the_slow_decoder(octets)


@given(st.text(alphabet="01", max_size=200), st.integers(0, 40))
def test_any_bits_after_common_text_decode_as_bit_by_bit(bits, before):
    bits = code_bits(ord("e")) * before + bits
    check_against_the_slow_decoder(octets_of(bits + "1" * (-len(bits) % 8)))


def test_all_strings_of_two_octets():
    for high in range(256):
        for low in range(256):
            check_against_the_slow_decoder(bytes([high, low]))


# "a" is 00011, "0" is 00000, "&" is 11111000: the padding that may follow them, and what may not.
@pytest.mark.parametrize(
    ("bits", "decoded"),
    [
        pytest.param("", b"", id="empty"),
        pytest.param("00011" + "111", b"a", id="padding"),
        pytest.param("00011" * 8, b"a" * 8, id="no padding needed"),
        pytest.param("11111000", b"&", id="a code that begins as padding does"),
        pytest.param("00011" + "000", None, id="padding of zeros"),
        pytest.param("00011" + "110", None, id="padding with one zero"),
        pytest.param("00011" + "1" * 11, None, id="padding of 11 bits"),
        pytest.param("00011" * 8 + "1" * 8, None, id="an octet of padding too many"),
        pytest.param("1" * 8, None, id="nothing but an octet of padding"),
        pytest.param("1" * 24, None, id="nothing but three octets of padding"),
        pytest.param("1" * 30 + "11", None, id="EOS"),
        pytest.param("00011" + "1" * 30 + "00000", None, id="EOS amid text"),
        pytest.param("00011" * 20 + "1" * 30 + "00011" * 20 + "11", None, id="EOS amid long text"),
        pytest.param("1" * 15 + "0", None, id="a long code cut short"),
    ],
)
def test_padding(bits, decoded):
    octets = octets_of(bits)
    assert decode_slowly(octets) == decoded
    check_against_the_slow_decoder(octets)


def test_a_text_cut_at_every_octet():
    text = bytes(range(256)) + b"/pkg.Service/Method" * 4
    wire = huffman_encode(text)
    for length in range(len(wire)):
        check_against_the_slow_decoder(wire[:length])
