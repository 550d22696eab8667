"""What the next unit may take, and those that are left."""

import math
import random
import statistics

import pytest

from arzbench.predict.unit_times import RECENT, SURPRISE_S, UnitTimes


def seen(*seconds: float, quota_s: float | None = None) -> UnitTimes:
    times = UnitTimes(quota_s=quota_s)
    for value in seconds:
        times.add(value)
    return times


def test_nothing_is_said_before_anything_was_measured() -> None:
    times = UnitTimes()
    assert (times.allow_s(), times.longest_s, times.mean_s(), times.remaining(3)) == (None, None, None, None)


def test_few_units_are_taken_with_more_care_than_many() -> None:
    assert seen(100.0).allow_s() == 200
    assert seen(*[100.0] * 4).allow_s() == 200
    assert seen(*[100.0] * 5).allow_s() == pytest.approx(125)


def test_the_first_of_a_session_counts_until_others_are_known() -> None:
    times = seen(60.0, *[1.0] * 3)
    assert times.allow_s() == 120
    times.add(1.0)
    assert times.allow_s() < 5
    times.add(1.0)
    assert times.allow_s() == 1 + SURPRISE_S
    later = UnitTimes(times.first, times.later)  # in the next session the first is to come again
    assert later.longest_s == 60
    assert later.mean_s() == 1


def test_a_delay_counts_in_full_when_it_comes_twice() -> None:
    calm = [10.0] * 30
    assert seen(*calm, 500.0, quota_s=1000).allow_s() < 100
    assert seen(*calm, 500.0, 500.0, quota_s=1000).allow_s() >= 500


def test_short_units_may_take_three_times_as_long_long_ones_may_not() -> None:
    assert seen(*[0.1] * 10).allow_s() == pytest.approx(0.3)
    assert seen(*[600.0] * 10, quota_s=43200).allow_s() == pytest.approx(600 + 864)
    assert seen(*[3600.0] * 10, quota_s=43200).allow_s() == pytest.approx(3600 * 1.25)


def test_units_that_differ_are_allowed_for() -> None:
    dice = random.Random(1)
    values = [dice.uniform(0, 100) for _ in range(50)]
    allowed = seen(1.0, *values).allow_s()
    assert allowed == pytest.approx(statistics.fmean(values) + 4 * statistics.stdev(values), rel=0.02)


def test_what_is_kept_is_bounded() -> None:
    times = seen(*map(float, range(500)))
    assert len(times.later) == RECENT
    assert times.longest_s == 499


def test_the_interval_narrows_as_units_are_seen() -> None:
    dice = random.Random(2)
    widths = []
    for count in (1, 2, 5, 20, 100):
        end = seen(1.0, *(dice.uniform(0.8, 1.2) for _ in range(count))).remaining(50)
        assert end is not None
        widths.append(math.log(end.p90_s / end.p50_s))
    assert widths[0] > widths[2] > widths[4] > 0.05
    assert seen(1.0, 1.0).remaining(0) is not None
    assert seen(1.0, 1.0).remaining(0).p99_s == 0
