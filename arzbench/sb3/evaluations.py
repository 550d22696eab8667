"""The periodic evaluations of a training, beside it where that changes no result.

One that is due is played in a process forked at that moment, which has the weights, the normalisation and the
env as they are then; the training goes on. There is one at a time. The training keeps what it would need to
play it itself: if the process dies, an env raises an error, or the training is stopped and resumed, it is
played again, as of its time. See docs/decisions/0017-concurrent-evaluation.md.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch as th

from arzbench.facts import Phase
from arzbench.measure.host import devices
from arzbench.records import SHORT_EVALUATION_S as SHORT_S
from arzbench.sb3 import codec, forked, model_state, own_state, state_io
from arzbench.sb3.episodes import Pending, Player
from arzbench.sb3.forked import Forked
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.plain_kinds import copied
from arzbench.sb3.state import LiveState
from arzbench.workload import FIRST, LAST, SHORT, AbstractTraining, Control

#: seconds between two questions while one is waited for
POLL_S = 0.05
#: a process that takes so long, and so many times what the last evaluation took, hangs
HANG_S, HANG_TIMES = 60.0, 20.0


def _cuda_in_use() -> bool:
    return bool(th.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _own(model: Any) -> bool:
    """Whether what chooses actions may keep more than the library does."""
    policy = type(model.policy).__module__.partition(".")[0]
    return own_state.is_own(model) or policy not in ("stable_baselines3", "sb3_contrib", "arzbench")


class _Played(NamedTuple):
    """What the forked process sends back."""

    returns: list[float]
    lengths: list[int]
    env_before: dict[str, Any]  # plain states
    env_after: dict[str, Any]
    seconds: float
    notes: list[str]
    broken_off: int
    changed: str  # what of the training it changed; empty: nothing


class _Notes(Control):
    """The control of a forked process: keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def noted(self, text: str) -> None:
        self.texts.append(text)


