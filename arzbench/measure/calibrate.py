"""Calibration: short real trainings in fresh processes, one after another, raw values kept.

The first repetition runs shortened rollouts; the pace it shows decides how much the others measure within
the time allowed. Where it loads compiled code from a cache, one other gets an empty cache: what compiling
costs is measured once, and never more often than needed.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from arzbench.clock import Clock
from arzbench.errors import ArzbenchError, StateError, UsageError
from arzbench.facts import Phase
from arzbench.measure.burst import COLD, WARM, BurstJob, BurstResult, evaluates
from arzbench.measure.host import host_of
from arzbench.measure.phase_times import PER_STEP
from arzbench.records import BEFORE_LEARNING, BESIDE, Calibration, PhaseSamples, WorkloadSamples
from arzbench.study import Evaluation, Study, TrainConfig
from arzbench.units import format_duration

#: seconds of training measured in each repetition where the steps asked for take less
BURST_S = 4.0
#: seconds of evaluation measured in each repetition, at least one episode
EVAL_S = 1.0
#: share of the time allowed that is planned for: a process may take longer than the one before
PLANNED = 0.85
#: a repetition that takes longer is broken
TIMEOUT_S = 1800.0

Progress = Callable[[str, float], None]


def calibrate(
    study: Study,
    worker: Sequence[str],
    clock: Clock,
    *,
    steps: int,
    repetitions: int,
    max_s: float,
    folder: Path,
    progress: Progress,
) -> Calibration:
    """Measure every workload of `study`, each in `repetitions` fresh processes.

    `worker` is the command of one; it takes a job file and a result file.
    `steps` training env steps at least, spread over the repetitions; about `max_s` seconds in all
    unless the steps themselves take longer. Trial checkpoints are written below `folder`.

    Raises:
        ArzbenchError: what the measuring process reported, with its exit code.
    """
    began = clock.now()
    workloads = distinct(study)
    results: list[WorkloadSamples] = []
    versions: dict[str, str] = {}
    for index, config in enumerate(workloads):

        def report(what: str, fraction: float, index: int = index) -> None:
            progress(what, (index + fraction) / len(workloads))

        bursts = _measure_workload(
            config, worker, clock, steps, repetitions, max_s / len(workloads), folder, report
        )
        versions = bursts[0].versions
        results.append(combine(config, bursts))
    return record_of(study, results, versions, clock.wall(), steps, repetitions, clock.now() - began)


def record_of(
    study: Study,
    results: Sequence[WorkloadSamples],
    versions: dict[str, str],
    created: datetime.datetime,
    steps: int,
    repetitions: int,
    took_s: float,
    words: str = "",
) -> Calibration:
    """What was measured of each workload of `study`, as it is kept; `words` become a part of its id."""
    return Calibration(
        id=f"{study.name}{words}-{created:%Y%m%dT%H%M%SZ}",
        created=created.isoformat(timespec="seconds"),
        host=host_of(study.trainings[0]),
        study=study,
        versions=versions,
        steps=steps,
        repetitions=repetitions,
        took_s=took_s,
        drift=max(_drift(w) for w in results),
        workloads=tuple(results),
    )


def distinct(study: Study) -> list[TrainConfig]:
    """One training per workload: the first, or the first with a baseline; evaluated if any of them is."""
    by_workload: dict[str, TrainConfig] = {}
    evaluation: dict[str, Evaluation] = {}
    for config in study.trainings:
        key = config.workload_digest()
        if key not in by_workload or (config.baseline.episodes and not by_workload[key].baseline.episodes):
            by_workload[key] = config
        if evaluates(config):
            evaluation.setdefault(key, config.evaluation)
    for key, one in by_workload.items():
        if key in evaluation and not evaluates(one):
            by_workload[key] = msgspec.structs.replace(one, evaluation=evaluation[key])
    return list(by_workload.values())


def _measure_workload(
    config: TrainConfig,
    worker: Sequence[str],
    clock: Clock,
    steps: int,
    repetitions: int,
    max_s: float,
    folder: Path,
    progress: Progress,
) -> list[BurstResult]:
    bursts: list[BurstResult] = []
    around_s = 0.0
    began = clock.now()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".calibrate-") as name:
        for repetition in range(repetitions):

            def report(what: str, fraction: float, repetition: int = repetition) -> None:
                label = f"{config.name}, process {repetition + 1}/{repetitions}: {what}"
                progress(label, (repetition + fraction) / repetitions)

            started = clock.now()
            left_s = PLANNED * max_s - (started - began)
            own_s = left_s / (repetitions - repetition) - around_s
            job = next_job(config, bursts, math.ceil(steps / repetitions), left_s, own_s, name, started)
            bursts.append(run_worker(job, worker, Path(name), clock, report))
            around_s = clock.now() - started - training_s(bursts[-1])
    return bursts


def next_job(
    config: TrainConfig,
    bursts: Sequence[BurstResult],
    steps: int,
    left_s: float,
    own_s: float,
    folder: str,
    now: float,
) -> BurstJob:
    """What the next process measures in about `own_s`, from the pace of those before; `steps` at least."""
    rollout = config.loop.short_rollout(steps)
    eval_episodes, episodes_beside = 1, 0
    beside = config.evaluates_beside and host_of(config).cores > 1
    if bursts:
        step_s, update_s, eval_s = _pace(config, bursts)
        allowed = max(0.2, min(BURST_S, own_s))
        cycle = step_s + update_s
        steps = max(steps, math.ceil(allowed / cycle))
        if config.rollout_steps * cycle <= allowed:
            rollout = None  # whole rollouts as configured are affordable
        length = statistics.fmean(bursts[-1].facts.eval_episode_steps or (1,))
        episode_s = max(1e-9, eval_s * length)
        eval_episodes = max(1, min(50, math.ceil(EVAL_S / episode_s)))
        # half as long as the training steps between two of them, which must be long enough for one episode
        if beside and episode_s <= allowed / 4:
            episodes_beside = max(1, min(200, round(allowed / 8 / episode_s)))
    hidden = any(b.cache == WARM for b in bursts)  # what compiling costs: measured once, with an empty cache
    return BurstJob(
        config=config,  # type: ignore[arg-type]
        repetition=len(bursts),
        cold=hidden and not any(p.variant == COLD for b in bursts for p in b.phases),
        spawned=now,
        steps=steps,
        rollout=rollout,
        eval_episodes=eval_episodes,
        max_eval_s=max(EVAL_S, left_s / 4),
        folder=folder,
        beside=episodes_beside,
    )


def _pace(config: TrainConfig, bursts: Sequence[BurstResult]) -> tuple[float, float, float]:
    """Seconds per env step without updates, of updates per env step, per evaluation step.

    Of the study's own logging mode, without first calls: the blocks of the other modes are few and short
    however long a process measures.
    """
    phases = bursts[-1].phases
    mode = config.logging.mode
    own = [p for p in phases if not p.warmup and p.variant == mode]
    own = own if _units(own, Phase.ENV_STEP) else list(phases)
    steps = _units(own, Phase.ENV_STEP)
    later = [p for p in phases if not p.warmup]
    learning = [p for p in phases if p.variant != BEFORE_LEARNING]
    alone = [p for p in phases if p.variant != BESIDE]
    evaluated = max(1, _units(alone, Phase.EVAL_STEP))
    return (
        max(1e-9, sum(_seconds(own, p) for p in PER_STEP) / steps),
        _seconds(later, Phase.UPDATE) / max(1, _units(learning, Phase.ENV_STEP)),
        _seconds(alone, Phase.EVAL_STEP) / evaluated,
    )


def training_s(burst: BurstResult) -> float:
    """Seconds of a process that grow with the steps it measures, and compiling, which the next does not."""
    own = [p for p in burst.phases if ":" not in p.variant]  # messages by sink are trainings of their own
    kinds = (*PER_STEP, Phase.UPDATE, Phase.JIT)
    return sum(_seconds(own, p) for p in kinds)


def _seconds(phases: Sequence[PhaseSamples], phase: Phase) -> float:
    return sum(sum(p.seconds) for p in phases if p.phase is phase)


def _units(phases: Sequence[PhaseSamples], phase: Phase) -> int:
    return sum(p.count for p in phases if p.phase is phase)


def run_worker(
    job: BurstJob,
    worker: Sequence[str],
    folder: Path,
    clock: Clock,
    report: Progress,
    longest_s: float | None = None,
) -> BurstResult:
    """Start the process, pass its progress on, read its result; the time it takes to end is teardown.

    Raises:
        ArzbenchError: what it reported, or that it took longer than `longest_s` (None: `TIMEOUT_S`).
    """
    longest_s = TIMEOUT_S if longest_s is None else longest_s
    task, answer = folder / f"job-{job.repetition}.json", folder / f"result-{job.repetition}.json"
    task.write_bytes(msgspec.json.encode(job))
    threads = str(job.config.torch_threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if job.cold:
        environment["NUMBA_CACHE_DIR"] = str(folder / "cold-cache")
    command = [*worker, str(task), str(answer)]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            env=environment,
            text=True,
            errors="replace",
        )
        cut = threading.Event()

        def stop() -> None:
            cut.set()
            process.kill()

        watchdog = threading.Timer(longest_s, stop)
        watchdog.start()
        with process:
            try:
                for line in process.stdout or ():
                    _pass_on(line, report)
                code = process.wait()
            finally:
                watchdog.cancel()
                process.kill()  # one that has ended is left alone
        ended = clock.now()
        if cut.is_set():
            raise StateError(f"a measuring process took longer than {format_duration(longest_s)}")
        if code != 0 or not answer.exists():
            errors.seek(0)
            raise _worker_error(code, errors.read().decode(errors="replace"), answer)
    result = msgspec.json.decode(answer.read_bytes(), type=BurstResult)
    teardown = PhaseSamples(
        phase=Phase.TEARDOWN,
        repetition=job.repetition,
        seconds=(max(0.0, ended - result.done),),
        units=(1,),
    )
    return msgspec.structs.replace(result, phases=(*result.phases, teardown))


def _pass_on(line: str, report: Progress) -> None:
    """A progress line is a JSON pair; an env's own prints are passed over."""
    try:
        what, fraction = json.loads(line)
        report(str(what), float(fraction))
    except (ValueError, TypeError):
        return


