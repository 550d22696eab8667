"""What would make it fit: one change of the study at a time, each judged as the plan itself was."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from arzbench.facts import Phase
from arzbench.predict.plan import fit_all, planner_for
from arzbench.records import Calibration, Plan, PlanOption, WhatIf
from arzbench.study import MODES, Study
from arzbench.study_changes import change_study

#: how much rarer evaluations, checkpoints and log messages are tried
RARER = 5
QUIETER = {"every": "periodic", "periodic": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A change of the study, and the calibration that holds its prices."""

    title: str
    prices: Calibration
    changes: tuple[str, ...] = ()
    note: str = ""
    option: PlanOption | None = None  # of the plan, instead of changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A plan, what it rests on, and the words of the commands that act on the answer."""

    plan: Plan
    calibration: Calibration
    others: Sequence[Calibration] = ()  # of the same machine: other numbers of envs, another device
    flags: str = ""  # of `arzbench run --auto-budget`
    study_flags: str = ""  # those that name the study


def what_ifs(question: Question) -> tuple[WhatIf, ...]:
    """Changes that save time, the most first; then those whose price was not measured."""
    plan = question.plan
    judged = [_judge(question, change) for change in _changes(question)]
    ranked = sorted(judged, key=lambda w: -(w.saved_s or 0.0))
    judged_fields = {change.split("=")[0] for w in judged for change in w.changes}
    saving = (w for w in ranked if w.saved_s is not None and w.saved_s > 0)
    return (*saving, *_not_measured(plan.study, judged_fields, question))


def _changes(question: Question) -> Iterator[_Change]:
    yield from _schedules(question.plan.study, question.calibration)
    if question.plan.study.code is None:  # else it is not for us to change
        yield from _logging(question.plan.study, question.calibration)
        for field in ("n_envs", "device"):
            yield from _elsewhere(question, field)
    full = question.plan.study.total_timesteps
    for option in question.plan.options:
        if option.key == "B" and option.total_timesteps < full:
            title = f"train {option.total_timesteps:,} of {full:,} steps"
            yield _Change(title=title, prices=question.calibration, note="option B", option=option)


def _schedules(study: Study, prices: Calibration) -> Iterator[_Change]:
    """Rarer evaluations and checkpoints, one episode, one training fewer."""
    unit = "steps" if all(t.n_envs == 1 for t in study.trainings) else "calls"
    calls = max(t.total_timesteps // t.n_envs for t in study.trainings)
    evaluated = [t.evaluation for t in study.trainings if t.evaluation.eval_freq]
    if evaluated:
        freq = RARER * max(e.eval_freq for e in evaluated)
        freq = freq if freq <= calls else 0
        title = f"evaluate every {freq:,} {unit}" if freq else "no evaluation during the training"
        yield _Change(title=title, changes=(f"evaluation.eval_freq={freq}",), prices=prices)
    episodes = max((e.n_eval_episodes for e in evaluated), default=0)
    if episodes > 1:
        title = f"1 episode an evaluation, not {episodes}"
        yield _Change(title=title, changes=("evaluation.n_eval_episodes=1",), prices=prices)
    saved = max(t.checkpoint.checkpoint_freq for t in study.trainings)
    if saved:
        freq = RARER * saved if RARER * saved <= calls else 0
        title = f"a checkpoint every {freq:,} {unit}" if freq else "a checkpoint only at the end"
        note = f"a kill then loses up to {freq or calls:,} {unit}"
        yield _Change(title=title, changes=(f"checkpoint.checkpoint_freq={freq}",), prices=prices, note=note)
    count = len(study.trainings)
    if count > 1:
        title = f"leave out the last training ({study.trainings[-1].name})"
        yield _Change(title=title, changes=(f"trainings={count - 1}",), prices=prices)


def _logging(study: Study, prices: Calibration) -> Iterator[_Change]:
    """The next quieter mode, where the calibration measured it."""
    mode = max((t.logging.mode for t in study.trainings), key=MODES.index)
    quieter = QUIETER.get(mode)
    needed = {t.workload_digest() for t in study.trainings}
    measured = {
        w.workload
        for w in prices.workloads
        if any(p.phase is Phase.ENV_STEP and p.variant == quieter and not p.warmup for p in w.phases)
    }
    if quieter is not None and needed <= measured:
        title = f"logging {quieter}, not {mode}"
        yield _Change(title=title, changes=(f"logging.mode={quieter}",), prices=prices)


def _elsewhere(question: Question, field: str) -> Iterator[_Change]:
    """The same study with another `field`, for each value that one calibration measured entirely."""
    study = question.plan.study
    seen = {getattr(t, field) for t in study.trainings}
    for calibration in (question.calibration, *question.others):
        for value in [getattr(w.config, field) for w in calibration.workloads]:
            if value in seen:
                continue
            same = [msgspec.structs.replace(t, **{field: value}) for t in study.trainings]
            if all(calibration.find(t.workload_digest()) is not None for t in same):
                seen.add(value)
                note = "" if calibration is question.calibration else f"prices: {calibration.id}"
                title = f"n_envs {value}" if field == "n_envs" else f"device {value}"
                yield _Change(title=title, changes=(f"{field}={value}",), prices=calibration, note=note)


def _judge(question: Question, change: _Change) -> WhatIf:
    plan, prices, option = question.plan, change.prices, change.option
    study = change_study(plan.study, change.changes)
    planner = planner_for(plan, study, fit_all(study, prices), partial=bool(prices.imported))
    sets = "".join(f" --set {shlex.quote(c)}" for c in change.changes)
    job = planner.job(option.budgets if option is not None else planner.full)
    probability, verdict = planner.judge(job)
    estimate = job.estimate()
    return WhatIf(
        title=change.title,
        changes=change.changes,
        saved_s=plan.rows[-1].estimate.p50_s - estimate.p50_s,
        estimate=estimate,
        probability=probability,
        verdict=verdict,
        command=option.command if option else f"arzbench run --auto-budget{question.flags}{sets}",
        note=change.note,
    )


def _not_measured(study: Study, judged_fields: set[str], question: Question) -> Iterator[WhatIf]:
    """Changes no calibration here holds the prices of: nothing is said of their time."""
    if study.code is not None:
        return
    first = study.trainings[0]
    on_cpu = first.device == "cpu" or (first.device == "auto" and question.calibration.host.device == "cpu")
    device = "cuda" if on_cpu else "cpu"
    changes = {"n_envs": f"n_envs={max(t.n_envs for t in study.trainings) * 4}", "device": f"device={device}"}
    periods = [t.logging.log_period for t in study.trainings if t.logging.mode == "periodic"]
    if periods:
        changes["logging.log_period"] = f"logging.log_period={RARER * max(periods)}"
    for field, change in changes.items():
        if field not in judged_fields:
            yield WhatIf(
                title=change.replace("=", " "),
                changes=(change,),
                command=f"arzbench calibrate{question.study_flags} --set {change}",
                note="not measured",
            )
