"""The records that travel between calibrate, plan, run and report.

Frozen and checked at construction. Units stand in names: `_s` seconds, `_bytes` bytes.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

from arzbench.facts import EnvFacts, Phase, Record
from arzbench.study import AnyConfig, Study


class HostInfo(Record, frozen=True, kw_only=True):
    """What must be equal for two measurements to be comparable, and what helps to explain them."""

    name: str
    system: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str
    device: str  # "cpu" or the GPU's name
    torch_threads: int

    @property
    def key(self) -> str:
        """The folder name of this host's calibrations."""
        safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.name)
        return safe.lstrip(".") or "unnamed"

    def differs_from(self, other: HostInfo) -> list[str]:
        """The names of the fields that forbid mixing measurements of the two hosts."""
        checked = ("name", "cpu", "cores", "device", "torch_threads")
        return [name for name in checked if getattr(self, name) != getattr(other, name)]


#: variant of steps before the first update: between updates, caches cold, one costs up to twice as much
BEFORE_LEARNING = "before learning"
#: variant of what a training pays while an evaluation is played beside it
BESIDE = "beside"
#: how the note of a calibration begins that says why none is
NOT_BESIDE = "evaluations are not played beside the training"
#: an evaluation that takes less than so many seconds is waited for: to play it beside costs more
SHORT_EVALUATION_S = 0.05


class PhaseSamples(Record, frozen=True, kw_only=True):
    """Raw measurements of one phase in one repetition (one fresh process)."""

    phase: Phase
    repetition: int
    warmup: bool = False  # kept, shown, not averaged
    variant: str = ""  # jit: cold | warm; per step: off | periodic | every | before learning | beside
    size: float = 0.0  # what the cost grows with: checkpoint and restore, in bytes
    seconds: tuple[float, ...]
    units: tuple[int, ...]  # how many units each measurement holds

    def __post_init__(self) -> None:
        if len(self.seconds) != len(self.units):
            raise ValueError(f"{self.phase}: {len(self.seconds)} times for {len(self.units)} unit counts")
        if not self.seconds:
            raise ValueError(f"{self.phase}: no measurement")
        if not all(0 <= s < math.inf for s in self.seconds) or any(u < 1 for u in self.units):
            raise ValueError(f"{self.phase}: a time that is not a positive number, or an empty unit")

    @property
    def count(self) -> int:
        """Units measured."""
        return sum(self.units)

    @property
    def mean_s(self) -> float:
        """Seconds per unit over the whole repetition."""
        return sum(self.seconds) / self.count

    def per_unit(self) -> list[float]:
        """Seconds per unit, one value a measurement."""
        return [s / u for s, u in zip(self.seconds, self.units, strict=True)]


class PhaseCount(Record, frozen=True, kw_only=True):
    """How often a phase occurs; `high` differs where an episode's length is not known."""

    phase: Phase
    count: float
    high: float
    size: float = 0.0  # mean bytes per occurrence, for phases whose cost grows with it

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.high:
            raise ValueError(f"{self.phase}: count {self.count} outside 0..{self.high}")


class EvaluationsBeside(Record, frozen=True, kw_only=True):
    """Evaluations that may be played beside the training, which goes on until they are waited for."""

    evaluations: int
    units: float  # their share of all env steps of evaluations
    training: float  # share of the training's steps


class TrainSchedule(Record, frozen=True, kw_only=True):
    """Every event of one training of `total_timesteps`, counted."""

    training: str
    total_timesteps: int  # as run: rounded up to whole rollouts by SB3
    rollouts: int
    updates: int
    evaluations: int
    checkpoints: int
    counts: tuple[PhaseCount, ...]
    beside: tuple[EvaluationsBeside, ...] = ()  # in their order, behind the first evaluation

    def get(self, phase: Phase) -> PhaseCount:
        """The count of `phase`, zero where it does not occur."""
        absent = PhaseCount(phase=phase, count=0, high=0)
        return next((item for item in self.counts if item.phase is phase), absent)

    @property
    def hidden_steps(self) -> tuple[float, float]:
        """Env steps beside training: evaluation and baselines (calibrated length, bound)."""
        parts = [self.get(Phase.EVAL_STEP), self.get(Phase.BASELINE)]
        return sum(p.count for p in parts), sum(p.high for p in parts)

    @property
    def env_steps(self) -> tuple[float, float]:
        """All env steps (calibrated length, bound)."""
        low, high = self.hidden_steps
        return self.total_timesteps + low, self.total_timesteps + high


