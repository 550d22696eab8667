"""Steps that the control need not be asked about: nothing is to be done at them, and nothing is missed."""

import random
from typing import Any

import pytest

from arzbench.errors import DivergedError
from arzbench.facts import Phase
from arzbench.study import TrainConfig
from arzbench.workload import StopTraining
from tests.sb3.cases import ALGORITHMS, SPECIAL, STAGES, VARIANTS, whole
from tests.sb3.controls import Seldom, StopAt, config, start, through_bytes, tidy  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch:UserWarning")

LONG_EPISODES = {"env_kwargs": {"length": 1000}}


def run(study: TrainConfig, unasked: int) -> tuple[Seldom, dict[str, str], Any]:
    training, log = start(study)
    control = Seldom(unasked)
    training.run(control)
    return control, training.fingerprint(), log


def told(control: Seldom, kind: str) -> list[Any]:
    """What it was told of; an evaluation's result has its step."""
    return [what for name, _, what in control.told if name == kind]


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("algo", ["dqn", "ppo"])
def test_what_is_due_within_is_dealt_with(algo: str, n_envs: int) -> None:
    """Evaluations at their step, and then it is asked at once; of ended episodes it hears before that."""
    own = {"dqn": {"learning_starts": 20, "batch_size": 8}, "ppo": {"n_steps": 32, "batch_size": 32}}[algo]
    evaluation = {"eval_freq": 13, "n_eval_episodes": 1}
    study = config(algo, n_envs=n_envs, total_timesteps=128, evaluation=evaluation,
                   env_kwargs={"length": 17}, **own)  # fmt: skip
    seldom, found, log = run(study, 1000)
    always, expected, _ = run(study, 0)
    for kind in ("episode", "evaluation"):
        assert told(seldom, kind) == told(always, kind) != []
    assert found == expected
    steps = 128 // n_envs
    due = {n_envs * n for n in range(13, steps, 13)}
    heavy = {n_envs * n for n in range(31, steps, 32)} if algo == "ppo" else {20}
    assert set(seldom.asked) == {0} | due | heavy
    assert {step for _, step, _ in seldom.told} <= {*seldom.asked, 128}
    assert always.asked == [*range(0, 128, n_envs)]
    assert (log.units(Phase.ENV_STEP), log.units(Phase.ROLLOUT)) == (128, steps)


class Now(StopAt):
    """Asked at random, stopped at the n-th call."""

    def __init__(self, at: int, draw: random.Random) -> None:
        super().__init__(at)
        self.draw = draw

    def before_step(self, training: Any, updates: int) -> int:
        super().before_step(training, updates)
        return self.draw.randrange(12)


@pytest.mark.parametrize("study", [
    *(config(algo, **own, **STAGES, **VARIANTS["normalised"]) for algo, own in ALGORITHMS.items()),
    *(SPECIAL[name] for name in SPECIAL if "noise" in name or "rollouts" in name),
])  # fmt: skip
def test_stopped_after_any_window_it_ends_in_the_same_bits(study: TrainConfig) -> None:
    expected, _, _ = whole(study)
    draw = random.Random(study.algo)
    state, stops = None, 0
    while True:
        training, _ = start(study, state)
        try:
            training.run(Now(draw.randrange(3, 12), draw))
        except StopTraining:
            state, stops = through_bytes(training.capture()), stops + 1
        else:
            break
    assert training.fingerprint() == expected
    assert stops > 1


@pytest.mark.parametrize(("algo", "loss"), [("dqn", "loss"), ("sac", "(actor|critic) loss")])
def test_a_loss_that_is_not_finite_is_found_with_the_window(algo: str, loss: str) -> None:
    """Also where the library itself fails at what comes of it, as the distributions of SAC do."""
    own = {"train_freq": 4, "learning_starts": 20, "batch_size": 8, "total_timesteps": 200, **LONG_EPISODES}
    training, log = start(config(algo, **own))

    class Poison(Seldom):
        def before_step(self, training: Any, updates: int) -> int:
            if training.num_timesteps == 61:
                training.model.replay_buffer.rewards[:] = float("nan")
            return super().before_step(training, updates)

    control = Poison(40)
    with pytest.raises(DivergedError, match=rf"^{loss} is nan at step"):
        training.run(control)
    assert control.asked == [0, 20, 61]
    assert log.units(Phase.ENV_STEP) == training.num_timesteps <= 102
    assert log.units(Phase.UPDATE) == training.state.updates
