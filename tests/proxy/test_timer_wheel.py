"""The timer wheel against a plain list of due times: nothing early, nothing forgotten, one wake-up at most."""

import asyncio
import math
import time
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pygw.proxy.recording_timer_wheel import RecordingTimerWheel

TICK = 5000
LAST_TICK = 64**6 - 1
LATE = 100_000
TIMERS = 8


class FakeLoop:
    """Remembers the call_laters that are not cancelled, by the wheel's clock."""

    def __init__(self):
        self.handles: list[Any] = []
        self.wheel: Any = None

    def call_later(self, delay, callback):
        handle = FakeHandle(self, self.wheel.now + math.ceil(delay * 1e6), callback)
        self.handles.append(handle)
        return handle


class FakeHandle:
    def __init__(self, loop, at, callback):
        self.loop, self.at, self.callback = loop, at, callback

    def cancel(self):
        self.loop.handles.remove(self)

    def run(self):
        """What the loop does when it comes to the time."""
        self.loop.handles.remove(self)
        self.loop.wheel.now = max(self.loop.wheel.now, self.at)
        self.callback()


def wheel_at(now, size=TIMERS):
    loop = FakeLoop()
    wheel = loop.wheel = RecordingTimerWheel(loop, size)
    wheel.now = now
    return wheel, loop


