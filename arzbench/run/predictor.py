"""The end of a run predicted anew while it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from arzbench.costmodel import remaining
from arzbench.records import Estimate, Plan
from arzbench.run.progress import Predict, RunState
from arzbench.schedule import count_training
from arzbench.study import Study


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
