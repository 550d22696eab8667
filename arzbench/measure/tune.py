"""The search for the fastest settings: one short process for many candidates, more for the better ones.

Pure: what a process measures comes from the caller. A candidate's value is the predicted wall time of the
whole study, never steps per second.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from arzbench.errors import UsageError
from arzbench.study import Study, TrainConfig
from arzbench.study_changes import change_study

#: numbers of envs that are tried, the most promising first: time may be up before the last
N_ENVS = (4, 8, 2, 16, 1)
#: processes with envs a core: with more of them, they wait for each other
PROCESSES_PER_CORE = 2
#: the best of the first round whose threads and device are changed as well, as those of the study as written
WIDENED = 2
#: how many are measured to the end, beside the study as written
FINALISTS = 3
#: how sure a difference must be before anything is said to be faster: of all that were compared, together
CONFIDENCE = 0.95
#: what processes of one candidate usually differ by, relative, and how many degrees of freedom that counts
#: for beside those measured: few processes may agree by chance
USUAL_NOISE, USUAL_FREEDOM = 0.05, 2
#: an interval beyond a factor of e in either direction says nothing
WIDEST = 1.0
#: settings that change what a training learns; torch_threads changes the order of sums and no more
_CHANGING = ("n_envs", "device")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """The study under `changes`, as `--set` takes them; none: as written."""

    changes: tuple[str, ...] = ()
    study: Study

    @property
    def settings(self) -> tuple[str, ...]:
        """What is changed; schedules that are only adapted to it are left out."""
        return tuple(change for change in self.changes if not change.startswith(_ADAPTED))

    @property
    def title(self) -> str:
        """The settings in words."""
        return ", ".join(self.settings).replace("=", " ") or "as written"

    def changes_field(self, *names: str) -> bool:
        """Whether one of the settings `names` is another."""
        return any(change.startswith(f"{name}=") for change in self.changes for name in names)

    @property
    def same_training(self) -> bool:
        """Whether it learns the same, but for rounding."""
        return not self.changes_field(*_CHANGING)


@dataclass(slots=True, eq=False)
class Trial:
    """What is known of one candidate: `p50_s` from all its processes, `each_s` from each by itself.

    The very first process of all is not in `each_s`: the pace was unknown, so it measured next to nothing.
    """

    candidate: Candidate
    p50_s: float = math.nan
    each_s: Sequence[float] = ()
    processes: int = 0
    failed: str = field(default="")

    @property
    def measured(self) -> bool:
        """Whether its time is known."""
        return not self.failed and self.processes > 0


#: one more process for a trial, in a round from 0 to 2; False where no time is left for it
Measure = Callable[[Trial, int], bool]


# ---------------------------------------------------------------- candidates


_SCHEDULES: dict[str, Callable[[TrainConfig], int]] = {
    "evaluation.eval_freq": lambda config: config.evaluation.eval_freq,
    "checkpoint.checkpoint_freq": lambda config: config.checkpoint.checkpoint_freq,
}  # in calls, that is in steps of all envs at once
_ADAPTED = tuple(_SCHEDULES)


def first_candidates(study: Study, cores: int) -> list[Candidate]:
    """The study as written, then numbers of envs, each in this process and in processes of their own."""
    found = [Candidate(study=study)]
    for changes in _first_changes(study, cores):
        _add(found, study, changes)
    return found


def _first_changes(study: Study, cores: int) -> Iterable[tuple[str, ...]]:
    trainings = study.trainings
    written = {t.n_envs for t in trainings}
    kinds = {t.vec_env or "dummy" for t in trainings}
    own_kind = next(iter(kinds)) if len(kinds) == 1 else None
    numbers = list(dict.fromkeys([*sorted(written), *N_ENVS])) if len(written) == 1 else list(N_ENVS)
    for n in numbers:
        envs = () if written == {n} else _more_envs(study, n)
        for kind in ("dummy", "subproc"):
            if kind == "dummy" or 1 < n <= PROCESSES_PER_CORE * cores:
                yield envs if kind == own_kind else (*envs, f"vec_env={kind}")
    # what is on unless a study says otherwise
    if any(t.fast is False for t in trainings):
        yield ("fast=true",)
    if any(t.evaluation.concurrent is False and t.evaluation.eval_freq for t in trainings):
        yield ("evaluation.concurrent=true",)


def wider_candidates(
    study: Study, candidates: Iterable[Candidate], cores: int, devices: Sequence[str]
) -> list[Candidate]:
    """`candidates` with other numbers of threads, and on the other `devices` there are."""
    found: list[Candidate] = []
    threads = [2**k for k in range(cores.bit_length()) if 2**k <= cores]
    written = {t.torch_threads for t in study.trainings}
    devices = [d for d in devices if {t.device for t in study.trainings} != {d}]
    for candidate in candidates:
        for count in [n for n in threads if {n} != written]:
            _add(found, study, (*candidate.changes, f"torch_threads={count}"))
        for device in devices:
            _add(found, study, (*candidate.changes, f"device={device}"))
    return found


def _more_envs(study: Study, n: int) -> tuple[str, ...]:
    """`n` envs; evaluations and saves come after as many env steps as before, where one number says so."""
    changes = [f"n_envs={n}"]
    for key, freq in _SCHEDULES.items():
        steps = {freq(t) * t.n_envs for t in study.trainings}
        if len(steps) == 1 and (every := steps.pop()):
            changes.append(f"{key}={max(1, round(every / n))}")
    return tuple(changes)


def _add(found: list[Candidate], study: Study, changes: tuple[str, ...]) -> None:
    """Add the study under `changes`, if it is another one and can be."""
    try:
        changed = change_study(study, changes)
    except UsageError:
        return  # the algorithm or a setting forbids it
    if all(changed.trainings != other.study.trainings for other in found) and _sensible(changed, changes):
        found.append(Candidate(changes=changes, study=changed))


def _sensible(changed: Study, changes: tuple[str, ...]) -> bool:
    """Whether the algorithm takes so many envs, and one rollout is no longer than the whole training."""
    if not any(change.startswith("n_envs=") for change in changes):
        return True

    def fits(config: TrainConfig) -> bool:
        return config.loop.n_envs == config.n_envs and config.rollout_steps <= config.total_timesteps

    return all(map(fits, changed.trainings))


# ---------------------------------------------------------------- halving


def search(
    trials: list[Trial],
    widen: Callable[[Sequence[Candidate]], Sequence[Candidate]],
    measure: Measure,
    repetitions: int,
) -> None:
    """Measure `trials`, the study as written first, and those that `widen` adds to the list.

    Three rounds: one process for all; two for the better half and for variants of the best (`widen`);
    `repetitions` for the last few. The study as written is in every round, as is the fastest that learns
    the same; what it clearly beats is not measured again. Processes of a round are taken in turns: a slow
    moment of the machine falls on all alike.
    """
    own = trials[0]
    _in_turns([own], 2, 0, measure)  # its first process shows the pace that the others are measured at
    _in_turns(trials, 1, 0, measure)
    kept = _best(trials, own, max(FINALISTS, math.ceil(len(trials) / 2)))
    wider = [Trial(one) for one in widen([trial.candidate for trial in kept[: WIDENED + 1]])]
    trials += wider
    _in_turns([*kept, *wider], 2, 1, measure)
    finalists = _best([*kept, *wider], own, FINALISTS)
    _in_turns(finalists, repetitions, 2, measure)


def _in_turns(trials: Sequence[Trial], processes: int, number: int, measure: Measure) -> None:
    for wanted in range(1, processes + 1):
        for trial in trials:
            if trial.processes < wanted and not trial.failed and not measure(trial, number):
                return


def _best(trials: Sequence[Trial], own: Trial, count: int) -> list[Trial]:
    """`own`, then the `count` fastest and the fastest that learns the same, none that `own` clearly beats."""
    noise = Noise.of(trials)
    others = [t for t in trials if t.measured and t is not own and not noise.faster(own, t)]
    ranked = sorted(others, key=lambda t: t.p50_s)
    same = [t for t in ranked if t.candidate.same_training][:1]
    return [own, *ranked[:count], *(t for t in same if t not in ranked[:count])]


# ---------------------------------------------------------------- what may be said


@dataclass(frozen=True, slots=True)
class Noise:
    """How much processes of one candidate differ: a standard deviation of logarithms, pooled over all."""

    sigma: float | None  # None: no candidate was measured twice
    freedom: int  # degrees of it
    compared: int  # candidates: the more there are, the likelier one looks fast by chance

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> Noise:
        """The noise that `trials` show."""
        logs = [np.log(t.each_s) for t in trials if t.measured]
        freedom = sum(len(values) - 1 for values in logs)
        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in logs)
        sigma = math.sqrt(squares / freedom) if freedom else None
        return cls(sigma, freedom, max(1, len(logs) - 1))

    def half_width(self, one: Trial, other: Trial) -> float:
        """Of the interval around the logarithm of the ratio of their times; infinite if nothing is known."""
        if not one.each_s or not other.each_s:
            return math.inf
        freedom = self.freedom + USUAL_FREEDOM
        seen = self.freedom * (self.sigma or 0.0) ** 2
        variance = (seen + USUAL_FREEDOM * USUAL_NOISE**2) / freedom
        error = math.sqrt(variance * (1 / len(one.each_s) + 1 / len(other.each_s)))
        return _student(freedom, 1 - (1 - CONFIDENCE) / 2 / self.compared) * error

    def saved_s(self, one: Trial, own: Trial) -> tuple[float, float] | None:
        """The interval of what `one` saves against `own`; None where it would say nothing."""
        half = self.half_width(one, own)
        if half > WIDEST:
            return None
        return own.p50_s - one.p50_s * math.exp(half), own.p50_s - one.p50_s * math.exp(-half)

    def faster(self, one: Trial, other: Trial) -> bool:
        """Whether `one` is faster than `other`, beyond the noise."""
        return math.log(other.p50_s / one.p50_s) > self.half_width(one, other)


@functools.lru_cache(maxsize=64)
def _student(freedom: int, probability: float) -> float:
    """The quantile of Student's distribution, from draws."""
    draws = np.random.default_rng(freedom).standard_t(freedom, 200_000)
    return float(np.quantile(np.abs(draws), 2 * probability - 1))


@dataclass(frozen=True, slots=True)
class Answer:
    """The one to take (None: keep the study as written), and those that cannot be told from it."""

    chosen: Trial | None
    equal: tuple[Trial, ...] = ()


def decide(trials: Sequence[Trial], noise: Noise, *, same_training: bool = False) -> Answer:
    """What to recommend, of all or of those that learn the same: nothing whose gain may be noise.

    Of several that cannot be told apart it is the one that changes the least.
    """
    own = trials[0]
    known = [t for t in trials[1:] if t.measured and t.processes > 1]
    known = [t for t in known if t.candidate.same_training or not same_training]
    faster = sorted((t for t in known if noise.faster(t, own)), key=lambda t: t.p50_s)
    if not faster:
        return Answer(None)
    equal = [t for t in faster if not noise.faster(faster[0], t)]
    chosen = min(equal, key=lambda t: (not t.candidate.same_training, len(t.candidate.settings), t.p50_s))
    return Answer(chosen, tuple(t for t in equal if t is not chosen))
