"""How a validation calibrates and runs: by the commands a user types, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from arzbench import profiles, runs, store
from arzbench.clock import Clock
from arzbench.errors import ExitCode, StateError
from arzbench.predict.costmodel import Job, phase_seconds
from arzbench.predict.landing import quota_for
from arzbench.predict.plan import LOCAL, make_plan
from arzbench.records import Calibration, HostInfo, Phase, Plan
from arzbench.run.ledger import Summary
from arzbench.study import TrainConfig
from arzbench.validate.design import UNSIZED, pair_target_s, sized, study_of
from arzbench.validate.result import Cell, Design, Mark, Outcome, Pair
from arzbench.validate.scores import QUANTILES

ARZBENCH = (sys.executable, "-m", "arzbench")
NEIGHBOUR = (sys.executable, "-m", "arzbench.validate.neighbour")
TRIAL = (sys.executable, "-m", "arzbench.sb3.naive")
#: what tells libraries how many threads to use: the neighbour has one
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: phases before the first step of learning
BEFORE = (Phase.IMPORT, Phase.JIT, Phase.BUILD, Phase.RESTORE, Phase.BASELINE)


class Bench:
    """The machine of a validation, with a working folder of its own below its reports."""

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
    def neighbour(self, wanted: bool) -> Iterator[None]:
        """A busy process beside what is done meanwhile."""
        if not wanted:
            yield
            return
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        process = subprocess.Popen(NEIGHBOUR, env=environment, stdin=subprocess.DEVNULL)
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
        quantiles = {q: job.quantile(float(q)) for q in QUANTILES}
        held = self._design.under_quota(pair, beside, repetition)
        quota_s = round(quota_for(quantiles["0.95"], uploads=False), 1) if held else None
        limit = [] if quota_s is None else ["--quota", f"{quota_s}s"]
        command = [*ARZBENCH, "run", "--plan", str(self._work / "plan.json"), "--fresh", *limit]
        code, took, _ = self._call([*command, "--dir", str(self._work)])
        if code not in (ExitCode.OK, ExitCode.MORE_TO_DO):
            raise StateError(f"arzbench run of {pair.name} ended with code {code}", self._last_words)
        found = runs.find(self._work, None)
        summary = found.summary()
        outcome = Outcome(
            pair=pair.name,
            beside=beside,
            repetition=repetition,
            at=found.record.created,
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
        self._book(found)
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
        found: dict[str, Any] = msgspec.json.decode(output)
        return found

    def _call(self, command: Sequence[str], given: bytes = b"") -> tuple[int, float, bytes]:
        """(exit code, wall seconds, standard output) of a process; what it said of errors is kept."""
        self._work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile() as told:
            began = self._clock.now()
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told)
            try:
                output, _ = process.communicate(given)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            took = self._clock.now() - began
            told.seek(0)
            said = told.read().strip() or output.strip()
            self._last_words = "\n".join(said.decode(errors="replace").splitlines()[-8:])
        return process.returncode, took, output


def _marks(summary: Summary) -> tuple[Mark, ...]:
    """What the run said of its end while it went on."""
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