class WheelAgainstModel(RuleBasedStateMachine):
    """The model keeps due ticks in a dict; it moves `elapsed` as timer_wheel.pxd says."""

    @initialize(start=st.sampled_from([0, 1, TICK, 64 * TICK - 1, 64**3 * TICK + 7, 10**13]))
    def make(self, start):
        self.wheel, self.loop = wheel_at(start)
        self.due: dict[int, int] = {}
        self.elapsed = 0

    @rule(
        number=st.integers(0, TIMERS - 1),
        microseconds=st.one_of(
            st.integers(-TICK, 100 * TICK),
            st.builds(lambda level, extra: 64**level * TICK + extra, st.integers(0, 5), st.integers(-TICK, TICK)),
            st.integers(0, 10**14),
        ),
    )
    def arm(self, number, microseconds):
        self.due.pop(number, None)
        if not self.due:
            self.elapsed = self.wheel.now // TICK
        self.due[number] = min(max(-(-(self.wheel.now + microseconds) // TICK), self.elapsed + 1), LAST_TICK)
        self.wheel.start(number, microseconds / 1e6)

    @rule(number=st.integers(0, TIMERS - 1))
    def cancel(self, number):
        self.due.pop(number, None)
        self.wheel.cancel(number)

    @rule(
        step=st.one_of(
            st.integers(0, 3 * TICK),
            st.builds(lambda level, extra: 64**level * TICK + extra, st.integers(0, 4), st.integers(-TICK, TICK)),
        )
    )
    def pass_time(self, step):
        now = self.wheel.now + max(step, 0)
        self.wheel.fired.clear()
        self.wheel.run_to(now)
        expected = {number: due for number, due in self.due.items() if due <= now // TICK}
        assert set(self.wheel.fired) == set(expected)
        assert [expected[number] for number in self.wheel.fired] == sorted(expected.values())
        for number in expected:
            del self.due[number]
        self.elapsed = max(self.elapsed, now // TICK)

    @rule()
    def wake(self):
        """What the loop would do next."""
        if not self.loop.handles:
            return
        self.wheel.fired.clear()
        [handle] = self.loop.handles
        late = self.wheel.now - handle.at
        handle.run()
        if self.loop.handles and self.loop.handles[0].callback == self.wheel.on_late_wake:
            assert self.wheel.fired == []
            self.loop.handles[0].run()
        else:
            assert late <= LATE
        now = self.wheel.now
        assert set(self.wheel.fired) == {number for number, due in self.due.items() if due <= now // TICK}
        for number in self.wheel.fired:
            del self.due[number]
        self.elapsed = max(self.elapsed, now // TICK)

    @invariant()
    def what_is_armed(self):
        if not hasattr(self, "wheel"):
            return
        assert self.wheel.count == len(self.due)
        assert [number for number in range(TIMERS) if self.wheel.is_armed(number)] == sorted(self.due)

    @invariant()
    def the_loop_wakes_in_time_and_only_once(self):
        if not hasattr(self, "wheel"):
            return
        assert len(self.loop.handles) <= 1
        if self.due:
            [handle] = self.loop.handles
            # Half a millisecond makes up for the rounding of loops; what is due already may wait for the next turn, or
            # for the one look at the sockets.
            assert handle.at <= max(min(self.due.values()) * TICK + 501, self.wheel.now + 1000)


TestWheelAgainstModel = WheelAgainstModel.TestCase
TestWheelAgainstModel.settings = settings(max_examples=150, stateful_step_count=40)


# ===== single rules =====


def test_the_loop_is_left_alone_while_nothing_is_armed():
    wheel, loop = wheel_at(12345)
    assert loop.handles == []
    wheel.start(0, 1.0)
    assert len(loop.handles) == 1
    while loop.handles:
        loop.handles[0].run()
    assert wheel.fired == [0]
    assert wheel.now <= 12345 + 1_006_000


@pytest.mark.parametrize("now", [0, 1, 4999, 5000, 10**12 + 1])
@pytest.mark.parametrize("microseconds", [1, 4999, 5000, 5001, 319_999, 320_000, 20_480_000, 10**10])
def test_never_early_and_at_most_a_tick_late(now, microseconds):
    wheel, _ = wheel_at(now)
    wheel.start(0, microseconds / 1e6)
    wheel.run_to(now + microseconds - 1)
    assert wheel.fired == []
    wheel.run_to(now + microseconds + TICK)
    assert wheel.fired == [0]


@pytest.mark.parametrize(("late", "fired"), [(LATE, [0]), (LATE + 1000, []), (10**9, [])])
def test_what_is_due_after_a_long_pause_waits_for_one_look_at_the_sockets(late, fired):
    wheel, loop = wheel_at(0)
    wheel.start(0, 0.1)
    wheel.now = 100_000 + late
    loop.handles[0].run()
    assert wheel.fired == fired
    if not fired:
        [handle] = loop.handles
        assert handle.at == wheel.now + 1000
        handle.run()
    assert wheel.fired == [0]
    assert loop.handles == []


@pytest.mark.parametrize("seconds", [0, -1, -1e300, float("nan"), float("-inf")])
def test_what_is_past_fires_at_the_next_tick(seconds):
    wheel, _ = wheel_at(10**9)
    wheel.start(0, seconds)
    assert wheel.fired == [], "never from within arm()"
    wheel.run_to(10**9 + TICK)
    assert wheel.fired == [0]


@pytest.mark.parametrize("seconds", [1e9, 1e300, float("inf")])
def test_what_is_too_far_waits_for_the_last_tick(seconds):
    wheel, loop = wheel_at(10**9)
    wheel.start(0, seconds)
    wheel.run_to(10**9 + 10**14)
    assert wheel.fired == []
    assert len(loop.handles) == 1
    wheel.run_to(LAST_TICK * TICK)
    assert wheel.fired == [0]


def test_a_timer_armed_again_counts_once():
    wheel, _ = wheel_at(0)
    wheel.start(0, 1.0)
    wheel.start(0, 3.0)
    wheel.start(0, 2.0)
    assert wheel.count == 1
    wheel.run_to(1_900_000)
    assert wheel.fired == []
    wheel.run_to(5_000_000)
    assert wheel.fired == [0]


def test_a_hook_may_arm_its_own_timer():
    wheel, _ = wheel_at(0)
    wheel.on_expired = lambda number: wheel.start(number, 0.010) if len(wheel.fired) < 5 else None
    wheel.start(0, 0.010)
    for now in range(0, 100_000, 1000):
        wheel.run_to(now)
    assert wheel.fired == [0] * 5
    assert wheel.count == 0


def test_a_hook_that_arms_for_now_does_not_hold_the_loop():
    """A timer armed for the present fires in the next tick, not again and again in this one."""
    wheel, _ = wheel_at(0)
    wheel.on_expired = lambda number: wheel.start(number, 0)
    wheel.start(0, 0)
    wheel.run_to(TICK)
    assert wheel.fired == [0]
    wheel.run_to(2 * TICK)
    assert wheel.fired == [0, 0]


def test_a_hook_may_cancel_what_is_due_with_it():
    for first in range(4):
        wheel, _ = wheel_at(0)

        def cancel_others(number, wheel=wheel):
            for other in range(4):
                if other != number:
                    wheel.cancel(other)

        wheel.on_expired = cancel_others
        for number in range(4):
            wheel.start((number + first) % 4, 0.010)
        wheel.run_to(20_000)
        assert len(wheel.fired) == 1
        assert wheel.count == 0


def test_a_hook_that_raises_loses_no_other_timer():
    wheel, loop = wheel_at(0)
    for number in range(3):
        wheel.start(number, 0.010)

    def fail(number):
        raise RuntimeError("hook")

    wheel.on_expired = fail
    with pytest.raises(RuntimeError, match="hook"):
        wheel.run_to(20_000)
    wheel.on_expired = None
    assert wheel.count == 2
    [handle] = loop.handles
    assert handle.at <= wheel.now, "the others are due already"
    handle.run()
    assert sorted(wheel.fired) == [0, 1, 2]
    assert wheel.count == 0


def test_after_close_nothing_wakes():
    wheel, loop = wheel_at(0)
    wheel.start(0, 1.0)
    wheel.close()
    assert loop.handles == []
    wheel.start(1, 0.001)
    wheel.cancel(0)
    assert loop.handles == []


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=200))
@settings(max_examples=30)
def test_many_timers_need_few_wake_ups(delays):
    wheel, loop = wheel_at(0, len(delays))
    for number, microseconds in enumerate(delays):
        wheel.start(number, microseconds / 1e6)
    wakes = 0
    while loop.handles:
        loop.handles[0].run()
        wakes += 1
    assert sorted(wheel.fired) == list(range(len(delays)))
    # Each timer moves down a level at most five times.
    assert wakes <= 6 * len(delays)


@pytest.mark.parametrize("new_event_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_on_a_real_loop(new_event_loop):
    async def main():
        loop = asyncio.get_running_loop()
        wheel = RecordingTimerWheel(loop, 3, False)
        done = asyncio.Event()
        passed = {}

        def expired(number):
            passed[number] = time.monotonic() - start
            if len(passed) == 2:
                done.set()

        wheel.on_expired = expired
        start = time.monotonic()
        wheel.start(0, 0.030)
        wheel.start(1, 0.010)
        wheel.start(2, 0.015)
        wheel.cancel(2)
        async with asyncio.timeout(10):
            await done.wait()
        wheel.close()
        assert wheel.fired == [1, 0]
        assert passed[1] >= 0.010
        assert passed[0] >= 0.030

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
