"""Prices from raw samples, and predicted wall times with their spread.

    T = sessions x startup + trainings x build + sum over phases of count x (fixed + per_size x size)

Evaluations that are played beside a training cost it what `beside_training` says, not their own time.
Within a run the price of a phase is a mean (training steps are periodic and heavy-tailed: medians of
steps would be wrong); its error comes from the means of repetitions in fresh processes. Between runs
the whole varies by a factor learned from this host's finished runs, or by a stated prior.
"""

from __future__ import annotations

import functools
import math
import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from arzbench.errors import UsageError
from arzbench.facts import Phase
from arzbench.predict.beside import STEPWISE, FloatArray, beside_training, in_order
from arzbench.records import (
    BEFORE_LEARNING,
    BESIDE,
    BesidePrice,
    Coefficient,
    CostModel,
    Estimate,
    PhaseSamples,
    Spread,
    TrainSchedule,
    WorkloadSamples,
)
from arzbench.study import Study

#: once per session, whatever is trained
STARTUP = (Phase.IMPORT, Phase.JIT, Phase.FIRST, Phase.TEARDOWN)
#: phases whose cost grows with the bytes of a checkpoint
SIZED = (Phase.CHECKPOINT, Phase.RESTORE)
DRAWS = 8000
_SEED = 20240229


def fit(samples: WorkloadSamples, mode: str | None = None) -> CostModel:
    """The prices of every phase that was measured, under the logging `mode` (None: the calibrated one)."""
    main = mode or samples.config.logging.mode
    groups: dict[tuple[Phase, str], list[PhaseSamples]] = {}
    for item in priced(samples, main):
        variant = item.variant if item.phase is Phase.JIT else ""
        groups.setdefault((item.phase, variant), []).append(item)
    prices = [  # those that grow with a size last
        _sized_price(phase, items) if phase in SIZED else _price(phase, variant, items)
        for (phase, variant), items in sorted(groups.items(), key=lambda group: group[0][0] in SIZED)
    ]
    prices.append(_first_calls(samples, main))
    return CostModel(
        workload=samples.workload,
        facts=samples.facts,
        state_bytes=samples.state_bytes,
        coefficients=tuple(prices),
        beside=_beside_price(samples, main),
    )


def priced(samples: WorkloadSamples, main: str) -> list[PhaseSamples]:
    """What prices under the logging mode `main` are made of; warm-ups left out."""
    later = [item for item in samples.phases if not item.warmup]
    own = [item for item in later if item.variant in ("", main, "cold", "warm")]
    # a reset or an update may not have fallen into the blocks of this mode: then any mode's will do
    lacking = {Phase.RESET, Phase.UPDATE} - {item.phase for item in own}
    return own + [item for item in later if item.phase in lacking and item.variant != BESIDE]


def _beside_price(samples: WorkloadSamples, main: str) -> BesidePrice | None:
    """What training steps took beside an evaluation over what as many took alone, process by process."""
    beside = [i for i in samples.phases if i.variant == BESIDE]
    started = [i for i in beside if i.phase is Phase.EVAL_STEP]
    started = [i for i in started if not i.warmup] or started
    alone = [i for i in priced(samples, main) if i.phase in STEPWISE]
    ratios: list[float] = []
    weights: list[float] = []
    for repetition in sorted({i.repetition for i in beside}):
        took = as_alone = 0.0
        for item in beside:
            same = [i for i in alone if (i.phase, i.repetition) == (item.phase, repetition)]
            if item.repetition == repetition and same:
                took += sum(item.seconds)
                as_alone += item.count * _mean(same)
        if as_alone:
            ratios.append(took / as_alone)
            weights.append(as_alone)
    if not ratios or not started:
        return None
    slow_down = float(np.average(ratios, weights=weights))
    return BesidePrice(
        start_s=statistics.fmean(s for i in started for s in i.seconds),
        slow_down=slow_down,
        error=slow_down * _relative_error(ratios, weights),
        n=sum(i.count for i in beside if i.phase is Phase.ENV_STEP),
    )


def _by_repetition(items: Iterable[PhaseSamples]) -> tuple[list[float], list[int]]:
    """Seconds per unit, one mean a repetition, and the units each rests on."""
    seconds: dict[int, float] = {}
    units: dict[int, int] = {}
    for item in items:
        seconds[item.repetition] = seconds.get(item.repetition, 0.0) + sum(item.seconds)
        units[item.repetition] = units.get(item.repetition, 0) + item.count
    return [s / units[r] for r, s in seconds.items()], list(units.values())


def _mean(items: Sequence[PhaseSamples]) -> float:
    """Seconds per unit over all repetitions: a repetition counts by the units it measured."""
    return sum(sum(item.seconds) for item in items) / sum(item.count for item in items)


