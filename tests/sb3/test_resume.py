"""A training that was stopped anywhere, saved, and gone on with ends in the same bits."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arzbench.facts import StopReason
from arzbench.sb3 import updates
from arzbench.study import TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import StopTraining
from tests.saves.states import header, opened
from tests.sb3.cases import ALGORITHMS, SPECIAL, STAGES, VARIANTS, whole
from tests.sb3.controls import Free, StopAt, config, start, through_bytes, tidy  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch:UserWarning")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def short_updates_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop may fall between any two gradient steps."""
    monkeypatch.setattr(updates, "LONG_STEPS", 2)
    monkeypatch.setattr(updates, "POLL_S", 0.0)


def interrupted(study: TrainConfig, stops: list[int]) -> tuple[dict[str, str], list[str], Any]:
    """The fingerprint after stops at these calls of the control, each in a training made anew."""
    training, _ = start(study)
    places, state = [], None
    for stop in stops:
        control = StopAt(stop)
        with pytest.raises(StopTraining):
            training.run(control)
        places.append(control.where)
        state = through_bytes(training.capture())
        assert state.tier == "exact"
        training, _ = start(study, state)
    training.run(Free())
    return training.fingerprint(), places, training


def stops_in(asked: int, draw: random.Random) -> list[int]:
    first = draw.randrange(asked - 2)  # the last calls leave nothing to be stopped in
    return [first, draw.randrange(max(1, asked - first - 1))]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_stopped_anywhere_it_ends_in_the_same_bits(algo: str, variant: str) -> None:
    study = config(algo, **ALGORITHMS[algo], **STAGES, **VARIANTS[variant])
    expected, control, reference = whole(study)
    draw = random.Random(f"{algo} {variant}")
    for _ in range(2):
        stops = stops_in(control.count, draw)
        found, places, resumed = interrupted(study, stops)
        assert found == expected, f"stopped at {stops}: {places}"
        assert resumed.state.episodes.results == reference.state.episodes.results
        assert resumed.facts() == reference.facts()


@pytest.mark.parametrize("name", SPECIAL)
def test_special_cases_end_in_the_same_bits(name: str) -> None:
    expected, control, _ = whole(SPECIAL[name])
    draw = random.Random(name)
    for _ in range(2):
        stops = stops_in(control.count, draw)
        found, places, _ = interrupted(SPECIAL[name], stops)
        assert found == expected, f"stopped at {stops}: {places}"


@pytest.mark.parametrize("own", [
    {"algo": "a2c", "total_timesteps": 10, "n_steps": 4, "vec_normalize": True},
    {"algo": "dqn", "total_timesteps": 18, "train_freq": [2, "episode"], "learning_starts": 6,
     "gradient_steps": -1},
])  # fmt: skip
def test_every_point_of_a_short_training(own: dict[str, Any]) -> None:
    """Each call of a control as a place to stop: baseline, steps, episodes, evaluations, the end."""
    study = config(**own, baseline={"episodes": 1}, env_kwargs={"length": 3},
                   evaluation={"eval_freq": 5, "n_eval_episodes": 1, "final_episodes": 1})  # fmt: skip
    expected, control, _ = whole(study)
    seen = set()
    for stop in range(control.count):
        found, places, _ = interrupted(study, [stop])
        seen.update(places)
        assert found == expected, f"stopped at {stop}: {places}"
    assert seen - {"update"} == {"step", "episode", "during", "evaluated", "ended"}


@pytest.mark.parametrize("own", [{"algo": "dqn", "exploration_final_eps": 0.8}, {"algo": "ppo"}])
def test_stopped_within_an_evaluation_that_draws_its_actions(own: dict[str, Any]) -> None:
    """Random actions come from NumPy and the action space, or from torch: all are put back."""
    study = config(**{**ALGORITHMS[own["algo"]], **own, "total_timesteps": 20}, seed=5, evaluation={
        "eval_freq": 15, "n_eval_episodes": 2, "deterministic": False,
    })  # fmt: skip
    expected, _, _ = whole(study)

    class Places(StopAt):
        at_during: list[int]

        def event(self, kind: str) -> None:
            super().event(kind)
            if kind == "during":
                self.at_during.append(self.count - 1)

    places = Places(10**9)
    places.at_during = []
    training, _ = start(study)
    training.run(places)
    for stop in places.at_during[4:15:5]:
        found, where, _ = interrupted(study, [stop])
        assert where == ["during"]
        assert found == expected, f"stopped at {stop}"


