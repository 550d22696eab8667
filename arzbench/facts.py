"""What a training reports of itself: its phases, its env, and why it ended."""

from __future__ import annotations

import statistics
from enum import StrEnum

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all records; an unknown field in a file is an error."""


class Phase(StrEnum):
    """Where a training's time goes. The value is the word shown."""

    IMPORT = "import"  # per session: interpreter start-up and imports
    BUILD = "build"  # per session: envs and model made
    JIT = "jit"  # per session: first reset and step, compiled code loaded or made
    FIRST = "first calls"  # per session: what the first call of a phase costs above the others
    RESET = "reset"  # per episode of training
    ENV_STEP = "env step"  # per env step of training
    POLICY = "policy"  # per forward pass of the policy that chooses training actions
    UPDATE = "update"  # per gradient step
    ROLLOUT = "rollout"  # per vectorised step: buffers, callbacks, wrappers, random actions
    EVAL_STEP = "evaluation"  # per env step of an evaluation, its policy and resets included
    BASELINE = "baseline"  # per env step under a baseline controller
    CHECKPOINT = "checkpoint"  # per save; size = bytes written
    RESTORE = "restore"  # per resumed session; size = bytes read
    LOG = "log"  # per env step with logging on
    TEARDOWN = "teardown"  # per session: from the last save to the end of the process


class EnvFacts(Record, frozen=True, kw_only=True):
    """What only running the env shows, needed to count episodes."""

    n_envs: int
    max_episode_steps: int | None
    episode_steps: tuple[int, ...]  # lengths of finished training episodes
    eval_episode_steps: tuple[int, ...]  # lengths of evaluation episodes

    def eval_length(self) -> tuple[float, float]:
        """(calibrated mean, bound) of an evaluation episode's length in env steps."""
        return self._range(self.eval_episode_steps or self.episode_steps)

    def train_length(self) -> tuple[float, float]:
        """(calibrated mean, bound) of a training episode's length in env steps."""
        return self._range(self.episode_steps or self.eval_episode_steps)

    def _range(self, seen: tuple[int, ...]) -> tuple[float, float]:
        limit = self.max_episode_steps or 0
        if not seen:
            return float(limit), float(limit)
        return statistics.fmean(seen), float(max(limit, *seen))


class StopReason(StrEnum):
    """Why a session ended. The value is the sentence shown."""

    FINISHED = "finished: the whole study is done"
    BUDGET = "the planned budget is done, the study is not"
    DEADLINE = "stopped before the deadline, with more to do"
    SIGNAL = "stopped by a signal, with more to do"
    FAILED = "failed: the last sound checkpoint is kept"
