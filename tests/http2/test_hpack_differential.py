"""HPACK against PyPI's hpack, both directions: random fields, blocks, table sizes that change in between, damage."""

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pygw.http2.recording_hpack import INDEXED, NEVER_INDEXED, RecordingDecoder, RecordingEncoder

LIST_SIZE, FIELDS = 10**6, 10**4

# Few names and values, so that they repeat and tables matter; and any other.
names = st.sampled_from([b":method", b":path", b"content-type", b"x-a", b"x-b", b"cookie"]) | st.binary(
    min_size=1, max_size=30
)
values = st.sampled_from([b"", b"POST", b"/", b"1", b"application/grpc", b"v" * 150]) | st.binary(max_size=120)
fields = st.lists(st.tuples(names, values), max_size=10)
# SETTINGS_HEADER_TABLE_SIZE as it changes before a block.
table_sizes = st.lists(st.sampled_from([0, 31, 64, 150, 1000, 4096]) | st.integers(0, 8192), max_size=3)
rounds = st.lists(st.tuples(table_sizes, fields), max_size=10)


def pairs(decoded):
    assert decoded.error is None
    return [(field.name, field.value) for field in decoded.fields]


def new_reference_decoder():
    return hpack.Decoder(max_header_list_size=LIST_SIZE)


@given(rounds, st.sampled_from([0, 200, 4096, 10**5]), st.booleans())
def test_our_encoder_to_their_decoder(rounds, own_size, index):
    encoder, decoder = RecordingEncoder(own_size), new_reference_decoder()
    for sizes, section in rounds:
        for size in sizes:
            encoder.set_peer_table_size(size)
            decoder.max_allowed_table_size = size
        assert decoder.decode(encoder.encode_block(section, index=index), raw=True) == section
        assert decoder.header_table._current_size == encoder.table_size


@given(rounds, st.booleans())
def test_their_encoder_to_our_decoder(rounds, huffman):
    encoder, decoder = hpack.Encoder(), RecordingDecoder(8192, LIST_SIZE, FIELDS)
    for sizes, section in rounds:
        for size in sizes:
            # Told the same size twice, theirs forgets that it has to say it.
            if size != encoder.header_table_size:
                encoder.header_table_size = size
        never = [len(value) % 3 == 0 for _, value in section]
        block = encoder.encode([(*pair, secret) for pair, secret in zip(section, never, strict=True)], huffman=huffman)
        decoded = decoder.decode_block(block)
        assert pairs(decoded) == section
        entries = [(field.name, field.value) for field in decoder.table_entries()]
        assert entries == list(encoder.header_table.dynamic_entries)
        for field, secret in zip(decoded.fields, never, strict=True):
            # A field that a table holds goes by index in their encoder, whatever it is.
            assert bool(field.flags & NEVER_INDEXED) == (secret and not field.flags & INDEXED)


@given(rounds, st.lists(st.integers(0, 1), max_size=10))
def test_two_clients_relayed_over_one_upstream_connection(rounds, who):
    clients = [(hpack.Encoder(), RecordingDecoder(8192, LIST_SIZE, FIELDS)) for _ in range(2)]
    upstream, backend = RecordingEncoder(4096), new_reference_decoder()
    for number, (sizes, section) in enumerate(rounds):
        for size in sizes:
            upstream.set_peer_table_size(size)
            backend.max_allowed_table_size = size
        sender, decoder = clients[who[number] if number < len(who) else 0]
        # Twice, as only what a client repeats is indexed.
        for _ in range(2):
            assert pairs(decoder.decode_block(sender.encode(section))) == section
            assert backend.decode(upstream.relay_block(decoder), raw=True) == section


def their_verdict(decoder, block):
    try:
        return decoder.decode(block, raw=True)
    except (hpack.HPACKError, IndexError) as error:
        return str(error)


def compare(ours, theirs, block):
    """Decodes a block both ways. False: both refused, or only we did, and the reason says by which rule."""
    decoded = ours.decode_block(block)
    verdict = their_verdict(theirs, block)
    if isinstance(verdict, str):
        if decoded.result == "decoded":
            # Theirs takes four octets behind an integer's prefix, ours five.
            assert "integer representation is too long" in verdict
        return False
    if decoded.result == "error":
        pytest.fail(f"refused only by us: {decoded.error}: {block.hex()}")
    assert pairs(decoded) == verdict
    return True


# Fields by index, most of a small table, at the start of most blocks: what repeats may mean something else now.
by_index = st.sampled_from([b"\x82", b"\x87", b"\xbe", b"\xbf", b"\xc0"])
added = st.builds(lambda n: bytes([0x40, 1, 97 + n % 3]) + bytes([1, 97 + n]), st.integers(0, 25))
sizes = st.sampled_from([b"\x20", b"\x3f\x03", b"\x3f\xe1\x1f"])
runs = st.builds(
    lambda size, run, rest: size + b"".join([*run, *rest]),
    st.sampled_from([b""] * 5) | sizes, st.sampled_from([[b"\x82"], [b"\x82", b"\xbe"], [b"\xbe"], [b"\xbf", b"\xbe"]]),
    st.lists(added | by_index, max_size=2),
)  # fmt: skip


@given(st.lists(added, min_size=2, max_size=4), st.lists(runs, max_size=8))
def test_what_repeats_means_what_the_table_says(first, blocks):
    decoder, reference = RecordingDecoder(4096, LIST_SIZE, FIELDS), new_reference_decoder()
    assert pairs(decoder.decode_block(b"".join(first))) == reference.decode(b"".join(first), raw=True)
    for block in blocks:
        decoded = decoder.decode_block(block)
        try:
            expected = reference.decode(block, raw=True)
        except hpack.HPACKError:
            assert decoded.error is not None
            return
        assert pairs(decoded) == expected


@settings(max_examples=500)
@given(st.lists(st.binary(max_size=50), max_size=4))
def test_any_octets_are_judged_alike(blocks):
    ours, theirs = RecordingDecoder(4096, LIST_SIZE, FIELDS), new_reference_decoder()
    for block in blocks:
        if not compare(ours, theirs, block):
            return


@settings(max_examples=500)
@given(st.lists(fields, min_size=1, max_size=3), st.data())
def test_damaged_blocks_are_judged_alike(sections, data):
    encoder, ours, theirs = hpack.Encoder(), RecordingDecoder(4096, LIST_SIZE, FIELDS), new_reference_decoder()
    for section in sections:
        block = bytearray(encoder.encode(section, huffman=data.draw(st.booleans())))
        for _ in range(data.draw(st.integers(0, 2))):
            if block:
                block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
        if not compare(ours, theirs, bytes(block[: data.draw(st.integers(0, len(block)))])):
            return


def test_a_block_cut_at_every_octet_is_judged_alike():
    section = [(b":method", b"POST"), (b"x-a", bytes(range(256))), (b"cookie", b"k=v" * 60), (b"x-a", b"1")]
    for huffman in (True, False):
        block = hpack.Encoder().encode(section, huffman=huffman)
        for length in range(len(block) + 1):
            compare(RecordingDecoder(4096, LIST_SIZE, FIELDS), new_reference_decoder(), block[:length])
