"""The counted schedule against the library: every count equals that of a real training.

Each case runs twice: the bare library with its own callbacks, instrumented from outside, and our
training under a control that saves as the schedule says.
"""

import copy
import inspect
import itertools
import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import pytest
import stable_baselines3 as sb3
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from arzbench.facts import Phase
from arzbench.predict.schedule import count_training
from arzbench.sb3.building import algorithm
from arzbench.sb3.model_loop import loop_of
from arzbench.study import ALGORITHMS, TrainConfig
from tests.sb3.controls import Free, config, start, tidy  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:You have specified a mini-batch:UserWarning")

LENGTH = 10  # steps of every episode here
EVALUATED = {"eval_freq": 15, "n_eval_episodes": 2}

CASES: dict[str, dict[str, Any]] = {
    "dqn": {"algo": "dqn", "learning_starts": 20, "total_timesteps": 101},
    "dqn, evaluated": {"algo": "dqn", "learning_starts": 22, "total_timesteps": 90, "evaluation": EVALUATED},
    "dqn, 3 envs": {"algo": "dqn", "n_envs": 3, "learning_starts": 20, "total_timesteps": 100},
    "dqn, as many": {"algo": "dqn", "n_envs": 3, "gradient_steps": -1, "total_timesteps": 170},
    "dqn, episodes": {"algo": "dqn", "train_freq": [2, "episode"], "gradient_steps": -1,
                      "learning_starts": 40, "total_timesteps": 95},
    "dqn, never learns": {"algo": "dqn", "learning_starts": 500, "total_timesteps": 50},
    "dqn, starts on a rollout's end": {"algo": "dqn", "learning_starts": 24, "total_timesteps": 60},
    "sac": {"algo": "sac", "learning_starts": 30, "total_timesteps": 47, "evaluation": EVALUATED},
    "sac, episodes": {"algo": "sac", "train_freq": [1, "episode"], "gradient_steps": 2,
                      "learning_starts": 15, "total_timesteps": 41},
    "td3": {"algo": "td3", "learning_starts": 30, "gradient_steps": 2, "train_freq": 5,
            "total_timesteps": 52, "checkpoint": {"checkpoint_freq": 11}},
    "td3, 3 envs": {"algo": "td3", "n_envs": 3, "learning_starts": 30, "gradient_steps": -1,
                    "total_timesteps": 50, "checkpoint": {"checkpoint_freq": 6}},
    "ddpg": {"algo": "ddpg", "learning_starts": 30, "total_timesteps": 45, "evaluation": EVALUATED},
    "ppo": {"algo": "ppo", "n_steps": 16, "batch_size": 12, "n_epochs": 3, "total_timesteps": 70,
            "evaluation": EVALUATED, "checkpoint": {"checkpoint_freq": 16}},
    "ppo, 3 envs": {"algo": "ppo", "n_envs": 3, "n_steps": 8, "batch_size": 7, "n_epochs": 2,
                    "total_timesteps": 49, "evaluation": EVALUATED},
    "a2c": {"algo": "a2c", "total_timesteps": 63, "checkpoint": {"checkpoint_freq": 13}},
    "a2c, 3 envs": {"algo": "a2c", "n_envs": 3, "total_timesteps": 63, "evaluation": EVALUATED},
    "qrdqn": {"algo": "qrdqn", "learning_starts": 20, "total_timesteps": 101, "evaluation": EVALUATED},
    "qrdqn, 3 envs": {"algo": "qrdqn", "n_envs": 3, "gradient_steps": -1, "total_timesteps": 170},
    "tqc": {"algo": "tqc", "learning_starts": 30, "total_timesteps": 47, "evaluation": EVALUATED},
    "tqc, episodes": {"algo": "tqc", "train_freq": [1, "episode"], "gradient_steps": -1,
                      "learning_starts": 15, "total_timesteps": 41},
    "crossq": {"algo": "crossq", "learning_starts": 30, "total_timesteps": 47, "evaluation": EVALUATED},
    "crossq, 3 envs": {"algo": "crossq", "n_envs": 3, "learning_starts": 30, "gradient_steps": 2,
                       "train_freq": 5, "total_timesteps": 70, "checkpoint": {"checkpoint_freq": 6}},
    "trpo": {"algo": "trpo", "n_steps": 16, "batch_size": 12, "n_critic_updates": 3, "total_timesteps": 70,
             "evaluation": EVALUATED, "checkpoint": {"checkpoint_freq": 16}},
    "trpo, 3 envs": {"algo": "trpo", "n_envs": 3, "n_steps": 8, "batch_size": 7, "n_critic_updates": 2,
                     "total_timesteps": 49, "evaluation": EVALUATED},
    "recurrentppo": {"algo": "recurrentppo", "n_steps": 16, "batch_size": 12, "n_epochs": 3,
                     "total_timesteps": 70, "evaluation": EVALUATED, "checkpoint": {"checkpoint_freq": 16}},
    "recurrentppo, 3 envs": {"algo": "recurrentppo", "n_envs": 3, "n_steps": 8, "batch_size": 7,
                             "n_epochs": 2, "total_timesteps": 49, "evaluation": EVALUATED},
    "maskableppo": {"algo": "maskableppo", "n_steps": 16, "batch_size": 12, "n_epochs": 3,
                    "total_timesteps": 70, "evaluation": EVALUATED, "checkpoint": {"checkpoint_freq": 16}},
    "maskableppo, 3 envs": {"algo": "maskableppo", "n_envs": 3, "n_steps": 8, "batch_size": 7,
                            "n_epochs": 2, "total_timesteps": 49, "evaluation": EVALUATED},
}  # fmt: skip


