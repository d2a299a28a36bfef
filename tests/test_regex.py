"""Regexes: RE2's syntax, full matches, errors in words; and the cache of decisions."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pygw.match.regex_cache import DecisionCache, RegexSet
from pygw.regex import check, matcher


@pytest.mark.parametrize("pattern", [r".*\.v2\..*", "a|b", "(?i)abc", r"\pL+", "", "[^/]+", "(a)(b)", "(?P<name>x)"])
def test_valid_patterns(pattern):
    assert check(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "missing )"), ("a)(b", "unexpected )"), ("[", "missing ]"), ("*", "no argument for repetition"),
        ("(?=x)", "invalid perl operator"), (r"(a)\1", "invalid escape sequence"),
        ("a{1001}", "invalid repetition size"),
        (r"\pL{1000}", "pattern too large"), ("\ud800", "surrogates not allowed"),
    ],
)  # fmt: skip
def test_invalid_patterns(pattern, reason):
    assert reason in (check(pattern) or "")


@pytest.mark.parametrize(
    ("pattern", "value", "holds"),
    [
        ("a|b", b"a", True), ("a|b", b"ab", False), ("a", b"xax", False), ("^a$", b"a", True), ("", b"", True),
        (".", "é".encode(), True), (".", b"\xff", False), (".*", b"a\nb", False),
    ],
)  # fmt: skip
def test_a_match_is_a_full_match(pattern, value, holds):
    assert bool(matcher(pattern.encode())(value)) is holds


def test_time_is_linear():
    """A backtracking engine would take 2^30 steps for the first and the square of the length for the second."""
    start = time.process_time()
    assert not matcher(b"(a*)*b")(b"a" * 30_000)
    assert not matcher(b"(?:x?){30}x{30}")(b"x" * 29)
    assert time.process_time() - start < 1


def test_an_invalid_pattern_matches_nothing():
    assert RegexSet([b"("], DecisionCache(4)).decide(0, b"(") is False


def test_a_remembered_decision_is_not_asked_again():
    regexes = RegexSet([b"a+", b"b+"], DecisionCache(16))
    for _ in range(3):
        assert [regexes.decide(0, b"aa"), regexes.decide(1, b"aa"), regexes.decide(0, b"")] == [True, False, False]
    assert (regexes.cache.misses, regexes.cache.hits) == (3, 6)


@pytest.mark.parametrize(("entries", "size"), [(0, 0), (1, 4), (4, 4), (5, 8), (4096, 4096)])
def test_the_size_is_a_power_of_two(entries, size):
    assert DecisionCache(entries).size == size


def test_no_cache_at_all():
    regexes = RegexSet([b"a+"], DecisionCache(0))
    assert [regexes.decide(0, b"a"), regexes.decide(0, b"a"), regexes.decide(0, b"b")] == [True, True, False]
    assert (regexes.cache.misses, regexes.cache.hits) == (3, 0)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=20)), max_size=200))
def test_a_full_cache_only_forgets(questions):
    patterns = [b"[a-z]*", b"(?s).", b"\\x00.*"]
    regexes = RegexSet(patterns, DecisionCache(4))
    for number, value in questions:
        assert regexes.decide(number, value) is bool(matcher(patterns[number])(value))


@pytest.mark.parametrize("length", range(18))
def test_values_of_every_length_are_told_apart(length):
    regexes = RegexSet([b"a*"], DecisionCache(64))
    value = b"a" * length
    assert regexes.decide(0, value) is True
    for place in range(length):
        assert regexes.decide(0, value[:place] + b"b" + value[place + 1 :]) is False
    assert regexes.decide(0, value + b"\0") is False


def test_the_next_image_knows_what_was_compiled():
    cache = DecisionCache(16)
    before = RegexSet([b"a+", b"gone"], cache)
    before.decide(0, b"a")
    after = RegexSet([b"new", b"a+"], cache, before)
    assert [after.decide(1, b"a"), after.decide(0, b"a")] == [True, False]
    assert (cache.misses, cache.hits) == (2, 1)


def test_a_pattern_that_is_not_there():
    with pytest.raises(IndexError):
        RegexSet([], DecisionCache(4)).decide(0, b"")
