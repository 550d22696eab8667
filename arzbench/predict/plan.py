"""Planning: what a quota holds, and the three ways to spend it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace

import msgspec

from arzbench.digest import digest
from arzbench.errors import UsageError, WillNotFitError
from arzbench.facts import Phase
from arzbench.predict.beside import beside_share
from arzbench.predict.costmodel import STARTUP, Job, fit, missing_phases, models_for, startup_seconds
from arzbench.predict.landing import kept_free_s, quota_for
from arzbench.predict.schedule import budgets_for, count_training
from arzbench.predict.spread import PastRun, spread_from, training_key
from arzbench.records import (
    NOT_BESIDE,
    Calibration,
    CostModel,
    HostInfo,
    Plan,
    PlanOption,
    Platform,
    Spread,
    TableRow,
    TrainSchedule,
    Verdict,
)
from arzbench.study import Study, TrainConfig
from arzbench.units import format_duration

#: the sizes everybody asks for
STEPS = (100, 1_000, 5_000, 8_000, 24_000, 100_000)
MAX_SESSIONS = 1000
#: the platform that is this machine itself
LOCAL = "local"
_LARGEST = 1e12
BESIDE_UNKNOWN = (
    "what an evaluation beside the training costs it was not measured: counted as if it waited for each"
)
EARLIER = "measured before arzbench computed updates its faster way: measure again with arzbench calibrate"


@dataclass(frozen=True, slots=True)
class Planner:
    """One study, its prices and a quota; answers every question a plan asks."""

    study: Study
    models: Sequence[CostModel]
    spread: Spread
    quota_s: float | None
    confidence: float
    _: KW_ONLY
    cold: bool
    partial: bool = False  # a phase without samples counts as nothing (an imported calibration)
    uploads: bool = False  # checkpoints are copied elsewhere, which takes time at the end

    def for_first(self) -> Planner:
        """The same for the first training alone."""
        first = msgspec.structs.replace(self.study, trainings=self.study.trainings[:1])
        return replace(self, study=first, models=self.models[:1])

    def schedules(self, budgets: Sequence[int]) -> list[TrainSchedule]:
        """The counted schedule of each training under its budget."""
        return [
            count_training(config, model.facts, budget=budget, state_bytes=model.state_bytes)
            for config, model, budget in zip(self.study.trainings, self.models, budgets, strict=True)
        ]

    def job(self, budgets: Sequence[int], sessions: int = 1) -> Job:
        """The wall time of the study under `budgets`; a budget of 0 leaves a training out."""
        schedules = self.schedules(budgets)
        parts = [(m, s) for m, s, b in zip(self.models, schedules, budgets, strict=True) if b]
        return Job(parts, self.spread, sessions=sessions, cold=self.cold, partial=self.partial)

    def unmeasured(self) -> list[Phase]:
        """Phases of the whole study and its sessions that have no price."""
        pairs = zip(self.models, self.schedules(self.full), strict=True)
        phases = {phase for model, schedule in pairs for phase in missing_phases(model, schedule)}
        phases |= {p for p in (*STARTUP, Phase.RESTORE) if self.models[0].get(p) is None}
        return [phase for phase in Phase if phase in phases]

    @property
    def full(self) -> tuple[int, ...]:
        """The study's own budgets."""
        return tuple(t.total_timesteps for t in self.study.trainings)

    def usable_s(self) -> float:
        """The quota less what a session keeps free at its end."""
        assert self.quota_s is not None
        return self.quota_s - kept_free_s(self.quota_s, uploads=self.uploads)

    def fits(self, budgets: Sequence[int], confidence: float) -> bool:
        """Whether the job ends within the quota with `confidence`."""
        return any(budgets) and self.job(budgets).quantile(confidence) <= self.usable_s()

    def largest(self, confidence: float) -> tuple[int, ...] | None:
        """The largest budgets that fit, in whole rollouts; None when not one rollout does.

        Several trainings shrink and grow together, in the proportion the study gives them.
        """
        low = high = self.smallest
        least = most = budgets_for(self.study, low)
        if not self.fits(least, confidence):
            return None
        while high < _LARGEST and self.fits(most, confidence):
            low, high = high, high * 4
            least, most = most, budgets_for(self.study, high)
        while low < (middle := (low + high) / 2) < high:
            budgets = budgets_for(self.study, middle)
            if budgets == most:
                high = middle
            elif budgets == least or self.fits(budgets, confidence):
                low, least = middle, budgets
            else:
                high, most = middle, budgets
        return least

    @property
    def smallest(self) -> float:
        """The smallest share of the study that holds at least one rollout of every training."""
        return max(t.rollout_steps / t.total_timesteps for t in self.study.trainings)

    def sessions(self, budgets: Sequence[int], confidence: float) -> int | None:
        """Sessions of the quota that the job takes, resuming included; None beyond MAX_SESSIONS."""
        count = 1
        while count <= MAX_SESSIONS:
            needed = self.job(budgets, count).quantile(confidence)
            if needed <= count * self.usable_s():
                return count
            count = max(count + 1, min(int(needed // max(self.usable_s(), 1e-9)), MAX_SESSIONS))
        return None

    def judge(self, job: Job) -> tuple[float | None, Verdict | None]:
        """Probability of ending within the quota, and what to call it."""
        if self.quota_s is None:
            return None, None
        probability = job.probability(self.usable_s())
        if probability >= self.confidence:
            return probability, Verdict.FITS
        return probability, Verdict.AT_RISK if probability >= 0.5 else Verdict.TIMES_OUT


def planner_for(
    plan: Plan, study: Study, models: Mapping[str, CostModel] | None = None, *, partial: bool = False
) -> Planner:
    """Judges `study` as `plan` was made; by its prices, or those of `models` (by workload).

    Raises:
        UsageError: a training's workload has no prices.
    """
    return Planner(
        study,
        models_for(study, models or {m.workload: m for m in plan.models}),
        plan.spread,
        plan.quota_s,
        plan.confidence,
        cold=plan.platform.fresh_machine,
        partial=partial,
        uploads=plan.uploads,
    )


def make_plan(
    study: Study,
    calibration: Calibration,
    calibration_path: str,
    platform: Platform,
    *,
    host: HostInfo,
    past: Sequence[PastRun],
    quota_s: float | None,
    confidence: float,
    created: datetime.datetime,
    command: str,
    named: bool = False,
    uploads: bool = False,
) -> Plan:
    """The plan of `study` on `platform`; `command` is what runs it.

    `named`: the calibration was asked for by its name, and its machine is the one planned for.
    `uploads`: checkpoints are copied elsewhere.

    Raises:
        UsageError: a confidence outside (0, 1), a workload or phase that was not measured.
        WillNotFitError: the quota is shorter than start-up, one rollout and a save.
    """
    if not 0.5 <= confidence < 1:
        raise UsageError(f"--confidence {confidence} is not in [0.5, 1)", "use for example 0.95")
    fitted = fit_all(study, calibration)
    foreign = calibration.host.differs_from(host)
    spread = spread_from(
        past,
        training=training_key(study),
        calibration=calibration.id,
        foreign=bool(foreign),
        named=calibration.host.name if named else "",
    )
    planner = Planner(
        study,
        models_for(study, fitted),
        spread,
        quota_s,
        confidence,
        cold=platform.fresh_machine,
        partial=bool(calibration.imported),
        uploads=uploads,
    )
    safe = None
    if quota_s is not None:
        safe = planner.largest(confidence)
        if safe is None:
            raise _too_short(planner)
    return Plan(
        id=f"{study.name}-{created:%Y%m%dT%H%M%SZ}",
        created=created.isoformat(timespec="seconds"),
        study=study,
        study_digest=digest(study),
        calibration_id=calibration.id,
        calibration_path=calibration_path,
        host=calibration.host,
        foreign=tuple(foreign),
        platform=platform,
        quota_s=quota_s,
        confidence=confidence,
        uploads=uploads,
        models=tuple(fitted.values()),
        spread=spread,
        schedules=tuple(planner.schedules(planner.full)),
        rows=tuple(_rows(planner)),
        safe_timesteps=sum(safe) if safe else None,
        options=tuple(_options(planner, safe, command)),
        warnings=tuple(_warnings(planner, calibration, platform)),
    )


def fit_all(study: Study, calibration: Calibration) -> dict[str, CostModel]:
    """Prices of every workload measured, under the logging that `study` asks for."""
    modes = {t.workload_digest(): t.logging.mode for t in reversed(study.trainings)}
    return {w.workload: fit(w, modes.get(w.workload)) for w in calibration.workloads}


def _too_short(planner: Planner) -> WillNotFitError:
    assert planner.quota_s is not None
    least_s = planner.job(budgets_for(planner.study, planner.smallest)).quantile(planner.confidence)
    needed = quota_for(least_s, uploads=planner.uploads)
    startup = startup_seconds(planner.models[0], cold=planner.cold)
    return WillNotFitError(
        f"a quota of {format_duration(planner.quota_s)} is too short for one cycle: start-up, "
        f"one rollout per training, its evaluations and a save need {format_duration(needed)} "
        f"at {planner.confidence:.0%} (start-up alone {format_duration(startup)})",
        f"give at least --quota {int(needed) + 1}s",
    )


def _rows(planner: Planner) -> list[TableRow]:
    """The table: usual sizes of the study's first training, then the whole study."""
    config = planner.study.trainings[0]
    single = planner.for_first()
    rows = [_row(single, f"{steps:,}", (steps,), _length_notes(config, planner.models[0])) for steps in STEPS]
    notes = [
        n for c, m in zip(planner.study.trainings, planner.models, strict=True) for n in _length_notes(c, m)
    ]
    rows.append(_row(planner, f"study {planner.study.name}", planner.full, sorted(set(notes))))
    return rows


def _row(planner: Planner, label: str, budgets: Sequence[int], notes: Sequence[str]) -> TableRow:
    schedules = planner.schedules(budgets)
    job = planner.job(budgets)
    probability, verdict = planner.judge(job)
    return TableRow(
        label=label,
        total_timesteps=sum(s.total_timesteps for s in schedules),
        hidden_steps=(sum(s.hidden_steps[0] for s in schedules), sum(s.hidden_steps[1] for s in schedules)),
        estimate=job.estimate(notes),
        probability=probability,
        verdict=verdict,
    )


def _length_notes(config: TrainConfig, model: CostModel) -> list[str]:
    """What is said when an evaluation episode's length is only known within bounds."""
    length, bound = model.facts.eval_length()
    schedule = count_training(config, model.facts)
    if bound <= length * 1.001 or not schedule.get(Phase.EVAL_STEP).count:
        return []
    return [
        f"evaluation episodes took {length:.0f} steps when calibrated and may take {bound:.0f} "
        "as the policy learns: both are counted"
    ]


def _options(planner: Planner, safe: tuple[int, ...] | None, command: str) -> list[PlanOption]:
    full = planner.full
    if planner.quota_s is None or safe is None:
        return [_option(planner, "A", "the whole study (no quota given)", full, 1, command)]
    chosen = (
        ("A", "safest: 99 of 100 such runs end in time", planner.largest(0.99)),
        ("B", f"recommended: {planner.confidence:.0%} of such runs end in time", safe),
    )
    options = [
        # without what exceeds the study: SB3 rounds its totals up to whole rollouts
        _option(planner, key, title, tuple(map(min, budgets, full)), 1, command)
        for key, title, budgets in chosen
        if budgets is not None
    ]
    sessions = planner.sessions(full, planner.confidence)
    if sessions is not None:
        title = (
            "the whole study in one session" if sessions == 1 else f"the whole study over {sessions} sessions"
        )
        options.append(_option(planner, "C", title, full, sessions, command))
    return options


def _option(
    planner: Planner, key: str, title: str, budgets: tuple[int, ...], sessions: int, command: str
) -> PlanOption:
    job = planner.job(budgets, sessions)
    probability = None
    if planner.quota_s is not None:
        probability = job.probability(sessions * planner.usable_s())
    schedules = [s for s, b in zip(planner.schedules(budgets), budgets, strict=True) if b]
    again = "" if sessions == 1 else "   (again in each session: it resumes by itself)"
    return PlanOption(
        key=key,
        title=title,
        total_timesteps=sum(s.total_timesteps for s in schedules),
        budgets=budgets,
        sessions=sessions,
        estimate=job.estimate(),
        probability=probability,
        command=f"{command} --option {key}{again}",
    )


def _warnings(planner: Planner, calibration: Calibration, platform: Platform) -> list[str]:
    warnings = []
    if platform.name != LOCAL:
        warnings.append(
            f"the limits are {platform.name}'s; the prices were measured on {calibration.host.name}, "
            f"{platform.name} itself was not measured"
        )
    if platform.fresh_machine:
        warnings.append("every session starts on a fresh machine: compilation is priced with empty caches")
    if calibration.drift > 0.05:
        warnings.append(f"this machine varied {calibration.drift:.0%} while it was measured")
    if calibration.imported:
        warnings.append(f"imported, not measured by arzbench: {calibration.imported}")
    if lacking := planner.unmeasured():
        warnings.append(f"not measured apart, counted as nothing of their own: {', '.join(lacking)}")
    asked = {t.logging.log_period for t in planner.study.trainings if t.logging.mode == "periodic"}
    measured = [calibration.find(t.workload_digest()) for t in planner.study.trainings]
    asked -= {samples.config.logging.log_period for samples in measured if samples is not None}
    warnings += [f"messages of one call in {n:,} are priced at the period measured" for n in sorted(asked)]
    differing = {n for w in calibration.workloads for n in w.notes}
    if not calibration.imported:
        warnings += _earlier(planner, calibration, any(n.startswith(NOT_BESIDE) for n in differing))
    return warnings + sorted(differing)


def _earlier(planner: Planner, calibration: Calibration, refused: bool) -> list[str]:
    """What the arzbench that measured did not know; `refused`: none is played beside the training."""
    pairs = zip(planner.models, planner.schedules(planner.full), strict=True)
    beside = any(m.beside is None and beside_share(m, s)[0] for m, s in pairs)
    fast = any(t.fast is not False for t in planner.study.trainings)
    return [
        text
        for text, holds in (
            (BESIDE_UNKNOWN, beside and not refused and calibration.host.cores > 1),
            (EARLIER, fast and "arzbench" not in calibration.versions),
        )
        if holds
    ]
