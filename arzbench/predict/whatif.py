"""What would make it fit: one change of the study at a time, each judged as the plan itself was."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from arzbench.facts import Phase
from arzbench.predict.plan import Planner, fit_all, planner_for, whole_estimate
from arzbench.records import Calibration, Plan, WhatIf
from arzbench.study import Study
from arzbench.study_changes import change_study

#: how much rarer evaluations, checkpoints and log messages are tried
RARER = 5
QUIETER = {"every": "periodic", "periodic": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A change of the study, and the calibration that holds its prices."""

    title: str
    changes: tuple[str, ...]
    prices: Calibration
    note: str = ""


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
    saving = [w for w in [*judged, *_fewer_steps(question)] if w.saved_s is not None and w.saved_s > 0]
    ranked = sorted(saving, key=lambda w: -(w.saved_s or 0.0))
    judged_fields = {change.split("=")[0] for w in judged for change in w.changes}
    return (*ranked, *_not_measured(plan.study, judged_fields, question))


def _changes(question: Question) -> Iterator[_Change]:
    yield from _schedules(question.plan.study, question.calibration)
    yield from _logging(question.plan.study, question.calibration)
    for field in ("n_envs", "device"):
        yield from _elsewhere(question, field)


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
    mode = max((t.logging.mode for t in study.trainings), key=["off", "periodic", "every"].index)
    quieter = QUIETER.get(mode)
    if quieter is not None and _measured_mode(study, prices, quieter):
        title = f"logging {quieter}, not {mode}"
        yield _Change(title=title, changes=(f"logging.mode={quieter}",), prices=prices)


def _measured_mode(study: Study, prices: Calibration, mode: str) -> bool:
    needed = {t.workload_digest() for t in study.trainings}
    measured = {
        w.workload
        for w in prices.workloads
        if any(p.phase is Phase.ENV_STEP and p.variant == mode and not p.warmup for p in w.phases)
    }
    return needed <= measured


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
    study = change_study(question.plan.study, change.changes)
    asked = _planner(question, study, change.prices)
    sets = "".join(f" --set {shlex.quote(c)}" for c in change.changes)
    command = f"arzbench run --auto-budget{question.flags}{sets}"
    return _weigh(question, asked, asked.full, change, command)


def _planner(question: Question, study: Study, prices: Calibration) -> Planner:
    return planner_for(question.plan, study, fit_all(study, prices), partial=bool(prices.imported))


def _weigh(
    question: Question, asked: Planner, budgets: tuple[int, ...], change: _Change, command: str
) -> WhatIf:
    job = asked.job(budgets)
    probability, verdict = asked.judge(job)
    estimate = job.estimate()
    return WhatIf(
        title=change.title,
        changes=change.changes,
        saved_s=whole_estimate(question.plan).p50_s - estimate.p50_s,
        estimate=estimate,
        probability=probability,
        verdict=verdict,
        command=command,
        note=change.note,
    )


def _fewer_steps(question: Question) -> list[WhatIf]:
    """Option B: as many steps as fit."""
    options = [o for o in question.plan.options if o.key == "B"]
    full = question.plan.study.total_timesteps
    if not options or options[0].total_timesteps >= full:
        return []
    title = f"train {options[0].total_timesteps:,} of {full:,} steps"
    change = _Change(title=title, changes=(), prices=question.calibration, note="option B")
    asked = _planner(question, question.plan.study, question.calibration)
    return [_weigh(question, asked, options[0].budgets, change, options[0].command)]


def _not_measured(study: Study, judged_fields: set[str], question: Question) -> Iterator[WhatIf]:
    """Changes no calibration here holds the prices of: nothing is said of their time."""
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