class WorkloadSamples(Record, frozen=True, kw_only=True):
    """All measurements of one workload: an env, an algorithm and its hyper-parameters."""

    workload: str  # TrainConfig.workload_digest()
    config: AnyConfig  # as measured
    facts: EnvFacts
    state_bytes: tuple[int, int]  # checkpoint size: without and per stored transition
    phases: tuple[PhaseSamples, ...]
    notes: tuple[str, ...] = ()
    sources: dict[str, str] = {}  # SHA-256 of the user's own files that built the model


class Calibration(Record, frozen=True, kw_only=True):
    """The raw record of one `arzbench calibrate`; never edited afterwards."""

    id: str
    created: str
    host: HostInfo
    study: Study
    versions: dict[str, str]
    steps: int
    repetitions: int
    took_s: float
    drift: float  # largest relative spread of a phase's mean between repetitions
    workloads: tuple[WorkloadSamples, ...]
    imported: str = ""  # where its figures are from, when no `arzbench calibrate` measured them

    def find(self, digest: str) -> WorkloadSamples | None:
        """The samples of the workload `digest`, None where it was not measured."""
        return next((w for w in self.workloads if w.workload == digest), None)


class Coefficient(Record, frozen=True, kw_only=True):
    """The price of one phase: fixed_s + per_size_s x size, per unit."""

    phase: Phase
    variant: str = ""  # jit: cold | warm
    fixed_s: float
    per_size_s: float = 0.0
    relative_error: float  # standard error of the mean, from repetition means
    n: int  # units measured
    p95_s: float  # 95th percentile of single measurements, per unit

    def mean_s(self, size: float = 0.0) -> float:
        """Seconds per unit of size `size`."""
        return self.fixed_s + self.per_size_s * size


class BesidePrice(Record, frozen=True, kw_only=True):
    """What evaluations that are played beside a training cost it."""

    start_s: float  # of each: its process begun, its result taken
    slow_down: float  # how many times as long the training takes while one is under way
    error: float  # standard error of that
    n: int  # training env steps measured beside one


class CostModel(Record, frozen=True, kw_only=True):
    """Prices of one workload's phases on one host."""

    workload: str
    facts: EnvFacts
    state_bytes: tuple[int, int]
    coefficients: tuple[Coefficient, ...]
    beside: BesidePrice | None = None  # None: not measured, evaluations are waited for

    def get(self, phase: Phase) -> Coefficient | None:
        """The price of `phase`, None where it was not measured."""
        return next((c for c in self.coefficients if c.phase is phase), None)


class Spread(Record, frozen=True, kw_only=True):
    """How actual times scatter around predictions on this host, and where that was learned."""

    source: str  # the sentence shown
    ratios: tuple[float, ...] = ()  # actual / predicted by prices alone of the runs it rests on
    log_centre: float = 0.0  # of actual / predicted by prices alone
    log_sigma: float  # around the centre
    price_share: float = 1.0  # of the prices' own errors, what earlier runs by them leave unknown


class Estimate(Record, frozen=True, kw_only=True):
    """A predicted wall time: what half, 90 % and 99 % of such runs stay under."""

    p50_s: float
    p90_s: float
    p99_s: float
    notes: tuple[str, ...] = ()  # what was extrapolated, and how


class Verdict(StrEnum):
    """Whether it fits. The value is the word shown."""

    FITS = "fits"
    AT_RISK = "at risk"
    TIMES_OUT = "times out"


