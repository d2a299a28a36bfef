"""The HPACK encoder: RFC 7541 Appendix C to the octet, what it indexes and what never, sizes, memos."""

import json
from pathlib import Path

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygw.http2.recording_hpack import (
    ADDED,
    INDEXED,
    NEVER_INDEXED,
    RecordingDecoder,
    RecordingEncoder,
    hash_field,
)

APPENDIX_C = json.loads((Path(__file__).parents[1] / "data" / "hpack" / "rfc7541_appendix_c.json").read_text())
ADD, PLAIN, NEVER = 0x40, 0x00, 0x10

REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/pkg.Greeter/Hello"),
    (b":authority", b"grpc.example.com"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
    (b"user-agent", b"grpc-python/1.0"),
    (b"grpc-timeout", b"999m"),
]


def new_decoder():
    return RecordingDecoder(4096, 10**6, 10**4)


def decoded(decoder, block):
    result = decoder.decode_block(block)
    assert result.error is None
    return [(field.name, field.value) for field in result.fields]


def kind_of(block):
    """The first bits of a block's first octet: how its first field is represented."""
    return 0x80 if block[0] & 0x80 else ADD if block[0] & 0x40 else block[0] & 0xF0


# ===== RFC 7541 Appendix C =====


@pytest.mark.parametrize("section", ["C.4", "C.6"])
def test_appendix_c(section):
    (example,) = [example for example in APPENDIX_C if example["section"] == section]
    encoder = RecordingEncoder(4096)
    if "max_size" in example:
        encoder.set_peer_table_size(example["max_size"])
        assert encoder.encode_block([]) == bytes.fromhex("3fe101")
    for block in example["blocks"]:
        fields = [(name.encode(), value.encode()) for name, value in block["fields"]]
        assert encoder.encode_block(fields, index=True).hex() == block["wire"]
        assert encoder.table_size == block["table_size"]


def test_strings_are_huffman_coded_unless_that_is_longer():
    encoder = RecordingEncoder(4096)
    assert encoder.encode_block([(b"x", b"aaaaaaaa")]).hex() == "0081f3" + "85" + "18c6318c63"
    assert encoder.encode_block([(b"x", b"\x01\x02\x03")]).hex() == "0081f3" + "03010203"
    assert encoder.encode_block([(b"aa", b"")]).hex() == "00" + "8218ff" + "00"


# ===== what is indexed =====


def test_static_entries_are_found_without_a_table():
    encoder = RecordingEncoder(0)
    encoder.encode_block([])
    assert encoder.encode_block([(b":method", b"GET"), (b":status", b"200"), (b"accept-encoding", b"gzip, deflate")]) \
        == b"\x82\x88\x90"
    assert encoder.encode_block([(b"vary", b"")]) == bytes([0x80 | 59])
    assert encoder.encode_block([(b":method", b"PUT")]) == bytes.fromhex("0283d7c37f")


@pytest.mark.parametrize(
    ("flags", "index", "kind"),
    [
        pytest.param(0, False, PLAIN, id="a literal stays one"),
        pytest.param(ADDED, False, PLAIN, id="a literal that its sender indexes may never come again"),
        pytest.param(INDEXED, False, ADD, id="what came as an index is repeated"),
        pytest.param(0, True, ADD, id="a field of our own"),
        pytest.param(NEVER_INDEXED, False, NEVER, id="never indexed"),
        pytest.param(NEVER_INDEXED, True, NEVER, id="never indexed, whatever we would like"),
    ],
)
@pytest.mark.parametrize("name", [b"x-tenant", b"authorization", b"cookie", b":path"])
def test_what_joins_the_table(flags, index, kind, name):
    encoder = RecordingEncoder(4096)
    block = encoder.encode_block([(name, b"secret", flags)], index=index)
    assert kind_of(block) == kind
    again = encoder.encode_block([(name, b"secret", flags)], index=index)
    assert again == (b"\xbe" if kind == ADD else block)
    assert encoder.insertions == (kind == ADD)


def test_never_indexed_holds_although_the_field_is_in_a_table():
    encoder = RecordingEncoder(4096)
    encoder.encode_block([(b"x", b"secret")], index=True)
    assert kind_of(encoder.encode_block([(b"x", b"secret", NEVER_INDEXED)])) == NEVER
    assert kind_of(encoder.encode_block([(b":method", b"GET", NEVER_INDEXED)])) == NEVER


def test_a_name_of_the_table_is_used():
    encoder = RecordingEncoder(4096)
    encoder.encode_block([(b"x-long-name", b"1")], index=True)
    assert encoder.encode_block([(b"x-long-name", b"2")]).hex() == "0f2f" + "8117"
    assert encoder.encode_block([(b"x-long-name", b"2")], index=True).hex() == "7e" + "8117"


