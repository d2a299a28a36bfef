"""A model test: tests/doubles/two_ends.py, anything done to it in any order. What must hold is written there.

PYGW_EXAMPLES sets how many runs (a long run by hand: PYGW_EXAMPLES=20000).
"""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.doubles import frames
from tests.doubles.two_ends import MANY, STREAMS, TwoEnds

sides = st.sampled_from([0, 1])
numbers = st.integers(0, STREAMS - 1)
sections = st.integers(0, 31)
lengths = st.one_of(st.integers(0, 40), st.sampled_from([100, 1000, 16384, 16385, 50000]))
intruders = st.one_of(
    st.builds(
        frames.frame, st.integers(0, 11), st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 255]),
        st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1]), st.binary(max_size=20),
    ),
    st.builds(frames.window_update, st.integers(0, 5), st.sampled_from([0, 1, 65535, 2**31 - 1])),
    st.builds(lambda *pair: frames.settings(pair), st.integers(0, 9), st.sampled_from([0, 1, 65535, 2**31 - 1, 2**31])),
    st.builds(frames.rst_stream, st.integers(0, 7), st.integers(0, 15)),
    st.builds(frames.goaway, st.integers(0, 7), st.integers(0, 15)),
    st.builds(frames.headers, st.integers(0, 9), st.sampled_from([frames.REQUEST, frames.RESPONSE, frames.TRAILERS])),
    st.binary(max_size=30),
)  # fmt: skip


class Machine(RuleBasedStateMachine):
    """The steps of TwoEnds as rules."""

    @initialize(window=st.sampled_from([1, 30, 1000, 65535, 200000]), limit=st.sampled_from([1, 3, 100]))
    def start(self, window, limit):
        self.world = TwoEnds(window, limit)

    open = rule(number=sections, end_stream=st.booleans())(lambda self, **given: self.world.open(**given))
    answer = rule(number=sections, end_stream=st.booleans(), interim=st.booleans())(
        lambda self, **given: self.world.answer(**given)
    )
    send = rule(side=sides, number=numbers, length=lengths, end_stream=st.booleans())(
        lambda self, **given: self.world.send(**given)
    )
    send_trailers = rule(side=sides, number=sections)(lambda self, **given: self.world.send_trailers(**given))
    reset = rule(side=sides, number=numbers)(lambda self, **given: self.world.reset(**given))
    finish_stream = rule(number=numbers)(lambda self, **given: self.world.finish_stream(**given))
    drain = rule(side=sides, number=numbers, octets=st.one_of(lengths, st.just(MANY)))(
        lambda self, **given: self.world.drain(**given)
    )
    change_settings = rule(side=sides, setting=st.integers(0, 2), number=numbers)(
        lambda self, **given: self.world.change_settings(**given)
    )
    carry = rule(side=sides, length=st.one_of(st.integers(1, 30), st.integers(1, 200000)))(
        lambda self, **given: self.world.carry(**given)
    )
    act_in_next_hook = rule(side=sides, number=numbers, act=st.integers(0, 7))(
        lambda self, **given: self.world.act_in_next_hook(**given)
    )

    @rule(side=sides, how=st.sampled_from([
        "block_writes", "resume_writes", "second_passes", "look_for_stalls", "ping",
    ]))  # fmt: skip
    def tell(self, side, how):
        getattr(self.world, how)(side)

    @precondition(lambda self: len(self.world.streams) > 3)
    @rule(side=sides, how=st.sampled_from(["announce_goaway", "final_goaway"]))
    def go_away(self, side, how):
        getattr(self.world, how)(side)

    @precondition(lambda self: len(self.world.streams) > 5)
    @rule()
    def lose(self):
        self.world.lose()

    @invariant()
    def nothing_is_wrong(self):
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self):
        if hasattr(self, "world"):
            self.world.finish()


class MachineWithIntruder(Machine):
    """The same, and somebody who puts frames of his own between theirs."""

    @rule(side=sides, octets=intruders)
    def intrude(self, side, octets):
        self.world.intrude(side, octets)


def given_runs(count, steps):
    return settings(
        max_examples=int(os.environ.get("PYGW_EXAMPLES", count)), stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.mark.parametrize("machine", [Machine, MachineWithIntruder])
def test_two_ends(machine):
    run_state_machine_as_test(machine, settings=given_runs(40, 40))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("machine", [Machine, MachineWithIntruder])
def test_two_ends_for_long(machine):
    run_state_machine_as_test(machine, settings=given_runs(300, 80))
