"""Evaluations played beside a training, in a process of their own: what it pays for them.

    starting each + what it waits for + what both lose to each other

An evaluation that takes E alone, and is waited for after training steps that take T alone, costs
`start_s + max(0, E - T)`, and the steps take `(slow_down - 1) x min(E, T)` longer: while both go on, each is
taken to slow the other down alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from arzbench.facts import Phase
from arzbench.records import SHORT_EVALUATION_S, BesidePrice, CostModel, TrainSchedule

#: phases of a training step
STEPWISE = (Phase.ENV_STEP, Phase.RESET, Phase.POLICY, Phase.UPDATE, Phase.ROLLOUT)
FloatArray = npt.NDArray[np.float64]


def beside_training(
    price: BesidePrice | None,
    schedule: TrainSchedule,
    seconds: Mapping[Phase, FloatArray],
    slow_down: FloatArray | None = None,
) -> tuple[list[tuple[float, FloatArray]], FloatArray]:
    """What a training pays for its evaluations, where `seconds` is what each phase takes alone.

    (Share of their env steps, seconds) in the order in which they come, and how many times as long the
    training's steps take. `slow_down` may be drawn (None: as in `price`). Short evaluations are waited for.
    """
    evaluated = seconds.get(Phase.EVAL_STEP, np.zeros(1))
    if price is None or not schedule.beside:
        return [(1.0, evaluated)], np.ones(1)
    slower = np.maximum(1.0, price.slow_down if slow_down is None else slow_down) - 1
    trained = sum((seconds[p] for p in STEPWISE if p in seconds), np.zeros(1))
    first = schedule.beside[0].units / schedule.beside[0].evaluations
    paid, lost = [(first, first * evaluated)], np.zeros(1)
    for part in schedule.beside:
        whole, meanwhile = part.units * evaluated, part.training * trained
        short = whole < SHORT_EVALUATION_S * part.evaluations
        waited = part.evaluations * price.start_s + np.maximum(0.0, whole - meanwhile)
        paid.append((part.units, np.where(short, whole, waited)))
        lost = lost + np.where(short, 0.0, slower * np.minimum(whole, meanwhile))
    after = 1 - sum(share for share, _ in paid)
    return [*paid, (after, after * evaluated)], 1 + lost / np.maximum(trained, 1e-9)


def in_order(model: CostModel, schedule: TrainSchedule) -> dict[Phase, list[tuple[float, float]]]:
    """What a training pays for each phase that has a price: (share of its units, mean seconds), in order."""
    alone = _seconds_alone(model, schedule)
    paid, slower = beside_training(model.beside, schedule, alone)
    pieces = {phase: [(1.0, float(seconds[0]))] for phase, seconds in alone.items()}
    if len(paid) > 1:
        pieces[Phase.EVAL_STEP] = [(share, float(seconds[0])) for share, seconds in paid]
        first = 1 - sum(part.training for part in schedule.beside)
        for phase in set(STEPWISE) & set(alone):
            seconds = float(alone[phase][0])
            pieces[phase] = [(first, first * seconds), (1 - first, (float(slower[0]) - first) * seconds)]
    return pieces


def beside_share(model: CostModel, schedule: TrainSchedule) -> tuple[int, float, float]:
    """How many evaluations can be played beside a training, what it pays for these, and what they take."""
    alone = _seconds_alone(model, schedule)
    whole = sum(part.units for part in schedule.beside) * float(alone.get(Phase.EVAL_STEP, np.zeros(1))[0])
    number = sum(part.evaluations for part in schedule.beside)
    if whole < SHORT_EVALUATION_S * max(1, number):
        return 0, 0.0, 0.0
    if model.beside is None:
        return number, whole, whole
    paid, slower = beside_training(model.beside, schedule, alone)
    trained = sum(float(alone[p][0]) for p in STEPWISE if p in alone)
    return number, sum(float(s[0]) for _, s in paid[1:-1]) + (float(slower[0]) - 1) * trained, whole


def _seconds_alone(model: CostModel, schedule: TrainSchedule) -> dict[Phase, FloatArray]:
    """Mean seconds of each phase that has a price, nothing played beside it; arrays of one value."""
    return {
        item.phase: np.array([(item.count + item.high) / 2 * price.mean_s(item.size)])
        for item in schedule.counts
        if (price := model.get(item.phase)) is not None
    }
