"""The guard alone: what it holds back, and what it learns."""

import math
import os
import signal

import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import Phase, StopReason
from arzbench.predict.landing import MARGIN_LEAST_S
from arzbench.run import guard as guards
from arzbench.run.guard import Guard
from arzbench.run.signals import Signals
from arzbench.workload import StopTraining
from tests.run.jobs import COSTS, dqn, model, ppo

UNTOLD = 0.5 + MARGIN_LEAST_S  # leaving, and the margin of a short quota


def make(clock: VirtualClock, quota_s: float | None = 20.0, signals: Signals | None = None) -> Guard:
    return Guard(clock, signals or Signals(), session_start=0.0, quota_s=quota_s, leave_s=0.5)


def units(guard: Guard, clock: VirtualClock, cost_s: float, kind: int | str = 0) -> float:
    """Work in units of one cost until the guard says stop; the time then."""
    for _ in range(100_000):
        try:
            guard.poll(kind)
        except StopTraining:
            return clock.now()
        clock.advance(cost_s)
    raise AssertionError("it never stopped")


def test_without_a_quota_nothing_stops() -> None:
    clock = VirtualClock()
    guard = make(clock, None)
    for _ in range(1000):
        guard.poll(0)
        clock.advance(1e6)
    assert guard.deadline == math.inf


def test_before_anything_is_known_the_stated_time_is_held_back_for_a_save() -> None:
    clock = VirtualClock()
    ended = units(make(clock), clock, 0.01)
    assert ended == pytest.approx(20 - UNTOLD - guards.UNKNOWN_SAVE_SHARE * 20 - 3 * 0.01, abs=0.011)
    assert make(clock, 40.0).save_s == guards.UNKNOWN_SAVE_S


def test_a_measured_save_replaces_the_default() -> None:
    clock = VirtualClock()
    guard = make(clock)
    guard.saved(0.1, 1000)
    assert guard.save_s == pytest.approx(guards.SURPRISE * 0.1)
    ended = units(guard, clock, 0.01)
    assert ended == pytest.approx(20 - UNTOLD - 0.3 - 3 * 0.01, abs=0.011)


def test_one_slow_save_counts_more_than_the_mean() -> None:
    guard = make(VirtualClock())
    for seconds in (0.1, 0.1, 0.1, 0.1, 1.0):
        guard.saved(seconds, 1000)
    assert guard.save_s == pytest.approx(1.5)


def test_the_larger_of_model_and_measurement_is_held_back() -> None:
    guard = make(VirtualClock())
    guard.begin(dqn(), model(dqn(), COSTS, save_s=0.2))
    assert guard.save_s == pytest.approx(3 * 0.2 * 1.1)  # twice the relative error of 5 %
    guard.saved(0.05, 1000)
    assert guard.save_s == pytest.approx(3 * 0.2 * 1.1)
    guard.saved(1.0, 1000)
    assert guard.save_s > 1.5


def test_a_growing_buffer_makes_the_next_save_dearer() -> None:
    guard = make(VirtualClock())
    guard.begin(dqn(), model(dqn(), COSTS, save_s=0.0))  # 1000 bytes and 8 a row
    guard.saved(0.1, 1000)
    guard.expect_save(1000)
    assert guard.save_s == pytest.approx(3 * 0.1 * 9)


def test_the_first_save_of_a_resumed_session_writes_everything() -> None:
    guard = make(VirtualClock())
    guard.resumed([(0.03, 1_000)], 50_000)  # saves of what was new, in a session before
    assert guard.save_s == pytest.approx(3 * 0.03 * 50)
    guard.saved(0.2, 50_000)
    assert guard.save_s == pytest.approx(3 * 0.2)


def test_a_unit_may_suddenly_take_three_times_as_long() -> None:
    clock = VirtualClock()
    guard = make(clock, 100.0)
    guard.saved(0.0, 1)
    ended = units(guard, clock, 5.0, kind=64)
    assert ended + 3 * 5.0 + guard.save_s + 0.5 > 100 - 0.5 - 5.0  # no earlier than it must
    assert ended + 3 * 5.0 + guard.save_s + 0.5 > 85