def test_an_interrupted_training_goes_on_in_the_same_object() -> None:
    study = config("ppo", **ALGORITHMS["ppo"], **STAGES)
    expected, control, _ = whole(study)
    training, _ = start(study)
    with pytest.raises(StopTraining):
        training.run(StopAt(control.count // 2))
    training.run(Free())
    assert training.fingerprint() == expected


def test_a_state_captured_on_the_way_is_not_changed_by_what_follows() -> None:
    study = config("dqn", **ALGORITHMS["dqn"])

    class Capture(Free):
        state: TrainingState

        def before_step(self, training: Any, updates: int) -> None:
            if training.num_timesteps == 70:
                self.state = through_bytes(training.capture())

    control = Capture()
    training, _ = start(study)
    training.run(control)
    resumed, _ = start(study, control.state)
    resumed.run(Free())
    assert resumed.fingerprint() == training.fingerprint()


def test_a_budget_can_grow_without_moving_the_horizon() -> None:
    """Exploration follows the horizon: a run in two budgets is the run in one."""
    study = config("dqn", **ALGORITHMS["dqn"], exploration_fraction=1.0)
    expected, _, _ = whole(study)
    first, _ = start(study, budget=50)
    first.run(Free())
    assert (first.stage, first.num_timesteps) == ("done", 52)
    second, _ = start(study, through_bytes(first.capture()))
    second.run(Free())
    assert second.fingerprint() == expected


def test_a_final_evaluation_cut_short_is_dropped_when_the_budget_grows() -> None:
    study = config("a2c", total_timesteps=40, evaluation={"eval_freq": 30, "n_eval_episodes": 1,
                                                          "final_episodes": 2})  # fmt: skip
    expected, _, _ = whole(study)

    class StopFinal(Free):
        def before_episode(self, training: Any, kind: str, episodes: int = 1) -> None:
            if kind == "final" and training.state.episodes.returns:
                raise StopTraining(StopReason.SIGNAL)

    first, _ = start(study, budget=20)
    with pytest.raises(StopTraining):
        first.run(StopFinal())
    assert (first.stage, len(first.state.episodes.returns)) == ("final", 1)
    second, _ = start(study, through_bytes(first.capture()))
    second.run(Free())
    assert second.fingerprint() == expected


def test_long_lists_come_back_at_their_length() -> None:
    """More episodes than statistics of the last 100 hold, and evaluations of several kinds."""
    study = config("dqn", total_timesteps=700, learning_starts=600, env_kwargs={"length": 5},
                   stats_window_size=20, **{k: STAGES[k] for k in ("baseline", "evaluation")})  # fmt: skip
    expected, control, reference = whole(study)
    found, _, resumed = interrupted(study, [control.count - 40])
    assert found == expected
    assert resumed.facts() == reference.facts()
    assert len(resumed.facts().episode_steps) == 140


def test_evaluations_do_not_touch_the_training() -> None:
    table = {**ALGORITHMS["dqn"], "seed": 3}
    plain, _, _ = whole(config("dqn", **table))
    evaluated, _, training = whole(config("dqn", **table, evaluation={"eval_freq": 13, "final_episodes": 1}))
    assert len(training.state.episodes.results) == 10
    for group in ("weights", "optimizer", "buffers", "rng", "env"):
        assert evaluated[group] == plain[group]


def test_the_fingerprint_tells_trainings_apart() -> None:
    one, _, _ = whole(config("ppo", **ALGORITHMS["ppo"], **STAGES))
    other, _, _ = whole(config("ppo", **ALGORITHMS["ppo"], **{**STAGES, "seed": 4}))
    assert all(one[group] != other[group] for group in ("weights", "optimizer", "rng", "env", "evaluations"))


CHILD = """
import json, sys
from pathlib import Path
from tests.saves.states import opened
from tests.sb3.controls import Free, start
from tests.sb3.cases import ALGORITHMS, STAGES, config

found = opened(Path(sys.argv[1])).newest("study-1")
training, _ = start(config("sac", **ALGORITHMS["sac"], **STAGES), found.load())
training.run(Free())
print(json.dumps(training.fingerprint()))
"""


def test_another_process_ends_in_the_same_bits(tmp_path: Path) -> None:
    study = config("sac", **ALGORITHMS["sac"], **STAGES)
    expected, control, _ = whole(study)
    training, _ = start(study)
    with pytest.raises(StopTraining):
        training.run(StopAt(control.count * 3 // 4))
    opened(tmp_path).save(training.capture(), header())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
