"""What a call of `arzbench.learn` asks for and gives back, and who answers in a script that is run for it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from arzbench.errors import ExitCode
from arzbench.facts import StopReason
from arzbench.study import Built


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How `arzbench.learn` ended.

    Attributes:
        finished: The model is trained to the end.
        reason: Why it ended, None where it was only measured or counted.
        detail: More of that, in words.
        num_timesteps: Env steps done, over all sessions.
        elapsed_s: Seconds trained, over all sessions.
        left_s: Seconds left of the quota, None without one.
        folder: Where ledger and report are.
        exit_code: What the script should tell the shell: 0 finished, 4 more to do.
    """

    finished: bool
    reason: StopReason | None
    detail: str
    num_timesteps: int
    elapsed_s: float = 0.0
    left_s: float | None = None
    folder: Path | None = None
    exit_code: int = int(ExitCode.MORE_TO_DO)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LearnCall:
    """What a script asked `learn` for."""

    model: Any
    config: Built
    arguments: dict[str, Any]  # of the library's `learn`
    quota: str | None
    folder: Path
    fresh: bool
    named: bool  # the run is found by its name, whatever the script's arguments are
    leave_s: float
    eval_env: Any = None
    env_errors: int = 0


class Task(Protocol):
    """What a script is run for by a command of arzbench: asked at each call of `learn`."""

    def learn(self, call: LearnCall) -> Outcome:
        """Do what the task is with this call."""


#: the task of the script that is running; None: it runs by itself
_task: Task | None = None
_calls = itertools.count()


def current() -> Task | None:
    """The task that the running script is for."""
    return _task


def next_call() -> int:
    """The number of a call of `learn`, from 0 in each script."""
    return next(_calls)


@contextmanager
def tasked(task: Task) -> Iterator[None]:
    """Within, a script's calls of `learn` are for `task`."""
    global _task, _calls
    before = _task, _calls
    _task, _calls = task, itertools.count()
    try:
        yield
    finally:
        _task, _calls = before
