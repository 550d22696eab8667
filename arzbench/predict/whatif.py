"""What would make it fit: one change of the study at a time, each judged as the plan itself was."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from arzbench.errors import UsageError
from arzbench.facts import Phase
from arzbench.predict.plan import fit_all, planner_for
from arzbench.records import BESIDE, Calibration, Plan, PlanOption, WhatIf
from arzbench.study import MODES, Study, TrainConfig
from arzbench.study_changes import change_study

#: how much rarer evaluations, checkpoints and log messages are tried
RARER = 5
QUIETER = {"every": "periodic", "periodic": "off"}
#: keys whose values make other workloads -> the value where a study says nothing
WORKLOADS = {
    "n_envs": 1,
    "device": "cpu",
    "vec_env": "dummy",
    "env_kwargs.scheme": "weno5",
    "env_kwargs.dtype": "float64",
}
SAME = "the same results"
#: what a change does to them
RESULTS = {
    "evaluation.concurrent": SAME,
    "vec_env": f"{SAME}, but a resumed session begins new episodes",
    "n_envs": "another training: updates see other data",
    "device": "another training: devices round differently",
    "logging.log_period": f"{SAME}, fewer messages",
    "env_kwargs.scheme=muscl": "another env: second order where traffic is smooth, not fifth",
    "env_kwargs.scheme=first_order": "another env: the fronts of queues are smeared",
    "env_kwargs.dtype=float32": "another env: rounded to 7 digits, not 16",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A change of the study, and the calibration that holds its prices."""

    title: str
    prices: Calibration
    changes: tuple[str, ...] = ()
    note: str = ""
    results: str
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
    known = {_name(change) for w in judged for change in w.changes}
    saving = (w for w in ranked if w.saved_s is not None and w.saved_s > 0)
    return (*saving, *_not_measured(plan.study, known, question))


def _changes(question: Question) -> Iterator[_Change]:
    yield from _schedules(question.plan.study, question.calibration)
    yield from _beside(question)
    if question.plan.study.code is None:  # else it is not for us to change
        yield from _logging(question.plan.study, question.calibration)
        for key in WORKLOADS:
            yield from _elsewhere(question, key)
    full = question.plan.study.total_timesteps
    for option in question.plan.options:
        if option.key == "B" and option.total_timesteps < full:
            title = f"train {option.total_timesteps:,} of {full:,} steps"
            results = "the same trainings, cut short"
            yield _Change(
                title=title, prices=question.calibration, note="option B", results=results, option=option
            )


