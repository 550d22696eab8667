"""Scores of declared figures."""

import pytest

from arzbench.report.console import to_markdown
from arzbench.report.validatesheets import validation_lines, validation_sheets
from arzbench.validate import scores
from tests.validate.figures import cell, mark, outcome, validation


def found(text: str, *runs: scores.Outcome, **changes: object) -> scores.Criterion:
    """The one criterion that has `text` in it."""
    (one,) = [c for c in scores.criteria(validation(*runs, **changes)) if text in c.text]
    return one


def test_an_error_is_below_zero_where_a_run_took_longer_and_others_have_their_own_rules() -> None:
    assert scores.own_error(outcome(wall_s=40.0)) == pytest.approx(-0.25)
    assert scores.own_error(outcome(wall_s=24.0)) == pytest.approx(0.25)
    run, one = outcome(wall_s=40.0), cell(first_100_s=0.1, own_fps=200.0, timesteps=4000)
    assert scores.naive_error(run, one) == pytest.approx(4.0 / 40.0 - 1)
    assert scores.fps_error(run, one) == pytest.approx(20.0 / 40.0 - 1)
    assert scores.fps_error(run, cell(own_fps=0.0)) is None


def test_the_floor_compares_runs_of_the_same_training_only() -> None:
    runs = [
        outcome("cartpole-ppo", 20.0),
        outcome("cartpole-ppo", 22.0, repetition=1),
        outcome("cartpole-ppo", 30.0, beside=True),
        outcome("pendulum-sac", 60.0),
        outcome("cartpole-ppo", 90.0, repetition=2, finished=False),
    ]
    assert scores.repeats(runs) == [pytest.approx(2 / 21)]
    assert scores.floor(runs) == pytest.approx(2 / 21)
    assert scores.floor(runs[2:]) is None


def test_coverage_counts_a_stopped_run_as_outside() -> None:
    runs = [outcome(wall_s=30.0), outcome(wall_s=32.0), outcome(wall_s=40.0), outcome(finished=False)]
    assert scores.below(runs, "0.95") == 0.5
    assert scores.covered(runs, 0.95) == 0.5
    assert scores.covered(runs[:1], 0.5) == 1.0
    assert scores.half_width(runs, 0.95) == pytest.approx(0.1)


def test_an_overrun_is_a_process_that_ended_after_its_quota() -> None:
    late = outcome(wall_s=33.1, quota_s=33.0)
    in_time = outcome(wall_s=32.9, quota_s=33.0, finished=False)
    assert scores.overruns([late, in_time, outcome(wall_s=99.0)]) == [late]
    assert found("quota", late, in_time).passed is False
    assert found("quota", in_time).passed
    assert found("quota", outcome()).passed is None


def test_the_end_predicted_at_a_mark_is_compared_with_a_progress_bar() -> None:
    run = outcome(wall_s=40.0, marks=(mark(0.05, left_s=35.0, elapsed_s=4.0), mark(0.1, 38.0, 6.0)))
    bar_s = 2 + 2 / 0.05  # two seconds of start-up, two of training
    assert scores.online_errors(run, 0.05) == (pytest.approx(39 / 40 - 1), pytest.approx(bar_s / 40 - 1))
    assert scores.online_errors(run, 0.25) is None
    assert found("at 5 %", run).passed
    assert found("at 10%", run).passed is False
    assert found("at 25%", run).passed is None
    worse = outcome(wall_s=40.0, marks=(mark(0.05, left_s=60.0, elapsed_s=4.0),))
    assert found("at 5 %", worse).found == "0 of 1: not cartpole-ppo"
    silent = outcome("pendulum-sac", wall_s=40.0)
    assert found("at 5 %", run, silent).passed is None  # a pair that told nothing


def test_errors_are_held_against_ten_percent_and_the_floor() -> None:
    near = [outcome(wall_s=w, repetition=n) for n, w in enumerate((30.0, 31.0, 32.0))]
    assert found("alone", *near).passed
    assert found("floor", *near).passed
    off = [outcome(wall_s=w, repetition=n) for n, w in enumerate((34.0, 34.1, 34.2))]
    assert found("alone", *off).passed is False
    assert found("floor", *off).passed is False
    beside = [outcome(wall_s=34.0, beside=True)]
    assert found("beside a busy process", *beside).passed
    assert found("floor", *beside).passed is None


def test_a_long_calibration_fails() -> None:
    assert found("60 s", outcome()).passed
    assert found("60 s", outcome(), cells=(cell(calibration_s=61.0),)).passed is False


def test_the_tables_hold_every_run_and_every_criterion() -> None:
    runs = [outcome(wall_s=30.0 + n, repetition=n, beside=bool(b)) for n in range(3) for b in (0, 1)]
    runs[-1] = outcome(wall_s=32.9, repetition=2, beside=True, quota_s=33.0, finished=False)
    whole = validation(*runs)
    text = "\n".join([*validation_lines(whole), *(to_markdown(s) for s in validation_sheets(whole))])
    assert all(c.text in text for c in scores.criteria(whole))
    assert text.count("| cartpole-ppo |") == 2 + len(runs)
    assert "stopped, saved" in text
    assert "6 runs of 1 pairs, 3 alone, 3 beside" in text


def test_nothing_measured_is_said_and_not_passed() -> None:
    empty = validation(cells=())
    assert {c.passed for c in scores.criteria(empty) if "every pair" not in c.text} == {None}
    assert validation_sheets(empty)
