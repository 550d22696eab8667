"""The end of a run predicted anew while it goes on.

Each phase has a calibrated price; the run shows what it costs now. The logarithm of observed / calibrated is
taken as a factor of the whole run (a faster or slower hour of the machine) plus a part of each phase's own,
both normal: what was seen of a phase counts the more the longer it was seen, and a phase not yet seen keeps
its calibrated price times the factor that the others show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from arzbench.costmodel import price_error
from arzbench.records import CostModel, Estimate, Phase, PhaseCount, Plan, Spread, TrainSchedule
from arzbench.run.progress import Predict, RunState
from arzbench.schedule import count_training
from arzbench.study import Study

#: how far a phase's price in a run lies from its calibrated one beside what all phases share
PHASE_SIGMA = 0.10
#: times of a phase stay alike for seconds: relative error of a mean over one second
SECOND_SIGMA = 0.10
#: single units are heavy-tailed: relative error of one
UNIT_SIGMA = 1.0
#: what is left may go faster or slower than what was seen: share of the spread between runs
LATER_SHARE = 0.5

Part = tuple[CostModel, TrainSchedule, Mapping[Phase, tuple[float, int]]]


@dataclass(slots=True)
class _Item:
    """A phase of one training: what is left of it, and the log of observed / calibrated."""

    left_s: float  # at the calibrated price
    ratio: float
    own: float  # variance of the phase's own part
    noise: float  # variance of the observation; infinite where nothing was seen


def predictor(plan: Plan | None, study: Study, budgets: Sequence[int]) -> Predict | None:
    """What is left of `study` under `budgets`, each phase repriced by what the run showed.

    None without a plan: there are no prices.
    """
    if plan is None:
        return None
    models = {m.workload: m for m in plan.models}
    trainings = [(c, models[c.workload_digest()]) for c in study.trainings]
    schedules = [
        count_training(c, m.facts, budget=b, state_bytes=m.state_bytes)
        for (c, m), b in zip(trainings, budgets, strict=True)
    ]

    def predict(state: RunState) -> Estimate:
        parts = [
            (trainings[i][1], schedules[i], state.observed[i])
            for i in range(state.training, len(schedules))
            if budgets[i]
        ]
        return remaining(parts, plan.spread)

    return predict


def remaining(parts: Sequence[Part], spread: Spread) -> Estimate:
    """What is left of trainings of which `(seconds, units)` per phase are done."""
    items = [item for part in parts for item in _items(*part)]
    between = spread.log_sigma**2
    # the run's factor: what all phases seen say of it, beside what runs before say
    weights = [1 / (item.own + item.noise) for item in items]
    precision = 1 / between if between else math.inf
    known = precision + sum(weights)
    factor = spread.log_centre
    if between:
        seen = sum(w * i.ratio for w, i in zip(weights, items, strict=True) if w)
        factor = (precision * factor + seen) / known
    left = variance = shared = 0.0
    for item in items:
        trust = item.own / (item.own + item.noise)
        seconds = item.left_s * math.exp(factor + trust * (item.ratio - factor if trust else 0.0))
        left += seconds
        shared += seconds * (1 - trust)
        variance += seconds**2 * item.own * (1 - trust)
    if not left:
        return Estimate(p50_s=0.0, p90_s=0.0, p99_s=0.0)
    relative = (variance + shared**2 / known) / left**2 + (LATER_SHARE * spread.log_sigma) ** 2
    sigma = max(0.01, math.sqrt(relative))
    return Estimate(p50_s=left, p90_s=left * math.exp(1.2816 * sigma), p99_s=left * math.exp(2.3263 * sigma))


def _items(
    model: CostModel, schedule: TrainSchedule, observed: Mapping[Phase, tuple[float, int]]
) -> Iterator[_Item]:
    steps = observed.get(Phase.ENV_STEP, (0.0, 0))[1]
    done = steps / schedule.total_timesteps if schedule.total_timesteps else 0.0
    for count in schedule.counts:
        price = model.get(count.phase)
        seconds, units = observed.get(count.phase, (0.0, 0))
        mean = price.mean_s(count.size) if price is not None else 0.0
        if not mean:
            # never calibrated, or free: only what is seen can tell
            mean = seconds / units if units else 0.0
        if not mean or not count.high:
            continue
        ratio, noise = 0.0, math.inf
        # what was saved so far is smaller than what is yet to be saved
        sized = price is not None and price.per_size_s > 0
        if units and seconds and not sized:
            ratio = math.log(seconds / units / mean)
            noise = UNIT_SIGMA**2 / units + SECOND_SIGMA**2 / seconds
        own = PHASE_SIGMA**2 + price_error(price) ** 2
        yield _Item(left_s=_to_do(count, units, done, schedule) * mean, ratio=ratio, own=own, noise=noise)


def _to_do(count: PhaseCount, units: int, done: float, schedule: TrainSchedule) -> float:
    """Units of a phase that are left where `units` are done and `done` of the training steps."""
    if count.phase is Phase.BASELINE and done:
        return 0.0  # baselines come before the training
    middle = (count.count + count.high) / 2
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
