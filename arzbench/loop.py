"""The training loop of Stable-Baselines3 as data, and how often each of its events happens.

`learn` collects a rollout and makes gradient steps, in turns, until its budget is reached; it finishes
every rollout that it begins. Sources: `OffPolicyAlgorithm.learn`, `collect_rollouts`, `_sample_action`,
`OnPolicyAlgorithm.learn`, `DQN.predict`. tests/predict/test_schedule.py compares every count with
instrumented real trainings.
"""

from __future__ import annotations

import math
import sys
from typing import Literal, Self

import msgspec

#: bounds of the exploration rate while a training is measured
LEAST_RANDOM, MOST_RANDOM = 0.05, 0.5


class TrainingLoop(msgspec.Struct, frozen=True, kw_only=True):
    """When a training acts at random, acts by its policy, and learns.

    One vectorised step is a step of all `n_envs` envs; `timesteps` are env steps, of all envs together.
    """

    n_envs: int = 1
    #: length of a rollout: vectorised steps, or episodes (those only with one env)
    frequency: int
    unit: Literal["step", "episode"] = "step"
    #: actions are random for so many env steps, and no gradient step is made before them
    learning_starts: int = 0
    #: after each rollout; below 0: as many as the rollout has env steps
    gradient_steps: int
    #: an update goes over its rollout `n_epochs` times, in minibatches of this size; 0: as a whole
    batch_size: int = 0
    n_epochs: int = 1
    #: an update also does work that grows with its rollout: one that is shorter costs another price
    works_on_whole: bool = False
    #: transitions that the replay buffer holds; 0: there is none
    buffer_size: int = 0
    #: share of random actions after `learning_starts`: changes linearly within `exploration_steps` env steps
    exploration_initial_eps: float = 0.0
    exploration_final_eps: float = 0.0
    exploration_steps: float = 0.0
    #: env steps of the whole training; 0: no share of its actions is random
    exploration_horizon: int = 0
    #: policies that a rollout tries, each begun with a reset; evaluations and saves wait for its end
    candidates: int = 0

    @classmethod
    def on_policy(
        cls,
        n_envs: int,
        n_steps: int,
        *,
        batch_size: int = 0,
        n_epochs: int = 1,
        works_on_whole: bool = False,
    ) -> Self:
        """Of an algorithm that learns from each rollout of `n_steps` vectorised steps once."""
        minibatches = math.ceil(n_envs * n_steps / batch_size) if batch_size else 1
        return cls(
            n_envs=n_envs,
            frequency=n_steps,
            gradient_steps=n_epochs * minibatches,
            batch_size=batch_size,
            n_epochs=n_epochs,
            works_on_whole=works_on_whole,
        )

    def with_rollouts(self, n_steps: int) -> Self:
        """An on-policy loop with rollouts of `n_steps` vectorised steps."""
        return self.on_policy(
            self.n_envs,
            n_steps,
            batch_size=self.batch_size,
            n_epochs=self.n_epochs,
            works_on_whole=self.works_on_whole,
        )

    def short_rollout(self, steps: int) -> int | None:
        """Length of a rollout shortened to measure `steps` env steps; None: rollouts stay as they are."""
        if self.off_policy or self.unit == "episode" or self.works_on_whole:
            return None
        least = max(steps, 2 * self.batch_size)  # at least one full minibatch
        return min(self.frequency, max(1, math.ceil(least / self.n_envs / 2)))

    def brought_forward(self, rollout: int | None) -> Self:
        """This loop, learning early and in rollouts of length `rollout` (None: its own): to be measured.

        What a unit of each phase costs stays as it is. The exploration rate is the mean of the whole
        training: a random action costs less than a greedy one.
        """
        if not self.off_policy:
            return self if rollout is None else self.with_rollouts(rollout)
        start = min(self.learning_starts, max(2 * self.rollout_steps, 32))
        early = msgspec.structs.replace(self, learning_starts=start)
        if not self.exploration_horizon:
            return early
        ramp = min(1.0, self.exploration_steps / self.exploration_horizon) / 2
        mean = self.exploration_final_eps + ramp * (self.exploration_initial_eps - self.exploration_final_eps)
        epsilon = min(max(mean, LEAST_RANDOM), MOST_RANDOM)
        return msgspec.structs.replace(early, exploration_initial_eps=epsilon, exploration_final_eps=epsilon)

    def with_horizon(self, total_timesteps: int) -> Self:
        """The loop of a training of another length."""
        if not self.exploration_horizon:
            return self
        share = self.exploration_steps / self.exploration_horizon
        return msgspec.structs.replace(
            self, exploration_steps=share * total_timesteps, exploration_horizon=total_timesteps
        )

    def without_updates(self, steps: int) -> Self:
        """This loop, its first update not before `steps` env steps."""
        if self.off_policy:
            return msgspec.structs.replace(self, learning_starts=steps)
        if self.unit == "episode":
            return self
        return self.with_rollouts(max(self.frequency, steps // self.n_envs))

    @property
    def off_policy(self) -> bool:
        """Whether it learns from a replay buffer."""
        return self.buffer_size > 0

    @property
    def least_steps(self) -> int:
        """The least vectorised steps of a rollout: an episode may end at its first step."""
        return self.frequency if self.unit == "step" else 1

    @property
    def rollout_steps(self) -> int:
        """Env steps of a rollout, at least."""
        return self.n_envs * self.least_steps

    @property
    def first_update(self) -> int:
        """No gradient step follows a vectorised step that begins after fewer env steps than these."""
        return self.learning_starts - self.n_envs + 1

    def counts(self, total_timesteps: int, episode_steps: float) -> tuple[int, int, int]:
        """(rollouts, env steps, gradient steps) of `learn(total_timesteps)` with episodes of that length."""
        size: float = self.rollout_steps
        if self.unit == "episode":
            size = max(1.0, self.frequency * episode_steps)
        rollouts = math.ceil(total_timesteps / size)
        # `learn` trains after a rollout when num_timesteps > learning_starts
        without = min(rollouts, math.floor(self.learning_starts / size))
        each = self.gradient_steps if self.gradient_steps >= 0 else size
        return rollouts, round(rollouts * size), round((rollouts - without) * each)

    def policy_calls(self, calls: int) -> float:
        """Forward passes of the policy in the first `calls` vectorised steps; expected ones with epsilon."""
        start = min(calls, math.ceil(self.learning_starts / self.n_envs))
        return max(0.0, calls - start - (self._random_calls(calls) - self._random_calls(start)))

    def _random_calls(self, calls: float) -> float:
        """The integral of epsilon over the first `calls` vectorised steps."""
        start, final = self.exploration_initial_eps, self.exploration_final_eps
        ramp = self.exploration_steps / self.n_envs
        inside = min(calls, ramp)
        changing = start * inside + (final - start) * inside**2 / (2 * ramp) if ramp > 0 else 0.0
        return changing + final * (calls - inside)

    def random_share(self, timesteps: int) -> float:
        """The probability that the action after `timesteps` env steps is a random one."""
        if timesteps < self.learning_starts:
            return 1.0
        done = min(1.0, timesteps / self.exploration_steps) if self.exploration_steps else 1.0
        return self.exploration_initial_eps + done * (
            self.exploration_final_eps - self.exploration_initial_eps
        )

    def stored(self, timesteps: int) -> int:
        """Transitions in the replay buffer after `timesteps` env steps."""
        return min(timesteps, self.buffer_size)

    def complete(self, steps: int, episodes: int) -> bool:
        """Whether a rollout is over that has `steps` vectorised steps, and in which `episodes` ended."""
        return (steps if self.unit == "step" else episodes) >= self.frequency

    def fits(self, steps: int) -> bool:
        """Whether a rollout can have `steps` vectorised steps; with all of them its update is still due."""
        return steps >= 0 and (self.unit == "episode" or steps <= self.frequency)

    def updates_after(self, number: int, timesteps: int) -> int:
        """Gradient steps that may follow step `number` of a rollout, which begins after `timesteps`."""
        if number < self.least_steps or timesteps < self.first_update:
            return 0
        return self.gradient_steps if self.gradient_steps >= 0 else number * self.n_envs

    def light_steps(self, number: int, timesteps: int, most: int) -> int:
        """How many vectorised steps after that one are followed by at most `most` gradient steps each.

        More may be, where episodes are the unit.
        """
        early = max(0, (self.first_update - timesteps - 1) // self.n_envs)
        heavy = self.least_steps  # the first step of a rollout that more may follow
        if self.gradient_steps < 0:
            heavy = max(heavy, most // self.n_envs + 1)
        elif self.gradient_steps <= most:
            return sys.maxsize
        if self.unit == "episode":
            return max(early, heavy - number - 1)
        if heavy > self.frequency:
            return sys.maxsize
        light = (-number - 1) % heavy
        return light if light >= early else light - (light - early) // heavy * heavy
