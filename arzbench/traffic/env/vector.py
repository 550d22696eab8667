"""Vector environments: many environments, one call of the engine a step.

`ArzVectorEnv` is Gymnasium's; `arzbench.traffic.env.vec_env.ArzVecEnv` is Stable-Baselines3's. Environment i
of either gives what an `ArzEnv` of the same seed gives, bit for bit.
"""

from importlib import import_module
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from arzbench.traffic.env import DECISIONS, ENVIRONMENTS
from arzbench.traffic.env.base import ArzEnv
from arzbench.traffic.env.batch import Floats, Integers, Observations, check_captured, pick, whole
from arzbench.traffic.physics.detectors import ACCOUNTS


def env_class(name: str) -> type[ArzEnv]:
    """The class of a registered environment.

    Raises:
        ValueError: If there is no such name.
    """
    module, _, kind = pick("env", name, ENVIRONMENTS)[0].partition(":")
    registered: type[ArzEnv] = getattr(import_module(f"arzbench.traffic.env.{module}"), kind)
    return registered


class EpisodeBatch:
    """A batch with a random generator for each environment, reset as episodes end.

    What both kinds of vector environment are, whichever library's methods they have.
    """

    def __init__(self, name: str, num_envs: int, **options: Any) -> None:
        """Make `num_envs` environments of a registered name; options are those of `ArzBatch`.

        Raises:
            ValueError: If the name or an option is unknown, or `num_envs` is less than one.
        """
        self.batch = env_class(name).batch_type(num_envs, **options)
        self.rngs: list[np.random.Generator | None] = [None] * num_envs
        self.spaces = (
            spaces.Box(0.0, 1.0, (self.batch.observation_size,), np.float32),
            spaces.Discrete(self.batch.actions),
        )

    def start(self, seeds: list[int | None]) -> Observations:
        """Start all environments; one without a seed goes on with its own generator.

        Raises:
            ValueError: If there is not one seed or None for each environment.
        """
        if len(seeds) != len(self.rngs):
            raise ValueError(f"{len(seeds)} seeds: one for each of {len(self.rngs)} environments")
        for env, seed in enumerate(seeds):
            if seed is not None or self.rngs[env] is None:
                self.rngs[env] = seeding.np_random(seed)[0]
            self._restart(env)
        observations: Observations = self.batch.observe()
        return observations

    def _restart(self, env: int) -> None:
        rng = self.rngs[env]
        assert rng is not None, "reset comes before step"
        self.batch.reset_env(env, rng)

    def get_state(self) -> list[dict[str, Any]]:
        """Return for each environment its part of the batch, and its generator as `np_random`."""
        return [
            {**self.batch.get_state(env), "np_random": None if rng is None else rng.bit_generator.state}
            for env, rng in enumerate(self.rngs)
        ]

    def set_state(self, states: list[dict[str, Any]]) -> None:
        """Restore what `get_state` returned: all go on bit for bit.

        Raises:
            ValueError: If there is not one state for each environment, one lacks an entry, or an
                array has another shape or type; then nothing is changed.
        """
        if len(states) != len(self.rngs):
            raise ValueError(f"{len(states)} states: one for each of {len(self.rngs)} environments")
        for env, state in enumerate(states):
            check_captured(state, {**self.batch.get_state(env), "np_random": 0})
        for env, state in enumerate(states):
            self.batch.set_state(env, state)
            self.rngs[env] = None
            if state["np_random"] is not None:
                self.rngs[env] = rng = seeding.np_random()[0]
                rng.bit_generator.state = state["np_random"]

    def advance(
        self, actions: Integers
    ) -> tuple[Observations, Floats, NDArray[np.bool_], Observations | None]:
        """Step all; restart those at their end.

        Returns:
            Observations (of the new episode where one ended), the batch's report, ends, and the
            last observations of the episodes that ended if any did.
        """
        report = self.batch.report(actions)
        last = None
        if self.batch.ending:
            done = self.batch.time >= DECISIONS
            last = self.batch.observe()
            for env in np.flatnonzero(done):
                self._restart(int(env))
        else:
            done = np.zeros(len(self.rngs), np.bool_)
        return self.batch.observe(), report, done, last


def _masked(report: Floats, of: NDArray[np.bool_]) -> dict[str, Any]:
    """Infos as Gymnasium has them: an array of each kind, and under `_` whom it speaks of."""
    values = dict(zip(ACCOUNTS, report, strict=False))
    return values | dict.fromkeys((f"_{name}" for name in values), of)


class ArzVectorEnv(EpisodeBatch, VectorEnv[NDArray[np.float32], NDArray[np.int64], NDArray[Any]]):
    """Gymnasium vector environment; an episode that ends restarts within the step.

    Its last observation and accounts are then under `final_obs` and `final_info`, as in
    Gymnasium's own vector environments in that mode.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, name: str, num_envs: int = 1, **options: Any) -> None:
        """Make the environments; arguments and errors are those of `EpisodeBatch`."""
        super().__init__(name, num_envs, **options)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = self.spaces
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all = np.ones(num_envs, np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start all environments; an integer seeds environment i with `seed + i`.

        Raises:
            ValueError: If a list of seeds is not of one for each environment.
        """
        if seed is None:
            seeds: list[int | None] = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            seeds = [int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        return self.start(seeds), _masked(self.batch.measure(self.batch.state.totals), self._all)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Step all environments."""
        observations, report, done, last = self.advance(whole(actions))
        rewards = report[-1]
        out = _masked(report, self._all)
        if last is not None:
            out = _masked(np.where(done, 0.0, report), self._all)  # of the new episodes
            out |= {
                "final_obs": last,
                "_final_obs": done,
                "final_info": _masked(report, done),
                "_final_info": done,
            }
        return observations, rewards, np.zeros(self.num_envs, np.bool_), done, out


def make_vector(
    name: str, num_envs: int = 1, max_episode_steps: int = DECISIONS, **options: Any
) -> ArzVectorEnv:
    """What `gymnasium.make_vec` makes, in its default mode.

    Raises:
        ValueError: As `ArzVectorEnv`, and if episodes of another length are asked for.
    """
    if max_episode_steps != DECISIONS:
        raise ValueError(
            f"max_episode_steps={max_episode_steps}: episodes of a batch have {DECISIONS} decisions; "
            "vectorization_mode='sync' can cut them"
        )
    return ArzVectorEnv(name, num_envs, **options)