@dataclass
class Counts:
    """What happened in one training."""

    steps: int = 0
    calls: int = 0
    rollouts: int = 0
    updates: int = 0
    evaluated_steps: int = 0
    saves: int = 0


class CountSteps(gym.Wrapper):
    def __init__(self, env: gym.Env, counts: Counts, name: str) -> None:
        super().__init__(env)
        self.counts, self.name = counts, name

    def step(self, action: Any) -> Any:
        setattr(self.counts, self.name, getattr(self.counts, self.name) + 1)
        return super().step(action)


class CountRollouts(BaseCallback):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def _on_rollout_start(self) -> None:
        self.counts.rollouts += 1

    def _on_step(self) -> bool:
        self.counts.calls += 1
        return True


def make(case: str) -> TrainConfig:
    table = dict(CASES[case])
    algo = table.pop("algo")
    return config(algo, env_kwargs={"length": LENGTH}, **table)


def bare(study: TrainConfig, folder: Any) -> Counts:
    """The library's own `learn` with its own callbacks."""
    counts = Counts()

    def env(name: str) -> Monitor:
        return Monitor(CountSteps(gym.make(study.env, **study.env_kwargs), counts, name))

    model = algorithm(study)(
        study.policy,
        DummyVecEnv([lambda: env("steps")] * study.n_envs),
        seed=0,
        device="cpu",
        **copy.deepcopy(study.constructor_arguments()),  # it writes into policy_kwargs
    )
    # every algorithm updates one of these in each gradient step
    learner = model.critic if study.ACTIONS == ("Box",) else model.policy
    learner.optimizer.register_step_post_hook(lambda *_: setattr(counts, "updates", counts.updates + 1))
    callbacks: list[BaseCallback] = [CountRollouts(counts)]
    evaluation, frequency = study.evaluation, study.checkpoint.checkpoint_freq
    if evaluation.eval_freq:
        callbacks.append(
            EvalCallback(
                env("evaluated_steps"),
                eval_freq=evaluation.eval_freq,
                n_eval_episodes=evaluation.n_eval_episodes,
                verbose=0,
            )
        )
    if frequency:
        callbacks.append(CheckpointCallback(frequency, str(folder)))
    model.learn(study.total_timesteps, CallbackList(callbacks))
    counts.saves = len(list(folder.glob("*.zip")))
    return counts


