"""Where measured times go: nothing lost, nothing counted twice, raw values kept."""

import random

import pytest

from arzbench.facts import Phase
from arzbench.measure.phase_times import MAX_VALUES, PER_STEP, PhaseTotals, PhaseValues
from arzbench.records import PhaseSamples


def only(values: PhaseValues, phase: Phase) -> list[PhaseSamples]:
    return [s for s in values.samples(0) if s.phase is phase]


def test_each_take_gives_what_is_new() -> None:
    totals = PhaseTotals()
    totals.add(Phase.UPDATE, 0.5, 4)
    assert totals.take() == {"update": (0.5, 4)}
    assert totals.take() == {}
    totals.add(Phase.UPDATE, 0.25, 1)
    totals.add(Phase.LOG, 0.125, 2)
    assert totals.take() == {"update": (0.25, 1), "log": (0.125, 2)}
    assert totals.totals[Phase.UPDATE] == (0.75, 5)


def test_all_takes_together_are_the_totals() -> None:
    rng = random.Random(0)
    totals, taken = PhaseTotals(), {p.value: [0.0, 0] for p in Phase}
    for number in range(500):
        totals.add(rng.choice(list(Phase)), rng.random(), rng.randrange(1, 5))
        if number == 499 or rng.random() < 0.1:
            for name, (seconds, units) in totals.take().items():
                taken[name][0] += seconds
                taken[name][1] += units
    for phase, (seconds, units) in totals.totals.items():
        assert taken[phase.value] == [pytest.approx(seconds), units]


def test_the_first_value_of_a_process_is_a_warm_up_where_more_follow() -> None:
    values = PhaseValues("off")
    for seconds in (9.0, 1.0, 2.0):
        values.add(Phase.UPDATE, seconds)
    values.add(Phase.BUILD, 3.0)
    warm, rest = only(values, Phase.UPDATE)
    assert (warm.warmup, warm.seconds) == (True, (9.0,))
    assert (rest.warmup, rest.seconds) == (False, (1.0, 2.0))
    (single,) = only(values, Phase.BUILD)
    assert (single.warmup, single.seconds) == (False, (3.0,))


def test_sized_values_and_variants_of_their_own_have_no_warm_up() -> None:
    values = PhaseValues()
    values.add(Phase.CHECKPOINT, 1.0, size=100.0)
    values.add(Phase.CHECKPOINT, 2.0, size=100.0)
    values.add(Phase.CHECKPOINT, 3.0, size=900.0)
    values.add(Phase.JIT, 5.0, variant="cold")
    values.add(Phase.JIT, 6.0, variant="cold")
    found = {(s.phase, s.variant, s.size): s for s in values.samples(7)}
    assert found[Phase.CHECKPOINT, "", 100.0].seconds == (1.0, 2.0)
    assert found[Phase.CHECKPOINT, "", 900.0].seconds == (3.0,)
    assert found[Phase.JIT, "cold", 0.0].seconds == (5.0, 6.0)
    assert not any(s.warmup for s in found.values())
    assert {s.repetition for s in found.values()} == {7}


def test_the_logging_mode_marks_what_it_changes_and_nothing_else() -> None:
    values = PhaseValues("periodic")
    for phase in Phase:
        values.add(phase, 1.0)
    values.variant = "every"
    for phase in Phase:
        values.add(phase, 50.0)
    for phase in Phase:
        modes = {s.variant for s in only(values, phase)}
        assert modes == ({"periodic", "every"} if phase in PER_STEP else {""}), phase


@pytest.mark.parametrize("count", [2, MAX_VALUES, MAX_VALUES + 1, MAX_VALUES + 2, 3 * MAX_VALUES + 17])
def test_long_series_are_merged_without_loss(count: int) -> None:
    values = PhaseValues()
    for index in range(count):
        values.add(Phase.UPDATE, index / 1024, 1 + index % 3)
    warm, rest = only(values, Phase.UPDATE)
    assert len(rest.seconds) <= MAX_VALUES
    assert warm.count + rest.count == sum(1 + i % 3 for i in range(count))
    whole = sum(warm.seconds) + sum(rest.seconds)
    assert whole == pytest.approx(sum(range(count)) / 1024)


def test_nothing_done_leaves_no_value_and_time_never_runs_backwards() -> None:
    values = PhaseValues()
    values.add(Phase.UPDATE, 1.0, 0)
    values.add(Phase.RESET, -1e-9)
    (reset,) = values.samples(0)
    assert (reset.phase, reset.seconds) == (Phase.RESET, (0.0,))
