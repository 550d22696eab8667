"""Will the next unit of work end before the deadline, with the save after it?

    now + unit + save + leaving + margin <= session start + quota

What is unknown is taken with care: a unit or a save may take `SURPRISE` times what it usually
takes, a delay met once may come again (up to `STALL_SHARE` of the quota; met twice, in full), and a
margin covers what was never met. Within these bounds no session ends after its deadline. Without a
plan's prices a kind of unit is unknown the first time, and known only by that the second time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from arzbench.clock import Clock
from arzbench.facts import Phase, StopReason
from arzbench.predict.landing import kept_free_s
from arzbench.records import Coefficient, CostModel
from arzbench.run.signals import Signals
from arzbench.study import TrainConfig
from arzbench.units import format_duration
from arzbench.workload import LIGHT, StopTraining

#: how many times its usual cost a unit or a save may suddenly take
SURPRISE = 3.0
#: share of the quota that a delay seen only once may hold back
STALL_SHARE = 0.02
#: held back for a save as long as neither a model nor a save tells what it takes; and at most this
#: share of the quota
UNKNOWN_SAVE_S, UNKNOWN_SAVE_SHARE = 3.0, 0.1
#: durations kept of each kind of unit, and how many tell a P99
RECENT, LEAST_SEEN = 512, 20
#: a stride of steps without a poll takes about so long, in seconds, is so many steps at most, and begins
#: so long before the deadline at least
STRIDE_S, MOST_STEPS, FAR_S = 0.1, 400, 2.0
#: share of a stride's steps that may be of the dearest kind, at least
LEAST_SHARE = 0.25
#: weight of the newest observation in the usual cost of a unit
_WEIGHT = 0.05
Kind = int | str


class _Unit:
    """What one kind of unit costs, in seconds: the prior at first, then what is observed."""

    __slots__ = ("hold", "light", "longest", "note", "recent", "second", "seen", "usual")

    def __init__(self, prior_s: float, light: bool) -> None:
        self.usual = prior_s
        self.light = light  # a step with at most `LIGHT` updates
        self.longest = self.second = 0.0
        self.hold = 0.0  # what past delays make us hold back
        self.seen = 0
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.note = self.recent.append

    def first_times(self, seconds: float) -> None:
        """One of the first two: a first call is often slow by itself and says little of the others."""
        self.seen += 1
        if self.seen == 1:
            self.longest = self.hold = seconds
        else:
            self.usual = max(self.usual, seconds)

    def unusual(self, seconds: float, cap_s: float) -> None:
        """Note the longest or second longest so far."""
        if seconds > self.longest:
            self.longest, self.second = seconds, self.longest
        else:
            self.second = seconds
        self.hold = max(self.second, min(self.longest, cap_s))


class Guard:
    """Decides before each unit whether it fits; learns what units cost as they go by."""

    def __init__(
        self,
        clock: Clock,
        signals: Signals,
        *,
        session_start: float,
        quota_s: float | None,
        leave_s: float,
        uploads: bool = False,
    ) -> None:
        """`leave_s` is what the process needs from the last save to its end; `uploads`: it copies saves."""
        self.deadline = math.inf if quota_s is None else session_start + quota_s
        quota = quota_s or 0.0
        #: before the deadline, beside the last save
        self.kept_free_s = kept_free_s(quota, uploads=uploads, leave_s=leave_s)
        self._cap_s = STALL_SHARE * quota
        self._now = clock.now
        self._signals = signals
        self._saves: deque[tuple[float, int]] = deque(maxlen=5)
        self._model: CostModel | None = None
        self._config: TrainConfig | None = None
        self._units: dict[Kind, _Unit] = {}
        self._unit: _Unit | None = None
        self._since = clock.now()
        self._rows = self._first_bytes = 0
        self._unknown_save_s = min(UNKNOWN_SAVE_S, UNKNOWN_SAVE_SHARE * quota)
        self.save_s = self._unknown_save_s  # held back for one save
        self._saving = False
        self._hold_back()

    def begin(self, config: TrainConfig, model: CostModel | None) -> None:
        """Units are now those of `config`, with the prices of `model` until they are observed."""
        self._config = config
        self._model = model
        self._units.clear()
        self._unit = None
        self.expect_save(0)

    def poll(self, kind: Kind, done: int = 1) -> float:
        """Now, if a unit of `kind` fits: its gradient steps, or the name of what an episode steps.

        The time since the last poll is what `done` units took: the one polled for, and those after it that
        `stride` allowed. Costs about a microsecond.

        Raises:
            StopTraining: it does not fit, or a signal came.
        """
        now = self._now()
        unit = self._unit
        if unit is not None:
            took = now - self._since
            unit.note(took)
            if unit.seen > 1:
                unit.usual += _WEIGHT * (took / done - unit.usual)
            else:
                unit.first_times(took)
            if took > unit.second and unit.seen > 1:  # of a stride one step took it all, for all we know
                unit.unusual(took, self._cap_s)
        unit = self._units.get(kind) or self._new_unit(kind)
        likely = SURPRISE * unit.usual
        if now + (likely if likely > unit.hold else unit.hold) > self._stop_by or self._signals.first:
            self._unit = None
            self._stop(max(likely, unit.hold), "the next unit of work")
        self._unit = unit
        self._since = now
        return now

    def stride(self, now: float) -> int:
        """After a poll of a step: how many steps after it need none, those with at most `LIGHT` updates.

        Together they take about `STRIDE_S`, and the deadline is far.
        """
        unit = self._unit
        if self._stop_by - now < FAR_S or unit is None or unit.seen < 2:
            return 0
        dearest_s = max([u.usual for u in self._units.values() if u.light], default=0.0)
        return min(MOST_STEPS, int(STRIDE_S / max(1e-6, unit.usual, LEAST_SHARE * dearest_s)))

    def pause(self) -> None:
        """What happens until the next poll belongs to no unit."""
        self._unit = None
        self._since = self._now()

    def require(self, seconds: float, what: str) -> None:
        """Raise `StopTraining` if `what` would not be done in `seconds`, or a signal came."""
        if self._signals.first or self._now() + seconds > self._stop_by:
            self._stop(seconds, what)

    def may_take(self, kind: Kind) -> float:
        """Seconds that a unit of `kind` may take, with care; 0 where nothing tells."""
        unit = self._units.get(kind) or self._new_unit(kind)
        return max(SURPRISE * unit.usual, unit.hold)

    def _stop(self, seconds: float, what: str) -> None:
        if self._signals.first:
            raise StopTraining(StopReason.SIGNAL, self._signals.description)
        left = self.deadline - self._now()
        takes = f"may take {format_duration(seconds)}" if seconds else "would come too late"
        raise StopTraining(
            StopReason.DEADLINE,
            f"{format_duration(left)} left; {what} {takes}, "
            f"saving and leaving up to {format_duration(self.save_s + self.kept_free_s)}",
        )

    def waiting(self) -> tuple[float, float | None]:
        """When the last poll was, and the P99 of recent units like the one that began then.

        For another thread. None: it is no unit, or too few of its kind were seen.
        """
        since, unit = self._since, self._unit
        times = sorted(unit.recent.copy()) if unit is not None else []
        return since, times[int(0.99 * len(times))] if len(times) >= LEAST_SEEN else None

    def resumed(self, saves: Sequence[tuple[float, int]], size: int) -> None:
        """Earlier sessions saved: seconds, bytes written. A session's first save writes all `size` bytes."""
        self._saves.extend(saves)
        self._first_bytes = size
        self.expect_save(self._rows)

    def save_begins(self) -> None:
        """A save is under way beside the training: the last one would wait for it."""
        self._saving = True
        self._hold_back()

    def _hold_back(self) -> None:
        self._stop_by = self.deadline - self.kept_free_s - self.save_s * (1 + self._saving)

    def saved(self, seconds: float, size: int) -> None:
        """A save of `size` bytes took `seconds`."""
        if self._first_bytes:
            self._saves.clear()
            self._first_bytes = 0
        self._saves.append((seconds, size))
        self._saving = False
        self.expect_save(self._rows)

    def expect_save(self, rows: int) -> None:
        """Hold back what a save may take with `rows` in the replay buffer."""
        self._rows = rows
        base, per_row = self._model.state_bytes if self._model is not None else (0, 0)
        size = float(max(base + per_row * rows, self._first_bytes))
        known = [SURPRISE * price] if (price := self._price(Phase.CHECKPOINT, size)) else []
        if self._saves:
            scaled = [s * max(1.0, size / b) if b else s for s, b in self._saves]
            known += [SURPRISE * sum(scaled) / len(scaled), 1.5 * max(scaled)]
        self.save_s = max(known, default=self._unknown_save_s)
        self._hold_back()

    def cost_of(self, phase: Phase, count: float = 1.0) -> float:
        """Seconds that `count` units of `phase` take by the model; 0 where it does not tell."""
        return self._price(phase) * count

    def _price(self, phase: Phase, size: float = 0.0) -> float:
        price: Coefficient | None = self._model.get(phase) if self._model is not None else None
        return 0.0 if price is None else price.mean_s(size) * (1 + 2 * price.relative_error)

    def _new_unit(self, kind: Kind) -> _Unit:
        unit = self._units[kind] = _Unit(self._prior(kind), isinstance(kind, int) and kind <= LIGHT)
        return unit

    def _prior(self, kind: Kind) -> float:
        """The price of a unit not seen yet: by the model, else from kinds that were seen."""
        if isinstance(kind, str):
            return self._price(Phase.BASELINE if kind == "baseline" else Phase.EVAL_STEP)
        envs = self._config.n_envs if self._config is not None else 1
        step = envs * (self._price(Phase.ENV_STEP) + self._price(Phase.LOG))
        step += self._price(Phase.POLICY) + self._price(Phase.ROLLOUT)
        modelled = step + kind * self._price(Phase.UPDATE)
        seen = [(k, u) for k, u in self._units.items() if isinstance(k, int) and u.seen]
        alike = [u.longest * max(1.0, kind / k) for k, u in seen if k] or [u.usual for k, u in seen if not k]
        return max(modelled, *alike) if alike else modelled