class Platform(Record, frozen=True, kw_only=True):
    """The limits of a place to run, each with its source."""

    name: str
    title: str
    session_s: float | None = None
    weekly_s: float | None = None
    output_bytes: int | None = None
    device: str = "cpu"
    fresh_machine: bool = False  # caches of compiled code do not outlive a session
    source: str
    checked: str  # date of the source, ISO
    notes: str = ""

    def __post_init__(self) -> None:
        for name in ("session_s", "weekly_s", "output_bytes"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                raise ValueError(f"{name} = {limit}: must be greater than zero")


class TableRow(Record, frozen=True, kw_only=True):
    """One line of the wall-time table."""

    label: str
    total_timesteps: int
    hidden_steps: tuple[float, float]
    estimate: Estimate
    probability: float | None
    verdict: Verdict | None


class PlanOption(Record, frozen=True, kw_only=True):
    """One way to spend the quota."""

    key: str  # A, B, C
    title: str
    total_timesteps: int  # summed over the study's trainings
    budgets: tuple[int, ...]  # per training, whole rollouts
    sessions: int
    estimate: Estimate  # of everything, all sessions together
    probability: float | None
    command: str


class WhatIf(Record, frozen=True, kw_only=True):
    """One change of the study, and what it would save of the whole study's wall time."""

    title: str
    changes: tuple[str, ...] = ()  # as `--set` takes them
    saved_s: float | None = None  # of the P50; None where its price was not measured
    estimate: Estimate | None = None  # of the whole study with this change
    probability: float | None = None  # of ending within the quota
    verdict: Verdict | None = None
    command: str  # runs it; where nothing was measured, what measures it
    note: str = ""
    results: str = ""  # whether it changes what the training comes to, and how


class Plan(Record, frozen=True, kw_only=True):
    """A decision that explains itself alone: study, prices, quota and what follows from them."""

    id: str
    created: str
    study: Study
    study_digest: str
    calibration_id: str
    calibration_path: str
    host: HostInfo
    foreign: tuple[str, ...] = ()  # how the calibration's host differs, when allowed
    platform: Platform
    quota_s: float | None
    confidence: float
    uploads: bool = False  # checkpoints are copied elsewhere, which is waited for at the end
    models: tuple[CostModel, ...]
    spread: Spread
    schedules: tuple[TrainSchedule, ...]  # of the whole study
    rows: tuple[TableRow, ...]
    safe_timesteps: int | None  # the largest that fits with `confidence`; not limited by the study
    options: tuple[PlanOption, ...]
    warnings: tuple[str, ...] = ()
    what_ifs: tuple[WhatIf, ...] = ()  # most time saved first; those not measured last


class TunedSetting(Record, frozen=True, kw_only=True):
    """A candidate of `arzbench calibrate --tune`: the study under `changes`, and what it would take."""

    title: str
    changes: tuple[str, ...] = ()  # as `--set` takes them; none: as written
    verdict: str  # as written | faster | equal | slower | failed | not measured
    processes: int  # how many measured it
    estimate: Estimate | None = None  # of the whole study; None where it was not measured
    low_s: float | None = None  # 95 % of such runs take from `low_s`
    high_s: float | None = None  # to `high_s`
    saved_s: float | None = None  # of the P50 against the study as written
    saved_low_s: float | None = None  # 95 % interval, all comparisons together; None: it would say nothing
    saved_high_s: float | None = None
    results: str  # of the training, against the study as written: same | last bits | changed
    why: str = ""  # what changes, in words
    command: str  # runs the study so
    calibration_id: str = ""  # where its prices are kept
    note: str = ""  # why it failed, or was not measured


class Tuning(Record, frozen=True, kw_only=True):
    """What `arzbench calibrate --tune` found; `recommended` and the like are titles of `settings`."""

    id: str
    created: str
    host: HostInfo
    study: Study
    limit_s: float  # how long it was allowed to take
    took_s: float
    noise: float | None  # standard deviation between processes of one candidate, relative; None: not known
    settings: tuple[TunedSetting, ...]  # the fastest first; those without a time last
    recommended: str = ""  # beyond the noise faster than the study as written; empty: keep that
    equal: tuple[str, ...] = ()  # cannot be told from the recommended one
    same_training: str = ""  # the one to take of those that learn the same
    interrupted: bool = False


class RunRecord(Record, frozen=True, kw_only=True):
    """What a run set out to do; written once, before its first step."""

    id: str
    created: str
    study: Study
    study_digest: str
    budgets: tuple[int, ...]  # training env steps per training, whole rollouts
    why: str  # the option, plan or flag the budgets come from
    quota_s: float | None  # of its first session
    predicted: Estimate | None  # of the whole, one session
    host: HostInfo


class LedgerEntry(Record, frozen=True, kw_only=True):
    """One line of ledger.jsonl: what happened, when, at which step, and the time it took."""

    kind: str  # session | phases | evaluation | episodes | checkpoint | prediction | stop
    at: str  # wall time, ISO
    session: int
    elapsed_s: float  # of the job, over all its sessions
    training: int  # index into the study's trainings
    step: int
    phases: dict[str, tuple[float, int]] = {}  # phase -> (seconds, units) since the last entry
    data: dict[str, Any] = {}