def _worker_error(code: int, text: str, answer: Path) -> ArzbenchError:
    """The error the process wrote down, or what it printed last."""
    problem = answer.with_suffix(".error")
    if problem.exists():
        error = json.loads(problem.read_text())
        kind = UsageError if error["exit_code"] == UsageError.exit_code else StateError
        return kind(error["message"], error["hint"], error.get("trace", ""))
    last = "\n".join(text.strip().splitlines()[-8:]) or "it printed nothing"
    return StateError(f"a measuring process ended with code {code}", last)


def combine(config: TrainConfig, bursts: Sequence[BurstResult]) -> WorkloadSamples:
    """What all processes of a workload measured."""
    facts = msgspec.structs.replace(
        bursts[0].facts,
        episode_steps=tuple(n for b in bursts for n in b.facts.episode_steps)[:1000],
        eval_episode_steps=tuple(n for b in bursts for n in b.facts.eval_episode_steps)[:1000],
    )
    return WorkloadSamples(
        workload=config.workload_digest(),
        config=config,  # type: ignore[arg-type]
        facts=facts,
        state_bytes=max(b.state_bytes for b in bursts),
        phases=tuple(p for b in bursts for p in b.phases),
        notes=tuple(sorted({n for b in bursts for n in b.notes})),
        sources=bursts[-1].sources,
    )


def _drift(samples: WorkloadSamples) -> float:
    """Relative spread of the price of a training step between repetitions that measured enough."""
    main = samples.config.logging.mode
    per_repetition: dict[int, float] = {}
    steps: dict[int, int] = {}
    for item in samples.phases:
        stepwise = item.phase in (Phase.ENV_STEP, Phase.POLICY, Phase.ROLLOUT, Phase.UPDATE)
        if stepwise and item.variant in ("", main) and not item.warmup:
            per_repetition[item.repetition] = per_repetition.get(item.repetition, 0.0) + item.mean_s
        if item.phase is Phase.ENV_STEP:
            steps[item.repetition] = steps.get(item.repetition, 0) + item.count
    most = max(steps.values(), default=0)
    values = [v for r, v in per_repetition.items() if steps.get(r, 0) * 4 >= most]
    return (max(values) - min(values)) / statistics.fmean(values) if len(values) > 1 else 0.0
