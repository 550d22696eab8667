"""`arzbench validate`: real trainings, each predicted from its own calibration first, then scored."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from arzbench import options, profiles, runs, store
from arzbench.clock import Clock, SystemClock
from arzbench.errors import ExitCode, StateError
from arzbench.facts import Phase, Record
from arzbench.measure.host import host_info
from arzbench.options import count, parse_share, switch, value
from arzbench.predict.costmodel import Job, phase_seconds
from arzbench.predict.landing import quota_for
from arzbench.predict.plan import LOCAL, make_plan
from arzbench.records import Calibration, HostInfo, Plan
from arzbench.report.console import make_console, say, show, to_markdown
from arzbench.report.validatesheets import validation_lines, validation_sheets
from arzbench.run.ledger import Summary
from arzbench.saves.lock import LOCK, only_run
from arzbench.study import TrainConfig
from arzbench.units import format_duration, parse_duration
from arzbench.validate import scores
from arzbench.validate.design import (
    UNSIZED,
    choose_pairs,
    expected_s,
    make_design,
    pair_target_s,
    sized,
    study_of,
)
from arzbench.validate.result import Cell, Design, Mark, Outcome, Pair, Validation
from arzbench.wiring.checks import require_packages, require_training_stack, undone

ARZBENCH = (sys.executable, "-m", "arzbench")
BUSY_PROCESS = (sys.executable, "-m", "arzbench.validate.busy_process")
TRIAL = (sys.executable, "-m", "arzbench.sb3.naive")
#: the environment's numbers of threads: the busy process has one
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: phases before the first step of learning
BEFORE = (Phase.IMPORT, Phase.JIT, Phase.BUILD, Phase.RESTORE, Phase.BASELINE)

#: what a folder of reports/ holds of a validation that goes on
DESIGN, LINES, WORK = "design.json", "figures.jsonl", "work"


def validate(
    quick: Annotated[bool, switch("--quick", "A few pairs and short runs: minutes, an impression.")] = False,
    duration: Annotated[
        str | None, value("--for", "TIME", "How long it may take: plans runs to fit (40m, 3h).")
    ] = None,
    busy_share: Annotated[
        float,
        typer.Option(
            "--neighbour",
            metavar="SHARE",
            parser=lambda value: parse_share("--neighbour", str(value)),
            help="Share of the runs beside a busy process.",
        ),
    ] = 0.5,
    pairs: Annotated[str | None, value("--pairs", "A,B", "Which pairs of env and algorithm.")] = None,
    seed: Annotated[int, count("--seed", "Of all trainings.", least=0)] = 0,
    fresh: Annotated[
        bool, switch("--fresh", "Begin anew even if the same validation was left unfinished.")
    ] = False,
    folder: options.Dir = Path(),
    as_json: options.Json = False,
) -> ExitCode:
    """Run real trainings, each predicted first, and say how far off the predictions were."""
    # ended from outside, it takes the processes it started with it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    planned_s = None if duration is None else parse_duration(duration)
    chosen = choose_pairs(pairs, quick=quick)
    design = make_design(chosen, busy_share=busy_share, seed=seed, quick=quick, planned_s=planned_s)
    require_training_stack()
    require_packages("numba")
    console, clock = make_console(stderr=as_json), SystemClock()
    reports, begun = open_folder(folder, clock, design, fresh=fresh)
    with only_run(reports):
        result = carry_out(folder, clock, console, reports, begun)
    lines, sheets = validation_lines(result), validation_sheets(result)
    raw, markdown = reports / "raw.json", reports / "summary.md"
    store.save(raw, "arzbench/validation", result)
    head = [f"# {result.id}", "", *(f"- {line}" for line in lines), ""]
    store.write_atomic(markdown, "\n".join([*head, *map(to_markdown, sheets)]).encode())
    shutil.rmtree(reports / WORK, ignore_errors=True)
    for name in (DESIGN, LINES, LOCK):  # all of it is in raw.json
        (reports / name).unlink(missing_ok=True)
    if as_json:
        sys.stdout.buffer.write(store.encode("arzbench/validation", result))
    else:
        for line in lines:
            say(console, line)
        show(console, sheets)
        say(console, f"Markdown: {markdown}; raw values: {raw}")
    failed = any(c.passed is False for c in scores.criteria(result))
    return ExitCode.FAILURE if failed else ExitCode.OK


class Begun(Record, frozen=True, kw_only=True):
    """design.json: written first, so that a validation that was killed can go on."""

    created: str
    host: HostInfo
    load: float
    design: Design


def open_folder(working: Path, clock: Clock, design: Design, *, fresh: bool) -> tuple[Path, Begun]:
    """The folder of the same validation, where one was left unfinished; else a new one."""
    reports = runs.reports_folder(working)
    host = host_info()
    if not fresh:
        for path in sorted(reports.glob(f"validate-{host.key}-*/{DESIGN}"), reverse=True):
            begun = store.load(path, "arzbench/design", Begun, "design of a validation")
            if begun.design == design and not begun.host.differs_from(host):
                return path.parent, begun
    created = clock.wall()
    folder = reports / runs.free_id(working, f"validate-{host.key}-{created:%Y-%m-%d}")
    begun = Begun(
        created=created.isoformat(timespec="seconds"), host=host, load=os.getloadavg()[0], design=design
    )
    with undone(folder):
        store.ensure_writable(folder)
    store.save(folder / DESIGN, "arzbench/design", begun)
    return folder, begun


def carry_out(working: Path, clock: Clock, console: Console, folder: Path, begun: Begun) -> Validation:
    """Calibrate and run everything that is not done yet; each figure is kept as soon as it is there."""
    began, design, lines = clock.now(), begun.design, folder / LINES
    figures: list[Cell | Outcome] = []
    if lines.exists():
        figures = list(store.read_lines(lines, Cell | Outcome))  # type: ignore[arg-type]
    cells = {(c.pair, c.beside): c for c in figures if isinstance(c, Cell)}
    done = {(r.pair, r.beside, r.repetition): r for r in figures if isinstance(r, Outcome)}
    _announce(console, design, begun.load, folder, len(done))
    runner = PairRunner(working, folder / WORK, begun.host, design, clock)
    left_out = 0
    for pair, beside, repetition in (run for turn in design.rounds() for run in turn):
        if (pair.name, beside, repetition) in done:
            continue
        usual = statistics.fmean(r.wall_s for r in done.values()) if done else design.target_s
        if design.planned_s is not None and clock.now() - began + usual > design.planned_s:
            left_out += 1
            continue
        with runner.busy_process(beside):
            if (pair.name, beside) not in cells:
                cell = cells[pair.name, beside] = runner.calibrate(pair, beside)
                store.append_line(lines, cell)
                say(console, _cell_line(cell))
            run = runner.run(pair, beside, repetition, cells[pair.name, beside])
        done[pair.name, beside, repetition] = run
        store.append_line(lines, run)
        say(console, _run_line(run))
    if left_out:
        say(console, f"{left_out} run(s) left out: there was no time for them")
    return Validation(
        id=folder.name,
        created=begun.created,
        host=begun.host,
        versions=runner.versions(cells.values()),
        load=begun.load,
        took_s=clock.now() - began,
        design=design,
        cells=tuple(cells.values()),
        runs=tuple(done.values()),
    )


def _announce(console: Console, design: Design, load: float, folder: Path, done: int) -> None:
    runs = design.alone + design.beside
    lines = [
        f"validating {len(design.pairs)} pair(s), {runs} runs each ({design.alone} alone, {design.beside} "
        f"beside a busy process) of about {format_duration(design.target_s)}: "
        f"about {format_duration(expected_s(design))} in all",
        f"figures: {folder}",
    ]
    if done:
        lines.append(f"going on: {done} run(s) are done")
    if load > 0.5:
        lines.append(f"warning: {load:.1f} other processes were busy in the last minute: not an idle machine")
    for line in lines:
        say(console, line)


def _where(pair: str, beside: bool) -> str:
    return f"{pair}{', beside a busy process' if beside else ''}"


def _cell_line(cell: Cell) -> str:
    return (
        f"  {_where(cell.pair, cell.beside)}: calibrated in {format_duration(cell.calibration_s)}, "
        f"{cell.timesteps:,} steps a run"
    )


def _run_line(run: Outcome) -> str:
    quota = "" if run.quota_s is None else f", quota {format_duration(run.quota_s)}"
    stopped = "" if run.finished else " (stopped before its end)"
    return (
        f"  {_where(run.pair, run.beside)}, run {run.repetition + 1}: predicted "
        f"{format_duration(run.quantiles['0.5'])} (P95 {format_duration(run.quantiles['0.95'])}), took "
        f"{format_duration(run.wall_s)}: {scores.own_error(run):+.1%}{quota}{stopped}"
    )


class PairRunner:
    """Calibrates and runs the pairs of a validation, in a working folder of its own below its reports."""

    def __init__(self, working: Path, work: Path, host: HostInfo, design: Design, clock: Clock) -> None:
        """`work` begins with the record of `working`'s finished runs, as a user's next run would."""
        self._working = working
        self._work = work
        self._host = host
        self._design = design
        self._clock = clock
        self._last_words = ""
        own, here = (profiles.predictions_path(folder, host) for folder in (working, work))
        if own.exists() and not here.exists():
            store.write_atomic(here, own.read_bytes())

    @contextlib.contextmanager
    def busy_process(self, wanted: bool) -> Iterator[None]:
        """A busy process beside what is done meanwhile, if `wanted`."""
        if not wanted:
            yield
            return
        environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
        process = subprocess.Popen(BUSY_PROCESS, env=environment, stdin=subprocess.DEVNULL)
        try:
            yield
            if process.poll() is not None:
                raise StateError(
                    f"the busy process beside the runs ended with code {process.returncode}",
                    "start the same command again: it goes on where it was",
                )
        finally:
            process.kill()
            process.wait()

    def calibrate(self, pair: Pair, beside: bool) -> Cell:
        """Calibrate `pair`, size its training, and take what others would go by."""
        most = self._design.calibrate_s
        limit = [] if most is None else ["--max-time", f"{most:g}s"]
        command = [*ARZBENCH, "calibrate", *pair.flags(), "--timesteps", str(UNSIZED), *limit, "--json"]
        code, took, output = self._call([*command, "--dir", str(self._work)])
        if code != ExitCode.OK:
            raise StateError(f"arzbench calibrate of {pair.name} ended with code {code}", self._last_words)
        calibration: Calibration = store.decode(output, "arzbench/calibration", Calibration, "calibrate")
        spread = self._plan(pair, calibration, UNSIZED).spread
        target = pair_target_s(self._design, pair)
        config = sized(pair, calibration, spread, self._design.seed, target).trainings[0]
        schedule = self._plan(pair, calibration, config.total_timesteps).schedules[0]
        speeds = self._trial(config)
        return Cell(
            pair=pair.name,
            beside=beside,
            at=self._clock.wall().isoformat(timespec="seconds"),
            calibration_id=calibration.id,
            calibration_s=took,
            drift=calibration.drift,
            timesteps=config.total_timesteps,
            evaluations=schedule.evaluations,
            checkpoints=schedule.checkpoints,
            first_100_s=float(speeds["first_100_s"]),
            own_fps=float(speeds["own_fps"]),
            trial_steps=int(speeds["trial_steps"]),
        )

    def run(self, pair: Pair, beside: bool, repetition: int, cell: Cell) -> Outcome:
        """Predict, then run; one of a pair's under what a plan calls safe: its P95 and a margin.

        Not all: a run that is stopped tells only that it takes longer, and the record would hold the others.
        """
        calibration = profiles.named_calibration(self._work, cell.calibration_id)[1]
        plan = self._plan(pair, calibration, cell.timesteps)
        store.save(self._work / "plan.json", "arzbench/plan", plan)
        job = Job([(plan.models[0], plan.schedules[0])], plan.spread)
        quantiles = {q: job.quantile(float(q)) for q in scores.QUANTILES}
        limited = self._design.under_quota(pair, beside, repetition)
        quota_s = round(quota_for(quantiles["0.95"], uploads=False), 1) if limited else None
        limit = [] if quota_s is None else ["--quota", f"{quota_s}s"]
        command = [*ARZBENCH, "run", "--plan", str(self._work / "plan.json"), "--fresh", *limit]
        code, took, _ = self._call([*command, "--dir", str(self._work)])
        if code not in (ExitCode.OK, ExitCode.MORE_TO_DO):
            raise StateError(f"arzbench run of {pair.name} ended with code {code}", self._last_words)
        run = runs.find(self._work, None)
        summary = run.summary()
        outcome = Outcome(
            pair=pair.name,
            beside=beside,
            repetition=repetition,
            at=run.record.created,
            quantiles=quantiles,
            spread=plan.spread.source,
            log_sigma=plan.spread.log_sigma,
            log_centre=plan.spread.log_centre,
            quota_s=quota_s,
            wall_s=took,
            exit_code=code,
            finished=code == ExitCode.OK,
            timesteps=max((e.step for e in summary.kept), default=0),
            marks=_marks(summary),
            predicted_phases={p.value: s for p, s in phase_seconds(plan.models[0], plan.schedules).items()},
            actual_phases={p.value: t.seconds for p, t in summary.phases.items()},
        )
        self._book(run)
        return outcome

    def versions(self, cells: Iterable[Cell]) -> dict[str, str]:
        """Of the libraries that the trainings ran with."""
        first = next(iter(cells), None)
        if first is None:
            return {}
        return dict(profiles.named_calibration(self._work, first.calibration_id)[1].versions)

    def _book(self, run: runs.Run) -> None:
        """The run's line in the host's own record of predictions; its states go, nobody resumes it."""
        path = profiles.predictions_path(self._work, run.record.host)
        if path.exists():
            for line in store.read_lines(path, profiles.Prediction):
                if line.run_id == run.record.id:
                    profiles.record_prediction(self._working, run.record.host, line)
        shutil.rmtree(runs.checkpoints_folder(self._work, run.record.id), ignore_errors=True)

    def _plan(self, pair: Pair, calibration: Calibration, timesteps: int) -> Plan:
        """The plan that `arzbench plan` makes of `pair`, with all runs finished so far known."""
        study = study_of(pair, timesteps, self._design.seed)
        return make_plan(
            study,
            calibration,
            calibration.id,
            profiles.find_platform(self._work, LOCAL),
            host=self._host,
            past=profiles.past_runs(self._work, self._host),
            quota_s=None,
            confidence=0.95,
            created=self._clock.wall(),
            command="arzbench run",
        )

    def _trial(self, config: TrainConfig) -> dict[str, Any]:
        code, _, output = self._call(TRIAL, msgspec.json.encode(config))
        if code:
            raise StateError(f"the trial of {config.name} ended with code {code}", self._last_words)
        speeds: dict[str, Any] = msgspec.json.decode(output)
        return speeds

    def _call(self, command: Sequence[str], given: bytes = b"") -> tuple[int, float, bytes]:
        """(exit code, wall seconds, standard output) of a process; its last lines are kept for an error."""
        self._work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile() as errors:
            began = self._clock.now()
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
            try:
                output, _ = process.communicate(given)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            took = self._clock.now() - began
            errors.seek(0)
            text = errors.read().strip() or output.strip()
            self._last_words = "\n".join(text.decode(errors="replace").splitlines()[-8:])
        return process.returncode, took, output


def _marks(summary: Summary) -> tuple[Mark, ...]:
    """The ends that the run predicted while it went on."""
    before = sum(t.seconds for p, t in summary.phases.items() if p in BEFORE)
    return tuple(
        Mark(
            share=float(e.data["mark"]),
            done=float(e.data["done"]),
            elapsed_s=e.elapsed_s,
            learning_s=e.elapsed_s - before,
            left_p50_s=float(e.data["left"]["p50_s"]),
            left_p90_s=float(e.data["left"]["p90_s"]),
            left_p99_s=float(e.data["left"]["p99_s"]),
        )
        for e in summary.of_kind("prediction")
    )
