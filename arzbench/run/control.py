"""The control of one training: the guard decides, states are saved, the ledger and a display are told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from arzbench import store
from arzbench.clock import Clock
from arzbench.measure.phase_times import PhaseTotals
from arzbench.predict.remaining import Observed, Predict, RunState, merged
from arzbench.records import Estimate, Phase
from arzbench.run.guard import Guard
from arzbench.run.ledger_writer import Journal
from arzbench.run.progress import Display, Progress, Speed
from arzbench.saves.checkpoints import CheckpointStore, Header
from arzbench.saves.saver import Saver
from arzbench.saves.uploads import Uploads
from arzbench.study import Study, TrainConfig
from arzbench.workload import AbstractTraining, Evaluation

#: seconds between two looks of the display, two entries of phases, two predictions
TICK_S, FLUSH_S, PREDICT_S = 0.2, 5.0, 1.0
#: shares of the job's training steps at which the predicted end is kept in the ledger
MARKS = (0.05, 0.10, 0.25, 0.50)


@dataclass(slots=True, kw_only=True)
class Session:
    """What the trainings of one session share."""

    study: Study
    budgets: tuple[int, ...]
    start: float  # clock.now() when the quota began
    quota_s: float | None
    clock: Clock
    guard: Guard
    journal: Journal
    display: Display
    saver: Saver
    predict: Predict | None
    versions: dict[str, str]
    steps: list[int]  # training env steps done, per training
    observed: list[Observed]  # progress of each training
    episode_s: dict[tuple[int, str], float]  # of the last evaluation episode, by training and kind
    checkpoint: Path | None = None  # the newest
    uploads: Uploads | None = None
    saved_at: float | None = None
    mean_return: float | None = None  # of the last evaluation
    worked: bool = False  # anything was done in this session
    predicted: Estimate | None = None
    next_prediction: float = -math.inf
    next_mark: int = 0  # index into MARKS

    def __post_init__(self) -> None:
        self.next_mark = sum(mark <= self.done for mark in MARKS)  # those passed by earlier sessions

    @property
    def done(self) -> float:
        """The share of the job's training steps that is done."""
        return sum(self.steps) / max(1, sum(self.budgets))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saving:
    """A save under way. Times in seconds."""

    num_timesteps: int
    done: bool
    is_best: bool
    capture_s: float
    held_up_s: float  # what the training paid so far


