"""`BudgetCallback`: ends a training that arzbench does not drive in time, and says when it will end."""

from __future__ import annotations

import atexit
import gc
import math
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
from stable_baselines3.common.callbacks import BaseCallback

from arzbench.clock import Clock, SystemClock, process_start
from arzbench.errors import UsageError
from arzbench.facts import StopReason
from arzbench.limits import AUTO, find_limits
from arzbench.loop import TrainingLoop
from arzbench.predict.pace import Pace, left
from arzbench.predict.remaining import UNIT_SIGMA, probability_within
from arzbench.records import Estimate
from arzbench.run.guard import Guard
from arzbench.sb3.learn_signals import LearnSignals
from arzbench.sb3.model_files import write_aside
from arzbench.sb3.model_loop import loop_of
from arzbench.sb3.seldom_calls import SeldomCalls
from arzbench.units import format_duration, parse_duration
from arzbench.workload import LIGHT, StopTraining

#: leaving Python takes a share of what starting it and making a model took: about 0.07 was seen on two cores
#: beside up to seven busy processes, without the collections of garbage at the end (with them 0.2 to 0.7);
#: within bounds in seconds, for a start may do other work
LEAVE_SHARE, LEAVE_LEAST_S, LEAVE_MOST_S = 0.2, 1.0, 10.0
#: seconds between two predictions, and between two of them that are printed
PREDICT_S, PRINT_S = 1.0, 60.0
#: seconds of steps, updates and so on that must have been seen before anything is predicted
LEAST_SEEN_S = 2.0
_HINT = 'for example BudgetCallback("12h"), BudgetCallback(3600.0), BudgetCallback("auto")'


