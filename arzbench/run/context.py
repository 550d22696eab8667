"""What the trainings of one session share: what is fixed, and how far they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from arzbench.predict.remaining import Observed, Predict, RunState
from arzbench.records import Estimate

if TYPE_CHECKING:  # it names its parts and needs none of them
    from arzbench.clock import Clock
    from arzbench.run.guard import Guard
    from arzbench.run.ledger_writer import LedgerWriter
    from arzbench.run.progress import Display
    from arzbench.saves.saver import Saver
    from arzbench.saves.uploads import Uploads
    from arzbench.study import Study

#: seconds between two predictions
PREDICT_S = 1.0
#: shares of the job's training steps at which the predicted end is kept in the ledger
MARKS = (0.05, 0.10, 0.25, 0.50)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a session works with."""

    study: Study
    budgets: tuple[int, ...]
    start: float  # clock.now() when the quota began
    quota_s: float | None
    clock: Clock
    guard: Guard
    ledger: LedgerWriter
    display: Display
    saver: Saver
    versions: dict[str, str]
    uploads: Uploads | None = None
    predict: Predict | None = None


@dataclass(slots=True, kw_only=True)
class RunProgress:
    """How far a session's trainings are."""

    steps: list[int]  # training env steps done, per training
    observed: list[Observed]  # of all sessions, lost work left out, per training
    episode_s: dict[tuple[int, str], float]  # of the last evaluation episode, by training and kind
    checkpoint: Path | None = None  # the newest
    saved_at: float | None = None
    mean_return: float | None = None  # of the last evaluation
    worked: bool = False  # anything was done in this session
    notes: list[str] = field(default_factory=list)  # for the end


@dataclass(slots=True)
class EndPrediction:
    """The predicted end of a job, anew each second; predictions at marks are kept in the ledger."""

    context: RunContext
    progress: RunProgress
    left: Estimate | None = None
    _due: float = -math.inf
    _next_mark: int = field(init=False)  # index into MARKS

    def __post_init__(self) -> None:
        self._next_mark = self._marks_passed()  # by earlier sessions

    @property
    def done(self) -> float:
        """The share of the job's training steps that is done."""
        return sum(self.progress.steps) / max(1, sum(self.context.budgets))

    def _marks_passed(self) -> int:
        return sum(mark <= self.done for mark in MARKS)

    def is_due(self, now: float) -> bool:
        """Whether it is time for another prediction."""
        if self.context.predict is None:
            return False
        return now >= self._due or self._marks_passed() > self._next_mark

    def predict(self, now: float, training: int) -> None:
        """Predict from what was observed; it can be judged by the ledger when the run has ended."""
        assert self.context.predict is not None
        self._due = now + PREDICT_S
        steps, observed = tuple(self.progress.steps), tuple(self.progress.observed)
        self.left = self.context.predict(RunState(training=training, num_timesteps=steps, observed=observed))
        passed = MARKS[self._next_mark : self._marks_passed()]
        self._next_mark += len(passed)
        if self.left is not None:
            left = {"p50_s": self.left.p50_s, "p90_s": self.left.p90_s, "p99_s": self.left.p99_s}
            for mark in passed:
                self.context.ledger.write(
                    "prediction", mark=mark, done=self.done, left=left, observed=observed
                )