class TrainingControl:
    """Implements `Control` for the training `index` of a session."""

    def __init__(self, session: Session, index: int, checkpoints: CheckpointStore) -> None:
        self.recorder = PhaseTotals()
        self.changed = False  # something was done since the last save
        self.kept_steps = session.steps[index]  # what a failure would leave
        self._saving: _Saving | None = None  # under way
        self._study = store.digest(session.study)
        #: mean return and num_timesteps of this training's best evaluation
        self.best: tuple[float, int] | None = None
        self._best_is_new = False  # and not in a checkpoint yet
        self._session = session
        self._index = index
        self._config: TrainConfig = session.study.trainings[index]
        self._checkpoints = checkpoints
        self._guard = session.guard
        self._poll = session.guard.poll
        self._before = session.observed[index]
        self._speed = Speed()
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._episode_kind = ""
        self._episode_began: float | None = None  # None outside of evaluations
        self._save_every = self._config.checkpoint.checkpoint_freq * self._config.n_envs
        self._next_save: float = math.inf
        self._next_tick = self._next_flush = session.clock.now()

    def start(self, training: AbstractTraining) -> None:
        """Take the training as it was made or restored."""
        if self._save_every:
            self._next_save = (training.num_timesteps // self._save_every + 1) * self._save_every
        self._guard.expect_save(training.replay_size())
        self.flush(training)

    # Control, called by the training.

    def before_step(self, training: AbstractTraining, updates: int) -> int:
        now = self._poll(updates)
        if training.num_timesteps >= self._next_save:
            self._next_save += self._save_every
            self.begin_save(training)
            now = self._poll(updates)
        if self._saving is not None or now >= self._next_tick:
            self._look(training, now)
        self.changed = True
        unasked = self._guard.unasked(now)
        if unasked and self._next_save < math.inf:
            steps_to_save = math.ceil((self._next_save - training.num_timesteps) / self._config.n_envs)
            unasked = min(unasked, steps_to_save - 1)
        return unasked

    def during_update(self, training: AbstractTraining) -> None:
        self._guard.require(0.0, "the rest of an update")

    def before_episode(self, training: AbstractTraining, kind: str) -> None:
        self._guard.pause()
        now = self._session.clock.now()
        self._book_episode(now)
        self._guard.require(self._expected_episode(training, kind), "the next evaluation episode")
        self._episode_kind, self._episode_began = kind, now
        self._look(training, now)

    def during_episode(self, training: AbstractTraining) -> None:
        now = self._guard.poll(self._episode_kind)
        if self._saving is not None or now >= self._next_tick:
            self._look(training, now)

    def evaluated(self, training: AbstractTraining, result: Evaluation) -> None:
        self._guard.pause()
        self._book_episode(self._session.clock.now())
        self._episode_began = None
        self.changed = True
        session = self._session
        session.mean_return = mean = result.mean_return
        if result.kind == "evaluation" and math.isfinite(mean) and (self.best is None or mean > self.best[0]):
            self.best, self._best_is_new = (mean, result.num_timesteps), True
        self.flush(training)
        session.journal.write(
            "evaluation",
            evaluation=result.kind,
            episode_s=session.episode_s.get((self._index, result.kind)),
            num_timesteps=result.num_timesteps,
            returns=result.returns,
            lengths=result.lengths,
        )

    def episode_ended(self, training: AbstractTraining, episode_return: float, length: int) -> None:
        self._returns.append(episode_return)
        self._lengths.append(length)

    # What the session asks for.

    def save(self, training: AbstractTraining) -> None:
        """Make what was done durable, and wait for it.

        Raises:
            StateError: it could not be written; earlier checkpoints are untouched.
            DivergedError: it holds NaN or infinity; nothing was written.
        """
        if self.changed:
            self.begin_save(training)
        self.finish_save()

    def begin_save(self, training: AbstractTraining, *, done: bool = False) -> None:
        """Save the state of now beside the training; `done` when it reached its budget.

        Raises:
            StateError: this save cannot be begun, or the one before could not be written; earlier
                checkpoints are untouched.
            DivergedError: it holds NaN or infinity; nothing was written.
        """
        self._guard.pause()
        self.finish_save()
        training.check_sound()
        self.flush(training)
        session, journal = self._session, self._session.journal
        header = Header(
            study=self._study,
            training=self._index,
            num_timesteps=training.num_timesteps,
            job_steps=sum(session.steps),
            stage=training.stage,
            done=done,
            best=self.best,
            is_best=self._best_is_new,
            elapsed_s=journal.elapsed_s,
            sessions=journal.session,
            ledger=journal.position,
            versions=session.versions,
            created=session.clock.wall().isoformat(timespec="seconds"),
        )
        began = session.clock.ticks()
        state = training.capture()
        captured = session.clock.ticks()
        session.saver.start(self._checkpoints.begin(state, header))
        self._saving = _Saving(
            num_timesteps=training.num_timesteps,
            done=done,
            is_best=header.is_best,
            capture_s=captured - began,
            held_up_s=session.clock.ticks() - began,
        )
        self.changed = False
        self._best_is_new = False
        self._guard.save_begins()
        if session.saver.ended:
            self.finish_save()

    def finish_save(self) -> None:
        """Wait for the save under way, if there is one, and tell of it.

        Raises:
            StateError: it could not be written; earlier checkpoints are untouched.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        session = self._session
        began = session.clock.ticks()
        saved = session.saver.wait()
        held_up_s = saving.held_up_s + session.clock.ticks() - began
        self.recorder.add(Phase.CHECKPOINT, held_up_s)
        seconds = saving.capture_s + saved.seconds
        self._guard.saved(seconds, saved.bytes)
        self.kept_steps = saving.num_timesteps
        session.checkpoint, session.saved_at = saved.path, session.clock.now()
        if session.uploads is not None:
            session.uploads.offer(saved.path, best=saving.is_best)
        session.journal.write(
            "checkpoint",
            # what was done beside the save is not in it: a resumption from it does that again
            self.recorder.take(Phase.CHECKPOINT),
            name=saved.path.name,
            bytes=saved.bytes,
            written=saved.written,
            seconds=seconds,
            held_up_s=held_up_s,
            done=saving.done,
        )

    def flush(self, training: AbstractTraining) -> None:
        """Write what was not yet told to the ledger."""
        session, journal = self._session, self._session.journal
        session.steps[self._index] = journal.step = training.num_timesteps
        session.observed[self._index] = merged(self._before, self.recorder.totals)
        session.worked = session.worked or self.changed
        phases = self.recorder.take()
        if self._returns:
            journal.write("episodes", phases, returns=self._returns, lengths=self._lengths)
            self._returns, self._lengths = [], []
        elif phases:
            journal.write("phases", phases)
        self._next_flush = session.clock.now() + FLUSH_S

    def _look(self, training: AbstractTraining, now: float) -> None:
        if self._session.saver.ended:
            self.finish_save()
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_S
        self._guard.expect_save(training.replay_size())
        if now >= self._next_flush:
            training.check_sound()
            self.flush(training)
        self._session.display.show(self._progress(training, now))

    def _book_episode(self, now: float) -> None:
        """An evaluation episode may have ended."""
        if self._episode_began is not None:
            self._session.episode_s[self._index, self._episode_kind] = now - self._episode_began
            self.changed = True

    def _expected_episode(self, training: AbstractTraining, kind: str) -> float:
        """Seconds of an episode: like the last one, else by the model; 0 where neither tells.

        An expectation will do: the deadline is kept by the polls within the episode.
        """
        last = self._session.episode_s.get((self._index, kind))
        if last is not None:
            return last
        phase = Phase.BASELINE if kind == "baseline" else Phase.EVAL_STEP
        return self._guard.cost_of(phase, training.facts().eval_length()[0])

    def _keep_prediction(self, left: Estimate | None) -> None:
        """What is said at a mark goes to the ledger: it can be judged when the run has ended."""
        session = self._session
        passed = [mark for mark in MARKS[session.next_mark :] if mark <= session.done]
        session.next_mark += len(passed)
        if left is not None:
            told = {"p50_s": left.p50_s, "p90_s": left.p90_s, "p99_s": left.p99_s}
            for mark in passed:
                session.journal.write(
                    "prediction", mark=mark, done=session.done, left=told, observed=session.observed
                )

    def _progress(self, training: AbstractTraining, now: float) -> Progress:
        session = self._session
        step = session.steps[self._index] = training.num_timesteps
        marked = session.next_mark < len(MARKS) and session.done >= MARKS[session.next_mark]
        if session.predict is not None and (marked or now >= session.next_prediction):
            session.next_prediction = now + PREDICT_S
            session.observed[self._index] = merged(self._before, self.recorder.totals)
            session.predicted = session.predict(
                RunState(
                    training=self._index,
                    num_timesteps=tuple(session.steps),
                    observed=tuple(session.observed),
                )
            )
            if marked:
                self._keep_prediction(session.predicted)
        return Progress(
            training=self._config.name,
            index=self._index,
            trainings=len(session.steps),
            stage=training.stage,
            num_timesteps=step,
            budget=session.budgets[self._index],
            steps_per_s=self._speed.look(now, step),
            elapsed_s=session.journal.elapsed_s,
            session_s=now - session.start,
            left_s=None if session.quota_s is None else self._guard.deadline - now,
            predicted_end=session.predicted,
            mean_return=session.mean_return,
            checkpoint_age_s=None if session.saved_at is None else now - session.saved_at,
        )