def test_fields_of_our_own():
    encoder = RecordingEncoder(4096)
    assert kind_of(encoder.encode_own(b"content-type", b"application/grpc", True)) == ADD
    assert encoder.encode_own(b"content-type", b"application/grpc", True) == b"\xbe"
    assert kind_of(encoder.encode_own(b"grpc-message", b"no route", False)) == PLAIN
    assert encoder.encode_own(b":status", b"200", False) == b"\x88"
    assert encoder.encode_own(b"", b"", True) == bytes.fromhex("400000")


def test_a_field_of_over_half_the_table_does_not_join_it():
    encoder = RecordingEncoder(4096)
    encoder.encode_block([(b"x", b"kept")], index=True)
    assert kind_of(encoder.encode_block([(b"y", b"v" * (2048 - 33 + 1))], index=True)) == PLAIN
    assert encoder.insertions == 1
    assert kind_of(encoder.encode_block([(b"y", b"v" * (2048 - 33))], index=True)) == ADD


# ===== relaying, with memos =====


def test_a_repeated_request_becomes_indices():
    sender, decoder, encoder, receiver = hpack.Encoder(), new_decoder(), RecordingEncoder(4096), hpack.Decoder()
    blocks = []
    for _ in range(4):
        assert decoded(decoder, sender.encode(REQUEST)) == REQUEST
        blocks.append(encoder.relay_block(decoder))
        assert receiver.decode(blocks[-1], raw=True) == REQUEST
    # At first the sender's literals stay literals; then it repeats them, and they join our table; then they are there.
    assert [len(block) for block in blocks[2:]] == [len(REQUEST)] * 2
    assert encoder.insertions == len(REQUEST) - 2


def test_values_that_change_with_each_call_stay_out_of_the_table():
    sender, decoder, encoder = hpack.Encoder(), new_decoder(), RecordingEncoder(4096)
    for number in range(200):
        decoder.decode_block(sender.encode([*REQUEST, (b"x-trace", b"%d" % number)]))
        encoder.relay_block(decoder)
    assert encoder.insertions == len(REQUEST) - 2


def test_a_memo_is_not_used_after_eviction():
    sender, decoder, encoder, receiver = hpack.Encoder(), new_decoder(), RecordingEncoder(4096), hpack.Decoder()
    field = (b"x-tenant", b"acme")
    for number in range(300):
        decoder.decode_block(sender.encode([field]))
        assert receiver.decode(encoder.relay_block(decoder), raw=True) == [field]
        for other in range(number % 4 * 40):
            receiver.decode(encoder.encode_block([(b"x-%d-%d" % (number, other), b"v")], index=True))
    assert encoder.evictions > 1000


def test_encoders_that_share_memos_disturb_only_the_short_cut():
    sender, decoder = hpack.Encoder(), new_decoder()
    encoders = [RecordingEncoder(4096) for _ in range(3)]
    receivers = [hpack.Decoder() for _ in encoders]
    assert len({encoder.id for encoder in encoders}) == 3
    for number in range(30):
        decoder.decode_block(sender.encode(REQUEST))
        # Some get the field at another place than others.
        receivers[number % 3].decode(encoders[number % 3].encode_block([(b"x-%d" % number, b"v")], index=True))
        for encoder, receiver in zip(encoders, receivers, strict=True):
            assert receiver.decode(encoder.relay_block(decoder), raw=True) == REQUEST
    for encoder in encoders:
        assert len(encoder.relay_block(decoder)) == len(REQUEST)


def test_a_memo_of_an_encoder_that_is_gone_is_not_taken_for_another():
    sender, decoder = hpack.Encoder(), new_decoder()
    sender.encode(REQUEST)
    for _ in range(50):
        decoder.decode_block(hpack.Encoder().encode(REQUEST) + b"".join(bytes([0x80 | 62 + i]) for i in range(6)))
        encoder, receiver = RecordingEncoder(4096), hpack.Decoder()
        for _ in range(2):
            fields = [(field.name, field.value) for field in decoder.recorded_fields()]
            assert receiver.decode(encoder.relay_block(decoder), raw=True) == fields
        del encoder


# ===== table size (§4.2) =====


def sizes(*updates):
    return b"".join(
        bytes([0x20 | size]) if size < 31 else hpack.hpack.encode_integer(size, 5).replace(b"\x1f", b"\x3f", 1)
        for size in updates
    )


