"""What a host's record of finished runs says of the next one, against theory."""

import itertools
import math

import numpy as np
import pytest

from arzbench.predict.costmodel import Job
from arzbench.predict.schedule import count_training
from arzbench.predict.spread import (
    ELSEWHERE_LOG_SIGMA,
    FOREIGN_LOG_SIGMA,
    HOST_SIGMA,
    RECENT,
    PastRun,
    spread_from,
)
from tests.worlds import EXACT, FULL, model_of

PRIOR = spread_from([])


def runs(ratios: list[float], training: str = "t", calibration: str = "c") -> list[PastRun]:
    return [PastRun(ratio, training, calibration) for ratio in ratios]


def test_without_a_record_the_stated_prior_remains() -> None:
    assert PRIOR.log_centre == 0.0
    assert PRIOR.log_sigma == pytest.approx(0.10, abs=0.005)
    assert PRIOR.price_share == 1.0
    assert PRIOR.source == "prior (10%; no finished run on this host yet)"


def test_a_training_seen_before_is_predicted_by_what_it_took() -> None:
    past = runs([1.10, 1.11, 1.09]) + runs([0.98, 0.99], "other", "others")
    same = spread_from(past, training="t", calibration="c")
    again = spread_from(past, training="t", calibration="newer")
    other = spread_from(past, training="new", calibration="newer")
    assert math.exp(same.log_centre) == pytest.approx(1.10, abs=0.01)
    assert 1.0 < math.exp(other.log_centre) < math.exp(again.log_centre) < math.exp(same.log_centre)
    assert same.log_sigma < again.log_sigma < other.log_sigma < PRIOR.log_sigma
    assert same.price_share < 0.5
    assert again.price_share == other.price_share == 1.0
    told = "5 finished run(s) on this host, 3 of this training, 3 by this calibration"
    assert same.source == told


def test_each_run_that_agrees_narrows_and_one_that_does_not_widens() -> None:
    widths = [spread_from(runs([1.0] * n), training="t", calibration="c").log_sigma for n in range(12)]
    assert all(a > b for a, b in itertools.pairwise(widths))
    assert widths[-1] > 0.005
    odd = spread_from(runs([1.0] * 10 + [1.3]), training="t", calibration="c")
    assert odd.log_sigma > 3 * widths[11]


def test_a_host_that_takes_longer_with_everything_is_found_out() -> None:
    past = [PastRun(1.2 * f, f"t{i}", f"c{i}") for i, f in enumerate([0.98, 1.0, 1.02] * 10)]
    spread = spread_from(past, training="new", calibration="new")
    assert math.exp(spread.log_centre) == pytest.approx(1.2, rel=0.02)


def test_old_runs_are_forgotten_and_the_coverage_so_far_is_told() -> None:
    old = [PastRun(3.0, "t", "c", False)] * 50
    new = [PastRun(1.0, "t", "c", True)] * (RECENT - 1) + [PastRun(1.1, "t", "c", False)]
    spread = spread_from(old + new, training="t", calibration="c")
    assert len(spread.ratios) == RECENT
    assert math.exp(spread.log_centre) == pytest.approx(1.0, abs=0.01)
    assert spread.source.endswith(f"; {RECENT - 1} of {RECENT} ended by their P90")


def test_another_machines_prices_are_widened_whatever_this_one_has_seen() -> None:
    past = runs([1.2] * 20)
    foreign = spread_from(past, training="t", calibration="c", foreign=True)
    named = spread_from(past, training="t", calibration="c", foreign=True, named="lab-2")
    assert foreign.log_sigma == FOREIGN_LOG_SIGMA > ELSEWHERE_LOG_SIGMA == named.log_sigma > PRIOR.log_sigma
    assert foreign.log_centre == named.log_centre == 0.0


def test_the_centre_moves_the_whole_estimate_and_the_share_the_prices_errors() -> None:
    model = model_of(FULL, spread=0.05)
    parts = [(model, count_training(FULL, model.facts, state_bytes=model.state_bytes))]
    spread = spread_from(runs([1.2, 1.2, 1.2]), training="t", calibration="c")
    factor = Job(parts, spread).quantile(0.5) / Job(parts, EXACT).quantile(0.5)
    assert factor == pytest.approx(math.exp(spread.log_centre), rel=0.01)
    known = EXACT.__class__(source="", log_sigma=0.0, price_share=0.0)
    assert np.ptp(Job(parts, known).seconds) < np.ptp(Job(parts, EXACT).seconds)


@pytest.mark.parametrize(
    ("of_training", "of_calibration", "of_run"),
    [(0.05, 0.03, 0.02), (0.01, 0.01, 0.08), (0.10, 0.06, 0.01), (0.02, 0.02, 0.02)],
)
def test_intervals_hold_on_hosts_of_every_kind(
    of_training: float, of_calibration: float, of_run: float
) -> None:
    """60 hosts; each trains five trainings with two calibrations each, and every run is predicted first."""
    dice = np.random.default_rng(7)
    scores: list[float] = []
    for _ in range(60):
        host = dice.normal(0, HOST_SIGMA)
        trainings = dice.normal(0, of_training, 5)
        calibrations = dice.normal(0, of_calibration, (5, 2))
        past: list[PastRun] = []
        for _ in range(20):
            t, c = dice.integers(5), dice.integers(2)
            log_ratio = host + trainings[t] + calibrations[t, c] + dice.normal(0, of_run)
            spread = spread_from(past, training=f"{t}", calibration=f"{t}{c}")
            scores.append((log_ratio - spread.log_centre) / spread.log_sigma)
            past.append(PastRun(math.exp(log_ratio), f"{t}", f"{t}{c}"))
    found = np.array(scores)
    assert 0.90 <= np.mean(abs(found) <= 1.96) <= 0.995
    assert 0.90 <= np.mean(found <= 1.645) <= 0.99
    assert abs(np.mean(found)) < 0.15