class BudgetCallback(BaseCallback):
    """Shows when `learn` will end, and ends it before a wall-clock quota does.

        model.learn(1_000_000, callback=BudgetCallback("12h", save_path="model"))

    For every model of Stable-Baselines3 and sb3-contrib, alone or in a list with other callbacks. The quota
    counts from the start of the process. A step, an update or an evaluation is begun only if it, the save
    and the end of the process will be done in time, by what they took so far in this very run; so the first
    of each kind is unknown. Where it ends is no place to resume from: the replay buffer, the envs and the
    random generators are not saved, and an open rollout is dropped.

    ARS ignores what callbacks return: it can only be ended between two iterations, also by a signal.

    While `learn` runs, SIGTERM and SIGINT end it in the same way; a second SIGINT interrupts as ever. The
    logger gets `time/predicted_end_s`, seconds from the start of the process, and `time/p_fits`.

    Attributes:
        stopped: After `learn`: None (it ended by itself), "deadline" or "signal".
        left_s: After `learn`: seconds to the deadline, None without a quota.
        estimate: What the training still takes by the last prediction, None as long as not all was measured.
        p_fits: The probability that it fits by the last prediction, None without one or without a quota.
    """

    def __init__(
        self,
        quota: str | float | None,
        *,
        save_path: str | os.PathLike[str] | None = None,
        leave_s: float | None = None,
        verbose: int = 1,
        clock: Clock | None = None,
    ) -> None:
        """Nothing is written before `learn`.

        Args:
            quota: "12h" or another duration, seconds, "auto" for what is left of a Slurm job, a Kaggle or
                Colab session, None for no limit: then the end is only shown.
            save_path: Where the model is saved when `learn` ends, as by `model.save`; statistics of a
                VecNormalize go beside it, "model.zip" and "model_vecnormalize.pkl". Written aside, then
                renamed. What a save takes is measured when `learn` begins, and after the first update.
            leave_s: Seconds that are kept for what the script does after `learn`, and for leaving Python. By
                default a fifth of the time from the start of the process to that of `learn`, 1 to 10 s.
            verbose: 0: only a warning, and why it was ended; 1: also a line a minute.
            clock: Another clock than the machine's, for tests.

        Raises:
            UsageError: not a quota, nothing tells of one ("auto"), or `save_path` is a folder.
        """
        super().__init__(verbose)
        self._clock = clock or SystemClock()
        self._started = process_start(self._clock)
        if leave_s is not None and not leave_s >= 0:
            raise UsageError(
                f"leave_s = {leave_s!r}: seconds are needed, 0 or more", "for example leave_s=60"
            )
        self.quota_s = self._seconds(quota)
        self._leave_s = leave_s
        self._save_path = None if save_path is None else Path(save_path)
        if self._save_path is not None:
            if self._save_path.is_dir():
                raise UsageError(f"save_path {str(save_path)!r} is a folder", "name a file in it")
            if not self._save_path.suffix:
                self._save_path = self._save_path.with_suffix(".zip")
        self.stopped: str | None = None
        self.left_s: float | None = None
        self.estimate: Estimate | None = None
        self.p_fits: float | None = None
        self._guard: Guard | None = None
        self._warned = False
        self._print_at = -math.inf

    def _seconds(self, quota: str | float | None) -> float | None:
        """Seconds from the start of the process."""
        try:
            if quota == AUTO:
                seconds = find_limits(Path(), AUTO, None, self._clock).seconds
                return None if seconds is None else self._clock.now() - self._started + seconds
            if isinstance(quota, str):
                return parse_duration(quota)
        except UsageError as error:
            raise UsageError(error.message.replace("--quota auto", 'quota "auto"'), _HINT) from None
        if quota is None:
            return None
        if isinstance(quota, bool) or not isinstance(quota, int | float):
            raise UsageError(f"a quota is a duration or seconds, not {quota!r}", _HINT)
        if not 0 < quota < math.inf:
            raise UsageError(f"the quota {quota!r} is not a number of seconds greater than zero", _HINT)
        return float(quota)

    # -- around `learn` ---------------------------------------------------------------------------

    def _on_training_start(self) -> None:
        model: Any = self.model
        if self.parent is not None:
            raise UsageError(
                f"BudgetCallback was given to {type(self.parent).__name__}, which calls it now and then",
                "it must see every step: callback=[BudgetCallback(...), ...]",
            )
        if self._guard is None or self._signals.model is not model:  # else `learn` goes on with it
            self._begin(model)
        self.stopped, self.left_s, self._why = None, None, ""
        self._stop: StopTraining | None = None
        self._others = SeldomCalls(self.locals.get("callback"), self)
        self._unasked = 0
        self._unmeasured: list[str] = []
        self._rollout_from = self.n_calls
        self._episodes_from = getattr(model, "_episode_num", 0)
        self._pending: tuple[int, tuple[str, ...], bool] | None = None
        self._predict_at = -math.inf
        if self._save_path is not None:
            self._try_save(self._save_path)
        self._signals.__enter__()
        self._guard_now.pause()
        self._asked_at, self._asked_call = self._clock.now(), self.n_calls
        self._asked_timesteps = self.num_timesteps

    def _begin(self, model: Any) -> None:
        """Nothing is known yet of what `model` costs."""
        if self._leave_s is None:
            start_s = self._clock.now() - self._started
            self._leave_s = min(max(LEAVE_LEAST_S, LEAVE_SHARE * start_s), LEAVE_MOST_S)
        self._signals = LearnSignals(model)
        self._guard = Guard(
            self._clock,
            self._signals,
            session_start=self._started,
            quota_s=self.quota_s,
            leave_s=self._leave_s,
        )
        if self._save_path is None:
            self._guard.saved(0.0, 0)
        self._loop = _loop_of(model)
        self._steps, self._updates = Pace(), Pace()
        # of evaluations the episodes differ, too
        self._acts: defaultdict[str, Pace] = defaultdict(lambda: Pace(UNIT_SIGMA))
        self._heavy_seen = 0  # updates of more than `LIGHT` gradient steps
        self._any_update = self._tried_after_update = False

    @property
    def _guard_now(self) -> Guard:
        assert self._guard is not None  # made when `learn` began
        return self._guard

    def _on_training_end(self) -> None:
        model: Any = self.model
        model.num_timesteps = self.num_timesteps = int(model.num_timesteps)  # see `_Ended`
        saved = ""
        if self._save_path is not None:
            for aside, final in write_aside(model, self._save_path):
                os.replace(aside, final)
            saved = f"; saved {self._save_path}"
        self._signals.__exit__(None, None, None)
        if self.quota_s is not None:
            self.left_s = self._guard_now.deadline - self._clock.now()
        total = model._total_timesteps
        if self.stopped is None:
            self._why = (
                "all timesteps done" if self.num_timesteps >= total else "ended by the training or a callback"
            )
        if self.verbose or self.stopped is not None:
            self._say(f"{self._progress()}; {self._why}{saved}")

    # -- each step --------------------------------------------------------------------------------

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """Take the loop's own dictionary: copying it at each step would cost more than all else here."""
        self.locals = locals_

    def _on_rollout_start(self) -> None:
        self._rollout_from = self.n_calls
        self._episodes_from = getattr(self.model, "_episode_num", 0)

    def _on_step(self) -> bool:
        if self._unasked:
            self._unasked -= 1
            return True
        return self._loop is None or self._ask(self._loop)

    def _on_rollout_end(self) -> None:
        """One iteration of ARS is over; it looks at its timesteps alone to see whether it goes on."""
        if self._loop is not None:
            return
        now, guard, model = self._clock.now(), self._guard_now, self.model
        self.num_timesteps = model.num_timesteps
        self._steps.add(now - self._asked_at, (self.num_timesteps - self._asked_timesteps) / model.n_envs)
        try:
            if not guard.may_take("iteration"):  # the first one that ended
                guard.require(now - self._asked_at, "the next iteration")
            self._asked_at = guard.poll("iteration")
        except StopTraining as stop:
            self._end(stop)
            model.num_timesteps = _Ended(model.num_timesteps)
        self._asked_timesteps = self.num_timesteps
        self._predict_if_due(now)

    def _ask(self, loop: TrainingLoop) -> bool:
        """Whether another step may be taken, and all that the library does before the next question."""
        if self._stop is not None:
            return False
        guard = self._guard_now
        number, began_at = self.n_calls - self._rollout_from, self.num_timesteps - loop.n_envs
        updates = self._updates_due(loop, number, began_at)
        due, forced, free = self._others.ahead()
        now = self._clock.now()
        steps = self.n_calls - self._asked_call
        self._learn_from(now - self._asked_at, steps)
        try:
            if due or forced:
                seconds = guard.may_take(updates) + self._may_act(due) + self._may_act(forced)
                guard.require(seconds, "what comes before the next step")
            now = guard.poll("+".join(due) or updates, max(1, steps))
        except StopTraining as stop:
            self._end(stop)
            return False
        if self._save_path is not None and self._any_update and not self._tried_after_update:
            self._tried_after_update = True  # an optimizer has no state before: a larger file now
            self._try_save(self._save_path)
            guard.pause()
            now = self._clock.now()
            self._pending = None
        else:
            self._pending = (updates, due, began_at >= loop.first_update)
        self._asked_at, self._asked_call = now, self.n_calls
        self._predict_if_due(now)
        self._unasked = 0
        if updates <= LIGHT and (stride := guard.stride(now)):
            limits = [stride, loop.light_steps(number, began_at, LIGHT), free]
            if began_at < loop.first_update:  # the first step with updates is another kind of unit
                limits.append((loop.first_update - began_at - 1) // loop.n_envs)
            self._unasked = max(0, int(min(limits)))
        return True

    def _updates_due(self, loop: TrainingLoop, number: int, began_at: int) -> int:
        """Gradient steps that follow this step, number `number` of its rollout, before the next one."""
        episodes = 0
        if loop.unit == "episode":
            dones = self.locals["dones"]
            episodes = getattr(self.model, "_episode_num", 0) - self._episodes_from + int(sum(dones))
        return loop.updates_after(number, began_at) if loop.complete(number, episodes) else 0

    def _may_act(self, names: tuple[str, ...]) -> float:
        """Seconds that these callbacks may take in one step."""
        may_take = self._guard_now.may_take
        return max(may_take("+".join(names)), sum(map(may_take, names))) if names else 0.0

    def _end(self, stop: StopTraining) -> None:
        self._stop = stop
        self.stopped = "signal" if stop.reason is StopReason.SIGNAL else "deadline"
        self._why = stop.detail
        if self.stopped == "deadline":
            # the last collections of garbage walk through all of torch, most of what leaving takes
            atexit.register(gc.freeze)

    # -- what it costs, and when it ends ----------------------------------------------------------

    def _learn_from(self, took: float, steps: int) -> None:
        """Between the last question and this one, `steps` steps and what followed them took so long."""
        if self._pending is None:
            return
        updates, due, learning = self._pending
        heavy = updates > LIGHT
        if updates:
            self._any_update = True
        if due:
            beside = self._steps.mean_s * steps + self._updates.mean_s * updates * heavy
            for name in due:
                self._acts[name].add(max(0.0, took - beside) / len(due), 1)
        elif heavy:
            self._heavy_seen += 1
            if self._heavy_seen == 2:
                self._updates = Pace()  # a first call is often slow by itself
            self._updates.add(max(0.0, took - self._steps.mean_s * steps), updates)
        elif learning:
            self._steps.add(took, steps)

    def _parts(self) -> list[tuple[Pace, float]] | None:
        """Each pace and the units that are left of it; None as long as the dear part was not measured."""
        model: Any = self.model
        missing = max(0, model._total_timesteps - self.num_timesteps)
        loop = self._loop
        if loop is None:
            return [(self._steps, missing / model.n_envs)] if self._steps.known else None
        number = self.n_calls - self._rollout_from
        size = loop.rollout_steps
        each = loop.gradient_steps if loop.gradient_steps >= 0 else size
        if loop.unit == "step":  # a rollout that is begun is finished
            rollouts = max(0, math.ceil((missing + number * loop.n_envs) / size))
            steps: float = max(0, rollouts * loop.frequency - number)
            updates: float = rollouts * each
        else:
            steps = missing / loop.n_envs
            episodes = max(1, getattr(model, "_episode_num", 0))
            length = max(1.0, self.num_timesteps / episodes)
            updates = steps if loop.gradient_steps < 0 else steps / length / loop.frequency * each
        parts = [(self._steps, steps)]
        if each > LIGHT or (loop.unit == "episode" and loop.gradient_steps < 0):
            if not self._heavy_seen:
                return None
            parts.append((self._updates, updates))
        elif not self._steps.known:
            return None
        acts = [(name, times) for name, times in self._others.counts(steps).items() if times]
        self._unmeasured = [name for name, _ in acts if not self._acts[name].known]
        return parts + [(self._acts[name], times) for name, times in acts]

    def _predict_if_due(self, now: float) -> None:
        if now < self._predict_at:
            return
        self._predict_at = now + PREDICT_S
        parts = self._parts()
        if parts is None or sum(pace.seconds for pace, _ in parts) < LEAST_SEEN_S:
            return
        guard = self._guard_now
        self.estimate = left(parts)
        self.logger.record("time/predicted_end_s", round(now - self._started + self.estimate.p50_s, 1))
        if self.quota_s is not None:
            available = guard.deadline - guard.kept_free_s - guard.save_s - now
            self.p_fits = probability_within(self.estimate, available)
            self.logger.record("time/p_fits", round(self.p_fits, 3))
            if self.p_fits < 0.5 and not self._warned:
                self._warned = True
                self._warn(available)
        if self.verbose and now >= self._print_at:
            self._print_at = now + PRINT_S
            self._say(f"{self._progress()}; {self._prediction(now)}")

    def _prediction(self, now: float) -> str:
        assert self.estimate is not None
        ends, late = (now - self._started + s for s in (self.estimate.p50_s, self.estimate.p90_s))
        text = f"predicted end after {format_duration(ends)} (P90: {format_duration(late)})"
        if self.p_fits is not None:
            text += f", P(fits) {_percent(self.p_fits)}"
        if self._unmeasured:
            text += f"; not in it, for not measured yet: {', '.join(self._unmeasured)}"
        return text

    def _warn(self, available: float) -> None:
        assert self.estimate is not None
        missing = self.model._total_timesteps - self.num_timesteps
        likely, safe = (
            f"{self.num_timesteps + int(missing * max(0.0, min(1.0, available / s))):,}"
            for s in (self.estimate.p50_s, self.estimate.p90_s)
        )
        self._say(
            f"warning: {self._progress()}; P(fits) {_percent(self.p_fits or 0.0)}. "
            f"About {likely} timesteps will fit, {safe} with a probability of 90 %"
        )

    def _progress(self) -> str:
        used = format_duration(self._clock.now() - self._started)
        of = "" if self.quota_s is None else f" of {format_duration(self.quota_s)}"
        return f"{self.num_timesteps:,} of {self.model._total_timesteps:,} timesteps, {used}{of}"

    def _say(self, text: str) -> None:
        print(f"arzbench: {text}", file=sys.stderr, flush=True)

    # -- saving -----------------------------------------------------------------------------------

    def _try_save(self, path: Path) -> None:
        """Save to files that are removed again, to know what it takes, and that it can be done."""
        began = self._clock.now()
        for aside, _ in write_aside(self.model, path):
            aside.unlink()
        self._guard_now.saved(self._clock.now() - began, 0)


def _loop_of(model: Any) -> TrainingLoop | None:
    """When `model` learns; None where a callback cannot end it between steps (ARS)."""
    if not hasattr(model, "collect_rollouts"):
        return None
    loop = loop_of(model, 0)
    if loop.off_policy:
        return loop
    # of all that was collected: never a light one
    return msgspec.structs.replace(loop, gradient_steps=max(LIGHT + 1, loop.gradient_steps))


class _Ended(int):
    """A number of timesteps that is not less than any: ARS goes on as long as its own is."""

    def __lt__(self, other: object) -> bool:
        return False


def _percent(share: float) -> str:
    """Never quite sure."""
    return "< 1 %" if share < 0.01 else "> 99 %" if share > 0.99 else f"{share:.0%}".replace("%", " %")
