"""The one contract between what runs and what it costs.

A workload makes trainings; a training runs under a `Control` that it asks before each unit of work,
and reports the time of each phase to a `Recorder`. `capture` gives everything needed to go on from
the current point as if nothing had happened: arrays and plain values, never code.
"""

from __future__ import annotations

import abc
from typing import Protocol

import msgspec
import numpy as np

from arzbench.facts import EnvFacts, Phase, StopReason
from arzbench.loop import TrainingLoop
from arzbench.study import TrainConfig
from arzbench.training_state import TrainingState


class StopTraining(BaseException):
    """Raised by a `Control` to end a training at a consistent point.

    Not an `Exception`: an `except Exception` in a user's env must not swallow it.
    """

    def __init__(self, reason: StopReason, detail: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.detail = detail


class Recorder(Protocol):
    """Takes the time of phases as they happen."""

    def add(self, phase: Phase, seconds: float, units: int = 1) -> None:
        """`units` of `phase` took `seconds`."""


#: why a training waits for an evaluation that would be played beside it at another time
FIRST, LAST, SHORT = "the first of a session", "the training had ended", "too short for a process of its own"


class EvaluationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of some episodes; returns in the env's reward, lengths in env steps."""

    kind: str  # evaluation | baseline | final
    num_timesteps: int
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    beside_s: float | None = None  # seconds it took beside the training; None: the training waited for it
    inline: str = ""  # why it waited, of a periodic evaluation

    @property
    def mean_return(self) -> float:
        """Mean over the episodes."""
        return float(np.mean(self.returns)) if self.returns else float("nan")


#: gradient steps that make a vectorised step no long one
LIGHT = 4


class Control:
    """Decides, at consistent points, whether a training goes on: this one never stops it.

    Any method may raise `StopTraining`; once it left `AbstractTraining.run`, `capture` is legal.
    """

    def before_step(self, training: AbstractTraining, updates: int) -> int | None:
        """The next vectorised step would be followed at once by `updates` gradient steps.

        Returns how many steps after it need not be asked about, those with at most `LIGHT` gradient steps.
        """
        return None

    def before_episode(self, training: AbstractTraining, kind: str, episodes: int = 1) -> None:
        """The next episode of an evaluation or baseline, or several that are played at once.

        Of kind "callback": a whole evaluation by a callback of the user, after the next step. Stopping
        within it leaves no consistent point: `capture` is legal here, and then not before it is over.
        """

    def during_episode(self, training: AbstractTraining) -> bool | None:
        """Between two env steps of such an episode, or of all at once; whether enough was seen, and all ends.

        Stopping here drops what is open, whose time was not reported yet; it is played again after
        resuming, finished ones are kept.
        """
        return None

    def waiting(self, training: AbstractTraining) -> None:
        """The training can go on only when an evaluation beside it has ended; asked some ten times a second.

        An evaluation beside the training is announced by no other method before it is `evaluated`: with the
        step that it was due at, while the training is further. Stopping here, as anywhere, leaves it pending:
        `capture` holds what it needs, and it is played after resuming.
        """

    def during_update(self, training: AbstractTraining) -> None:
        """Between two gradient steps of a long update. Stopping here undoes the update; it is made again
        after resuming.
        """

    def noted(self, text: str) -> None:
        """What a user should hear of, as soon as it is known."""

    def evaluated(self, training: AbstractTraining, result: EvaluationResult) -> None:
        """An evaluation or baseline was completed."""

    def episode_ended(self, training: AbstractTraining, episode_return: float, length: int) -> None:
        """A training episode ended. It is told before the next step that is asked about."""


class AbstractTraining(abc.ABC):
    """One training in progress."""

    config: TrainConfig

    @property
    def resumed(self) -> str:
        """How exactly a resumption brought the envs back, of `TIERS`; empty for a training begun anew."""
        return ""

    @property
    def consistent(self) -> bool:
        """Whether `capture` is legal after a stop: not where one came within a callback's evaluation."""
        return True

    @property
    def ended(self) -> str:
        """Why it ended before its budget by its own will; empty where it did not."""
        return ""

    @property
    def evaluating(self) -> int | None:
        """The env steps at which an evaluation was due that is not complete yet; None: there is none."""
        return None

    @property
    def unsaved(self) -> list[str]:
        """What of the user's callbacks cannot be saved: it is as it was built, after a resumption."""
        return []

    @property
    def unseen(self) -> list[str]:
        """Why a resumption is inexact: what could not be seen or put back."""
        return []

    @property
    def computed(self) -> str:
        """How policy and updates were computed, in words; empty where there is one way only."""
        return ""

    @property
    @abc.abstractmethod
    def num_timesteps(self) -> int:
        """Training env steps done."""

    @property
    @abc.abstractmethod
    def stage(self) -> str:
        """baseline, train, final, or done."""

    @abc.abstractmethod
    def run(self, control: Control) -> None:
        """Run to the budget, evaluations and baselines included; return when it is reached."""

    @abc.abstractmethod
    def capture(self) -> TrainingState:
        """The state now. Legal within `Control.before_step`, and after `run` returned or stopped."""

    def check_sound(self) -> None:  # noqa: B027 (nothing to look at is fine)
        """Raise `DivergedError` if the state holds NaN or infinity and must not be saved."""

    @abc.abstractmethod
    def facts(self) -> EnvFacts:
        """Episode lengths seen so far, and the env's limit."""

    @abc.abstractmethod
    def set_logging(self, mode: str) -> None:
        """Switch the env's messages: off, periodic or every (for calibration)."""

    @abc.abstractmethod
    def prefill(self, transitions: int) -> None:
        """Fill the replay buffer as after `transitions` steps, so that sampling costs what it will.

        Only for calibration. A no-op for algorithms without one.
        """

    @abc.abstractmethod
    def replay_size(self) -> int:
        """Transitions in the replay buffer; 0 for algorithms without one."""

    @abc.abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """Digests of weights, optimizer, buffers, random states and counters: equal means bit-identical."""

    @abc.abstractmethod
    def export(self, path: str) -> None:
        """Write the model in its library's own format to `path`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release envs."""


class AbstractWorkload(abc.ABC):
    """A kind of training that arzbench can measure, predict and run.

    Attributes:
        checked_s: Seconds that `check` took in this process, first steps of envs included.
    """

    checked_s = 0.0

    @abc.abstractmethod
    def load(self) -> dict[str, str]:
        """Import what is needed; the versions of what decides speed and bits."""

    @abc.abstractmethod
    def check(self, config: TrainConfig) -> None:
        """Raise a `UsageError` unless `config` can be run here (env, algorithm, device, arguments)."""

    @abc.abstractmethod
    def create(
        self,
        config: TrainConfig,
        recorder: Recorder,
        *,
        budget: int | None = None,
        state: TrainingState | None = None,
        loop: TrainingLoop | None = None,
    ) -> AbstractTraining:
        """A training of `config` that runs to `budget` steps (None: `config.total_timesteps`).

        With `state` it goes on where `capture` was called; `recorder` gets every phase's time. `loop`
        takes the place of the training's own, to be measured.
        """

    @abc.abstractmethod
    def first_step(self, config: TrainConfig) -> None:
        """Make the env, reset it and step once: what just-in-time compilation costs is paid here.

        Nothing is done where `check` did it.
        """

    def is_of_env(self, error: BaseException) -> bool:
        """Whether the step or reset of an env raised `error`: another env might not have."""
        return False