class Foretold(Free):
    """Remembers the updates foretold before each step, and those done until then."""

    def __init__(self) -> None:
        super().__init__()
        self.foretold: list[int] = []
        self.done: list[int] = []

    def before_step(self, training: Any, updates: int) -> None:
        super().before_step(training, updates)
        self.foretold.append(updates)
        self.done.append(training.state.updates)


def check_foretold(study: TrainConfig, control: Foretold) -> None:
    """Exact where rollouts are steps; never too few where they are episodes."""
    real = [after - before for before, after in itertools.pairwise(control.done)]
    if study.loop.unit == "episode":
        assert all(told >= was for told, was in zip(control.foretold, real, strict=True))
        assert sum(real) > 0
    else:
        assert control.foretold == real


@pytest.mark.parametrize("case", CASES)
def test_counts_equal_those_of_the_library(case: str, tmp_path: Any) -> None:
    study = make(case)
    seen = bare(study, tmp_path)
    training, log = start(study)
    control = Foretold()
    training.run(control)
    control.done.append(training.state.updates)
    counted = count_training(study, training.facts())

    check_foretold(study, control)
    assert seen.steps == log.units(Phase.ENV_STEP) == counted.total_timesteps
    assert seen.calls == log.units(Phase.ROLLOUT) == counted.get(Phase.ROLLOUT).count == control.steps
    assert seen.updates == log.units(Phase.UPDATE) == training.state.updates == counted.updates
    assert seen.updates == counted.get(Phase.UPDATE).count
    assert seen.rollouts == counted.rollouts
    resets = log.units(Phase.RESET)
    assert resets == study.n_envs * (1 + counted.total_timesteps // study.n_envs // LENGTH)
    assert 0 <= counted.get(Phase.RESET).count - resets < study.n_envs
    if not study.loop.exploration_horizon:  # whose random actions are counted in the mean
        assert log.units(Phase.POLICY) == counted.get(Phase.POLICY).count
    assert seen.evaluated_steps == log.units(Phase.EVAL_STEP) == counted.get(Phase.EVAL_STEP).count
    assert len(control.evaluations) == counted.evaluations
    assert log.units(Phase.LOG) == counted.get(Phase.LOG).count
    # The library saves after every `checkpoint_freq` calls. A run saves there too, but for the last
    # call, and once more at its end: one save more unless the end is such a call anyway.
    frequency = study.checkpoint.checkpoint_freq
    assert control.saves + 1 == counted.checkpoints == counted.get(Phase.CHECKPOINT).count
    assert counted.checkpoints == seen.saves + (not frequency or seen.calls % frequency != 0)


@pytest.mark.parametrize("case", CASES)
def test_a_model_says_the_same_of_its_loop(case: str) -> None:
    study = make(case)
    training, _ = start(study)
    assert loop_of(training.model, study.total_timesteps) == study.loop


def test_greedy_actions_of_dqn_are_as_many_as_epsilon_leaves() -> None:
    """Expected counts: within four standard deviations of the binomial, at a fixed seed."""
    study = config("dqn", learning_starts=100, total_timesteps=1000, exploration_fraction=0.5, train_freq=50)
    training, log = start(study)
    training.run(Free())
    expected = count_training(study, training.facts()).get(Phase.POLICY).count
    assert expected == pytest.approx(900 - 400 * (0.81 + 0.05) / 2 - 500 * 0.05, rel=0.01)
    assert abs(log.units(Phase.POLICY) - expected) < 4 * math.sqrt(400 * 0.25 + 500 * 0.0475)


@pytest.mark.parametrize(
    "own", [{"n_delta": 2}, {"n_delta": 1, "n_eval_episodes": 3, "total_timesteps": 100}]
)
def test_ars_counts_whole_episodes_of_each_policy_it_tries(own: dict[str, Any]) -> None:
    table = {"total_timesteps": 170, "policy_kwargs": {}, "env_kwargs": {"length": LENGTH}, **own}
    study = config("ars", evaluation=EVALUATED, **table)
    library = algorithm(study)
    counts = Counts()
    model = library(
        study.policy,
        Monitor(CountSteps(gym.make(study.env, **study.env_kwargs), counts, "steps")),
        seed=0,
        **study.constructor_arguments(),
    )
    model.learn(study.total_timesteps, CountRollouts(counts))
    training, log = start(study)
    control = Free()
    training.run(control)
    counted = count_training(study, training.facts())
    assert counts.steps == log.units(Phase.ENV_STEP) == counted.total_timesteps
    assert training.state.updates == counted.updates == counted.rollouts
    assert len(control.evaluations) == counted.evaluations == counted.rollouts
    assert log.units(Phase.RESET) == counted.get(Phase.RESET).count
    for phase in (Phase.POLICY, Phase.ROLLOUT, Phase.EVAL_STEP, Phase.LOG):
        assert log.units(phase) == counted.get(phase).count, phase
    assert loop_of(training.model, study.total_timesteps) == study.loop


def test_a_training_cut_by_its_budget_is_counted_the_same() -> None:
    for case, budget in (("dqn, evaluated", 33), ("ppo", 20), ("dqn, episodes", 21)):
        study = make(case)
        training, log = start(study, budget=budget)
        training.run(Free())
        counted = count_training(study, training.facts(), budget=budget)
        assert training.num_timesteps == log.units(Phase.ENV_STEP) == counted.total_timesteps
        assert training.state.updates == counted.updates
        assert log.units(Phase.EVAL_STEP) == counted.get(Phase.EVAL_STEP).count


def test_baseline_and_final_episodes_are_counted() -> None:
    study = config("a2c", total_timesteps=20, baseline={"episodes": 3}, evaluation={"final_episodes": 2})
    training, log = start(study)
    training.run(Free())
    counted = count_training(study, training.facts())
    assert log.units(Phase.BASELINE) == counted.get(Phase.BASELINE).count == 3 * LENGTH
    assert log.units(Phase.EVAL_STEP) == counted.get(Phase.EVAL_STEP).count == 2 * LENGTH


@pytest.mark.parametrize(("algo", "steps", "updates"), [("dqn", 100, 0), ("sac", 100, 0), ("td3", 100, 0),
                                                        ("ppo", 2048, 320), ("a2c", 100, 20)])  # fmt: skip
def test_what_a_hundred_steps_are_at_the_defaults(algo: str, steps: int, updates: int) -> None:
    study = config(algo, total_timesteps=100)
    training, _ = start(study)
    training.run(Free())
    counted = count_training(study, training.facts())
    assert (training.num_timesteps, training.state.updates) == (steps, updates)
    assert (counted.total_timesteps, counted.updates) == (steps, updates)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_studies_know_the_library_s_arguments(algo: str) -> None:
    """Fields that count have its names and defaults; the others are all there are and no more."""
    kind = ALGORITHMS[algo]
    signature = dict(inspect.signature(algorithm(kind(env="x", total_timesteps=1)).__init__).parameters)  # type: ignore[call-arg]
    if "kwargs" in signature:
        signature |= inspect.signature(sb3.TD3.__init__).parameters
    ours = {"self", "policy", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model"}
    names = set(signature) - ours - {"args", "kwargs"}
    assert set(kind.schedule_fields()) | kind.EXTRA == names
    config_ = kind(env="x", total_timesteps=1)  # type: ignore[call-arg]
    for name in kind.schedule_fields():
        assert getattr(config_, name) == signature[name].default
