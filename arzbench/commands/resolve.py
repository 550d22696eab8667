"""What `arzbench run` is to train: its options, and the budgets and prices they lead to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from arzbench import profiles, runs, store
from arzbench.choose_study import choose_study
from arzbench.clock import Clock
from arzbench.commands.common import Limits, Prices, on_device, plan_now
from arzbench.errors import UsageError, unknown
from arzbench.measure.host import host_info
from arzbench.predict.plan import planner_for
from arzbench.predict.schedule import budgets_for
from arzbench.records import Estimate, Plan, Platform
from arzbench.study import Study
from arzbench.study_changes import change_study


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line of `arzbench run`."""

    working: Path
    study: str | None
    env: str | None
    algo: str | None
    changes: tuple[str, ...]
    auto_budget: bool
    plan_file: Path | None
    timesteps: int | None
    option: str
    quota: str | None
    platform: str | None
    confidence: float
    prices: Prices
    device: str | None
    run_id: str | None
    fresh: bool
    extend: bool = False
    max_sessions: int | None = None
    checkpoints: str | None = None

    def check(self) -> None:
        """Raise a `UsageError` where flags contradict each other or say too little."""
        given = [self.auto_budget, self.plan_file is not None, self.timesteps is not None]
        if sum(given) > 1:
            raise UsageError("--auto-budget, --plan and --timesteps exclude each other", "give one of them")
        if not any(given) and self.run_id is None and self.checkpoints is None:
            raise UsageError(
                "how much to train was not said",
                "--auto-budget (what fits the quota), --plan FILE, --timesteps N, or --run ID to continue",
            )
        if self.checkpoints is not None and self.fresh:
            raise UsageError(
                "--checkpoints goes on from what is at its URL and --fresh starts anew",
                "leave out --fresh: a URL without checkpoints begins a new run",
            )
        if self.run_id is not None and self.fresh:
            raise UsageError("--run continues a run and --fresh starts anew", "give one of them")
        if self.extend and (self.timesteps is None or self.fresh):
            raise UsageError(
                "--extend lets the budget of a run grow, and no new budget is given"
                if self.timesteps is None
                else "--extend lets the budget of a run grow and --fresh starts anew",
                "for example: arzbench run --run ID --timesteps N --extend",
            )
        if self.device is not None and self.study is None and self.env is None:
            raise UsageError(
                "--device changes a study, and none is named", "add --study NAME, or --env and --algo"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be trained, how far, and the prices known."""

    study: Study
    budgets: tuple[int, ...]
    why: str
    plan: Plan | None  # None: not calibrated, prices are learned on the way
    predicted: Estimate | None
    quota_s: float | None
    unpriced: str = ""  # why there is no plan


def decide(options: RunOptions, clock: Clock, earlier: runs.Run | None, limits: Limits) -> Order:
    """The order that `options` amount to; `earlier` is the run they name.

    Raises:
        UsageError: they ask for what there is not, or for more than the study has.
    """
    quota_s, place = limits.seconds, limits.platform
    if options.plan_file is not None:
        plan = store.load(options.plan_file, "arzbench/plan", Plan, "plan", "make one: arzbench plan")
        order = _from_plan(plan, options.option, quota_s if quota_s is not None else plan.quota_s)
        if options.checkpoints is not None and not plan.uploads:
            return replace(order, why=f"{order.why}; planned without --checkpoints")
        return order
    study = earlier.record.study if earlier is not None else asked_study(options)
    if options.auto_budget:
        plan = _planned(options, clock, study, quota_s, place)
        return _from_plan(plan, options.option, quota_s)
    if study is None:
        study = _newest_study(options)
    if options.timesteps is not None:
        budgets = _share(study, options.timesteps, beyond=options.extend)
        why = f"--timesteps {options.timesteps:,}"
    else:
        assert earlier is not None
        budgets, why = last_budgets(earlier), earlier.record.why
    prices, unpriced = _planned_if_calibrated(options, clock, study, place)
    return Order(
        study=study,
        budgets=budgets,
        why=why,
        plan=prices,
        predicted=None if prices is None else planner_for(prices, study).job(budgets).estimate(),
        quota_s=quota_s,
        unpriced=unpriced,
    )


def last_budgets(run: runs.Run) -> tuple[int, ...]:
    """What the last session of a run was to train: a budget may shrink and grow from session to session."""
    sessions = run.summary().sessions
    if run.budgets and run.sessions >= max((entry.session for entry in sessions), default=0):
        return run.budgets
    given = sessions[-1].data.get("budgets") if sessions else None
    return tuple(int(n) for n in given) if given else run.record.budgets


def asked_study(options: RunOptions) -> Study | None:
    """The study that `options` name, with their changes; None where they name none."""
    study = choose_study(
        options.working,
        study=options.study,
        env=options.env,
        algo=options.algo,
        changes=options.changes,
        timesteps=options.timesteps,
    )
    return study if study is None else on_device(study, options.device)


def _newest_study(options: RunOptions) -> Study:
    """The study of the newest calibration, as `plan` takes it."""
    found = profiles.newest_calibration(options.working, host_info(), None, allow_foreign=True)[1].study
    return change_study(found, options.changes)


def _planned(
    options: RunOptions, clock: Clock, study: Study | None, quota_s: float | None, place: Platform
) -> Plan:
    return plan_now(
        options.working,
        study,
        clock,
        quota_s=quota_s,
        platform=place,
        confidence=options.confidence,
        prices=options.prices,
        flags="",
        changes=options.changes,
        uploads=options.checkpoints is not None,
    )[0]


def _planned_if_calibrated(
    options: RunOptions, clock: Clock, study: Study, place: Platform
) -> tuple[Plan | None, str]:
    """Prices for the guard and the predicted end; else why there are none, and what mends it."""
    try:
        return _planned(options, clock, study, None, place), ""
    except UsageError as error:
        lines = error.hint.splitlines()
        reasons = [line for line in lines if not line.startswith(("measure it", "or "))]
        reasons.sort(key=lambda line: "expired" not in line)
        fixes = [line for line in lines if line not in reasons]
        return None, "; ".join([error.message, *reasons[:1], *fixes])


def _from_plan(plan: Plan, key: str, quota_s: float | None) -> Order:
    by_key = {o.key: o for o in plan.options}
    option = by_key.get(key.upper())
    if option is None and plan.quota_s is None:
        option = plan.options[0]  # without a quota there is one way: the whole study
    if option is None:
        raise unknown("option", key, by_key, "in this plan")
    why = f"option {option.key}, {option.title}"
    return Order(
        study=plan.study,
        budgets=option.budgets,
        why=why,
        plan=plan,
        predicted=option.estimate,
        quota_s=quota_s,
    )


def _share(study: Study, timesteps: int, *, beyond: bool) -> tuple[int, ...]:
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
