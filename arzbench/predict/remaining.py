"""The end of a run predicted anew while it goes on.

Each phase has a calibrated price; the run shows what it costs now. The logarithm of observed / calibrated is
taken as a factor of the whole run (a faster or slower hour of the machine), a part of each phase's own, the
smaller its share of the time the wider, and two errors of the observation: that of the phase, the less the
longer it was seen, and that of the moment, which all phases seen in it share. All are normal. So many phases
seen for a second are not many looks at the machine; and a phase not yet seen keeps its calibrated price
times the factor that the others show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from arzbench.facts import Phase
from arzbench.predict.beside import in_order
from arzbench.predict.plan import planner_for
from arzbench.records import CostModel, Estimate, PhaseCount, Plan, Spread, TrainSchedule
from arzbench.study import Study

# docs/concepts/cost-model.md says what was measured of these
#: how far a phase's price in a run lies from its calibrated one beside what all phases share, were it all
#: of the run; of a phase with a share of the time, over the root of its share
PHASE_SIGMA = 0.04
#: relative error of a phase's mean over one second of it, beside what all phases share
SECOND_SIGMA = 0.03
#: relative error of a single unit
UNIT_SIGMA = 0.5
#: what was seen, and what is left, may go faster or slower than the whole run: share of the spread between
#: runs. What was seen does the less the longer it was, beyond some seconds for which a machine stays alike
MOMENT_SHARE, MOMENT_S = 0.5, 5.0

#: (seconds, units) per phase
Observed = Mapping[Phase, tuple[float, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Where a job stands, for predicting its end. One value per training of the study."""

    training: int  # index of the one that runs
    num_timesteps: tuple[int, ...]
    observed: tuple[Observed, ...]  # progress of all sessions, lost work left out


def merged(before: Observed, now: Observed) -> Observed:
    """The sum of two observations."""
    total = dict(before)
    for phase, (seconds, units) in now.items():
        s, u = total.get(phase, (0.0, 0))
        total[phase] = (s + seconds, u + units)
    return total


Predict = Callable[[RunState], Estimate | None]
Part = tuple[CostModel, TrainSchedule, Observed]


@dataclass(slots=True)
class _Item:
    """A phase of one training: what is left of it, and the log of observed / calibrated."""

    left_s: float  # at the calibrated price
    ratio: float
    own: float  # variance of the phase's own part
    noise: float  # variance of the observation; infinite where nothing was seen
    seen_s: float


def predictor(plan: Plan | None, study: Study, budgets: Sequence[int]) -> Predict | None:
    """What is left of `study` under `budgets`, each phase repriced by what the run showed.

    None without a plan: there are no prices.
    """
    if plan is None:
        return None
    planner = planner_for(plan, study)
    schedules = planner.schedules(budgets)

    def predict(state: RunState) -> Estimate:
        parts = [
            (planner.models[i], schedules[i], state.observed[i])
            for i in range(state.training, len(schedules))
            if budgets[i]
        ]
        return remaining(parts, plan.spread)

    return predict


def remaining(parts: Sequence[Part], spread: Spread) -> Estimate:
    """What is left of trainings of which `(seconds, units)` per phase are done."""
    items = [item for part in parts for item in _items(*part)]
    # what all phases show alike is the run's factor and the moment of the machine
    between = spread.log_sigma**2
    apart = MOMENT_SHARE**2 * between
    moment = apart / (1 + sum(item.seen_s for item in items) / MOMENT_S)
    weights = [1 / (item.own + item.noise) for item in items]
    precision = (1 / (between + moment) if between else math.inf) + sum(weights)
    off = sum(w * (i.ratio - spread.log_centre) for w, i in zip(weights, items, strict=True) if w) / precision
    lasting = between / (between + moment) if between else 0.0  # the factor's share of it
    left = variance = shared = 0.0
    for item in items:
        trust = item.own / (item.own + item.noise)
        own = trust * (item.ratio - spread.log_centre - off) if trust else 0.0
        seconds = item.left_s * math.exp(spread.log_centre + lasting * off + own)
        left += seconds
        shared += seconds * (lasting - trust)
        variance += seconds**2 * item.own * (1 - trust)
    if not left:
        return Estimate(p50_s=0.0, p90_s=0.0, p99_s=0.0)
    relative = (variance + shared**2 / precision) / left**2 + lasting * moment + apart
    sigma = max(0.01, math.sqrt(relative))
    return Estimate(p50_s=left, p90_s=left * math.exp(1.2816 * sigma), p99_s=left * math.exp(2.3263 * sigma))