@pytest.mark.parametrize(
    ("own", "peer", "written", "size"),
    [
        pytest.param(4096, [], [], 4096, id="the default needs no update"),
        pytest.param(1024, [], [1024], 1024, id="our own bound is smaller"),
        pytest.param(0, [], [0], 0, id="no table by our own choice"),
        pytest.param(65536, [], [], 4096, id="a larger bound waits for the peer"),
        pytest.param(65536, [65536], [65536], 65536, id="the peer allows more"),
        pytest.param(4096, [65536], [], 4096, id="the peer allows more than our bound"),
        pytest.param(4096, [100], [100], 100, id="the peer allows less"),
        pytest.param(4096, [0], [0], 0, id="the peer allows nothing"),
        pytest.param(4096, [0, 4096], [0, 4096], 4096, id="less for a moment"),
        pytest.param(4096, [100, 50, 200], [50, 200], 200, id="the smallest and the last"),
        pytest.param(65536, [8192, 16384], [16384], 16384, id="more and more"),
        pytest.param(65536, [8192, 10, 16384], [10, 16384], 16384, id="more, less, more"),
        pytest.param(4096, [4096, 4096], [], 4096, id="no change"),
    ],
)
def test_size_updates_open_the_next_block_and_only_that(own, peer, written, size):
    encoder = RecordingEncoder(own)
    for allowed in peer:
        encoder.set_peer_table_size(allowed)
    assert encoder.encode_block([(b":method", b"GET")]) == sizes(*written) + b"\x82"
    assert encoder.encode_block([(b":method", b"GET")]) == b"\x82"
    assert encoder.table_max_size == size


def test_a_smaller_table_evicts_at_once():
    encoder = RecordingEncoder(4096)
    for number in range(50):
        encoder.encode_block([(b"n", b"%d" % number)], index=True)
    encoder.set_peer_table_size(100)
    assert (encoder.insertions - encoder.evictions, encoder.table_size) == (2, 70)
    block = encoder.encode_block([(b"n", b"49"), (b"n", b"48"), (b"n", b"47")])
    assert block.startswith(sizes(100) + b"\xbe\xbf\x0f\x2f")
    encoder.set_peer_table_size(0)
    assert encoder.table_size == 0


def test_a_connection_that_repeats_nothing_holds_no_memory():
    encoder = RecordingEncoder(4096)
    encoder.encode_block(REQUEST)
    assert not encoder.holds_memory


# ===== everything decodes again =====

names = st.sampled_from([b":path", b"cookie", b"x-a", b"x-b", b""]) | st.binary(max_size=20)
values = st.sampled_from([b"", b"/", b"1", b"acme"]) | st.binary(max_size=200)
flags = st.sampled_from([0, ADDED, INDEXED, NEVER_INDEXED])


@given(st.lists(st.lists(st.tuples(names, values, flags), max_size=8), max_size=12), st.booleans())
def test_what_is_encoded_decodes_to_the_same(blocks, index):
    encoder, decoder = RecordingEncoder(300), new_decoder()
    for fields in blocks:
        result = decoder.decode_block(encoder.encode_block(fields, index=index))
        assert [(field.name, field.value) for field in result.fields] == [field[:2] for field in fields]
        assert [field.flags & NEVER_INDEXED for field in result.fields] == [f[2] & NEVER_INDEXED for f in fields]
        assert encoder.table_size == decoder.table_size <= 300


MASK = 2**64 - 1


def mix(state, word):
    """The step of hash_octets(), as in hpack_table.pyx."""
    state = (state ^ word) * 0x9E3779B97F4A7C15 & MASK
    return state ^ state >> 32


def colliding_values(count):
    """Values of 16 octets that have one hash behind any name."""
    target, found = None, []
    state = mix(mix(mix(0, 1), ord("x") << 16 | ord("x") << 8 | ord("x")), 16)
    for number in range(count):
        first = number * 0x0101010101 + 1
        after_first = mix(state, first)
        target = after_first if target is None else target
        found.append(first.to_bytes(8, "little") + (after_first ^ target).to_bytes(8, "little"))
    return found


def test_fields_whose_hashes_collide_are_told_apart():
    chosen = colliding_values(60)
    assert len({hash_field(b"x", value) for value in chosen}) == 1
    encoder, receiver = RecordingEncoder(4096), hpack.Decoder()
    for _ in range(3):
        for value in chosen:
            assert receiver.decode(encoder.encode_block([(b"x", value)], index=True), raw=True) == [(b"x", value)]
    # The search gives up after a few of them and writes literals: time is not what an attacker gets.
    assert encoder.insertions == 3 * len(chosen)
