"""Whom to believe about a client's address. The module ipaddress is the oracle for addresses and networks."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygw.proxy.client_address import TrustedProxies, forward, normalize_address, trusts

PEER = b"10.0.0.2"


def xff(*values):
    return [(b"x-forwarded-for", value) for value in values]


def xfp(*values):
    return [(b"x-forwarded-proto", value) for value in values]


# ===== addresses and networks =====


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"192.0.2.1", "192.0.2.1"),
        (b"2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        (b"::ffff:192.0.2.1", "192.0.2.1"),
        (b"::FFFF:c000:0201", "192.0.2.1"),
        (b"fe80::1%eth0", "fe80::1"),
        (b"::", "::"),
        (b"", None),
        (b"192.0.2.1%eth0", None),
        (b"192.0.2.01", None),
        (b"192.0.2", None),
        (b"192.0.2.1 ", None),
        (b"192.0.2.1\0", None),
        (b"%eth0", None),
        (b":", None),
        (b"localhost", None),
        (b"1" * 100, None),
        (b"0000:" * 20, None),
    ],
)
def test_addresses(text, shown):
    assert normalize_address(text) == shown


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda address: int(address) >> 64 != 0)))
def test_addresses_read_as_ipaddress_reads_them(address):
    assert normalize_address(str(address).encode()) == str(address)
    assert normalize_address(address.exploded.encode()) == str(address)


@given(st.text(alphabet="0123456789abcdefABCDEF:.%", max_size=50))
def test_no_text_is_an_address_that_is_none(text):
    normal = normalize_address(text.encode())
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        # What is behind a "%" is not looked at, for it is dropped.
        assert normal is None or "%" in text
        return
    mapped = getattr(address, "ipv4_mapped", None)
    assert normal is not None
    assert ipaddress.ip_address(normal) == (mapped or ipaddress.ip_address(text.partition("%")[0]))


@given(
    st.one_of(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32), st.just(4), st.integers(0, 2**32 - 1)),
        st.tuples(st.integers(2**64, 2**128 - 1), st.integers(0, 128), st.just(6), st.integers(0, 2**128 - 1)),
    ),
    st.integers(0, 128),
)
def test_networks(case, kept):
    number, prefix, version, noise = case
    network = ipaddress.ip_network((number, prefix), strict=False)
    width = 32 if version == 4 else 128
    # Addresses that share a beginning of any length with the network.
    low = (1 << max(width - kept, 0)) - 1
    address = ipaddress.ip_address((number & ~low) | (noise & low))
    if version == 6 and int(address) >> 64 == 0:
        return
    proxies = TrustedProxies([str(network)])
    assert trusts(proxies, str(address).encode()) == (address in network)


@pytest.mark.parametrize(
    ("networks", "address", "trusted"),
    [
        ([], b"127.0.0.1", False),
        (["0.0.0.0/0"], b"203.0.113.1", True),
        (["0.0.0.0/0"], b"2001:db8::1", False),
        (["::/0"], b"2001:db8::1", True),
        (["::/0"], b"203.0.113.1", False),
        (["10.0.0.0/8"], b"::ffff:10.1.2.3", True),
        (["::ffff:10.0.0.0/104"], b"10.1.2.3", True),
        (["::ffff:10.0.0.0/104"], b"11.1.2.3", False),
        (["10.1.2.3/8"], b"10.9.9.9", True),
        (["127.0.0.1"], b"127.0.0.1", True),
        (["127.0.0.1"], b"127.0.0.2", False),
        (["192.0.2.0/24", " fd00::/8 "], b"fd12::1", True),
        (["fe80::/10"], b"fe80::1%eth0", True),
        (["0.0.0.0/0", "::/0"], b"", False),
        (["0.0.0.0/0", "::/0"], b"/run/a.sock", False),
    ],
)
def test_trust(networks, address, trusted):
    assert trusts(TrustedProxies(networks), address) is trusted


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "localhost", "10.0.0/8", "::/129", "10.0.0.0-10.0.0.9"])
def test_a_network_that_is_none(text):
    with pytest.raises(ValueError, match="is not a network: write an IP address or ADDRESS/PREFIX"):
        TrustedProxies(["10.0.0.0/8", text])


def test_hops_must_not_be_negative():
    with pytest.raises(ValueError, match="must be 0 or more, not -1"):
        TrustedProxies([], -1)


# ===== x-forwarded-for =====


def is_entry(text):
    """An IP address, alone, with :port, or in brackets."""
    match = re.fullmatch(r"\[(.*)\](:\d{1,5})?|([^:]*):\d{1,5}|(.*)", text)
    assert match is not None
    address = match[1] if match[1] is not None else match[3] if match[3] is not None else match[4]
    try:
        return "%" not in address and bool(ipaddress.ip_address(address))
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("fields", "hops", "value", "client"),
    [
        ([], 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"203.0.113.9"), 1, b"203.0.113.9, 10.0.0.2", b"203.0.113.9"),
        (xff(b"203.0.113.9"), 0, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"203.0.113.9"), 5, b"203.0.113.9, 10.0.0.2", b"203.0.113.9"),
        (xff(b"6.6.6.6, 203.0.113.9"), 1, b"203.0.113.9, 10.0.0.2", b"203.0.113.9"),
        (xff(b"6.6.6.6, 203.0.113.9, 10.0.0.1"), 2, b"203.0.113.9, 10.0.0.1, 10.0.0.2", b"203.0.113.9"),
        (xff(b"6.6.6.6,203.0.113.9,10.0.0.1"), 2, b"203.0.113.9, 10.0.0.1, 10.0.0.2", b"203.0.113.9"),
        (xff(b"6.6.6.6", b"203.0.113.9", b"10.0.0.1"), 2, b"203.0.113.9, 10.0.0.1, 10.0.0.2", b"203.0.113.9"),
        (xff(b"6.6.6.6, 203.0.113.9", b"10.0.0.1"), 2, b"203.0.113.9, 10.0.0.1, 10.0.0.2", b"203.0.113.9"),
        (xff(b", ,203.0.113.9 \t, , "), 1, b"203.0.113.9, 10.0.0.2", b"203.0.113.9"),
        (xff(b""), 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b",,,"), 3, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"2001:DB8::1"), 1, b"2001:DB8::1, 10.0.0.2", b"2001:DB8::1"),
        (xff(b"203.0.113.9:4711"), 1, b"203.0.113.9:4711, 10.0.0.2", b"203.0.113.9"),
        (xff(b"[2001:db8::1]:4711"), 1, b"[2001:db8::1]:4711, 10.0.0.2", b"2001:db8::1"),
        (xff(b"[2001:db8::1]"), 1, b"[2001:db8::1], 10.0.0.2", b"2001:db8::1"),
        # Not an address: dropped with all before it.
        (xff(b"unknown"), 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"203.0.113.9, unknown"), 2, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"203.0.113.9, <script>, 10.0.0.1"), 3, b"10.0.0.1, 10.0.0.2", b"10.0.0.1"),
        (xff(b"203.0.113.9:"), 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"203.0.113.9:123456"), 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"203.0.113.9:80x"), 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"[203.0.113.9"), 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"[]"), 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"["), 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"fe80::1%<script>"), 1, b"10.0.0.2", b"10.0.0.2"),
        (xff(b"203.0.113.9 198.51.100.1"), 1, b"10.0.0.2", b"10.0.0.2"),
        ([(b"x-other", b"6.6.6.6")], 1, b"10.0.0.2", b"10.0.0.2"),
    ],
)
def test_a_trusted_peer_is_believed_as_far_as_hops_reach(fields, hops, value, client):
    proxies = TrustedProxies(["10.0.0.0/8"], hops)
    assert forward(proxies, PEER, True, fields)[:2] == (value, client)


@given(st.lists(st.binary(max_size=30), max_size=4), st.integers(0, 5))
def test_an_untrusted_peer_is_never_believed(values, hops):
    proxies = TrustedProxies([], hops)
    fields = xff(b"6.6.6.6", *values) + xfp(b"https", *values)
    assert forward(proxies, PEER, False, fields) == (PEER, PEER, "http")


def test_a_peer_without_address():
    proxies = TrustedProxies([])
    assert forward(proxies, b"", False, xff(b"6.6.6.6"))[:2] == (b"", b"")
    assert forward(proxies, b"", True, xff(b"203.0.113.9"))[:2] == (b"203.0.113.9", b"203.0.113.9")


@given(st.lists(st.lists(st.one_of(st.ip_addresses().map(str), st.text("0a.: ,[]%", max_size=8)))), st.integers(0, 6))
def test_forwarded_for_as_written_down_plainly(values, hops):
    """The rule of client_address.pxd in Python."""
    lines = [", ".join(value) for value in values]
    entries = [entry.strip(" ") for line in lines for entry in line.split(",")]
    kept: list[str] = []
    for entry in reversed([entry for entry in entries if entry]):
        if len(kept) == hops or not is_entry(entry):
            break
        kept.insert(0, entry)
    expected = ", ".join([*kept, PEER.decode()]).encode()
    proxies = TrustedProxies([], hops)
    assert forward(proxies, PEER, True, xff(*[line.encode() for line in lines]))[0] == expected


@given(st.lists(st.ip_addresses().map(str), max_size=20), st.integers(0, 400))
def test_what_has_no_room_is_left_out_from_the_oldest_on(addresses, capacity):
    proxies = TrustedProxies([], 100)
    value = forward(proxies, PEER, True, xff(", ".join(addresses).encode()), capacity)[0]
    whole = forward(proxies, PEER, True, xff(", ".join(addresses).encode()), 5000)[0]
    assert len(value) <= capacity
    assert value == b"" or whole == value or whole.endswith(b", " + value)


# ===== x-forwarded-proto =====


@pytest.mark.parametrize(
    ("fields", "hops", "scheme"),
    [
        ([], 1, "http"),
        (xfp(b"https"), 1, "https"),
        (xfp(b"HTTPS"), 1, "https"),
        (xfp(b"http"), 1, "http"),
        (xfp(b"https"), 0, "http"),
        (xfp(b"ftp"), 1, "http"),
        (xfp(b"https, http"), 1, "http"),
        (xfp(b"https, http"), 2, "https"),
        (xfp(b"http, https, http"), 2, "https"),
        (xfp(b"https", b"http"), 2, "https"),
        (xfp(b"https, nonsense"), 2, "http"),
        (xfp(b""), 1, "http"),
        (xfp(b"httpx"), 1, "http"),
        (xfp(b"xttp"), 1, "http"),
    ],
)
def test_forwarded_proto(fields, hops, scheme):
    assert forward(TrustedProxies([], hops), PEER, True, fields)[2] == scheme