def test_prices_of_the_model_hold_until_a_unit_was_seen() -> None:
    clock = VirtualClock()
    guard = make(clock, 10.0)
    slow = {**COSTS, Phase.UPDATE: 1.0}
    guard.begin(ppo(), model(ppo(), slow, save_s=0.01))
    guard.poll(0)
    with pytest.raises(StopTraining, match="stopped before the deadline") as stopped:
        guard.poll(8)  # 8 updates of 1 s, and a surprise
    assert "the next unit of work may take 27.4 s" in stopped.value.detail


def test_a_kind_not_seen_is_judged_by_its_like() -> None:
    clock = VirtualClock()
    guard = make(clock, 30.0)
    guard.poll(4)
    clock.advance(2.0)
    guard.poll(4)  # one of its own kind still fits
    with pytest.raises(StopTraining):
        guard.poll(40)  # ten times the gradient steps


def test_a_delay_seen_once_holds_back_little_seen_twice_all() -> None:
    for stalls, held in ((1, guards.STALL_SHARE * 100.0), (2, 30.0)):
        clock = VirtualClock()
        guard = make(clock, 100.0)
        guard.saved(0.0, 1)
        for cost_s in (0.001, 0.001, *[30.0] * stalls, *[0.001] * 1000):
            guard.poll(0)
            clock.advance(cost_s)
        ended = units(guard, clock, 0.001)
        assert ended == pytest.approx(100 - 0.5 - 0.5 - guard.save_s - held, abs=0.01)


def test_a_slow_first_call_is_not_taken_for_the_usual() -> None:
    clock = VirtualClock()
    guard = make(clock, 10.0)
    guard.saved(0.0, 1)
    guard.poll(0)
    clock.advance(3.0)  # lazy imports, a compilation
    for _ in range(3):
        guard.poll(0)
        clock.advance(0.001)
    assert units(guard, clock, 0.001) > 9


def test_a_pause_belongs_to_no_unit() -> None:
    clock = VirtualClock()
    guard = make(clock, 100.0)
    guard.saved(0.0, 1)
    guard.poll(0)
    clock.advance(0.001)
    guard.poll(0)
    guard.pause()
    clock.advance(50.0)  # a save, an evaluation
    guard.poll(0)
    assert units(guard, clock, 0.001) > 98


def test_what_is_required_must_fit() -> None:
    guard = make(VirtualClock())
    guard.require(10.0, "building")
    with pytest.raises(StopTraining) as stopped:
        guard.require(18.0, "building")
    assert "building may take 18.0 s" in stopped.value.detail


def test_signals_are_polled_counted_and_handlers_restored() -> None:
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with Signals() as signals:
        guard = make(VirtualClock(), None, signals)
        guard.poll(0)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(StopTraining) as stopped:
            guard.poll("final")
        with pytest.raises(StopTraining):
            guard.require(0.0, "anything")
    assert stopped.value.reason is StopReason.SIGNAL
    assert stopped.value.detail == "SIGUSR1, 1 more while stopping"
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_a_stride_takes_a_tenth_of_a_second_and_ends_long_before_the_deadline() -> None:
    clock = VirtualClock()
    guard = make(clock, 100.0)
    guard.saved(0.0, 1)
    assert guard.stride(guard.poll(0)) == 0  # what a step takes is not known yet
    strides, done = [], 1
    for _ in range(200):
        clock.advance(0.001 * done)
        now = guard.poll(0, done)
        strides.append(guard.stride(now))
        done = 1 + strides[-1]
    assert strides[0] == 0  # a first call says little
    assert 95 <= strides[-1] <= 100
    guard.pause()
    clock.advance(100 - guards.FAR_S - clock.now())
    assert guard.stride(guard.poll(0)) == 0


def test_steps_that_may_be_dear_shorten_a_stride() -> None:
    clock = VirtualClock()
    guard = make(clock, 1000.0)
    for kind, cost_s in [(0, 0.001), (1, 0.1)] * 20:
        guard.poll(kind)
        clock.advance(cost_s)
    assert 2 <= guard.stride(guard.poll(0)) <= 4