def _schedules(study: Study, prices: Calibration) -> Iterator[_Change]:
    """Rarer evaluations and checkpoints, one episode, one training fewer."""
    unit = "steps" if all(t.n_envs == 1 for t in study.trainings) else "calls"
    calls = max(t.total_timesteps // t.n_envs for t in study.trainings)
    evaluated = [t.evaluation for t in study.trainings if t.evaluation.eval_freq]
    drawn = not all(e.deterministic for e in evaluated)  # by the generators that the training draws from, too
    same = "another training: evaluations draw from its random numbers" if drawn else "the same training"
    if evaluated:
        freq = RARER * max(e.eval_freq for e in evaluated)
        freq = freq if freq <= calls else 0
        title = f"evaluate every {freq:,} {unit}" if freq else "no evaluation during the training"
        results = f"{same}, evaluated less often" if freq else same
        yield _Change(title=title, changes=(f"evaluation.eval_freq={freq}",), prices=prices, results=results)
    episodes = max((e.n_eval_episodes for e in evaluated), default=0)
    if episodes > 1:
        title = f"1 episode an evaluation, not {episodes}"
        results = f"{same}, its evaluations scatter more"
        yield _Change(title=title, changes=("evaluation.n_eval_episodes=1",), prices=prices, results=results)
    saved = max(t.checkpoint.checkpoint_freq for t in study.trainings)
    if saved:
        freq = RARER * saved if RARER * saved <= calls else 0
        title = f"a checkpoint every {freq:,} {unit}" if freq else "a checkpoint only at the end"
        note = f"a kill then loses up to {freq or calls:,} {unit}"
        changes = (f"checkpoint.checkpoint_freq={freq}",)
        yield _Change(title=title, changes=changes, prices=prices, note=note, results=SAME)
    count = len(study.trainings)
    if count > 1:
        title = f"leave out the last training ({study.trainings[-1].name})"
        results = "the others are the same"
        yield _Change(title=title, changes=(f"trainings={count - 1}",), prices=prices, results=results)


def _beside(question: Question) -> Iterator[_Change]:
    """Evaluations beside the training, where the study alone forbids it and what that costs was measured."""
    change = "evaluation.concurrent=true"
    for calibration in (question.calibration, *question.others):
        samples = [calibration.find(t.workload_digest()) for t in _waiting(question.plan.study)]
        if samples and all(s is not None and any(p.variant == BESIDE for p in s.phases) for s in samples):
            yield _Change(
                title="evaluate beside the training",
                changes=(change,),
                prices=calibration,
                note=_prices(question, calibration),
                results=RESULTS[_name(change)],
            )
            return


def _waiting(study: Study) -> list[TrainConfig]:
    """The trainings that wait for their evaluations only because the study says so."""
    changed = change_study(study, ["evaluation.concurrent=true"])
    pairs = zip(study.trainings, changed.trainings, strict=True)
    return [t for t, c in pairs if c.evaluates_beside and not t.evaluates_beside]


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
        results = f"{SAME}, fewer messages"
        yield _Change(title=title, changes=(f"logging.mode={quieter}",), prices=prices, results=results)


def _elsewhere(question: Question, key: str) -> Iterator[_Change]:
    """The same study with another value of `key`, for each that one calibration measured entirely."""
    study = question.plan.study
    seen = {_value(t, key) for t in study.trainings}
    for calibration in (question.calibration, *question.others):
        for value in [_value(w.config, key) for w in calibration.workloads]:
            change = f"{key}={value}"
            if value in seen or (changed := _changed(study, change)) is None:
                continue
            if all(calibration.find(t.workload_digest()) is not None for t in changed.trainings):
                seen.add(value)
                yield _Change(
                    title=_title(change),
                    changes=(change,),
                    prices=calibration,
                    note=_prices(question, calibration),
                    results=RESULTS.get(_name(change), "another env"),
                )


def _value(config: TrainConfig, key: str) -> object:
    """The value of a key of `WORKLOADS`."""
    name, _, inner = key.partition(".")
    value = getattr(config, name)
    value = value.get(inner, UNSET) if inner else value
    return WORKLOADS[key] if value is UNSET else value


def _changed(study: Study, change: str) -> Study | None:
    """None where it cannot be made: messages are not kept by envs in other processes, say."""
    try:
        return change_study(study, [change])
    except UsageError:
        return None


def _name(change: str) -> str:
    """What a change is known by: its key, and which model of the road."""
    return change if change.startswith("env_kwargs.") else change.partition("=")[0]


def _title(change: str) -> str:
    key, _, value = change.rpartition("=")
    if key == "vec_env":
        return "each env in a process of its own" if value == "subproc" else "all envs in one process"
    return f"{key.rpartition('.')[2]} {value}"


def _prices(question: Question, calibration: Calibration) -> str:
    return "" if calibration is question.calibration else f"prices: {calibration.id}"


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
        results=change.results,
    )


def _not_measured(study: Study, known: set[str], question: Question) -> Iterator[WhatIf]:
    """Changes no calibration here holds the prices of: nothing is said of their time."""
    changes = (
        ["evaluation.concurrent=true"] if _waiting(study) and question.calibration.host.cores > 1 else []
    )
    if study.code is None:
        changes += _other_workloads(study, question.calibration.host.device)
        periods = [t.logging.log_period for t in study.trainings if t.logging.mode == "periodic"]
        changes += [f"logging.log_period={RARER * max(periods)}"] if periods else []
    for change in changes:
        if _name(change) not in known:
            yield WhatIf(
                title="evaluate beside the training" if "concurrent" in change else _title(change),
                changes=(change,),
                command=f"arzbench calibrate{question.study_flags} --set {change}",
                note="not measured",
                results=RESULTS[_name(change)],
            )


def _other_workloads(study: Study, found: str) -> list[str]:
    """What may be worth measuring on a host whose device was `found`."""
    first = study.trainings[0]
    on_cpu = first.device == "cpu" or (first.device == "auto" and found == "cpu")
    changes = [
        f"n_envs={max(t.n_envs for t in study.trainings) * 4}",
        f"device={'cuda' if on_cpu else 'cpu'}",
    ]
    if all(t.own_env for t in study.trainings):
        faster = ("scheme=muscl", "scheme=first_order", "dtype=float32")
        usual = [f"env_kwargs.{f}" for f in faster if _is_usual(study, f"env_kwargs.{f.partition('=')[0]}")]
        return changes + usual
    apart = all(t.n_envs > 1 and not t.own_env for t in study.trainings) and _is_usual(study, "vec_env")
    return changes + (["vec_env=subproc"] if apart and _changed(study, "vec_env=subproc") else [])


def _is_usual(study: Study, key: str) -> bool:
    return all(_value(t, key) == WORKLOADS[key] for t in study.trainings)
