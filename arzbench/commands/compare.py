"""`arzbench compare`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from arzbench import options, runs, store
from arzbench.choose_study import choose_study
from arzbench.clock import SystemClock
from arzbench.digest import digest
from arzbench.errors import UsageError, unknown
from arzbench.logs.plot import require_matplotlib
from arzbench.options import count, takes, value
from arzbench.report.comparison import (
    Comparison,
    PolicyResult,
    compare_policies,
    comparison_sheets,
    plot_comparison,
)
from arzbench.report.console import make_console, say, show
from arzbench.run.resume import model_file
from arzbench.runs import Run
from arzbench.saves.checkpoints import CheckpointStore
from arzbench.study import Study
from arzbench.study_changes import change_study
from arzbench.wiring.checks import ensure_file, require_training_stack

_MOST_SEEDS = 10_000  # a batch holds some 30 kB of each


@dataclass(frozen=True, kw_only=True)
class CompareFlags:
    """The command line of `arzbench compare`."""

    run_id: Annotated[str | None, value("--run", "ID", "Models of this run; else of the newest.")] = None
    study: options.Study = None
    model: Annotated[
        Path | None,
        value("--model", "FILE.zip", "This model; --study or --env and --algo tell its env."),
    ] = None
    env: options.Env = None
    algo: options.Algo = None
    changes: options.Set = None
    training: Annotated[str | None, value("--training", "NAME", "Only this training's model.")] = None
    seeds: Annotated[int, count("--seeds", "Held-out episodes each policy plays.", least=2)] = 50
    plot: Annotated[Path | None, value("--plot", "FILE.png", "Draw the comparison.")] = None
    folder: options.Dir = Path()
    as_json: options.Json = False

    def check(self) -> None:
        """Raise a `UsageError` where flags contradict each other or say too little."""
        if self.seeds > _MOST_SEEDS:
            raise UsageError(
                f"--seeds {self.seeds} is too many", f"at most {_MOST_SEEDS:,}: all are played at once"
            )
        named = self.study is not None or self.env is not None or self.algo is not None
        if self.run_id is not None and (named or self.model is not None):
            raise UsageError("--run names models and their env by itself", "leave out the other flags")
        if self.model is not None and not named:
            raise UsageError(
                f"--model {self.model} does not say on which env", "add --study NAME, or --env ID --algo NAME"
            )
        if self.model is None and (self.env is not None or self.algo is not None):
            raise UsageError("--env and --algo are of a model, and none is named", "add --model FILE.zip")


@takes(CompareFlags)
def compare(flags: CompareFlags) -> None:
    """Play held-out episodes under the baselines and the trained models; say who is better."""
    flags.check()
    if flags.plot is not None:
        require_matplotlib()
        ensure_file(flags.plot, "--plot")
    run, study = _run_and_study(flags)
    require_training_stack(study)
    comparison = _comparison(flags, run, study)
    if flags.plot is not None:
        plot_comparison(comparison, flags.plot)
    if flags.as_json:
        sys.stdout.buffer.write(store.encode("arzbench/comparison", comparison))
        return
    console = make_console()
    say(console, f"{comparison.env} {comparison.env_kwargs or ''}: {comparison.source}")
    show(console, comparison_sheets(comparison))
    if flags.plot is not None:
        say(console, f"figure: {flags.plot}")


def _run_and_study(flags: CompareFlags) -> tuple[Run | None, Study]:
    """The run whose models are compared (None: a model by its file) and the study they are of."""
    changes = flags.changes or ()
    study = choose_study(flags.folder, study=flags.study, env=flags.env, algo=flags.algo, changes=changes)
    if flags.model is not None:
        assert study is not None
        return None, study
    if study is None:
        run = runs.find(flags.folder, flags.run_id)
    else:
        as_trained = choose_study(flags.folder, study=flags.study, env=None, algo=None, changes=())
        matches = runs.of_study(flags.folder, digest(as_trained))
        if not matches:
            raise UsageError(
                f"no run of the study {study.name!r} in {runs.reports_folder(flags.folder)}",
                f"train it: arzbench run --study {flags.study} --timesteps {study.total_timesteps}",
            )
        run = matches[0]
    return run, change_study(run.record.study, changes)


def _comparison(flags: CompareFlags, run: Run | None, study: Study) -> Comparison:
    from arzbench.sb3.held_out import HeldOutEpisodes

    chosen = _trainings(study, flags.training)
    first = study.trainings[chosen[0]]
    episodes = HeldOutEpisodes(first, flags.seeds, threads=len(os.sched_getaffinity(0)))
    models = list(_models(flags, run, study, chosen))
    results = []

    def add(name: str, kind: str, values: dict[str, Any]) -> None:
        by_measure = {m: tuple(v.tolist()) for m, v in values.items()}
        counters = episodes.counters()
        results.append(PolicyResult(name=name, kind=kind, values=by_measure, counters=counters))

    with make_console(stderr=True).status("") as status:
        for name in episodes.baselines:
            status.update(f"{flags.seeds} episodes under {name}")
            add(name, "baseline", episodes.play_baseline(name))
        for name, model in models:
            status.update(f"{flags.seeds} episodes under {name}")
            add(name, "trained", episodes.play_model(model))
    source = f"run {run.record.id}" if run is not None else f"model {flags.model}"
    return compare_policies(first.env, first.env_kwargs, source, episodes.seeds, results)


def _trainings(study: Study, name: str | None) -> list[int]:
    """Indices of the trainings compared: all, or the one called `name`."""
    names = [t.name for t in study.trainings]
    if name is not None:
        if name not in names:
            raise unknown("training", name, names)
        return [names.index(name)]
    first = study.trainings[0]
    if any((t.env, t.env_kwargs) != (first.env, first.env_kwargs) for t in study.trainings):
        raise UsageError("the trainings are not of one env", f"--training NAME, one of {', '.join(names)}")
    return list(range(len(names)))


def _models(
    flags: CompareFlags, run: Run | None, study: Study, chosen: list[int]
) -> Iterator[tuple[str, Any]]:
    """(name, model) of each training: as exported, or what the newest checkpoint holds of it."""
    from arzbench.sb3.held_out import load_model, restore_model

    if run is None:
        assert flags.model is not None
        if not flags.model.is_file():
            raise UsageError(f"no such file: {flags.model}", "a .zip of a trained model")
        yield flags.model.stem, load_model(study.trainings[chosen[0]], flags.model)
        return
    folder, clock = runs.checkpoints_folder(flags.folder, run.record.id), SystemClock()
    for index in chosen:
        config = study.trainings[index]
        exported = folder / model_file(run.record.study, index)
        if exported.exists() and not config.normalizes_observations:
            yield config.name, load_model(config, exported)
            continue
        newest = CheckpointStore(folder, keep_last=1, clock=clock).newest(run.record.study_digest, index)
        if newest is None:
            raise UsageError(
                f"run {run.record.id} has no model of {config.name!r} yet",
                f"go on with it: arzbench run --run {run.record.id}",
            )
        yield config.name, restore_model(config, newest.load(), clock)
