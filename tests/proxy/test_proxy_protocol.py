"""PROXY protocol headers: each case whole, cut at every octet, and with a connection's octets behind it."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygw.proxy.proxy_protocol import parse

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER_MAX = 4096
NONE = ("", 0, "", 0)


def v2(command: int, family: int, payload: bytes, version: int = 2) -> bytes:
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, len(payload)) + payload


def inet(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    return (
        socket.inet_pton(family, source) + socket.inet_pton(family, destination)
        + struct.pack("!HH", source_port, destination_port)
    )


def parsed(data: bytes) -> tuple[str, int, str, int]:
    """What the header says, after checks that hold for every well-formed header."""
    for cut in range(len(data)):
        assert parse(data[:cut]) == (0, None), f"after {cut} octets"
    consumed, header = parse(data)
    assert consumed == len(data)
    assert header is not None
    for following in (b"P", b"\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 5000):
        assert parse(data + following) == (consumed, header)
    assert header["version"] == (1 if data.startswith(b"PROXY") else 2)
    return header["source"], header["source_port"], header["destination"], header["destination_port"]


WELL_FORMED = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", ("192.0.2.1", 56324, "198.51.100.2", 443)),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", ("0.0.0.0", 0, "255.255.255.255", 65535)),
    (b"PROXY TCP6 2001:db8::1 2001:DB8::2 1 2\r\n", ("2001:db8::1", 1, "2001:db8::2", 2)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", ("192.0.2.1", 1, "::1", 2)),
    (b"PROXY UNKNOWN\r\n", NONE),
    (b"PROXY UNKNOWN ffff:f...f:ffff 65535 whatever\r\n", NONE),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", NONE),
    (v2(1, 0x11, inet("192.0.2.1", "198.51.100.2", 56324, 443)), ("192.0.2.1", 56324, "198.51.100.2", 443)),
    (v2(1, 0x12, inet("192.0.2.1", "198.51.100.2", 1, 2)), ("192.0.2.1", 1, "198.51.100.2", 2)),
    (v2(1, 0x21, inet("2001:db8::1", "::1", 65535, 0)), ("2001:db8::1", 65535, "::1", 0)),
    (v2(1, 0x21, inet("::ffff:192.0.2.1", "::1", 1, 2)), ("192.0.2.1", 1, "::1", 2)),
    (v2(1, 0x11, inet("192.0.2.1", "198.51.100.2", 1, 2) + b"\x04\0\x03abc"), ("192.0.2.1", 1, "198.51.100.2", 2)),
    (v2(1, 0x11, inet("192.0.2.1", "198.51.100.2", 1, 2) + bytes(4068)), ("192.0.2.1", 1, "198.51.100.2", 2)),
    (v2(1, 0x31, b"/run/a.sock".ljust(108, b"\0") + b"/run/b.sock".ljust(108, b"\0")), NONE),
    (v2(1, 0x00, b""), NONE),
    (v2(1, 0x00, b"anything"), NONE),
    (v2(1, 0x10, b""), NONE),
    (v2(0, 0x00, b""), NONE),
    (v2(0, 0x11, inet("192.0.2.1", "198.51.100.2", 1, 2)), NONE),
    (v2(0, 0xFF, b"x"), NONE),
]


@pytest.mark.parametrize(("data", "expected"), WELL_FORMED)
def test_well_formed(data, expected):
    assert parsed(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY\tTCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2\r1 2\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n",
        b"PROXY TCP6 :::1 ::2 1 2\r\n",
        b"PROXY TCP6 1:2:3:4:5:6:7 ::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 123456 2\r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        b"PROXY UNKNOWN " + b"x" * 93,
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rX",
        v2(1, 0x11, inet("192.0.2.1", "192.0.2.2", 1, 2)[:11]),
        v2(1, 0x21, inet("::1", "::2", 1, 2)[:35]),
        v2(1, 0x31, bytes(215)),
        v2(1, 0x41, bytes(12)),
        v2(1, 0x13, bytes(12)),
        v2(2, 0x11, inet("192.0.2.1", "192.0.2.2", 1, 2)),
        v2(1, 0x11, inet("192.0.2.1", "192.0.2.2", 1, 2), version=1),
        v2(1, 0x11, inet("192.0.2.1", "192.0.2.2", 1, 2), version=3),
        v2(1, 0x11, bytes(4081)),
        v2(0, 0x00, bytes(65535)),
        SIGNATURE[:-1] + b"\r",
        b"\r\n\r\n\0\r\nQUI\n",
        b"\0",
        b"\x16\x03\x01",
    ],
)
def test_malformed(data):
    assert parse(data) == (-1, None)
    # Once a beginning is refused, more octets never make it good, and until then more were asked for.
    answers = [parse(data[:cut])[0] for cut in range(len(data) + 1)]
    refused = answers.index(-1)
    assert set(answers[:refused]) <= {0}
    assert set(answers[refused:]) == {-1}


def test_nothing_yet():
    assert parse(b"") == (0, None)


def test_a_refusal_does_not_wait_for_the_whole_header():
    assert parse(SIGNATURE + b"\x31") == (-1, None)
    assert parse(SIGNATURE + b"\x21\x41") == (-1, None)
    assert parse(SIGNATURE + b"\x21\x11\xff\xff") == (-1, None)
    assert parse(SIGNATURE + b"\x21\x11\x00\x0b") == (-1, None)


@given(st.binary(max_size=150), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ::", SIGNATURE]))
def test_any_octets(tail, start):
    data = start + tail
    consumed, header = parse(data)
    assert (header is not None) == (consumed > 0)
    assert consumed <= len(data)
    if consumed > 0:
        assert parse(data[:consumed]) == (consumed, header)
        assert parse(data[: consumed - 1]) == (0, None)


@given(
    st.sampled_from([b"", b"PROXY UNKNOWN ", SIGNATURE, SIGNATURE + b"\x20", SIGNATURE + b"\x21\x11"]),
    st.binary(max_size=20),
)
def test_so_many_octets_always_suffice(start, middle):
    assert parse((start + middle).ljust(HEADER_MAX, b" "))[0] != 0


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65535), st.integers(0, 65535))
def test_both_versions_agree_on_ipv4(source, destination, source_port, destination_port):
    line = f"PROXY TCP4 {source} {destination} {source_port} {destination_port}\r\n".encode()
    expected = (str(source), source_port, str(destination), destination_port)
    assert parsed(line) == expected
    assert parsed(v2(1, 0x11, inet(str(source), str(destination), source_port, destination_port))) == expected


@given(st.ip_addresses(v=6).filter(lambda address: int(address) >> 64 != 0), st.integers(0, 65535))
def test_both_versions_agree_on_ipv6(address, port):
    line = f"PROXY TCP6 {address.exploded} {address} {port} {port}\r\n".encode()
    assert parsed(line) == parsed(v2(1, 0x21, inet(str(address), str(address), port, port)))
    assert parsed(line) == (str(address), port, str(address), port)
