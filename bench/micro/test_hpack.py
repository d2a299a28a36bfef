"""HPACK of typical gRPC header blocks. The loops run in C: a figure divided by ROUNDS is the time of one block.

Run: .venv/bin/python -m pytest bench/micro/test_hpack.py --benchmark-only
"""

import hpack
import pytest

from pygw.http2.recording_hpack import (
    RecordingDecoder,
    RecordingEncoder,
    huffman_encode,
    repeat_huffman_decode,
    repeat_huffman_encode,
)

ROUNDS = 10_000

REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/helloworld.Greeter/SayHello"),
    (b":authority", b"greeter.example.com:50051"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
    (b"user-agent", b"grpc-go/1.80.0"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
]
# What changes with each call, and so travels as literals.
CHANGING = [
    (b"grpc-timeout", b"999873u"),
    (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    (b"authorization", b"Bearer " + b"eyJhbGciOiJSUzI1NiIs" * 20),
]


def decoder_of(*blocks):
    decoder = RecordingDecoder(4096, 131072, 1000)
    for block in blocks:
        assert decoder.decode_block(block).result == "decoded"
    return decoder


def repeated_block():
    """A decoder that has seen the request, and the block that repeats it."""
    sender = hpack.Encoder()
    decoder = decoder_of(sender.encode(REQUEST))
    return decoder, sender.encode(REQUEST)


def changing_block():
    sender = RecordingEncoder(4096)
    decoder = decoder_of(sender.encode_block(REQUEST, index=True))
    return decoder, sender.encode_block(REQUEST + CHANGING)


BLOCKS = pytest.mark.parametrize("make_block", [repeated_block, changing_block], ids=["repeated", "changing"])


@BLOCKS
def test_decode(benchmark, make_block):
    decoder, block = make_block()
    benchmark(decoder.repeat_decode, block, ROUNDS)


@BLOCKS
def test_encode(benchmark, make_block):
    decoder, block = make_block()
    encoder = RecordingEncoder(4096)
    for _ in range(2):
        decoder.decode_block(block)
        encoder.relay_block(decoder)
    benchmark(encoder.repeat_relay, decoder, ROUNDS)


def test_decode_of_a_block_that_fills_the_table(benchmark):
    """Every field is new to the table and evicts others: the dearest thing that a block can hold, per field."""
    decoder = decoder_of()
    benchmark(decoder.repeat_decode, b"\x40\x01a\x00" * 900, 100)


def test_decode_of_a_bomb(benchmark):
    """References to an entry of 4,000 octets: as dear as references to any other."""
    decoder = RecordingDecoder(4096, 2**32 - 1, 10**6)
    decoder.decode_block(b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000)
    benchmark(decoder.repeat_decode, b"\xbe" * 1000, 100)


@pytest.mark.parametrize("text", [CHANGING[2][1], bytes(range(128, 256))], ids=["token", "binary"])
def test_huffman_decode(benchmark, text):
    benchmark(repeat_huffman_decode, huffman_encode(text), ROUNDS)


def test_huffman_encode(benchmark):
    benchmark(repeat_huffman_encode, CHANGING[2][1], ROUNDS)
