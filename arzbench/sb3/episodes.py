"""Evaluations and baselines: whole episodes on an env of their own.

Every episode is seeded by its kind and number, so it is the same whatever ran before it, and one that
was stopped midway is simply played again. The final evaluation plays the baseline's episodes.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from msgspec import structs
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from arzbench.errors import UsageError
from arzbench.facts import Phase
from arzbench.sb3 import model_state
from arzbench.sb3.batch_episodes import BatchEpisodes, NotTogetherError
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.plain_state import PlainState
from arzbench.workload import AbstractTraining, Control, EvaluationResult, StopTraining

#: observation -> action
Choose = Callable[[Any], Any]
#: seed -> how the episode with that seed is played
Player = Callable[[int], Choose]
PAIRED, PERIODIC = 0, 1
#: env steps that an episode may have at least, where neither the env nor the study sets a limit
UNENDING = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An evaluation that was due earlier and is not played: all that it needs of the training at its time."""

    num_timesteps: int
    limit: int  # env steps after which an episode is broken off
    weights: dict[str, Any]  # as `model_state.capture_weights` gives them, with arrays of their own
    normalization: dict[str, Any] | None  # likewise


class Episodes:
    """Plays episodes and keeps their results.

    `returns` and `lengths` hold the finished episodes of the evaluation that is open, `plain` what the env
    keeps from one episode to the next; None: there is no env. `pending` is the open evaluation if the
    training has gone on since it was due. `batch` plays several episodes of the policy at a time, None: one.
    """

    def __init__(
        self, env: Any, timer: PhaseTimer, seed: int, model: Any, batch: BatchEpisodes | None = None
    ) -> None:
        self.env = env
        self.batch = batch
        self.plain = None if env is None else PlainState(env)
        self.results: list[EvaluationResult] = []
        self.evaluations = 0  # periodic ones among the results
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.pending: Pending | None = None
        self.broken_off = 0  # env steps after which an episode that did not end was
        self._timer = timer
        self._seed = seed
        self._model = model

    def keep(self, result: EvaluationResult) -> None:
        """Add the result of a completed evaluation or baseline."""
        self.results.append(result)
        self.evaluations += result.kind == "evaluation"

    @property
    def best(self) -> float | None:
        """The largest mean return of an evaluation, None before the first."""
        means = [r.mean_return for r in self.results if r.kind == "evaluation" and r.returns]
        return max(means) if means else None

    def drop(self) -> None:
        """Give up the evaluation that is open."""
        self.returns, self.lengths, self.pending = [], [], None

    def play(
        self,
        training: AbstractTraining,
        control: Control,
        kind: str,
        episodes: int,
        player: Player,
        limit: int,
        inline: str = "",
    ) -> None:
        """Finish the open evaluation of `kind`; an episode begun anew goes as it would have gone.

        One that has not ended after `limit` steps is broken off, and counts as it is. `inline` is why the
        training waits for it.
        """
        assert self.plain is not None
        while len(self.returns) < episodes:
            left = episodes - len(self.returns)
            count = 1 if self.batch is None or kind == "baseline" else self.batch.count(left)
            control.before_episode(training, kind, count)
            before, env_before = model_state.capture_random(self._model), self.plain.copy()
            try:
                if count > 1:
                    totals, lengths, enough = self._several(training, control, kind, player, limit, count)
                else:
                    totals, lengths, enough = self._episode(training, control, kind, player, limit)
            except (StopTraining, NotTogetherError) as stop:
                model_state.restore_random(self._model, before)
                self.plain.restore(env_before)
                if isinstance(stop, StopTraining) or self.batch is None:
                    raise
                self.batch.close()
                self.batch = None
                continue
            if enough:
                break
            self.returns += totals
            self.lengths += lengths
        self.book(training, control, kind, inline=inline)

    def book(self, training: AbstractTraining, control: Control, kind: str, **how: Any) -> None:
        """The open evaluation is complete: keep its result and tell of it; `how` it was played."""
        step = training.num_timesteps if self.pending is None else self.pending.num_timesteps
        result = EvaluationResult(
            kind=kind,
            num_timesteps=step,
            returns=tuple(self.returns),
            lengths=tuple(self.lengths),
        )
        self.drop()
        self.keep(result)
        control.evaluated(training, structs.replace(result, **how))

    def _episode(
        self, training: AbstractTraining, control: Control, kind: str, player: Player, limit: int
    ) -> tuple[list[float], list[int], bool]:
        """Return, length, and whether the control has seen enough of it."""
        timer, seed = self._timer, self._seed_of(kind, len(self.returns))
        began, logged = timer.ticks(), timer.logged_s
        observation, _ = self.env.reset(seed=seed)
        choose = player(seed)
        total, length, ended, enough = 0.0, 0, False, False
        while not ended and length < limit and not enough:
            if length:
                enough = bool(control.during_episode(training))
            observation, reward, terminated, truncated, _ = self.env.step(choose(observation))
            total += float(reward)
            length += 1
            ended = terminated or truncated
        if not ended:
            self._tell_unending(control, length)
        took = timer.ticks() - began - (timer.logged_s - logged)
        timer.add(Phase.BASELINE if kind == "baseline" else Phase.EVAL_STEP, took, length)
        return [total], [length], enough

    def _several(
        self,
        training: AbstractTraining,
        control: Control,
        kind: str,
        player: Player,
        limit: int,
        count: int,
    ) -> tuple[list[float], list[int], bool]:
        """`_episode` of the next `count` at once."""
        assert self.batch is not None
        seen_enough = False

        def enough() -> bool:
            nonlocal seen_enough
            seen_enough = bool(control.during_episode(training))
            return seen_enough

        began, first = self._timer.ticks(), len(self.returns)
        seeds = [self._seed_of(kind, first + i) for i in range(count)]
        totals, lengths, ended = self.batch.play(seeds, player, limit, enough)
        if not ended:
            self._tell_unending(control, max(lengths))
        self._timer.add(Phase.EVAL_STEP, self._timer.ticks() - began, sum(lengths))
        return totals, lengths, seen_enough

    def close(self) -> None:
        """Close all envs."""
        if self.env is not None:
            self.env.close()
        if self.batch is not None:
            self.batch.close()

    def _tell_unending(self, control: Control, length: int) -> None:
        if not self.broken_off:
            bare = self.env.unwrapped
            name = type(bare).__name__ if bare.spec is None else bare.spec.id
            control.noted(
                f"episodes of {name} do not end: evaluation stopped after {length:,} steps; "
                "set evaluation.max_steps or wrap it in a TimeLimit"
            )
        self.broken_off = length

    def _seed_of(self, kind: str, number: int) -> int:
        key = [PERIODIC, self.evaluations] if kind == "evaluation" else [PAIRED, 0]
        return int(np.random.SeedSequence([self._seed, *key, number]).generate_state(1)[0])


