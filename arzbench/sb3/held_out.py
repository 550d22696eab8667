"""Policies play the same held-out episodes: baselines of an env, and models trained on it.

A training resets its envs with seeds below 2^32 (`seed + i` for its i-th env, hashes of 32 bits for its
evaluations). Held-out seeds begin at 2^33, so no policy has been trained or chosen on their episodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from numpy.typing import NDArray

from arzbench.clock import Clock
from arzbench.errors import UsageError
from arzbench.facts import Phase
from arzbench.sb3.building import algorithm, check_actions, make_env, observations_of
from arzbench.sb3.episodes import Choose, Player, by_policy, controlled, randomly
from arzbench.sb3.plugins import EnvBatch, baseline_controllers, register_plugins
from arzbench.sb3.workload import SB3Workload
from arzbench.study import TrainConfig
from arzbench.training_state import TrainingState

FIRST_HELD_OUT = 2**33

Values: TypeAlias = dict[str, NDArray[np.float64]]
"""By measure, a value for each episode."""


class HeldOutEpisodes:
    """Held-out episodes of the env of a training.

    Attributes:
        seeds: Seeds of the episodes.
        baselines: Names of the env's baselines, the reference first.
    """

    def __init__(self, config: TrainConfig, episodes: int, threads: int = 1) -> None:
        """Make the env.

        Raises:
            UsageError: there is no such env, or it refuses its arguments.
        """
        register_plugins()
        self.seeds = [FIRST_HELD_OUT + i for i in range(episodes)]
        self._env = make_env(config)
        self._controllers = baseline_controllers(self._env)
        self.baselines: tuple[str, ...] = tuple(self._controllers) or ("random",)
        self._batch: EnvBatch | None = None
        self._config = config
        as_it_is = not config.wrappers and not config.frame_stack
        if as_it_is and (batch_type := getattr(self._env.unwrapped, "batch_type", None)) is not None:
            options = {k: v for k, v in config.env_kwargs.items() if k != "render_mode"}
            self._batch = batch_type(episodes, threads=threads, **options)

    def play_baseline(self, name: str) -> Values:
        """Play all episodes under one of `baselines`."""
        if name not in self._controllers:
            return self._one_by_one(randomly(self._env))
        controller = self._controllers[name]()
        if self._batch is None:
            return self._one_by_one(controlled(controller, self._env))
        controller.reset()
        return self._batch.play(self.seeds, controller.actions)

    def play_model(self, model: Any) -> Values:
        """Play all episodes under a model's policy, deterministic.

        Raises:
            UsageError: the model is of other observations or actions.
        """
        pairs = (
            ("observations", model.observation_space, observations_of(self._config, self._env)),
            ("actions", model.action_space, self._env.action_space),
        )
        for what, of_model, of_env in pairs:
            if of_model != of_env:
                raise UsageError(
                    f"the model's {what} are {of_model}, the env's {of_env}",
                    "name the env it was trained on",
                )
        if self._batch is None:
            stack = self._config.frame_stack or 0
            return self._one_by_one(by_policy(model, self._env, deterministic=True, frame_stack=stack))
        normalizer = model.get_vec_normalize_env()

        def choose(batch: EnvBatch) -> Any:
            observations = batch.observe()
            if normalizer is not None:
                observations = normalizer.normalize_obs(observations)
            return model.predict(observations, deterministic=True)[0]

        return self._batch.play(self.seeds, choose)

    def counters(self) -> dict[str, int]:
        """What the env counted in the episodes last played; of the traffic model, its limits and guards."""
        return {} if self._batch is None else self._batch.counters()

    def _one_by_one(self, player: Player) -> Values:
        played = [_episode(self._env, seed, player(seed)) for seed in self.seeds]
        returns, lengths = np.array(played, dtype=np.float64).T
        return {"return": returns, "length [steps]": lengths}


def _episode(env: gymnasium.Env[Any, Any], seed: int, choose: Choose) -> tuple[float, int]:
    observation, _ = env.reset(seed=seed)
    total, length, ended = 0.0, 0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(choose(observation))
        total, length, ended = total + float(reward), length + 1, terminated or truncated
    return total, length


class _NoRecorder:
    def add(self, phase: Phase, seconds: float, units: int = 1) -> None:
        return


def load_model(config: TrainConfig, path: Path) -> Any:
    """The model in a .zip of the training library.

    Raises:
        UsageError: it cannot be read as one of `config.algo`, or lacks what normalised its observations.
    """
    if config.normalizes_observations:
        raise UsageError(
            f"{path}: {config.name!r} normalises observations, and the .zip holds no statistics of them",
            "name the run that trained it: --run ID",
        )
    check_actions(config, make_env(config).action_space)
    try:
        return algorithm(config).load(path, device="cpu")
    except Exception as error:
        raise UsageError(
            f"{path}: not a {config.algo.upper()} model: {error}",
            "a .zip that `arzbench run` or Stable-Baselines3's save() wrote; --algo or --study says of what",
        ) from error


def restore_model(config: TrainConfig, state: TrainingState, clock: Clock) -> Any:
    """The model of a training that was saved, with what normalises its observations.

    Raises:
        StateError: `state` is of another training.
    """
    training = SB3Workload(clock).create(config, _NoRecorder(), state=state)
    training.close()  # what it needs beside its model
    return training.model
