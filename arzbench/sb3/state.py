"""What a training consists of: everything that a saved state holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arzbench.loop import TrainingLoop
from arzbench.sb3 import model_state
from arzbench.sb3.callbacks import Callbacks
from arzbench.sb3.env_state import EnvState
from arzbench.sb3.episodes import Episodes
from arzbench.study import TrainConfig

Array = np.ndarray[Any, Any]
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
    complete: bool = False  # all its steps are stored, and its update is what `learn` begins with

    def begin(self, timesteps: int, episodes: int) -> None:
        """Its first step is the next one, after so many env steps and episodes."""
        self.open = True
        self.carried = 0
        self.first_step = timesteps
        self.first_episode = episodes


class LiveState:
    """The parts of one training that change as it goes.

    Attributes:
        stage: baseline, train, final or done.
        horizon: Env steps that schedules are made for, whatever the budget is.
        extended: Its budget is beyond the horizon.
        updates: Gradient steps done.
        episodes_ended: Return and length of training episodes that the control has yet to hear of.
        lengths: Lengths of the last training episodes.
        random: Random generators to put back when the training goes on; until then anything may draw.
        noise: State of action noise to put back when `learn` has reset it.
        unmonitored: Return and length so far of each env's open episode, where no Monitor tells of its end.
        like_library: Whether each bit is to be that of the library's own `learn`: updates then compute with
            denormal numbers (docs/decisions/0005-denormals.md).
        env_before: The envs' part of the state as it was before an iteration of ARS that was given up; the
            envs are put there when the training goes on.
        begun: The library's `learn` has begun, in this session or one before.
        ended: Why it ended before its budget by its own will; empty where it did not.
        callbacks: The user's own; None: there are none.
        env_state: What steps change in the envs, and how exactly it can be brought back.
        resumed: How exactly a resumption brought the envs back, see `arzbench.training_state.TIERS`.
        unseen: Why that is inexact, where it is.
    """

    def __init__(
        self, config: TrainConfig, loop: TrainingLoop, model: Any, envs: Sequence[Any], episodes: Episodes
    ) -> None:
        """`envs` are those that `model` trains on, none in processes of their own; `episodes` has another."""
        self.config = config
        self.model = model
        self.envs = envs
        self.episodes = episodes
        self.loop = loop
        self.rollout = Rollout()
        self.stage = STAGES[0]
        self.horizon = config.total_timesteps
        self.extended = False
        self.updates = 0
        self.episodes_ended: list[tuple[float, int]] = []
        self.lengths: deque[int] = deque(maxlen=MAX_LENGTHS)
        self.random: dict[str, Any] | None = model_state.capture_random(model)
        self.noise: list[Any] = []
        self.unmonitored: tuple[Array, Array] | None = None
        self.like_library = False
        self.env_before: dict[str, Any] | None = None
        self.begun = False
        self.ended = ""
        self.callbacks: Callbacks | None = None
        self.env_state = EnvState(model.env)
        self.resumed = ""
        self.unseen: list[str] = []

    @property
    def rollout_steps(self) -> int:
        """Vectorised steps of the rollout that are done."""
        return int(self.model.num_timesteps - self.rollout.first_step) // self.config.n_envs