def _items(
    model: CostModel, schedule: TrainSchedule, observed: Mapping[Phase, tuple[float, int]]
) -> Iterator[_Item]:
    steps = observed.get(Phase.ENV_STEP, (0.0, 0))[1]
    done = steps / schedule.total_timesteps if schedule.total_timesteps else 0.0
    pieces = in_order(model, schedule)
    priced = []
    for count in schedule.counts:
        price = model.get(count.phase)
        seconds, units = observed.get(count.phase, (0.0, 0))
        whole_s = sum(s for _, s in pieces.get(count.phase, ()))
        if not whole_s and units:
            # never calibrated, or free: only what is seen can tell
            whole_s = _middle(count) * seconds / units
        if whole_s:
            priced.append((count, price, whole_s, seconds, units))
    whole = sum(whole_s for _, _, whole_s, _, _ in priced)
    for count, price, whole_s, seconds, units in priced:
        error = 0.5 if price is None else price.relative_error  # as of a single measurement
        ratio, noise = 0.0, math.inf
        to_do = _to_do(count, units, done, schedule)
        parts = pieces.get(count.phase, [])
        if len(parts) < 2:
            parts = [(1.0, whole_s)]
        expected_s, left_s = _split(parts, units, to_do, _middle(count))
        # what was saved so far is smaller than what is yet to be saved
        sized = price is not None and price.per_size_s > 0
        if units and seconds and not sized:
            ratio = math.log(seconds / expected_s)
            noise = UNIT_SIGMA**2 / units + SECOND_SIGMA**2 / min(seconds, expected_s)
        yield _Item(
            left_s=left_s,
            ratio=ratio,
            own=PHASE_SIGMA**2 * whole / whole_s + error**2,
            noise=noise,
            seen_s=seconds,
        )


def _split(
    parts: Sequence[tuple[float, float]], units: int, to_do: float, middle: float
) -> tuple[float, float]:
    """Seconds of the first `units` of a phase and of those `to_do`, where `middle` were counted."""
    shares = np.cumsum([0.0, *(share for share, _ in parts)])
    seconds = np.cumsum([0.0, *(s for _, s in parts)]) * (units + to_do) / middle
    done = float(np.interp(units / max(1e-9, units + to_do), shares, seconds))
    return done, float(seconds[-1]) - done


def _middle(count: PhaseCount) -> float:
    return (count.count + count.high) / 2


def _to_do(count: PhaseCount, units: int, done: float, schedule: TrainSchedule) -> float:
    """Units of a phase that are left where `units` are done and `done` of the training steps."""
    if count.phase is Phase.BASELINE and done:
        return 0.0  # baselines come before the training
    middle = _middle(count)
    if count.high == count.count or not schedule.evaluations:
        return max(0.0, middle - units)
    if count.phase is Phase.LOG:
        return middle * max(0.0, 1 - done)  # messages come with training steps, too
    # episodes of unknown length: those to come are taken like those that were, the more there were
    past = math.floor(schedule.evaluations * done + 1e-9)
    ahead = max(0.0, schedule.evaluations - past)
    each = middle / schedule.evaluations
    if past and units:
        each = (each + past * units / past) / (1 + past)
    return ahead * each


def probability_within(left: Estimate, seconds: float) -> float:
    """How likely what is left, log-normal by its P50 and P90, ends within `seconds`."""
    if seconds <= 0:
        return 0.0
    if left.p50_s <= 0 or left.p90_s <= left.p50_s:
        return float(seconds >= left.p50_s)
    sigma = math.log(left.p90_s / left.p50_s) / 1.2816
    return 0.5 * math.erfc(-math.log(seconds / left.p50_s) / sigma / math.sqrt(2))
