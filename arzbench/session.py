"""Any training loop under a quota: a unit is begun only if it will be done in time, and kept.

with arzbench.Session("12h", folder="runs/mine", save=save, restore=restore) as session:
    for epoch in session.units("epoch", total=100):
        train_one_epoch()
session.leave()
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from arzbench import store
from arzbench.clock import Clock, SystemClock, process_start
from arzbench.errors import ExitCode, StateError, UsageError, leave
from arzbench.facts import StopReason
from arzbench.predict.landing import kept_free_s
from arzbench.predict.remaining import probability_within
from arzbench.predict.unit_times import UnitTimes
from arzbench.records import Estimate
from arzbench.run.guard import UNKNOWN_SAVE_S, UNKNOWN_SAVE_SHARE
from arzbench.run.signals import UnitSignals
from arzbench.saves.folders import LoopState, SessionState, StateFolders
from arzbench.saves.lock import only_run
from arzbench.units import format_duration, parse_duration

#: from the last save to the end of the process, in seconds: `leave` took 0.1 with six processes on two cores,
#: an interpreter with torch that was torn down 2.3, and 0.9 to 1.1 with two
LEAVE_S = 2.0
#: between two lines at least, in seconds, and as a share of the time since the session began
QUIET_S, QUIET_SHARE = 10.0, 0.02
#: between two looks at what is left: units may be short
LOOK_S = 1.0
#: units that are seen before a warning, and the probability below which it comes
LEAST_SEEN, UNLIKELY = 3, 0.05
#: what is written where a session ended without doing anything
IDLE = "idle"


@dataclass(slots=True)
class _Loop:
    """One loop of units, as far as it is."""

    name: str
    total: int
    done: int
    times: UnitTimes
    ended: bool = False  # it was told that its last unit has come
    left: bool = False  # it gave all its units, or the session stopped within it
    warned: bool = False

    @property
    def remaining(self) -> int:
        return 0 if self.ended else max(0, self.total - self.done)

    def state(self) -> LoopState:
        return LoopState(
            name=self.name,
            total=self.total,
            done=self.done,
            ended=self.ended,
            first_s=tuple(self.times.first),
            later_s=tuple(self.times.later),
        )


class Session:
    """One session of a training that may need several. Close it, or use it in a `with` statement.

    Signals (SIGTERM, SIGINT, SIGUSR1) end it after the unit in progress, saved; a second one leaves the unit
    at once, by `KeyboardInterrupt`. An exception in a unit leaves the last saved state as it is.
    """

    def __init__(
        self,
        quota: str | float | None = None,
        *,
        folder: str | os.PathLike[str],
        save: Callable[[Path], object],
        restore: Callable[[Path], object],
        save_every: str | float = "10m",
        clock: Clock | None = None,
    ) -> None:
        """Take hold of `folder`; where an earlier session saved in it, call `restore`.

        Args:
            quota: wall time from the start of this process: "12h", seconds, "auto" (what is left of a
                Slurm job, a Kaggle or a Colab session), or None for no limit.
            folder: where states are kept, one folder for each training; made if absent.
            save: writes all that the training needs to go on into the empty folder it is given.
            restore: reads it from there.
            save_every: time between saves; also saved are the first unit, a loop's end, and a stop.
            clock: how time is read; the machine's by default.

        Raises:
            UsageError: an impossible value, or a folder that cannot be written.
            StateError: another process holds the folder, no sound state is left in it, or `restore` failed.
        """
        self._clock = clock or SystemClock()
        self._start = process_start(self._clock)
        self._quota_s = self._find_quota(quota)
        self._deadline = math.inf if self._quota_s is None else self._start + self._quota_s
        #: seconds before the deadline in which nothing is done but leaving
        self.kept_free_s = kept_free_s(self._quota_s or 0.0, uploads=False, leave_s=LEAVE_S)
        self._save_every_s = _seconds("save_every", save_every)
        if not callable(save) or not callable(restore):
            raise UsageError(
                "save and restore must be functions of one argument, a folder",
                'for example: def save(folder): torch.save(model.state_dict(), folder / "model.pt")',
            )
        self._save_files = save
        self._folder = Path(folder).absolute()  # the training may go elsewhere
        self._states = StateFolders(self._folder)
        self._signals = UnitSignals()
        self._loops: list[_Loop] = []  # begun in this session
        self._before: tuple[LoopState, ...] = ()  # as the last session left them
        self._ended: tuple[StopReason, str] | None = None
        self._save_times = UnitTimes(quota_s=self._quota_s)
        self._saved_at: float | None = None  # in this session
        self._shown_at = self._look_at = self._start
        self._sessions, self._elapsed_before_s = 1, 0.0
        self._worked = self._dirty = self._closed = False
        store.ensure_writable(self._folder, "folder=")
        with contextlib.ExitStack() as stack:
            stack.enter_context(only_run(self._folder, "choose another folder"))
            stack.enter_context(self._signals)
            self._go_on(restore)
            self._stack = stack.pop_all()

    def _find_quota(self, quota: str | float | None) -> float | None:
        if quota == "auto":
            from arzbench.limits import find_limits  # what it loads is needed here alone

            left_s = find_limits(Path.cwd(), "auto", None, self._clock).seconds
            return None if left_s is None else left_s + self._clock.now() - self._start
        return None if quota is None else _seconds("quota", quota)

    def _go_on(self, restore: Callable[[Path], object]) -> None:
        """Restore the newest sound state, if there is any."""
        found = self._states.newest()
        for name, reason in self._states.skipped.items():
            _say(f"skipped {name}: {reason}")
        if found is None:
            return
        path, manifest = found
        self._before = manifest.loops
        self._save_times = UnitTimes((), manifest.save_s, quota_s=self._quota_s)
        self._sessions, self._elapsed_before_s = manifest.sessions + 1, manifest.elapsed_s
        try:
            restore(path)
        except Exception as error:
            raise StateError(
                f"restore() failed on {path}: {type(error).__name__}: {error}",
                "every file in it is as save() wrote it, so restore() does not fit it; nothing was changed",
            ) from error
        done = ", ".join(f"{loop.name} {loop.done} of {loop.total}" for loop in manifest.loops)
        _say(f"going on from {path}: {done}")

    # ------------------------------------------------------------ units

    def units(self, name: str, total: int) -> Iterator[int]:
        """Yield 0 to `total` - 1, from where the last session ended, as long as there is time for one more.

        Several loops may follow one another; each ends before the next begins.

        Raises:
            UsageError: begun within another loop, or not the loop that the last session had in its place;
                or `total` is no number of units.
            StateError: a unit was done and cannot be saved.
        """
        if self._closed:
            raise UsageError("the session is closed", "units belong within the with statement")
        last = self._loops[-1] if self._loops else None
        if last is not None and not last.left:
            raise UsageError(
                f"units({name!r}) begins before units({last.name!r}) has ended "
                f"({last.done} of {last.total} done)",
                "a loop within a unit is a plain one: for batch in range(...)\n"
                "instead of break, call session.end_units() in the last unit",
            )
        count = operator.index(total) if hasattr(total, "__index__") else -1  # NumPy's integers, too
        if not isinstance(name, str) or count < 0:
            raise UsageError(
                f"units({name!r}, {total!r})", 'a name and a number of units: units("epoch", total=100)'
            )
        loop = self._loop(name, count)
        self._loops.append(loop)
        return self._run(loop)

    def end_units(self) -> None:
        """Make the unit in progress the last of its loop: for early stopping, in place of `break`."""
        if not self._signals.in_unit:
            raise UsageError("no unit is in progress", "call end_units() within a loop over units")
        self._loops[-1].ended = True

    def _loop(self, name: str, total: int) -> _Loop:
        index = len(self._loops)
        if index >= len(self._before):
            return _Loop(name, total, 0, UnitTimes(quota_s=self._quota_s))
        saved = self._before[index]
        if saved.name != name:
            raise UsageError(
                f"loop {index + 1} of the state in {self._folder} is units({saved.name!r}), "
                f"not units({name!r})",
                "give it its name again, or begin anew in another folder",
            )
        if total > saved.done and not saved.ended and index + 1 < len(self._before):
            raise UsageError(
                f"units({name!r}) cannot grow from {saved.total} to {total}: a loop after it has begun",
                f"total={saved.total}, or begin anew in another folder",
            )
        times = UnitTimes(saved.first_s, saved.later_s, quota_s=self._quota_s)
        return _Loop(name, total, saved.done, times, saved.ended)

    def _run(self, loop: _Loop) -> Iterator[int]:
        while loop.remaining and self._fits(loop):
            began = self._clock.now()
            self._signals.in_unit = True
            try:
                yield loop.done
            finally:
                self._signals.in_unit = False
            loop.times.add(self._clock.now() - began)
            loop.done += 1
            self._worked = self._dirty = True
            if self._saved_at is None or self._clock.now() - self._saved_at >= self._save_every_s:
                self._save()
            self._tell(loop)
        if self._dirty:
            self._save()
        loop.left = True

    def _fits(self, loop: _Loop) -> bool:
        """Whether the next unit is begun; if not, the session has ended."""
        if self._ended is not None:
            return False
        if self._signals.first is not None:
            self._end(StopReason.SIGNAL, self._signals.description)
            return False
        if self._quota_s is None:
            return True
        left_s = self._deadline - self._clock.now()
        unit_s, save_s = self._unit_s(loop), self._save_s
        if self._worked or unit_s:
            fits = unit_s + save_s + self.kept_free_s <= left_s
        else:  # nothing is known yet
            fits = self.kept_free_s < left_s
        if not fits:
            takes = f"the next {loop.name} may take {format_duration(unit_s)}, " if unit_s else ""
            self._end(
                StopReason.DEADLINE,
                f"{format_duration(left_s)} left; {takes}"
                f"saving and leaving up to {format_duration(save_s + self.kept_free_s)}",
            )
        return fits

    def _unit_s(self, loop: _Loop) -> float:
        """What the next unit may take; 0 where nothing was ever seen."""
        if not self._worked:  # not more than was met: who begins with care may never begin
            return loop.times.longest_s or 0.0
        # one of a kind never seen is taken like the longest of the others
        others = [2 * (other.times.longest_s or 0.0) for other in self._loops]
        return loop.times.allow_s() or max(others)

    @property
    def _save_s(self) -> float:
        """What a save may take."""
        known = self._save_times.allow_s()
        unknown = min(UNKNOWN_SAVE_S, UNKNOWN_SAVE_SHARE * (self._quota_s or 0.0))
        return unknown if known is None else known

    # ------------------------------------------------------------ saving and leaving

    def _save(self) -> None:
        began = self._clock.now()
        state = SessionState(
            loops=(*(loop.state() for loop in self._loops), *self._before[len(self._loops) :]),
            save_s=(*self._save_times.first, *self._save_times.later),
            sessions=self._sessions,
            elapsed_s=self._elapsed_before_s + began - self._start,
            created=self._clock.wall().isoformat(timespec="seconds"),
        )
        self._states.save(self._save_files, state)
        self._saved_at = self._clock.now()
        self._save_times.add(self._saved_at - began)
        self._dirty = False
        (self._folder / IDLE).unlink(missing_ok=True)

    def _end(self, reason: StopReason, detail: str) -> None:
        idle = self._folder / IDLE
        if reason is StopReason.DEADLINE and not self._worked:
            if idle.exists():  # "more to do" would be repeated for ever
                reason = StopReason.FAILED
                detail = f"no session of this quota gets further, give it a longer one: {detail}"
            else:
                detail = f"nothing was done in this session: {detail}"
                store.write_atomic(idle, detail.encode())
        self._ended = reason, detail
        _say(f"{reason.value}: {detail}")

    def close(self) -> None:
        """Let go of the folder and the signals; nothing is saved that was not."""
        self._close(sys.exc_info()[0])

    def leave(self) -> NoReturn:
        """Close, and end the process with `exit_code` at once, as tearing down an interpreter takes seconds.

        What was registered with `atexit` is not called; standard output is flushed.
        """
        self.close()
        leave(self.exit_code)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(kind)

    def _close(self, kind: type[BaseException] | None) -> None:
        if self._closed:
            return
        self._closed = True
        with self._stack:
            open_loops = [loop for loop in self._loops if not loop.left]
            if self._signals.later and open_loops:
                self._ended = StopReason.SIGNAL, self._signals.description
            elif kind is not None and not issubclass(kind, SystemExit):
                self._ended = StopReason.FAILED, kind.__name__
            elif kind is None:
                for loop in open_loops:
                    _say(
                        f"units({loop.name!r}) was left at {loop.done} of {loop.total}: what was done since "
                        "the last save is not kept; to end a loop early, call end_units() in place of break"
                    )
            if self.exit_code is ExitCode.MORE_TO_DO and self._states.last is not None:
                _say(f"the same script goes on from {self._states.last}")
            if self.finished:
                took = self._elapsed_before_s + self._clock.now() - self._start
                _say(f"finished after {format_duration(took)} in {self._sessions} session(s)")

    # ------------------------------------------------------------ what it tells

    @property
    def reason(self) -> StopReason | None:
        """Why it ended; None while it goes on, and where a loop was left by `break`."""
        if self._ended is not None:
            return self._ended[0]
        done = self._loops and all(loop.left for loop in self._loops)
        return StopReason.FINISHED if done else None

    @property
    def finished(self) -> bool:
        """Every loop begun so far has given all its units, and what they did is saved."""
        return self.reason is StopReason.FINISHED

    @property
    def exit_code(self) -> ExitCode:
        """For the shell: 0 finished, 4 more to do, 1 failed."""
        if self.finished:
            return ExitCode.OK
        return ExitCode.FAILURE if self.reason is StopReason.FAILED else ExitCode.MORE_TO_DO

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline, negative after it; None without a quota."""
        return None if self._quota_s is None else self._deadline - self._clock.now()

    @property
    def predicted_end(self) -> Estimate | None:
        """Seconds from now until the loop in progress is done and saved; None before a unit was measured.

        Made of what its units took, here and in earlier sessions. Loops to come are not in it.
        """
        if not self._loops:
            return None
        loop = self._loops[-1]
        units = loop.times.remaining(loop.remaining)
        if units is None:
            return None
        saves = 1 + units.p50_s // self._save_every_s if loop.remaining else 0
        saves_s = saves * (self._save_times.mean_s() or 0.0)
        return Estimate(p50_s=units.p50_s + saves_s, p90_s=units.p90_s + saves_s, p99_s=units.p99_s + saves_s)

    def _tell(self, loop: _Loop) -> None:
        """A line now and then; once, that not all of the loop's units fit."""
        now = self._clock.now()
        if now < self._look_at or not loop.remaining:
            return
        self._look_at = now + LOOK_S
        end = self.predicted_end
        assert end is not None  # a unit was done
        fits = 1.0
        if self._quota_s is not None:
            fits = probability_within(end, self._deadline - self.kept_free_s - now)
        if fits < UNLIKELY and not loop.warned and len(loop.times.later) >= LEAST_SEEN:
            loop.warned = True
            _say(
                f"warning: {loop.name} needs about {format_duration(end.p50_s)} more, "
                f"{format_duration(self._deadline - now)} are left: this session will save and stop before "
                "its deadline, the next one goes on"
            )
        if now - self._shown_at < max(QUIET_S, QUIET_SHARE * (now - self._start)):
            return
        self._shown_at = now
        parts = [
            f"{loop.name} {loop.done}/{loop.total} ({loop.done / loop.total:.0%})",
            f"{format_duration(loop.times.mean_s() or 0.0)} each",
            f"elapsed {format_duration(self._elapsed_before_s + now - self._start)}",
        ]
        when = f"predicted end in {format_duration(end.p50_s)} (P90 {format_duration(end.p90_s)})"
        if self._quota_s is not None:
            parts.append(f"deadline in {format_duration(self._deadline - now)}")
            when += f", P(fits) {fits:.0%}"
        _say(", ".join([*parts, when]))


def _seconds(name: str, value: str | float) -> float:
    """A duration in words or seconds, greater than zero."""
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UsageError(f"{name} is {value!r}", 'a duration ("12h", "90 min"), or seconds greater than zero')
    return float(value)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the reader of a pipe is gone: the training goes on
        print(f"arzbench: {line}", file=sys.stderr, flush=True)
