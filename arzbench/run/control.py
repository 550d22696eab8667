"""The control of one training: asks the guard, saves states, reports to the ledger and a display."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from arzbench.digest import digest
from arzbench.facts import Phase
from arzbench.measure.phase_times import PhaseTotals
from arzbench.predict.remaining import Observed, merged
from arzbench.run.context import EndPrediction, RunContext, RunProgress
from arzbench.run.progress import Progress, Speed
from arzbench.saves.checkpoints import CheckpointStore, Header
from arzbench.study import TrainConfig
from arzbench.workload import AbstractTraining, Control, EvaluationResult

#: seconds between two looks of the display, two entries of phases
TICK_S, FLUSH_S = 0.2, 5.0
#: an evaluation by a callback that takes so long is worth a save before it
SHORT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saving:
    """A save under way. Times in seconds."""

    num_timesteps: int
    done: bool
    maybe_best: bool  # the first state since the best evaluation, or since one whose result is not known
    capture_s: float
    observed: Observed
    held_up_s: float  # what the training paid so far


class TrainingControl(Control):
    """Implements `Control` for the training `index` of a session."""

    def __init__(
        self,
        context: RunContext,
        progress: RunProgress,
        end_prediction: EndPrediction,
        index: int,
        checkpoints: CheckpointStore,
    ) -> None:
        self.recorder = PhaseTotals()
        self.changed = False  # something was done since the last save
        self.kept_steps = progress.steps[index]  # what a failure would leave
        self.kept_observed = progress.observed[index]
        self._saving: _Saving | None = None  # under way
        self._study = digest(context.study)
        #: mean return and num_timesteps of this training's best evaluation
        self.best: tuple[float, int] | None = None
        self._best_is_new = False  # and not in a checkpoint yet
        #: num_timesteps of the newest evaluation that a checkpoint awaits
        self.awaited: int | None = None
        self._context = context
        self._progress = progress
        self._end_prediction = end_prediction
        self._index = index
        self._config: TrainConfig = context.study.trainings[index]
        self._checkpoints = checkpoints
        self._guard = context.guard
        self._poll = context.guard.poll
        self._before = progress.observed[index]
        self._speed = Speed()
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._episode_kind = ""
        self._episode_began: float | None = None  # None outside of evaluations
        self._at_once = 1  # episodes that are played
        self._save_every = self._config.checkpoint.checkpoint_freq * self._config.n_envs
        self._next_save: float = math.inf
        self._next_tick = self._next_flush = context.clock.now()
        self._polled_at = 0  # num_timesteps at the last question

    def start(self, training: AbstractTraining, *, save_first: bool = False) -> None:
        """Take the training as it was made or restored; `save_first`: it is saved before its first step."""
        self._next_save = training.num_timesteps if save_first else self._save_after(training.num_timesteps)
        self._polled_at = training.num_timesteps
        self._guard.expect_save(training.replay_size())
        self.flush(training)

    def _save_after(self, step: int) -> float:
        """The step of the next periodic save after `step`."""
        return (step // self._save_every + 1) * self._save_every if self._save_every else math.inf

    # Control, called by the training.

    def before_step(self, training: AbstractTraining, updates: int) -> int:
        step, n_envs = training.num_timesteps, self._config.n_envs
        now = self._poll(updates, max(1, (step - self._polled_at) // n_envs))
        self._polled_at = step
        if step >= self._next_save:
            self._next_save = self._save_after(step)
            self.begin_save(training)
            now = self._poll(updates)
        if self._saving is not None or now >= self._next_tick:
            self._look(training, now)
        self.changed = True
        stride = self._guard.stride(now)
        if stride and self._next_save < math.inf:
            stride = min(stride, math.ceil((self._next_save - step) / n_envs) - 1)
        return stride

    def during_update(self, training: AbstractTraining) -> None:
        self._guard.require(0.0, "the rest of an update")

    def before_episode(self, training: AbstractTraining, kind: str, episodes: int = 1) -> None:
        self._guard.pause()
        now = self._context.clock.now()
        self._book_episode(now)
        expected_s = episodes * self._expected_episode(training, kind)
        what = "the next evaluation episode" if episodes == 1 else f"the next {episodes} evaluation episodes"
        self._guard.require(expected_s, what)
        if kind == "callback" and self.changed and not 0 < expected_s < SHORT_S:
            self.begin_save(training)  # one that is broken off in its middle begins anew from here
            now = self._context.clock.now()
        self._episode_kind, self._episode_began, self._at_once = kind, now, episodes
        self._look(training, now)

    def during_episode(self, training: AbstractTraining) -> None:
        now = self._guard.poll(self._episode_kind)
        if self._saving is not None or now >= self._next_tick:
            self._look(training, now)

    def waiting(self, training: AbstractTraining) -> None:
        self._guard.pause()
        self._guard.require(0.0, "waiting for an evaluation")
        self._look(training, self._context.clock.now())

    def noted(self, text: str) -> None:
        if text not in self._progress.notes:
            self._progress.notes.append(text)
            self._context.ledger.write("note", text=text)
            self._context.display.say(f"  {text}")

    def evaluated(self, training: AbstractTraining, result: EvaluationResult) -> None:
        self._guard.pause()
        self._book_episode(self._context.clock.now())
        self._episode_began = None
        self.changed = True
        self._progress.mean_return = mean = result.mean_return
        if result.kind == "evaluation" and math.isfinite(mean) and (self.best is None or mean > self.best[0]):
            self.best = (mean, result.num_timesteps)
            self._best_is_new = result.num_timesteps != self.awaited
        self.flush(training)
        how: dict[str, Any] = {"beside_s": result.beside_s, "inline": result.inline or None}
        how = {name: value for name, value in how.items() if value is not None}
        self._context.ledger.write(
            "evaluation",
            evaluation=result.kind,
            episode_s=self._progress.episode_s.get((self._index, result.kind)),
            num_timesteps=result.num_timesteps,
            returns=result.returns,
            lengths=result.lengths,
            **how,
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
        ledger = self._context.ledger
        awaits = training.evaluating
        first = awaits is not None and awaits != self.awaited
        header = Header(
            study=self._study,
            training=self._index,
            num_timesteps=training.num_timesteps,
            job_steps=sum(self._progress.steps),
            stage=training.stage,
            done=done,
            best=self.best,
            is_best=self._best_is_new,
            awaits=UNSET if awaits is None else awaits,
            elapsed_s=ledger.elapsed_s,
            sessions=ledger.session,
            ledger=ledger.position,
            versions=self._context.versions,
            created=self._context.clock.wall().isoformat(timespec="seconds"),
        )
        began = self._context.clock.ticks()
        state = training.capture()
        captured = self._context.clock.ticks()
        self._context.saver.start(self._checkpoints.begin(state, header))
        self._saving = _Saving(
            num_timesteps=training.num_timesteps,
            done=done,
            maybe_best=header.is_best or first,
            capture_s=captured - began,
            observed=self._progress.observed[self._index],
            held_up_s=self._context.clock.ticks() - began,
        )
        self.changed = False
        self._best_is_new = False
        self.awaited = self.awaited if awaits is None else awaits
        self._guard.save_begins()
        if self._context.saver.ended:
            self.finish_save()

    def finish_save(self) -> None:
        """Wait for the save under way, if there is one, and tell of it.

        Raises:
            StateError: it could not be written; earlier checkpoints are untouched.
        """
        saving, self._saving = self._saving, None
        if saving is None:
            return
        began = self._context.clock.ticks()
        saved = self._context.saver.wait()
        held_up_s = saving.held_up_s + self._context.clock.ticks() - began
        self.recorder.add(Phase.CHECKPOINT, held_up_s)
        seconds = saving.capture_s + saved.seconds
        self._guard.saved(seconds, saved.bytes)
        self.kept_steps, self.kept_observed = saving.num_timesteps, saving.observed
        self._progress.checkpoint, self._progress.saved_at = saved.path, self._context.clock.now()
        if self._context.uploads is not None:
            self._context.uploads.offer(saved.path, best=saving.maybe_best)
        self._context.ledger.write(
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
        """Write what the ledger does not have yet."""
        ledger = self._context.ledger
        self._progress.steps[self._index] = ledger.step = training.num_timesteps
        self._progress.observed[self._index] = merged(self._before, self.recorder.totals)
        self._progress.worked = self._progress.worked or self.changed
        phases = self.recorder.take()
        if self._returns:
            ledger.write("episodes", phases, returns=self._returns, lengths=self._lengths)
            self._returns, self._lengths = [], []
        elif phases:
            ledger.write("phases", phases)
        self._next_flush = self._context.clock.now() + FLUSH_S

    def _look(self, training: AbstractTraining, now: float) -> None:
        if self._context.saver.ended:
            self.finish_save()
        if now < self._next_tick:
            return
        self._next_tick = now + TICK_S
        self._guard.expect_save(training.replay_size())
        if now >= self._next_flush:
            training.check_sound()
            self.flush(training)
        self._context.display.show(self._status(training, now))

    def _book_episode(self, now: float) -> None:
        """An evaluation episode may have ended."""
        if self._episode_began is not None:
            episode_s = (now - self._episode_began) / self._at_once
            self._progress.episode_s[self._index, self._episode_kind] = episode_s
            self.changed = True

    def _expected_episode(self, training: AbstractTraining, kind: str) -> float:
        """Seconds of an episode: like the last one, else by the model; 0 where neither tells.

        An expectation will do: the deadline is kept by the polls within the episode.
        """
        last = self._progress.episode_s.get((self._index, kind))
        if last is not None:
            return last
        phase = Phase.BASELINE if kind == "baseline" else Phase.EVAL_STEP
        return self._guard.cost_of(phase, training.facts().eval_length()[0])

    def _status(self, training: AbstractTraining, now: float) -> Progress:
        progress = self._progress
        step = progress.steps[self._index] = training.num_timesteps
        if self._end_prediction.is_due(now):
            progress.observed[self._index] = merged(self._before, self.recorder.totals)
            self._end_prediction.predict(now, self._index)
        return Progress(
            training=self._config.name,
            index=self._index,
            trainings=len(self._progress.steps),
            stage=training.stage,
            num_timesteps=step,
            budget=self._context.budgets[self._index],
            steps_per_s=self._speed.look(now, step),
            elapsed_s=self._context.ledger.elapsed_s,
            session_s=now - self._context.start,
            left_s=None if self._context.quota_s is None else self._guard.deadline - now,
            kept_free_s=self._guard.kept_free_s,
            predicted_end=self._end_prediction.left,
            mean_return=self._progress.mean_return,
            checkpoint_age_s=None if self._progress.saved_at is None else now - self._progress.saved_at,
        )
