"""Tuning: real measurements for the search of `arzbench.measure.tune`, priced as `arzbench plan` does."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from arzbench.clock import Clock
from arzbench.errors import ArzbenchError
from arzbench.facts import Phase
from arzbench.measure.burst import WARM, BurstResult
from arzbench.measure.calibrate import BURST_S, combine, distinct, next_job, record_of, run_worker, training_s
from arzbench.measure.host import gpu_name, host_of
from arzbench.measure.tune import (
    Answer,
    Candidate,
    Noise,
    Trial,
    decide,
    first_candidates,
    search,
    wider_candidates,
)
from arzbench.predict.costmodel import fit
from arzbench.predict.plan import LOCAL, Planner, planner_for
from arzbench.profiles import find_platform, save_calibration
from arzbench.records import Calibration, Plan, TrainSchedule, TunedSetting, Tuning, WorkloadSamples
from arzbench.study import Study
from arzbench.wiring.planning import Pricing

#: shares of the time by which the rounds end
ROUNDS_END = (0.5, 0.75, 1.0)
#: seconds of training measured in one process of each round
ROUNDS_BURST_S = (BURST_S / 4, BURST_S / 2, BURST_S)
#: a process of a candidate may take so many times what one of the study as written took, or so many seconds
PATIENCE, PATIENCE_S = 5, 20.0
#: no new evaluation episode in a process after this share of the time, or so many seconds
EVALUATED, EVALUATED_S = 0.05, 15.0
_WHY_THREADS = "sums in another order may round differently"
_WHY_PROCESSES = "where a run is resumed, episodes begin anew"


class Tuner:
    """Measures candidates in fresh processes, and says what the whole study would take under each."""

    def __init__(
        self,
        study: Study,
        worker: Sequence[str],
        clock: Clock,
        *,
        steps: int,
        repetitions: int,
        max_s: float,
        working: Path,
        records: Path,
        progress: Callable[[str, float], None],
    ) -> None:
        """`worker`, `steps` and `repetitions` as in `calibrate`; temporary files are written in `records`."""
        self._study, self._worker, self._clock = study, worker, clock
        self._steps, self._repetitions, self._max_s = steps, repetitions, max_s
        self._working, self._records, self._progress = working, records, progress
        self._pricing = Pricing(working=working)
        self._began, self._created = clock.now(), clock.wall()
        self._cores = host_of(study.trainings[0]).cores
        self.trials = [Trial(one) for one in first_candidates(study, self._cores)]
        self._own = self.trials[0]
        self._bursts: dict[str, list[BurstResult]] = {}  # by workload
        self._took_s: dict[int, float] = {}  # by trial
        self._around_s = 0.0  # the most that a process took beside the training it measured
        self._own_s = 0.0  # the longest process of the study as written
        self._plan: Plan | None = None
        self._interrupted = False

    def search(self) -> None:
        """Measure. An interruption ends it: what was measured until then counts.

        Raises:
            ArzbenchError: the study as written cannot be measured.
        """
        devices = ("cuda", "cpu") if gpu_name() else ()
        try:
            widen = functools.partial(wider_candidates, self._study, cores=self._cores, devices=devices)
            search(self.trials, widen, self._measure, self._repetitions)
        except KeyboardInterrupt:
            if self._plan is None:
                raise
            self._interrupted = True

    # ---------------------------------------------------------------- measuring

    def _measure(self, trial: Trial, number: int) -> bool:
        now = self._clock.now()
        burst_s = ROUNDS_BURST_S[number]
        own = trial is self._own
        left_s = self._began + ROUNDS_END[number] * self._max_s - now
        if left_s < self._around_s + burst_s and not (own and trial.processes < 2):
            return False
        try:
            for config in distinct(trial.candidate.study):
                self._run(trial, config, number)
            trial.processes += 1
            self._price(trial)
        except ArzbenchError as error:
            if own:
                raise
            if self._clock.now() >= self._began + self._max_s:
                return False  # not its fault: the time for all of them is over
            trial.failed = error.message
        took_s = self._clock.now() - now
        self._took_s[id(trial)] = self._took_s.get(id(trial), 0.0) + took_s
        if own:
            self._own_s = max(self._own_s, took_s)
        return True

    def _run(self, trial: Trial, config: Any, number: int) -> None:
        """One more process for the workload of `config`, unless another candidate shares it and had it."""
        key = config.workload_digest()
        bursts = self._bursts.setdefault(key, [])
        if len(bursts) > trial.processes:
            return

        def report(what: str, fraction: float) -> None:
            done = (self._clock.now() - self._began) / self._max_s
            self._progress(f"{trial.candidate.title}, process {trial.processes + 1}: {what}", min(1.0, done))

        began = self._clock.now()
        left_s = self._began + self._max_s - began
        longest_s = None
        if trial is not self._own:
            longest_s = max(1.0, min(left_s, max(PATIENCE_S, PATIENCE * self._own_s)))
        with tempfile.TemporaryDirectory(dir=self._records, prefix=".calibrate-") as name:
            job = next_job(
                config,
                bursts or self._pace(trial, key),
                math.ceil(self._steps / self._repetitions),
                4 * min(EVALUATED_S, EVALUATED * self._max_s),
                ROUNDS_BURST_S[number],
                name,
                began,
            )
            # compiling everything anew is measured of the last few alone
            cold = job.cold and number == len(ROUNDS_END) - 1
            job = msgspec.structs.replace(job, repetition=len(bursts), cold=cold)
            bursts.append(run_worker(job, self._worker, Path(name), self._clock, report, longest_s))
        around_s = self._clock.now() - began - training_s(bursts[-1])
        self._around_s = max(self._around_s, around_s)

    def _pace(self, trial: Trial, key: str) -> list[BurstResult]:
        """Processes of the study as written, which show about how many steps fit into a candidate's first."""
        own = [t.workload_digest() for t in self._study.trainings]
        at = [t.workload_digest() for t in trial.candidate.study.trainings].index(key)
        return self._bursts.get(own[at], [])

    # ---------------------------------------------------------------- prices

    def _samples(self, study: Study) -> list[WorkloadSamples]:
        return [combine(c, self._bursts[c.workload_digest()]) for c in distinct(study)]

    def _calibration(self, trial: Trial) -> Calibration:
        """What was measured of `trial`, as an ordinary calibration."""
        words = "".join(f"-{change.replace('=', '-')}" for change in trial.candidate.settings)
        study = trial.candidate.study
        versions = next(iter(self._bursts.values()))[0].versions
        return record_of(
            study,
            self._samples(study),
            versions,
            self._created,
            self._steps,
            trial.processes,
            self._took_s.get(id(trial), 0.0),
            words,
        )

    def _price(self, trial: Trial) -> None:
        """What the whole study takes by all processes of `trial`, and by each."""
        if trial is self._own:
            calibration = self._calibration(trial)
            self._plan = self._pricing.plan_by(
                calibration, Path(), self._study, calibration.host, self._clock, None,
                find_platform(self._working, LOCAL),
            )  # fmt: skip
        planner = self._planner(trial)
        trial.p50_s = planner.job(planner.full).quantile(0.5)
        first = int(trial is self._own and trial.processes > 1)
        alone = [self._planner(trial, n) for n in range(first, trial.processes)]
        trial.each_s = [p.job(p.full).quantile(0.5) for p in alone]

    def _planner(self, trial: Trial, process: int | None = None) -> Planner:
        """Judges as the plan of the study as written does; by the prices of one `process`, or of all.

        Episodes are as long as those of the study as written: their length is no matter of settings.
        Where compiled code was not yet loaded from a cache, that costs what it does there.
        """
        assert self._plan is not None
        study = trial.candidate.study
        models = {}
        pairs = zip(study.trainings, self._study.trainings, strict=True)
        written = {t.workload_digest(): own.workload_digest() for t, own in pairs}
        own = {s.workload: s for s in self._samples(self._study)}
        modes = {t.workload_digest(): t.logging.mode for t in reversed(study.trainings)}
        for samples in self._samples(study):
            like = own[written[samples.workload]]
            facts = msgspec.structs.replace(
                samples.facts,
                episode_steps=like.facts.episode_steps,
                eval_episode_steps=like.facts.eval_episode_steps,
            )
            phases = [p for p in samples.phases if process in (None, p.repetition) or p.phase is Phase.JIT]
            if not any(p.phase is Phase.JIT and p.variant == WARM for p in phases):
                phases += [p for p in like.phases if p.phase is Phase.JIT and p.variant == WARM]
            whole = msgspec.structs.replace(samples, facts=facts, phases=tuple(phases))
            models[samples.workload] = fit(whole, modes[samples.workload])
        return planner_for(self._plan, study, models, partial=process is not None)

    # ---------------------------------------------------------------- what came of it

    def save(self) -> dict[int, str]:
        """Keep what two processes or more measured, the study as written last; ids of calibrations by trial.

        The newest calibration is what `arzbench plan` takes where no study is named.
        """
        kept: dict[int, str] = {}
        own = {s.workload for s in self._samples(self._study)} if self._own.processes else set()
        for trial in reversed(self.trials):
            if not trial.measured or trial.processes < 2:
                continue
            calibration = self._calibration(trial)
            if trial is self._own or {w.workload for w in calibration.workloads} != own:
                save_calibration(self._working, calibration)
                kept[id(trial)] = calibration.id
        return kept

    def result(self, flags: str, kept: dict[int, str]) -> Tuning:
        """The record of it; `flags` name the study on a command line."""
        noise = Noise.of(self.trials)
        answer = decide(self.trials, noise)
        same = decide(self.trials, noise, same_training=True)
        ranked = sorted(self.trials, key=lambda t: (not t.measured, t.p50_s if t.measured else 0.0))
        return Tuning(
            id=f"{self._study.name}-{self._created:%Y%m%dT%H%M%SZ}",
            created=self._created.isoformat(timespec="seconds"),
            host=host_of(self._study.trainings[0]),
            study=self._study,
            limit_s=self._max_s,
            took_s=self._clock.now() - self._began,
            noise=noise.sigma,
            settings=tuple(self._setting(trial, noise, flags, kept) for trial in ranked),
            recommended=_title(answer),
            equal=tuple(t.candidate.title for t in answer.equal),
            same_training=_title(same),
            interrupted=self._interrupted,
        )

    def _setting(self, trial: Trial, noise: Noise, flags: str, kept: dict[int, str]) -> TunedSetting:
        candidate, own = trial.candidate, self._own
        sets = "".join(f" --set {change}" for change in candidate.changes)
        told = TunedSetting(
            title=candidate.title,
            changes=candidate.changes,
            verdict="failed" if trial.failed else "not measured",
            processes=trial.processes,
            results=_results(candidate),
            command=f"arzbench run --auto-budget{flags}{sets}",
            calibration_id=kept.get(id(trial), ""),
            note=trial.failed or ("interrupted" if self._interrupted else "no time was left: --max-time"),
        )
        if not trial.measured:
            return told
        planner = self._planner(trial)
        job = planner.job(planner.full)
        shown = msgspec.structs.replace(
            told,
            verdict="as written",
            estimate=job.estimate(),
            low_s=job.quantile(0.025),
            high_s=job.quantile(0.975),
            why=self._why(candidate, planner),
            note="",
        )
        if trial is own:
            return shown
        verdict = "faster" if noise.faster(trial, own) else "slower" if noise.faster(own, trial) else "equal"
        low_s, high_s = noise.saved_s(trial, own) or (None, None)
        return msgspec.structs.replace(
            shown,
            verdict=verdict,
            saved_s=own.p50_s - trial.p50_s,
            saved_low_s=low_s,
            saved_high_s=high_s,
        )

    def _why(self, candidate: Candidate, planner: Planner) -> str:
        """What changes in the training, in words."""
        reasons = []
        if candidate.changes_field("n_envs"):
            written = self._planner(self._own)
            reasons += _counted(planner.schedules(planner.full), written.schedules(written.full))
        if candidate.changes_field("device"):
            reasons.append("another device rounds differently")
        if candidate.changes_field("torch_threads"):
            reasons.append(_WHY_THREADS)
        if candidate.changes_field("vec_env") and planner.study.trainings[0].vec_env == "subproc":
            reasons.append(_WHY_PROCESSES)
        return "; ".join(reasons)


def _title(answer: Answer) -> str:
    return answer.chosen.candidate.title if answer.chosen is not None else ""


def _results(candidate: Candidate) -> str:
    if not candidate.same_training:
        return "changed"
    return "last bits" if candidate.changes_field("torch_threads") else "same"


def _counted(now: Sequence[TrainSchedule], written: Sequence[TrainSchedule]) -> list[str]:
    """What a training has more or fewer of than as written; at least that its experience is another."""
    kinds = {"total_timesteps": "steps", "updates": "gradient steps", "rollouts": "rollouts",
             "evaluations": "evaluations"}  # fmt: skip
    told = {}
    for field, word in kinds.items():
        counts = [sum(getattr(schedule, field) for schedule in group) for group in (now, written)]
        if counts[0] != counts[1]:
            told[field] = f"{counts[0]:,} {word}, not {counts[1]:,}"
    if "updates" in told:
        told.pop("rollouts", None)
    return ["other experience", *told.values()]
