"""Smooth weighted round robin: exact shares, states that outlive a new table, phases."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pygw._fastmatch import RouteTable
from pygw.model import BackendRefConfig, GatewayConfig, ListenerConfig, MatchConfig, RouteConfig, RuleConfig
from pygw.tables import compile_image


def config(*weights: int, name: str | None = None, index: int = 0, route: str = "r", before: int = 0) -> GatewayConfig:
    """One route; its last rule has these weights, `before` other rules come first."""
    refs = tuple(BackendRefConfig(f"d/b{n}:1", "d", f"b{n}", 1, weight=weight) for n, weight in enumerate(weights))
    other = tuple(
        RuleConfig(n, (MatchConfig("other"),), (BackendRefConfig("d/o:1", "d", "o", 1),)) for n in range(before)
    )
    one = RouteConfig("d", route, (), (*other, RuleConfig(index, (MatchConfig("s"),), refs, name)))
    return GatewayConfig((ListenerConfig("d/gw", "l", 80, routes=(one.key,)),), {one.key: one})


def table(*weights: int, previous: RouteTable | None = None, phase: int = 0, **more) -> RouteTable:
    return RouteTable(compile_image(config(*weights, **more)).octets, previous, phase)


def sequence(one: RouteTable, count: int, rule: int = 0) -> list[int]:
    """Which backendRef each of `count` picks chose; -1: none."""
    return [next((place for place, n in enumerate(one.pick_times(rule, 1)) if n), -1) for _ in range(count)]


def test_the_order_is_smooth():
    assert sequence(table(5, 1, 1), 7) == [0, 0, 1, 0, 2, 0, 0]


@pytest.mark.parametrize("phase", [0, 1, 2, 7, 19, 1_000_003])
@pytest.mark.parametrize("weights", [(80, 20), (95, 5), (70, 30, 0), (1, 1, 1, 1), (50, 25, 25), (99, 1)])
def test_shares_are_exact_over_a_hundred_calls(weights, phase):
    one = table(*weights, phase=phase)
    expected = [100 * weight // sum(weights) for weight in weights]
    for _ in range(5):
        assert one.pick_times(0, 100) == expected


@settings(max_examples=200)
@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=16), st.integers(0, 5000), st.integers(1, 400))
def test_every_run_of_picks_is_close_to_the_weights(weights, phase, count):
    one = table(*weights, phase=phase)
    counts = one.pick_times(0, count)
    total = sum(weights)
    if total == 0:
        assert counts == [0] * len(weights)
        return
    assert sum(counts) == count
    for weight, n in zip(weights, counts, strict=True):
        # "Close": off by fewer calls than there are backends, whatever the weights.
        assert abs(n - count * weight / total) < len(weights)
        assert weight or not n


@settings(max_examples=100)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=5).filter(any), st.integers(0, 100))
def test_a_whole_period_is_exact(weights, phase):
    one = table(*weights, phase=phase)
    divisor = math.gcd(*weights)
    for _ in range(2):
        assert one.pick_times(0, sum(weights) // divisor) == [weight // divisor for weight in weights]


@pytest.mark.parametrize("weights", [(0,), (0, 0)])
def test_no_backend_where_all_weights_are_zero(weights):
    assert sequence(table(*weights), 3) == [-1, -1, -1]


def test_a_weight_of_zero_is_never_picked():
    assert table(0, 1, 0, 3).pick_times(0, 4000) == [0, 1000, 0, 3000]


def test_a_phase_is_so_many_picks_on():
    whole = sequence(table(5, 2, 1), 24)
    for phase in range(8):
        assert sequence(table(5, 2, 1, phase=phase), 16) == whole[phase : phase + 16]


def test_a_large_phase_of_large_weights_is_cheap():
    weights = [1_000_000 - n for n in range(16)]
    start = time.process_time()
    table(*weights, phase=2**31 - 1).pick_times(0, 1)
    assert time.process_time() - start < 0.1


# --- a new table ---


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        ({"name": "n"}, {"name": "n", "index": 5}),
        ({}, {"index": 0, "before": 0}),
    ],
)
def test_states_live_on_in_a_new_table(before, after):
    whole = sequence(table(5, 2, 1), 16)
    old = table(5, 2, 1, **before)
    assert sequence(old, 3) == whole[:3]
    assert sequence(table(5, 2, 1, previous=old, **after), 13) == whole[3:]


def test_states_live_on_where_rules_moved_in_the_image():
    whole = sequence(table(5, 2, 1), 16)
    old = table(5, 2, 1, index=2)
    assert sequence(old, 3) == whole[:3]
    new = table(5, 2, 1, index=2, before=2, previous=old)
    assert sequence(new, 13, rule=2) == whole[3:]


def test_states_move_in_steps_and_a_pick_takes_its_own_before_them():
    whole = sequence(table(5, 2, 1), 16)
    old = table(5, 2, 1, index=3)
    assert sequence(old, 3) == whole[:3]
    new = table(5, 2, 1, index=3, before=3, previous=old)
    assert not new.inherit(2)
    assert sequence(old, 1) == whole[3:4]  # a call of the old table, in between
    assert sequence(new, 2, rule=3) == whole[4:6]
    assert new.inherit(2)
    assert new.inherit(1)
    assert sequence(new, 10, rule=3) == whole[6:]


def test_a_state_that_no_pick_took_moves_with_the_steps():
    whole = sequence(table(5, 2, 1), 16)
    old = table(5, 2, 1, index=3)
    assert sequence(old, 3) == whole[:3]
    new = table(5, 2, 1, index=3, before=3, previous=old)
    assert new.inherit(4)
    assert sequence(old, 2) == whole[3:5]  # too late: the new table has it
    assert sequence(new, 13, rule=3) == whole[3:]


def test_states_live_on_over_several_tables():
    whole = sequence(table(3, 2), 10)
    one = table(3, 2)
    for place in range(10):
        assert sequence(one, 1) == whole[place : place + 1]
        one = table(3, 2, previous=one)


@pytest.mark.parametrize(
    ("weights", "more"),
    [
        ((5, 2, 2), {}),
        ((5, 2), {}),
        ((5, 2, 1), {"route": "other"}),
        ((5, 2, 1), {"name": "now-named"}),
        ((5, 2, 1), {"index": 1}),
    ],
)
def test_another_rule_or_other_weights_start_anew(weights, more):
    old = table(5, 2, 1)
    sequence(old, 3)
    assert sequence(table(*weights, previous=old, **more), 8) == sequence(table(*weights), 8)


def test_an_old_table_does_not_move_with_the_new_one():
    old = table(5, 2, 1)
    new = table(5, 2, 1, previous=old)
    sequence(new, 3)
    assert sequence(old, 8) == sequence(table(5, 2, 1), 8)


def test_a_new_state_starts_at_the_new_tables_phase():
    old = table(5, 2, 1, phase=3)
    new = table(1, 3, previous=old, phase=1)
    assert sequence(new, 8) == sequence(table(1, 3, phase=1), 8)


def test_a_rule_that_is_not_there():
    with pytest.raises(IndexError, match="no rule 9"):
        table(1).pick_times(9, 1)
