"""What the incident's two logs say, exactly."""

from pathlib import Path

import pytest

from arzbench.logs.analyze import compare, read_log
from arzbench.logs.findings import LogContext, LogReport
from arzbench.logs.source import open_source
from tests.logs.reading import tags


def read(folder: Path, name: str) -> LogReport:
    (file,) = folder.glob(f"*{name}.log")
    return read_log(open_source(str(file)), LogContext())


@pytest.fixture(scope="module")
def tpew(incident_data: Path) -> LogReport:
    return read(incident_data, "tpew")


@pytest.fixture(scope="module")
def rjot(incident_data: Path) -> LogReport:
    return read(incident_data, "rjot")


def test_tpew_is_counted(tpew: LogReport) -> None:
    assert (tpew.format, tpew.messages, tpew.lines) == ("Kaggle text tail", 16_667, 16_667)
    assert tpew.unfinished.startswith("Running Simulation: 100%")
    assert (tpew.first_s, tpew.last_s) == (43_204.9, 43_211.8)
    found = tags(tpew)
    assert (found["DEBUG_BC_GPU"], found["DEBUG_BC_DISPATCHER"]) == (9411, 7056)
    assert sum(found.values()) == 16_667


def test_tpew_s_steps(tpew: LogReport) -> None:
    steps = tpew.steps
    assert (steps.counter, steps.first, steps.last, steps.seen) == (
        "REWARD_MICROSCOPE step",
        21_724,
        21_734,
        11,
    )
    assert steps.step_s == pytest.approx(0.59)
    assert (steps.lines, steps.sim_s) == (1502, 15)
    assert steps.bytes == pytest.approx(118_700, rel=1e-3)
    assert [(r.step, r.sim_s, r.wall_s) for r in steps.rows[:2]] == [
        (21_724, 3060.0, 43_205.4),
        (21_725, 3075.0, 43_205.9),
    ]


def test_tpew_was_cut_off_by_the_limit(tpew: LogReport) -> None:
    assert tpew.end.kind == "timeout"
    assert "12-h limit" in tpew.end.text


def test_tpew_cannot_be_training_alone(tpew: LogReport) -> None:
    cycle = tpew.cycle
    assert (cycle.step, cycle.sim_s, cycle.position, cycle.length) == (21_724, 3060, 204, 240)
    assert not cycle.training_alone
    assert cycle.training_alone_sim_s == 1860
    assert cycle.fits[0] == "1,000 + 5 x 240"
    assert "this log alone does not decide" in cycle.sure


def test_what_is_known_of_the_schedule_decides(incident_data: Path) -> None:
    (file,) = incident_data.glob("*tpew.log")
    options = LogContext(episode_steps=240, eval_episodes=5)
    cycle = read_log(open_source(str(file)), options).cycle
    assert cycle.fits == ("1,000 + 5 x 240",)


def test_the_cost_of_tpew_s_flood_is_not_invented(tpew: LogReport) -> None:
    flood = tpew.flood
    assert flood.tags == ("DEBUG_BC_GPU", "DEBUG_BC_DISPATCHER")
    assert flood.share == pytest.approx(16_467 / 16_667)
    assert flood.at_most is None
    assert "too little to tell" in flood.how


def test_rjot_s_phases(rjot: LogReport) -> None:
    assert (rjot.format, rjot.messages) == ("Kaggle JSON stream", 4155)
    assert rjot.ready_s == pytest.approx(109.3, abs=0.05)
    before, training, evaluation = rjot.phases
    assert (before.kind, training.kind, evaluation.kind) == ("set-up", "training", "evaluation")
    assert training.begin_s == pytest.approx(141.6, abs=0.05)
    assert training.end_s == pytest.approx(190.6, abs=0.05)
    assert training.steps == 100
    assert training.steps_s == pytest.approx(48.9, abs=0.05)
    assert training.first_step_s == pytest.approx(2.6, abs=0.05)
    assert training.median_step_s == pytest.approx(0.47, abs=0.005)
    assert evaluation.steps == 40
    assert evaluation.end_s - evaluation.begin_s == pytest.approx(18.8, abs=0.05)


def test_rjot_finished_and_is_training_alone(rjot: LogReport) -> None:
    assert (rjot.end.kind, rjot.end.at_s) == ("finished", pytest.approx(217.5, abs=0.05))
    assert rjot.flood is None
    assert rjot.cycle.training_alone
    assert rjot.cycle.fits == ("training alone, episodes of 8 steps",)


def test_two_logs_bound_the_price_of_a_line(tpew: LogReport, rjot: LogReport) -> None:
    (said,) = compare([rjot, tpew])
    assert "at most 80.2 us a line, if nothing else differs" in said