class Evaluations:
    """Plays those of one training and session; the first inline, which proves that others need not be."""

    def __init__(self, live: LiveState, timer: PhaseTimer, logs: Callable[[], bool]) -> None:
        """`logs` tells whether the evaluation env has messages, which come in order."""
        self._live = live
        self._episodes = live.episodes
        self._timer = timer
        self._logs = logs
        self._process: Forked | None = None
        self._began = 0.0
        self._refused = ""  # why all others of this session are played inline
        self._proved = False
        self._env: dict[str, Any] | None = None  # as it was when the session began
        self._last_s = 0.0  # what the last one took

    def begin(self) -> None:
        """The training is about to take its first step in this session."""
        if self._wanted and self._live.config.evaluation.eval_freq:
            assert self._episodes.plain is not None
            self._env = self._episodes.plain.copy()

    @property
    def ended(self) -> bool:
        """One beside the training has ended and can be booked."""
        return self._process is not None and self._process.ended()

    def play(
        self,
        training: AbstractTraining,
        control: Control,
        player: Callable[[], Player],
        limit: int,
        *,
        more: bool,
    ) -> None:
        """Play the one that is due, or is pending since a session before. Any other must be booked.

        `more`: the training goes on after it.
        """
        why = self._why_inline() or ("" if more else LAST)
        if not why and self._proved and self._last_s >= SHORT_S:
            why = self._fork(training, player, limit)
        elif not why:
            why = SHORT if self._proved else FIRST
        if self._process is None:
            self._inline(training, control, player, limit, why)

    def finish(
        self, training: AbstractTraining, control: Control, player: Callable[[], Player], *, wait: bool = True
    ) -> None:
        """Book the one beside the training if it has ended; `wait` for it.

        Raises:
            StopTraining: asked to stop while waiting; it is pending.
        """
        process = self._process
        if process is None or not (wait or process.ended()):
            return
        ticks, waited_from = self._timer.ticks, self._timer.ticks()
        try:
            while not process.ended():
                control.waiting(training)
                process.wait(POLL_S)
                if ticks() - self._began > HANG_S + HANG_TIMES * self._last_s:
                    process.kill()
        finally:
            self._timer.add(Phase.EVAL_STEP, ticks() - waited_from, 0)
        self._process, played = None, process.result()
        if played is None:
            self._refused = f"a process beside the training ended early, {process.how}"
            control.noted(f"{self._refused}: its evaluation is played again, others while the training waits")
            self._inline(training, control, player, 0, self._refused)
        else:
            self._book(training, control, played)

    def stop(self) -> None:
        """End the process beside the training, if there is one; its evaluation stays pending."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    # -- where ------------------------------------------------------------------------------------

    @property
    def _wanted(self) -> bool:
        return self._episodes.env is not None and self._live.config.evaluation.concurrent is not False

    def _why_inline(self) -> str:
        """Why the next one is played while the training waits; empty: it need not be."""
        config, model, plain = self._live.config, self._live.model, self._episodes.plain
        assert plain is not None
        reasons: tuple[tuple[str, Any], ...] = (
            ("evaluation.concurrent = false", not self._wanted),
            (self._refused, self._refused),
            ("processes cannot be forked here", not forked.POSSIBLE),
            ("one core", lambda: len(os.sched_getaffinity(0)) < 2),
            ("actions are drawn", not config.evaluation.deterministic),
            ("a GPU is in use", {*devices(config), model.device.type} != {"cpu"} or _cuda_in_use()),
            ("several torch threads", th.get_num_threads() > 1),
            ("messages of the env come in order", self._logs),
            ("the model or its policy is of a class of its own", _own(model)),
            (f"of the env cannot be seen: {'; '.join(plain.unseen[:3])}", plain.unseen),
        )
        return next((why for why, holds in reasons if (holds() if callable(holds) else holds)), "")

    def _changed(self) -> Callable[[], str]:
        """Tells, later, what of the training is not as it is now."""
        live = self._live

        def look() -> dict[str, str]:
            parts = {
                "the weights": model_state.capture_weights(live.model),
                "random generators": live.random or model_state.capture_random(live.model),
                "the envs": state_io.capture_world(live),
            }
            return {name: codec.digest(part) for name, part in parts.items()}

        before = look()
        return lambda: " and ".join(name for name, digest in look().items() if digest != before[name])

    # -- beside the training ----------------------------------------------------------------------

    def _fork(self, training: AbstractTraining, player: Callable[[], Player], limit: int) -> str:
        """Begin the one that is due; why that cannot be done, else empty."""
        live, episodes, timer = self._live, self._episodes, self._timer
        plain = episodes.plain
        assert plain is not None

        def work() -> _Played:
            changed, before, notes = self._changed(), plain.copy(), _Notes()
            if episodes.batch is not None:
                episodes.batch.threads = 1  # the other core is the training's
            began = timer.ticks()
            episodes.play(
                training, notes, "evaluation", live.config.evaluation.n_eval_episodes, player(), limit
            )
            seconds, result = timer.ticks() - began, episodes.results[-1]
            return _Played(
                list(result.returns), list(result.lengths), before, plain.copy(), seconds,
                notes.texts, episodes.broken_off, changed(),
            )  # fmt: skip

        self._began = timer.ticks()
        episodes.pending = Pending(
            num_timesteps=training.num_timesteps,
            limit=limit,
            weights=copied(model_state.capture_weights(live.model)),
            normalization=self._normalization(),
        )
        try:
            self._process = Forked(work)
        except OSError as error:
            episodes.pending = None
            self._refused = f"no process can be forked: {error.strerror}"
            return self._refused
        timer.add(Phase.EVAL_STEP, timer.ticks() - self._began, 0)
        return ""

    def _book(self, training: AbstractTraining, control: Control, played: _Played) -> None:
        episodes, began = self._episodes, self._timer.ticks()
        plain = episodes.plain
        assert plain is not None
        for text in played.notes:
            control.noted(text)
        if names := plain.differs(played.env_before):
            self._refuse(control, f"the training changes {names[0]} of the evaluation env")
        else:
            plain.restore(played.env_after)
        if played.changed:
            self._refuse(control, f"an evaluation changed {played.changed} of the training")
        episodes.broken_off = played.broken_off
        episodes.returns, episodes.lengths = played.returns, played.lengths
        self._last_s = played.seconds
        self._timer.add(Phase.EVAL_STEP, self._timer.ticks() - began, sum(played.lengths))
        episodes.book(training, control, "evaluation", beside_s=played.seconds)

    def _refuse(self, control: Control, why: str) -> None:
        """What the first evaluation did not show has come out too late."""
        self._refused = why
        control.noted(
            f"{why}, which the first one did not: with evaluation.concurrent = false results would have "
            "been others; from now on the training waits for each"
        )

    # -- inline -----------------------------------------------------------------------------------

    def _inline(
        self, training: AbstractTraining, control: Control, player: Callable[[], Player], limit: int, why: str
    ) -> None:
        episodes, began = self._episodes, self._timer.ticks()
        proof = None if self._proved or self._why_inline() or self._env is None else self._changed()
        if proof is not None:
            assert episodes.plain is not None
            assert self._env is not None
            if names := episodes.plain.differs(self._env):
                self._refused = why = f"the training changes {names[0]} of the evaluation env"
        aside_s = self._timer.ticks() - began
        with self._as_of(episodes.pending) as pending:
            episodes.play(
                training, control, "evaluation", self._live.config.evaluation.n_eval_episodes, player(),
                limit if pending is None else pending.limit, why,
            )  # fmt: skip
        self._last_s = self._timer.ticks() - began - aside_s
        if proof is not None:
            began = self._timer.ticks()
            if (changed := proof()) and not self._refused:
                self._refused = f"an evaluation changes {changed} of the training"
            self._proved = True
            self._env = None
            self._timer.add(Phase.EVAL_STEP, aside_s + self._timer.ticks() - began, 0)

    @contextlib.contextmanager
    def _as_of(self, pending: Pending | None) -> Iterator[Pending | None]:
        """Within, the model is as it was when `pending` was due; None: that is now."""
        if pending is None:
            yield pending
            return
        model = self._live.model
        now = copied(model_state.capture_weights(model)), self._normalization()
        self._put(pending.weights, pending.normalization)
        try:
            yield pending
        finally:
            self._put(*now)

    def _put(self, weights: dict[str, Any], normalization: dict[str, Any] | None) -> None:
        model = self._live.model
        model_state.restore_weights(model, weights)
        model_state.restore_normalization(model.get_vec_normalize_env(), copied(normalization))

    def _normalization(self) -> Any:
        return copied(model_state.capture_normalization(self._live.model.get_vec_normalize_env()))
