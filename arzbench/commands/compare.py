"""`arzbench compare`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arzbench import runs, store
from arzbench.choose_study import choose_study
from arzbench.clock import SystemClock
from arzbench.commands.common import ensure_file, require_training_stack
from arzbench.errors import UsageError, unknown
from arzbench.logs.plot import require_matplotlib
from arzbench.report.comparison import Comparison, PolicyResult, compare, comparison_sheets, plot_comparison
from arzbench.report.console import make_console, say, show
from arzbench.run.resume import model_file
from arzbench.saves.checkpoints import CheckpointStore
from arzbench.study import AnyConfig, Study
from arzbench.study_changes import change_study

_MOST_SEEDS = 10_000  # a batch holds some 30 kB of each


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """The command line of `arzbench compare`."""

    working: Path
    run_id: str | None
    study: str | None
    model: Path | None
    env: str | None
    algo: str | None
    changes: tuple[str, ...]
    training: str | None
    seeds: int
    plot: Path | None
    as_json: bool

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
        if self.plot is not None:
            require_matplotlib()
            ensure_file(self.plot, "--plot")


def run_compare(options: CompareOptions) -> None:
    """Play, compare, show."""
    options.check()
    require_training_stack()
    comparison = _comparison(options)
    if options.plot is not None:
        plot_comparison(comparison, options.plot)
    if options.as_json:
        sys.stdout.buffer.write(store.encode("arzbench/comparison", comparison))
        return
    console = make_console()
    say(console, f"{comparison.env} {comparison.env_kwargs or ''}: {comparison.source}")
    show(console, comparison_sheets(comparison))
    if options.plot is not None:
        say(console, f"figure: {options.plot}")


def _comparison(options: CompareOptions) -> Comparison:
    run, study = _asked(options)
    chosen = _chosen(study, options.training)
    first = study.trainings[chosen[0]]
    from arzbench.sb3.held_out import HeldOutEpisodes

    episodes = HeldOutEpisodes(first, options.seeds, threads=len(os.sched_getaffinity(0)))
    models = list(_models(options, run, study, chosen))
    errors = make_console(stderr=True)
    played = []
    with errors.status("") as status:
        for name in episodes.baselines:
            status.update(f"{options.seeds} episodes under {name}")
            played.append(_result(name, "baseline", episodes.play_baseline(name), episodes.counters()))
        for name, model in models:
            status.update(f"{options.seeds} episodes under {name}")
            played.append(_result(name, "trained", episodes.play_model(model), episodes.counters()))
    source = f"run {run.record.id}" if run is not None else f"model {options.model}"
    return compare(first.env, first.env_kwargs, source, episodes.seeds, played)


def _result(name: str, kind: str, values: dict[str, Any], counters: dict[str, int]) -> PolicyResult:
    by_measure = {m: tuple(v.tolist()) for m, v in values.items()}
    return PolicyResult(name=name, kind=kind, values=by_measure, counters=counters)


def _asked(options: CompareOptions) -> tuple[runs.Run | None, Study]:
    """The run whose models are meant (None: a model by its file) and the study they are of."""
    study = choose_study(
        options.working, study=options.study, env=options.env, algo=options.algo, changes=options.changes
    )
    if options.model is not None:
        assert study is not None
        return None, study
    if study is None:
        run = runs.find(options.working, options.run_id)
    else:
        digest = store.digest(
            choose_study(options.working, study=options.study, env=None, algo=None, changes=())
        )
        of_study = [r for r in runs.newest_first(options.working) if r.record.study_digest == digest]
        if not of_study:
            raise UsageError(
                f"no run of the study {study.name!r} in {runs.reports_folder(options.working)}",
                f"train it: arzbench run --study {options.study} --timesteps {study.total_timesteps}",
            )
        run = of_study[0]
    return run, change_study(run.record.study, options.changes)


def _chosen(study: Study, name: str | None) -> list[int]:
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
    options: CompareOptions, run: runs.Run | None, study: Study, chosen: list[int]
) -> Iterator[tuple[str, Any]]:
    from arzbench.sb3.held_out import load_model

    if run is None:
        assert options.model is not None
        if not options.model.is_file():
            raise UsageError(f"no such file: {options.model}", "a .zip of a trained model")
        yield options.model.stem, load_model(study.trainings[chosen[0]], options.model)
        return
    for index in chosen:
        config = study.trainings[index]
        yield config.name, _trained(options.working, run, index, config)


def _trained(working: Path, run: runs.Run, index: int, config: AnyConfig) -> Any:
    """The exported model, or what the newest checkpoint holds of it."""
    from arzbench.sb3.held_out import load_model, restore_model

    folder = runs.checkpoints_folder(working, run.record.id)
    exported = folder / model_file(run.record.study, index)
    if exported.exists() and not config.vec_normalize:
        return load_model(config, exported)
    clock = SystemClock()
    found = CheckpointStore(folder, keep_last=1, clock=clock).newest(run.record.study_digest, index)
    if found is None:
        raise UsageError(
            f"run {run.record.id} has no model of {config.name!r} yet",
            f"go on with it: arzbench run --run {run.record.id}",
        )
    return restore_model(config, found.load(), clock)
