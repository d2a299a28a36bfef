"""The HPACK decoder: RFC 7541 Appendix C to the octet, every refusal, its limits, and how long fields live."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygw.http2.recording_hpack import (
    ADDED,
    BAD_NAME,
    BAD_VALUE,
    INDEXED,
    NEVER_INDEXED,
    RecordingDecoder,
    RecordingEncoder,
    hash_field,
    token_of,
)
from tests.doubles.frames import integer

APPENDIX_C = json.loads((Path(__file__).parents[1] / "data" / "hpack" / "rfc7541_appendix_c.json").read_text())
MAX_LIST_SIZE, MAX_FIELDS = 16384, 100


def new_decoder(table_size=4096, max_list_size=MAX_LIST_SIZE, max_fields=MAX_FIELDS):
    return RecordingDecoder(table_size, max_list_size, max_fields)


def string(text: bytes) -> bytes:
    return integer(len(text), 7, 0) + text


def literal(name: bytes | int, value: bytes, kind: str = "added") -> bytes:
    """A literal field of RFC 7541 §6.2; an int names the index of the name."""
    first, prefix_bits = {"added": (0x40, 6), "plain": (0x00, 4), "never": (0x10, 4)}[kind]
    if isinstance(name, int):
        return integer(name, prefix_bits, first) + string(value)
    return bytes([first]) + string(name) + string(value)


def index(number: int) -> bytes:
    return integer(number, 7, 0x80)


def table_size_update(size: int) -> bytes:
    return integer(size, 5, 0x20)


def pairs(fields):
    return [(field.name, field.value) for field in fields]


def decode(decoder, block):
    """The pairs of a block that must decode."""
    decoded = decoder.decode_block(block)
    assert (decoded.result, decoded.error) == ("decoded", None)
    return pairs(decoded.fields)


# ===== RFC 7541 Appendix C =====


def appendix_decoder(example):
    decoder = new_decoder()
    if "max_size" in example:
        assert decode(decoder, table_size_update(example["max_size"])) == []
    return decoder


def octet_pairs(fields):
    return [(name.encode(), value.encode()) for name, value in fields]


@pytest.mark.parametrize("example", APPENDIX_C, ids=lambda example: example["section"])
def test_appendix_c(example):
    decoder = appendix_decoder(example)
    for block in example["blocks"]:
        assert decode(decoder, bytes.fromhex(block["wire"])) == octet_pairs(block["fields"])
        assert pairs(decoder.table_entries()) == octet_pairs(block["table"])
        assert decoder.table_size == block["table_size"]


@pytest.mark.parametrize("example", APPENDIX_C, ids=lambda example: example["section"])
def test_appendix_c_cut_and_corrupted_at_every_octet(example):
    before = []
    for block in example["blocks"]:
        wire = bytes.fromhex(block["wire"])
        damaged = [wire[:length] for length in range(len(wire))]
        for place in range(len(wire)):
            damaged += [wire[:place] + bytes([octet]) + wire[place + 1 :] for octet in (0, 0x20, 0x7F, 0x80, 0xFF)]
            damaged += [wire[:place] + bytes([wire[place] ^ 1 << bit]) + wire[place + 1 :] for bit in range(8)]
        for octets in damaged:
            decoder = appendix_decoder(example)
            for earlier in before:
                decoder.decode_block(earlier)
            decoded = decoder.decode_block(octets)
            if len(octets) < len(wire):
                whole = octet_pairs(block["fields"])
                assert decoded.result == "error" or pairs(decoded.fields) == whole[: len(decoded.fields)] != whole
            assert decoded.result in ("decoded", "error")
            assert (decoded.error is None) == (decoded.result == "decoded")
        before.append(wire)


# ===== what a field is =====


def test_a_field_says_how_it_came():
    decoder = new_decoder()
    block = literal(b"x-a", b"1") + literal(b"x-b", b"2", "plain") + literal(b"x-c", b"3", "never") + index(2)
    added, plain, never, static = decoder.decode_block(block + index(62)).fields[:4]
    assert (added.flags, added.has_memo) == (ADDED, True)
    assert (plain.flags, plain.has_memo, plain.hash) == (0, False, 0)
    assert (never.flags, never.has_memo) == (NEVER_INDEXED, False)
    assert (static.flags, static.static_index, static.has_memo) == (INDEXED, 2, False)
    (indexed,) = decoder.decode_block(index(62)).fields
    assert (indexed.flags, indexed.has_memo, indexed.static_index) == (INDEXED, True, 0)
    assert indexed.hash == added.hash == hash_field(b"x-a", b"1")


@pytest.mark.parametrize("kind", ["added", "plain", "never"])
@pytest.mark.parametrize(
    ("name", "value", "flags"),
    [
        (b"good", b"value", 0),
        (b"Bad", b"value", BAD_NAME),
        (b"", b"", BAD_NAME),
        (b"good", b" value", BAD_VALUE),
        (b"good", b"va\r\nlue", BAD_VALUE),
        (b"b\0d", b"\0", BAD_NAME | BAD_VALUE),
    ],
)
def test_octets_are_judged_once_and_the_judgement_stays(kind, name, value, flags):
    decoder = new_decoder()
    (field,) = decoder.decode_block(literal(name, value, kind)).fields
    assert field.flags & (BAD_NAME | BAD_VALUE) == flags
    if kind == "added":
        # A reference to the entry, and a literal with its name, are as bad.
        by_index, by_name = decoder.decode_block(index(62) + literal(62, b"other", "plain")).fields
        assert by_index.flags & (BAD_NAME | BAD_VALUE) == flags
        assert by_name.flags & (BAD_NAME | BAD_VALUE) == flags & BAD_NAME


def test_tokens_are_found_in_literals_entries_and_names_by_index():
    decoder = new_decoder()
    block = literal(b"grpc-timeout", b"1S") + literal(62, b"2S", "plain") + index(62) + literal(31, b"x") + index(31)
    timeout, content_type = token_of(b"grpc-timeout"), token_of(b"content-type")
    tokens = [field.token for field in decoder.decode_block(block).fields]
    assert tokens == [timeout, timeout, timeout, content_type, content_type]
    assert decoder.decode_block(literal(b":weird", b"")).fields[0].token == token_of(b":anything")


def test_an_entry_that_equals_a_static_one_knows_it():
    decoder = new_decoder()
    (added,) = decoder.decode_block(literal(b":method", b"POST")).fields
    (indexed,) = decoder.decode_block(index(62)).fields
    assert added.static_index == indexed.static_index == 3


def test_the_list_size_counts_32_octets_a_field():
    decoder = new_decoder()
    assert decoder.decode_block(index(2) + literal(b"ab", b"cde", "plain")).list_size == 7 + 3 + 32 + 5 + 32
    assert decoder.decode_block(b"").list_size == 0


# ===== what is refused (COMPRESSION_ERROR) =====

REFUSED = {
    "index 0": (b"\x80", "2.3.3"),
    "index beyond the static table": (index(62), "2.3.3"),
    "index far beyond": (index(2**32 - 1), "2.3.3"),
    "index of one entry too many": (literal(b"a", b"b") + index(63), "2.3.3"),
    "name by an index beyond": (literal(62, b"v"), "2.3.3"),
    "name by an index beyond, plain": (literal(99, b"v", "plain"), "2.3.3"),
    "integer cut short": (b"\xff", "5.1"),
    "integer cut short behind two octets": (b"\xff\x80\x80", "5.1"),
    "integer over 32 bits": (b"\xff\xff\xff\xff\xff\x1f", "5.1"),
    "integer of six octets": (b"\xff\x80\x80\x80\x80\x80\x00", "5.1"),
    "integer without end": (b"\xff" + b"\x80" * 100, "5.1"),
    "length over 32 bits": (b"\x00\x7f\xff\xff\xff\xff\x7f", "5.1"),
    "length over 32 bits, Huffman": (b"\x00\xff\xff\xff\xff\xff\x7f", "5.1"),
    "nothing behind a literal's first octet": (b"\x40", "6.2"),
    "no value": (b"\x40\x01a", "6.2"),
    "name longer than the block": (b"\x40\x05abcd", "5.2"),
    "value longer than the block": (b"\x40\x01a\x03bc", "5.2"),
    "value of nearly 4 GiB": (b"\x40\x01a\x7f\x80\xff\xff\xff\x0f", "5.2"),
    "Huffman padding with a zero": (b"\x40\x81\x18\x00", "5.2"),
    "Huffman padding of an octet": (b"\x40\x82\x1f\xff\x00", "5.2"),
    "EOS in a value": (b"\x40\x01a\x84\xff\xff\xff\xff", "5.2"),
    "size update behind a field": (b"\x82" + table_size_update(0), "4.2"),
    "size update behind a literal": (literal(b"a", b"b") + table_size_update(100), "4.2"),
    "size update over the setting": (table_size_update(4097), "6.3"),
    "size update over 32 bits": (b"\x3f\xff\xff\xff\xff\x7f", "5.1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    block, section = REFUSED[name]
    for before in (b"", index(2), literal(b"x", b"y", "plain")):
        if b"\x20" <= block[:1] < b"\x40" and before:
            continue
        decoded = new_decoder().decode_block(before + block)
        assert (decoded.result, decoded.fields) == ("error", [])
        assert decoded.error is not None
        assert f"RFC 7541 {section}" in decoded.error


def test_integers_may_have_zeros_in_front_within_the_limit():
    assert decode(new_decoder(), b"\x0f\x90\x80\x80\x00\x01a") == [(b"content-type", b"a")]


def test_integers_of_the_rfc():
    decoder = new_decoder()
    assert decode(decoder, bytes.fromhex("3f9a0a")) == []     # C.1.2: 1337 with a prefix of 5 bits
    assert decoder.table_max_size == 1337


# ===== table size (§4.2, §6.3) =====


def test_size_updates_evict_and_the_last_one_counts():
    decoder = new_decoder()
    decode(decoder, literal(b"a", b"1") + literal(b"b", b"2") + literal(b"c", b"3"))
    assert decode(decoder, table_size_update(34 * 2) + index(62)) == [(b"c", b"3")]
    assert pairs(decoder.table_entries()) == [(b"c", b"3"), (b"b", b"2")]
    decode(decoder, table_size_update(0) + table_size_update(4096))
    assert (decoder.table_size, decoder.table_max_size, decoder.table_entries()) == (0, 4096, [])


def test_the_table_is_4096_until_settings_and_an_update_say_otherwise():
    decoder = new_decoder(table_size=65536)
    assert decoder.table_max_size == 4096
    decode(decoder, table_size_update(65536))
    assert decoder.table_max_size == 65536
    assert new_decoder(table_size=100).table_max_size == 4096


@pytest.mark.parametrize("block", [b"", index(2), table_size_update(101) + index(2), table_size_update(4096)])
def test_an_update_is_required_once_a_reduction_is_acknowledged(block):
    decoder = new_decoder(table_size=100)
    assert decoder.decode_block(block).result == "decoded"
    decoder.acknowledge_table_size(100)
    decoded = decoder.decode_block(block)
    assert decoded.result == "error"
    assert decoded.error is not None


def test_a_conformant_update_answers_a_reduction():
    decoder = new_decoder()
    decoder.acknowledge_table_size(100)
    decode(decoder, table_size_update(60) + index(2))
    decode(decoder, index(2))
    decode(decoder, table_size_update(100))
    assert decoder.decode_block(table_size_update(101)).result == "error"


def test_the_smallest_of_several_reductions_must_be_answered():
    for first, result in ((0, "decoded"), (50, "decoded"), (51, "error"), (4096, "error")):
        decoder = new_decoder()
        decoder.acknowledge_table_size(50)
        decoder.acknowledge_table_size(4096)
        assert decoder.decode_block(table_size_update(first) + table_size_update(4096)).result == result


def test_no_update_is_required_where_the_table_is_small_enough_already():
    decoder = new_decoder()
    decode(decoder, table_size_update(50))
    decoder.acknowledge_table_size(100)
    assert decode(decoder, index(2)) == [(b":method", b"GET")]
    assert decoder.decode_block(table_size_update(101)).result == "error"


# ===== the dynamic table (§4.4) =====


def test_an_entry_larger_than_the_table_empties_it_and_is_still_a_field():
    decoder = new_decoder()
    decode(decoder, table_size_update(100) + literal(b"a", b"1"))
    decoded = decoder.decode_block(literal(b"large", b"x" * 100) + literal(b"b", b"2", "plain"))
    assert pairs(decoded.fields) == [(b"large", b"x" * 100), (b"b", b"2")]
    assert (decoded.fields[0].flags, decoded.fields[0].has_memo) == (ADDED, False)
    assert decoder.table_entries() == []


def test_an_entry_may_take_its_name_from_the_one_it_evicts():
    decoder = new_decoder()
    decode(decoder, table_size_update(70))
    for value in (b"1", b"2" * 20, b"3"):
        block = literal(b"x-name", value) if value == b"1" else literal(62, value)
        assert decode(decoder, block) == [(b"x-name", value)]
        assert pairs(decoder.table_entries())[0] == (b"x-name", value)


def test_fields_outlive_their_entries_until_the_next_block():
    decoder = new_decoder(max_fields=1000, max_list_size=10**6)
    decode(decoder, literal(b"x-old", b"v" * 200))
    # Evicts the referenced entry and then, many times over, everything else.
    block = index(62) + b"".join(literal(b"x-%d" % number, b"w" * 150) for number in range(200))
    expected = [(b"x-old", b"v" * 200)] + [(b"x-%d" % number, b"w" * 150) for number in range(200)]
    assert decode(decoder, block) == expected
    assert pairs(decoder.recorded_fields()) == expected
    # Also where the table is emptied behind their back, before the next block.
    decoder.acknowledge_table_size(0)
    assert pairs(decoder.recorded_fields()) == expected
    decode(decoder, table_size_update(0))
    assert decoder.recorded_fields() == []


def test_the_table_is_a_queue_over_many_rounds():
    decoder = new_decoder()
    model: list[tuple[bytes, bytes]] = []
    for number in range(3000):
        pair = (b"n%d" % (number % 7), b"v" * (number * 37 % 300))
        assert decode(decoder, literal(*pair)) == [pair]
        model.insert(0, pair)
        while sum(len(name) + len(value) + 32 for name, value in model) > 4096:
            model.pop()
    assert pairs(decoder.table_entries()) == model
    assert decode(decoder, b"".join(index(62 + i) for i in range(len(model)))) == model


# ===== memory =====


def test_a_connection_without_blocks_holds_no_memory():
    decoder = new_decoder()
    assert not decoder.holds_memory
    decode(decoder, b"")
    assert not decoder.holds_memory


def test_what_was_large_is_given_back_at_the_end_of_a_block():
    decoder = new_decoder(max_fields=10**6, max_list_size=10**8)
    decode(decoder, index(2) * 10000 + literal(b"a", b"b" * 10**6, "plain"))
    decoder.end_block()
    assert decoder.recorded_fields() == []
    assert not decoder.holds_memory


# ===== limits =====


def test_up_to_the_limits_all_is_kept():
    decoder = new_decoder(max_list_size=42 * 3, max_fields=3)
    assert decode(decoder, index(2) * 3) == [(b":method", b"GET")] * 3
    assert new_decoder(max_list_size=42 * 3 - 1, max_fields=3).decode_block(index(2) * 3).result == "too large"
    assert new_decoder(max_list_size=42 * 3, max_fields=2).decode_block(index(2) * 3).result == "too large"


@pytest.mark.parametrize("kind", ["added", "plain", "never"])
def test_over_a_limit_fields_are_dropped_but_the_table_stays_in_step(kind):
    decoder = new_decoder(max_fields=10)
    block = b"".join(literal(b"x-%d" % number, b"v", kind) for number in range(20)) + literal(b"last", b"v")
    decoded = decoder.decode_block(block)
    assert (decoded.result, decoded.fields, decoded.error) == ("too large", [], None)
    assert decoder.fields_seen == 21
    assert decode(decoder, index(62)) == [(b"last", b"v")]


def test_errors_are_found_behind_the_limit_too():
    assert new_decoder(max_fields=2).decode_block(index(2) * 5 + b"\x80").result == "error"


def test_list_sizes_over_32_bits_do_not_wrap():
    decoder = new_decoder(max_list_size=2**30 - 1, max_fields=2**32 - 1)
    decode(decoder, literal(b"x", b"v" * 4000))
    decoded = decoder.decode_block(index(62) * 1_500_000)
    assert decoded.result == "abuse"
    assert decoded.list_size == 2**32 - 1 or decoded.list_size > 4 * (2**30 - 1)


BOMBS = {
    # One octet for 4,000: the classic.
    "references to a large entry": (literal(b"x", b"v" * 4000), index(62)),
    # Next to nothing by RFC 9113 §6.5.2, so the number of fields must stop it.
    "references to a small entry": (literal(b"x", b""), index(62)),
    "references to an empty cookie": (b"", index(32)),
    "large names by index": (literal(b"x" * 4000, b""), literal(62, b"", "plain")),
    "large names by index, added": (literal(b"x" * 2000, b""), literal(62, b"")),
    "empty literals": (b"", literal(b"", b"", "plain")),
    "empty entries": (b"", literal(b"", b"")),
    "Huffman-coded literals": (b"", b"\x00\x01a\x85" + b"\x00" * 5),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_stops_at_four_times_the_limit(name):
    preparation, one = BOMBS[name]
    decoder = new_decoder()
    decoder.decode_block(preparation)
    decoded = decoder.decode_block(one * 100_000)
    assert decoded.result == "abuse"
    assert decoded.fields == []
    # What was looked at is bounded by the limits, whatever the length of the block.
    assert decoder.fields_seen <= 4 * MAX_FIELDS + 1
    assert decoded.list_size <= 4 * MAX_LIST_SIZE + 4096
    assert decoder.table_size <= 4096


def test_references_borrow_and_do_not_copy():
    decoder = new_decoder(max_fields=10**6, max_list_size=2**32 - 1)
    decode(decoder, literal(b"x", b"v" * 4000))
    decoder.end_block()
    before = decoder.scratch_octets
    assert len(decode(decoder, index(62) * 10000)) == 10000
    assert decoder.scratch_octets == before


def test_empty_updates_cost_nothing_but_their_octets():
    decoder = new_decoder()
    assert decode(decoder, table_size_update(0) * 10000 + table_size_update(4096)) == []


# ===== any octets =====


@given(st.lists(st.binary(max_size=60), max_size=5), st.integers(1, 6))
def test_any_octets_give_fields_or_an_error(blocks, max_fields):
    decoder = new_decoder(max_list_size=200, max_fields=max_fields)
    for block in blocks:
        decoded = decoder.decode_block(block)
        assert decoded.result in ("decoded", "too large", "error", "abuse")
        assert (decoded.error is None) == (decoded.result in ("decoded", "too large"))
        assert decoded.result == "decoded" or decoded.fields == []
        assert decoder.table_size <= decoder.table_max_size <= 4096


def test_what_our_encoder_writes_decodes_when_it_is_whole_and_only_then():
    fields = [(b":method", b"POST"), (b"grpc-timeout", b"1S"), (b"x-bin", bytes(range(256))), (b"a", b"b" * 300)]
    block = RecordingEncoder(4096).encode_block(fields, index=True)
    assert decode(new_decoder(), block) == fields
    for length in range(len(block)):
        decoded = new_decoder().decode_block(block[:length])
        assert decoded.result == "error" or pairs(decoded.fields) == fields[: len(decoded.fields)] != fields