def controlled(controller: Any, env: Any) -> Player:
    """Episodes under a `plugins.BaselineController`."""

    def start(seed: int) -> Choose:
        controller.reset()
        return lambda observation: controller.action(env)

    return start


def randomly(env: Any) -> Player:
    """Episodes of random actions, the same for the same seed."""

    def start(seed: int) -> Choose:
        space = copy.deepcopy(env.action_space)
        space.seed(seed)
        return lambda observation: space.sample()

    return start


def by_policy(model: Any, env: Any, *, deterministic: bool, frame_stack: int = 0) -> Player:
    """Episodes of a model's policy in `env`; it sees them as in its training, normalised and stacked.

    A model that was loaded has no env of its own: `frame_stack` is how many observations it was shown.

    A recurrent policy keeps its state within an episode, a maskable one is told what `env` forbids.

    Raises:
        UsageError: a wrapper of the training's vectorised env changes observations in a way of its own.
    """
    masked = is_masked(model) and env.has_wrapper_attr("action_masks")
    views = _views(model.env)
    if model.env is None and frame_stack:
        views = [partial(_stacked, frame_stack, env.observation_space)]

    def start(seed: int) -> Choose:
        see = [make() for make in views]
        state, begins = None, True

        def choose(observation: Any) -> Any:
            nonlocal state, begins
            for view in see:
                observation = view(observation, begins)
            options = {"action_masks": env.get_wrapper_attr("action_masks")()} if masked else {}
            action, state = model.predict(
                observation, state, np.array([begins]), deterministic=deterministic, **options
            )
            begins = False
            return action[()]  # a discrete action as a scalar

        return choose

    return start


def is_masked(model: Any) -> bool:
    """Whether its policy is told which actions an env forbids."""
    return "action_masks" in inspect.signature(model.predict).parameters


#: (observation, whether its episode begins) -> observation
View = Callable[[Any, bool], Any]


def _views(vec_env: Any) -> list[Callable[[], View]]:
    """What makes, for one episode, each change that the wrappers of `vec_env` make, the innermost first."""
    views: list[Callable[[], View]] = []
    while hasattr(vec_env, "venv"):
        if isinstance(vec_env, VecNormalize):
            views.append(partial(_normalized, vec_env))
        elif isinstance(vec_env, VecFrameStack):
            views.append(partial(_stacked, vec_env.stacked_obs.n_stack, vec_env.venv.observation_space))
        elif isinstance(vec_env, VecExtractDictObs):
            views.append(partial(_extracted, vec_env.key))
        elif not isinstance(
            vec_env, VecMonitor | VecTransposeImage | VecCheckNan
        ):  # a policy transposes itself
            raise UsageError(
                f"episodes of {type(vec_env).__name__} cannot be evaluated by themselves",
                "evaluate by an EvalCallback on an env in the same wrappers",
            )
        vec_env = vec_env.venv
    return views[::-1]


def _normalized(normalizer: VecNormalize) -> View:
    return lambda observation, begins: normalizer.normalize_obs(observation)


def _extracted(key: str) -> View:
    return lambda observation, begins: observation[key]


def _stacked(frames: int, space: Any) -> View:
    stack: StackedObservations[Any] = StackedObservations(1, frames, space)

    def last(observation: Any, begins: bool) -> Any:
        """The last observations of an episode as one."""
        parts = isinstance(observation, dict)
        row = {k: v[None] for k, v in observation.items()} if parts else observation[None]
        stacked = stack.reset(row) if begins else stack.update(row, np.array([False]), [{}])[0]
        return {k: v[0] for k, v in stacked.items()} if parts else stacked[0]

    return last
