"""What `arzbench run` is to train: the budgets and prices that a request leads to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arzbench.clock import Clock
from arzbench.errors import UsageError, unknown
from arzbench.limits import Limits
from arzbench.predict.landing import LEAVE_S
from arzbench.predict.plan import planner_for
from arzbench.predict.schedule import budgets_for
from arzbench.records import Estimate, Plan
from arzbench.runs import Run
from arzbench.study import Study
from arzbench.wiring.planning import Pricing


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Where and under which limits to train, and how to take up a run that is there."""

    working: Path
    limits: Limits
    fresh: bool = False  # begin a new run
    extend: bool = False  # let the budget of a run grow
    new_budget: bool = False  # a budget was given, that of the run does not count
    max_sessions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """A resolved request: what is to be trained, how far, and at which prices."""

    request: Request
    study: Study
    budgets: tuple[int, ...]
    why: str
    plan: Plan | None  # None: not calibrated, prices are learned on the way
    predicted: Estimate | None
    quota_s: float | None
    unpriced: str = ""  # why there is no plan
    leave_s: float = LEAVE_S  # what the process needs from the last save to its end


def of_plan(request: Request, plan: Plan, key: str, quota_s: float | None) -> RunSpec:
    """The option `key` of a plan."""
    by_key = {o.key: o for o in plan.options}
    option = by_key.get(key.upper())
    if option is None and plan.quota_s is None:
        option = plan.options[0]  # without a quota there is one way: the whole study
    if option is None:
        raise unknown("option", key, by_key, "in this plan")
    return RunSpec(
        request=request,
        study=plan.study,
        budgets=option.budgets,
        why=f"option {option.key}, {option.title}",
        plan=plan,
        predicted=option.estimate,
        quota_s=quota_s,
    )


def of_budgets(
    request: Request, study: Study, budgets: tuple[int, ...], why: str, pricing: Pricing, clock: Clock
) -> RunSpec:
    """Given budgets, with the prices there are: for the guard and the predicted end."""
    try:
        plan, unpriced = pricing.plan(study, clock, None, request.limits.platform)[0], ""
    except UsageError as error:
        plan, unpriced = None, _reason(error)
    return RunSpec(
        request=request,
        study=study,
        budgets=budgets,
        why=why,
        plan=plan,
        predicted=None if plan is None else planner_for(plan, study).job(budgets).estimate(),
        quota_s=request.limits.seconds,
        unpriced=unpriced,
    )


def _reason(error: UsageError) -> str:
    """Why there are no prices, and what mends it."""
    lines = error.hint.splitlines()
    reasons = [line for line in lines if not line.startswith(("measure it", "or "))]
    reasons.sort(key=lambda line: "expired" not in line)
    fixes = [line for line in lines if line not in reasons]
    return "; ".join([error.message, *reasons[:1], *fixes])


def last_budgets(run: Run) -> tuple[int, ...]:
    """What the last session of a run was to train: a budget may shrink and grow from session to session."""
    sessions = run.summary().sessions
    if run.budgets and run.sessions >= max((entry.session for entry in sessions), default=0):
        return run.budgets
    given = sessions[-1].data.get("budgets") if sessions else None
    return tuple(int(n) for n in given) if given else run.record.budgets


def share(study: Study, timesteps: int, *, beyond: bool) -> tuple[int, ...]:
    """`timesteps` shared among the trainings in the study's proportions, in whole rollouts.

    `beyond` the study's own total schedules stay where they end.
    """
    total = study.total_timesteps
    if timesteps > total and not beyond:
        raise UsageError(
            f"--timesteps {timesteps:,} is more than the study's {total:,}, where its schedules end",
            "raise its horizon: --set total_timesteps=N\nor keep it and train on at its end: --extend",
        )
    if timesteps == total:
        return tuple(t.total_timesteps for t in study.trainings)
    budgets = budgets_for(study, timesteps / total)
    if not any(budgets):
        least = max(t.rollout_steps for t in study.trainings)
        raise UsageError(f"--timesteps {timesteps} is less than one rollout", f"at least --timesteps {least}")
    return budgets
