"""What a training consists of: everything that a saved state holds."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from arzbench.sb3 import env_state, model_state
from arzbench.sb3.episodes import Episodes
from arzbench.sb3.open_episodes import OpenEpisodes
from arzbench.study import PPO, OffPolicyConfig, OnPolicyConfig, TrainConfig
from arzbench.workload import LIGHT

#: episode lengths remembered
MAX_LENGTHS = 1000
STAGES = ("baseline", "train", "final", "done")


@dataclass
class Rollout:
    """The rollout being collected."""

    open: bool = False
    first_step: int = 0  # env steps done before it
    first_episode: int = 0  # episodes ended before it
    carried: int = 0  # vectorised steps done before this `learn` began

    def begin(self, timesteps: int, episodes: int) -> None:
        """Its first step is the next one, after so many env steps and episodes."""
        self.open = True
        self.carried = 0
        self.first_step = timesteps
        self.first_episode = episodes


class UpdateRule(NamedTuple):
    """When a vectorised step is followed by updates, and by how many."""

    steps: int  # not before this many steps of the rollout
    first: int  # nor from fewer env steps than these
    updates: int  # below 0: as many as the rollout has env steps
    episodes: bool = False  # rollouts are episodes: any step may be their last
    n_envs: int = 1

    def after(self, number: int, timesteps: int) -> int:
        """Gradient steps that may follow step `number` of a rollout at once, after `timesteps` env steps."""
        if number < self.steps or timesteps < self.first:
            return 0
        return self.updates if self.updates >= 0 else number * self.n_envs

    def light_steps(self, number: int, timesteps: int) -> int:
        """Steps after that one that at most `LIGHT` gradient steps follow; more where episodes end."""
        early = max(0, (self.first - timesteps - 1) // self.n_envs)
        heavy = self.steps  # the first step of a rollout that more may follow
        if self.updates < 0:
            heavy = max(heavy, LIGHT // self.n_envs + 1)
        elif self.updates <= LIGHT:
            return sys.maxsize
        if self.episodes:
            return max(early, heavy - number - 1)
        if heavy > self.steps:
            return sys.maxsize
        light = (-number - 1) % heavy
        return light if light >= early else light - (light - early) // heavy * heavy

    def fits(self, steps: int) -> bool:
        """Whether a rollout can have `steps` steps; with all of them its update is still to come."""
        return steps >= 0 and (self.episodes or steps <= self.steps)

    @classmethod
    def of(cls, config: TrainConfig) -> UpdateRule:
        """The rule of the library's `learn`."""
        if isinstance(config, OffPolicyConfig):
            frequency, unit = config.frequency
            first = config.learning_starts - config.n_envs + 1
            episodes = unit == "episode"
            return cls(1 if episodes else frequency, first, config.gradient_steps, episodes, config.n_envs)
        assert isinstance(config, OnPolicyConfig)
        updates = 1
        if isinstance(config, PPO):
            updates = config.n_epochs * math.ceil(config.rollout_steps / config.batch_size)
        return cls(config.n_steps, 0, updates, n_envs=config.n_envs)


class LiveState:
    """The parts of one training that change as it goes.

    Attributes:
        stage: baseline, train, final or done.
        horizon: Env steps that schedules are made for, whatever the budget is.
        updates: Gradient steps done.
        ended: Return and length of training episodes that the control has yet to hear of.
        lengths: Lengths of the last training episodes.
        random: Random generators to put back when the training goes on; until then anything may draw.
        noise: State of action noise to put back when `learn` has reset it.
        open_episodes: What it takes to play open episodes again, where the envs cannot be captured.
        resumed: How exactly a resumption brought the envs back, see `arzbench.workload.TIERS`.
    """

    def __init__(self, config: TrainConfig, model: Any, envs: Sequence[Any], episodes: Episodes) -> None:
        """`envs` are those that `model` trains on, `episodes` has one of its own."""
        self.config = config
        self.model = model
        self.envs = envs
        self.episodes = episodes
        self.rule = UpdateRule.of(config)
        self.rollout = Rollout()
        self.stage = STAGES[0]
        self.horizon = config.total_timesteps
        self.updates = 0
        self.ended: list[tuple[float, int]] = []
        self.lengths: deque[int] = deque(maxlen=MAX_LENGTHS)
        self.random: dict[str, Any] | None = model_state.capture_random(model)
        self.noise: list[Any] = []
        self.open_episodes = None if all(map(env_state.capturable, envs)) else OpenEpisodes(model.env, envs)
        self.resumed = ""

    @property
    def rollout_steps(self) -> int:
        """Vectorised steps of the rollout that are done."""
        return int(self.model.num_timesteps - self.rollout.first_step) // self.config.n_envs
