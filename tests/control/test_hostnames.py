"""Hostname intersection: the table of the Gateway API's page on hostnames, and the corners of wildcards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pygw.control.hostnames import covers, intersects


@pytest.mark.parametrize(
    ("listener", "hostnames", "expected"),
    [
        ("", [], True),
        ("", ["a.example.com"], True),
        ("a.example.com", [], True),
        ("a.example.com", ["a.example.com"], True),
        ("a.example.com", ["b.example.com"], False),
        ("a.example.com", ["b.example.com", "a.example.com"], True),
        ("*.example.com", ["a.example.com"], True),
        ("*.example.com", ["a.b.example.com"], True),  # one or more labels
        ("*.example.com", ["example.com"], False),  # never the apex
        ("*.example.com", ["badexample.com"], False),
        ("a.example.com", ["*.example.com"], True),
        ("example.com", ["*.example.com"], False),
        ("*.example.com", ["*.example.com"], True),
        ("*.example.com", ["*.com"], True),
        ("*.com", ["*.example.com"], True),
        ("*.example.com", ["*.example.org"], False),
        ("*.a.example.com", ["*.b.example.com"], False),
    ],
)
def test_intersects(listener, hostnames, expected):
    assert intersects(listener, hostnames) is expected


labels = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)
hosts = st.builds(lambda parts, wild: ".".join(["*", *parts] if wild else parts), labels, st.booleans())


def concrete(pattern):
    """A few names that a pattern stands for."""
    if not pattern.startswith("*"):
        return {pattern}
    return {f"{start}{pattern[1:]}" for start in ("x", "a", "b.c", "a.b.c")}


@given(hosts, hosts)
def test_covers_is_containment(one, other):
    """What `covers` says of two patterns holds for the names behind them."""
    if covers(one, other):
        assert all(covers(one, name) for name in concrete(other))
    assert intersects(one, [other]) == (covers(one, other) or covers(other, one)) == intersects(other, [one])