def _relative_error(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Standard error of the weighted mean of `values`, relative to it (a ratio estimator's)."""
    if len(values) < 2:
        return 0.5  # one value says nothing of its spread
    shares = np.asarray(weights or [1.0] * len(values), dtype=float)
    shares /= shares.sum()
    mean = float(shares @ np.asarray(values))
    if mean <= 0:
        return 0.0
    variance = len(values) / (len(values) - 1) * float(shares**2 @ (np.asarray(values) - mean) ** 2)
    return min(1.0, math.sqrt(variance) / mean)


def _price(phase: Phase, variant: str, items: Sequence[PhaseSamples]) -> Coefficient:
    means, units = _by_repetition(items)
    singles = [v for item in items for v in item.per_unit()]
    error = _relative_error(means, units) if len(means) > 1 else _relative_error(singles)
    return Coefficient(
        phase=phase,
        variant=variant,
        fixed_s=_mean(items),
        relative_error=error,
        n=sum(units),
        p95_s=float(np.percentile(singles, 95)),
    )


def _sized_price(phase: Phase, items: Sequence[PhaseSamples]) -> Coefficient:
    """A straight line through cost against size, neither part negative."""
    sizes = np.array([item.size for item in items for _ in item.seconds])
    costs = np.array([s for item in items for s in item.per_unit()])
    slope = 0.0
    if np.ptp(sizes) > 0:
        slope = max(0.0, float(np.polyfit(sizes, costs, 1)[0]))
    fixed = max(0.0, float(np.mean(costs - slope * sizes)))
    if fixed == 0.0 and slope > 0:
        slope = float(costs.sum() / sizes.sum())
    residuals = costs / np.maximum(fixed + slope * sizes, 1e-12)
    return Coefficient(
        phase=phase,
        fixed_s=fixed,
        per_size_s=slope,
        relative_error=_relative_error(residuals.tolist()),
        n=len(costs),
        p95_s=float(np.percentile(costs, 95)),
    )


def _first_calls(samples: WorkloadSamples, main: str) -> Coefficient:
    """What the first call of each phase costs above the others, summed per process."""
    excess: dict[int, float] = {}
    singles = [i for i in samples.phases if i.phase in STEPWISE and i.variant in ("", main, BEFORE_LEARNING)]
    later = [i for i in singles if not i.warmup and i.variant != BEFORE_LEARNING]
    usual = {phase: _mean([i for i in later if i.phase is phase]) for phase in {i.phase for i in later}}
    for item in singles:
        if item.warmup and item.phase in usual:
            above = sum(item.seconds) - usual[item.phase] * item.count
            excess[item.repetition] = excess.get(item.repetition, 0.0) + max(0.0, above)
    values = list(excess.values()) or [0.0]
    return Coefficient(
        phase=Phase.FIRST,
        fixed_s=statistics.fmean(values),
        relative_error=_relative_error(values),
        n=len(values),
        p95_s=max(values),
    )


def seconds_per_step(samples: WorkloadSamples, mode: str) -> float | None:
    """Measured seconds per training env step under a logging mode; None where it was not measured.

    Env, policy, rollout and logging as measured under that mode; updates as often as the
    short training made them.
    """
    measured = [i for i in samples.phases if not i.warmup]
    own = [i for i in measured if i.variant == mode and i.phase not in (Phase.JIT, Phase.UPDATE)]
    updates = [i for i in measured if i.phase is Phase.UPDATE]
    learning = [i for i in samples.phases if i.phase is Phase.ENV_STEP and i.variant != BEFORE_LEARNING]
    steps = sum(i.count for i in own if i.phase is Phase.ENV_STEP)
    all_steps = sum(i.count for i in learning)
    if not steps or not all_steps:
        return None
    return sum(sum(i.seconds) for i in own) / steps + sum(sum(i.seconds) for i in updates) / all_steps


def missing_phases(model: CostModel, schedule: TrainSchedule) -> list[Phase]:
    """Phases that will occur and have no price."""
    return [c.phase for c in schedule.counts if c.high > 0 and model.get(c.phase) is None]


@functools.lru_cache(maxsize=256)
def _normal(source: str) -> FloatArray:
    """Draws for one source of error: the same in every job, so that jobs compare without noise."""
    return np.random.default_rng([_SEED, zlib.crc32(source.encode())]).standard_normal(DRAWS)


@functools.lru_cache(maxsize=256)
def _error(source: str, relative: float) -> FloatArray:
    """Factors by which one price is wrong; kept, for a study of 1,000 trainings pays it in each."""
    return np.exp(relative * _normal(source))


@functools.lru_cache(maxsize=1)
def _uniform() -> FloatArray:
    return np.random.default_rng(_SEED).random(DRAWS)


class Job:
    """A study's wall time as a distribution: draws of T under the errors of prices and between runs."""

    def __init__(
        self,
        parts: Sequence[tuple[CostModel, TrainSchedule]],
        spread: Spread,
        *,
        sessions: int = 1,
        cold: bool = False,
        partial: bool = False,
    ) -> None:
        """`parts` are the trainings; `cold` when compiled-code caches do not outlive a session.

        With `partial` a phase that was never measured counts as nothing: the caller says so.

        Raises:
            UsageError: a phase that will occur was never measured; it is named.
        """
        for model, schedule in parts:
            missing = [] if partial else missing_phases(model, schedule)
            if missing:
                raise UsageError(
                    f"the calibration has no samples of: {', '.join(missing)}",
                    "measure it with this study: arzbench calibrate",
                )
        self._share = spread.price_share
        self._total = np.zeros(DRAWS)
        for model, schedule in parts:
            self._add_training(model, schedule)
        model, first = parts[0]
        for phase in STARTUP:
            self._add(model, startup_price(model, phase, cold=cold), sessions)
        size = first.get(Phase.CHECKPOINT).size
        for phase in SIZED:  # at the end of a session, and in the next
            self._add(model, model.get(phase), sessions - 1, size)
        self.seconds = self._total * np.exp(spread.log_centre + spread.log_sigma * _normal("run"))

    def _add_training(self, model: CostModel, schedule: TrainSchedule) -> None:
        seconds = {}
        for item in schedule.counts:
            count: FloatArray | float = item.count
            if item.high != count:  # where between calibrated length and bound episodes lie
                count = count + (item.high - count) * _uniform()
            seconds[item.phase] = self._draws(model, model.get(item.phase), count, item.size)
        price, slow_down = model.beside, None
        if price is not None:
            slow_down = price.slow_down + self._share * price.error * _normal(f"{model.workload} beside")
        paid, slower = beside_training(price, schedule, seconds, slow_down)
        seconds[Phase.EVAL_STEP] = sum((s for _, s in paid), np.zeros(1))
        for phase, each in seconds.items():
            self._total += each * slower if phase in STEPWISE else each

    def _add(
        self, model: CostModel, price: Coefficient | None, count: FloatArray | float, size: float = 0.0
    ) -> None:
        self._total += self._draws(model, price, count, size)

    def _draws(
        self, model: CostModel, price: Coefficient | None, count: FloatArray | float, size: float = 0.0
    ) -> FloatArray:
        """Seconds of `count` units; one draw of a price is wrong by the same factor wherever it is paid."""
        if price is None:
            return np.zeros(DRAWS)
        error = _error(f"{model.workload} {price.phase}", self._share * price.relative_error)
        draws: FloatArray = count * price.mean_s(size) * error
        return draws

    def estimate(self, notes: Sequence[str] = ()) -> Estimate:
        """The quantiles shown."""
        p50, p90, p99 = (float(q) for q in np.quantile(self.seconds, (0.5, 0.9, 0.99)))
        return Estimate(p50_s=p50, p90_s=p90, p99_s=p99, notes=tuple(notes))

    def quantile(self, probability: float) -> float:
        """Seconds that `probability` of such jobs stay under."""
        return float(np.quantile(self.seconds, probability))

    def probability(self, quota_s: float) -> float:
        """The share of such jobs that end within `quota_s`."""
        return float(np.mean(self.seconds <= quota_s))


def startup_price(model: CostModel, phase: Phase, *, cold: bool) -> Coefficient | None:
    """The price of a once-a-session phase; just-in-time compilation by the state of its cache."""
    if phase is not Phase.JIT:
        return model.get(phase)
    wanted = "cold" if cold else "warm"
    either = [c for c in model.coefficients if c.phase is Phase.JIT]
    return next((c for c in either if c.variant == wanted), either[0] if either else None)


def startup_seconds(model: CostModel, *, cold: bool = False) -> float:
    """Mean seconds of a session that train nothing."""
    prices = [startup_price(model, phase, cold=cold) for phase in (*STARTUP, Phase.BUILD)]
    return sum(p.fixed_s for p in prices if p is not None)


def phase_seconds(model: CostModel, schedules: Sequence[TrainSchedule]) -> dict[Phase, float]:
    """Predicted mean seconds per phase of the trainings of one workload, one session."""
    seconds: dict[Phase, float] = {}
    for schedule in schedules:
        for phase, pieces in in_order(model, schedule).items():
            seconds[phase] = seconds.get(phase, 0.0) + sum(each for _, each in pieces)
    for phase in STARTUP:
        price = startup_price(model, phase, cold=False)
        if price is not None:
            seconds[phase] = price.fixed_s
    return seconds


def models_for(study: Study, models: Mapping[str, CostModel]) -> list[CostModel]:
    """One cost model per training of `study`.

    Raises:
        UsageError: a training's workload was not measured.
    """
    lacking = [t.name for t in study.trainings if t.workload_digest() not in models]
    if lacking:
        raise UsageError(
            f"the calibration does not cover: {', '.join(lacking)}",
            "measure them: arzbench calibrate --study ...",
        )
    return [models[t.workload_digest()] for t in study.trainings]
