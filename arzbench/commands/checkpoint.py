"""`arzbench checkpoint`: what states there are, whether they are sound, and a model file of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from arzbench import options, runs, store
from arzbench.clock import SystemClock
from arzbench.errors import ExitCode, StateError, UsageError, unknown
from arzbench.measure.phase_times import PhaseTotals
from arzbench.options import switch, takes, value
from arzbench.records import RunRecord
from arzbench.report.console import make_console, say, show
from arzbench.report.sheets import Sheet
from arzbench.run.resume import model_file
from arzbench.saves.checkpoints import Checkpoint, checkpoint_paths
from arzbench.saves.read import Manifest, UnsoundError, read_manifest, the_best, verify
from arzbench.saves.remote import Remote, all_manifests
from arzbench.units import format_bytes
from arzbench.wiring.checks import ensure_file, require_training_stack

ACTIONS = ("ls", "verify", "export")
_WHICH = "arzbench checkpoint verify tells which are; --name chooses one"


@dataclass(frozen=True, kw_only=True)
class CheckpointFlags:
    """The command line of `arzbench checkpoint`."""

    action: Annotated[str, typer.Argument(metavar="ls|verify|export", help="What to do.")] = "ls"
    where: Annotated[
        str | None, typer.Argument(metavar="WHERE", help="A folder of checkpoints or a URL; else the run's.")
    ] = None
    run_id: options.Run = None
    name: Annotated[str | None, value("--name", "STEP-...", "Export this one; else the newest.")] = None
    best: Annotated[bool, switch("--best", "Export the one of the best evaluation.")] = False
    output: Annotated[Path | None, value("--output", "FILE.zip", "Where the model is exported to.")] = None
    folder: options.Dir = Path()
    as_json: options.Json = False

    def remote(self) -> Remote | None:
        """The URL that was named, if one was."""
        return Remote(self.where) if self.where is not None and "://" in self.where else None

    def states(self) -> Path:
        """The folder that holds the checkpoints."""
        if self.where is not None and self.run_id is not None:
            raise UsageError("a place and --run were given", "give one of them")
        if self.where is None:
            return runs.checkpoints_folder(self.folder, runs.find(self.folder, self.run_id).record.id)
        if not Path(self.where).is_dir():
            raise UsageError(f"no folder {self.where}", "name a folder of checkpoints, or a run with --run")
        return Path(self.where)


class _Listed(NamedTuple):
    """A checkpoint; `why` it is not sound, empty if it is."""

    name: str
    manifest: Manifest | None
    why: str


@takes(CheckpointFlags)
def checkpoint(flags: CheckpointFlags) -> ExitCode:
    """List the checkpoints of a run, prove every byte of them, or make a model file of one."""
    if flags.action not in ACTIONS:
        raise unknown("action", flags.action, ACTIONS, "of arzbench checkpoint")
    if flags.action == "export":
        _export(flags)
        return ExitCode.OK
    if flags.best or flags.name is not None or flags.output is not None:
        raise UsageError(
            f"--name, --best and --output belong to export, not to {flags.action}", "leave them out"
        )
    where, listed = _list(flags, whole=flags.action == "verify")
    _show(flags, where, listed)
    return ExitCode.FAILURE if any(one.why for one in listed) else ExitCode.OK


def _list(flags: CheckpointFlags, *, whole: bool) -> tuple[str, list[_Listed]]:
    """Every checkpoint there is; those at a URL are read as a whole only to verify them."""
    remote = flags.remote()
    if remote is not None:
        where, listed = remote.url, _list_remote(remote, whole)
    else:
        folder = flags.states()
        read = [(path, _read_local(path)) for path in checkpoint_paths(folder)]
        where = str(folder)
        listed = [one for path, one in read if os.path.lexists(path)]  # a run that goes on removes old ones
    if not listed:
        raise UsageError(
            f"no checkpoint in {where}",
            "name the run with --run, or a folder, or a URL (arzbench run writes them)",
        )
    return where, listed


def _read_local(path: Path) -> _Listed:
    manifest = None
    try:
        manifest = read_manifest(path)
        verify(path, manifest)
    except (UnsoundError, UsageError) as error:
        return _Listed(path.name, manifest, str(error))
    return _Listed(path.name, manifest, "")


def _list_remote(remote: Remote, whole: bool) -> list[_Listed]:
    with remote.reading(), tempfile.TemporaryDirectory(prefix="arzbench-") as aside:
        listed = [_Listed(*one) for one in all_manifests(remote)]
        for index, one in enumerate(listed if whole else []):
            if not one.why:
                try:
                    remote.download(one.name, Path(aside))
                except UnsoundError as error:
                    listed[index] = one._replace(why=str(error))
    return listed


def _show(flags: CheckpointFlags, where: str, listed: Sequence[_Listed]) -> None:
    best = _best(listed)
    if flags.as_json:
        rows = [
            {
                "name": one.name,
                "sound": not one.why,
                "why": one.why,
                "is_best": one is best,
                **({} if one.manifest is None else _facts(one.manifest)),
            }
            for one in listed
        ]
        print(json.dumps({"where": where, "checkpoints": rows}, indent=1))
        return
    parts_only = "://" in where and flags.action == "ls"
    notes = [f"{one.name}: {one.why}" for one in listed if one.why]
    notes += ["sound here: every part is there with its size; verify reads every byte"] if parts_only else []
    sheet = Sheet(
        title=where,
        columns=("checkpoint", "training", "step", "stage", "tier", "size", "sound", "best"),
        align="lrrllrll",
        rows=tuple(_row(one, one is best) for one in listed),
        notes=tuple(notes),
    )
    show(make_console(), [sheet])


def _facts(manifest: Manifest) -> dict[str, object]:
    names = ("training", "num_timesteps", "tier", "bytes", "best", "created")
    return {"stage": _stage(manifest), **{name: getattr(manifest, name) for name in names}}


def _row(one: _Listed, is_best: bool) -> tuple[str, ...]:
    m = one.manifest
    if m is None:
        return (one.name, "-", "-", "-", "-", "-", "no", "")
    best = "" if m.best is None or not is_best else f"{m.best[0]:.6g} at step {m.best[1]:,}"
    cells = (str(m.training + 1), f"{m.num_timesteps:,}", _stage(m), m.tier, format_bytes(m.bytes))
    return (one.name, *cells, "no" if one.why else "yes", best)


def _stage(manifest: Manifest) -> str:
    return "done" if manifest.done else manifest.stage or "-"


def _best(listed: Sequence[_Listed]) -> _Listed | None:
    """The sound one that is its training's best; of several trainings the last that has one."""
    sound = [(one, one.manifest) for one in listed if one.manifest is not None and not one.why]
    for training in sorted({m.training for _, m in sound}, reverse=True):
        best = the_best([m for _, m in sound if m.training == training])
        if best is not None:
            return next(one for one, m in sound if m is best)
    return None


def _export(flags: CheckpointFlags) -> None:
    require_training_stack()
    if flags.name is not None and flags.best:
        raise UsageError("--name and --best exclude each other", "give one of them")
    if flags.output is not None:
        ensure_file(flags.output, "--output")
    with tempfile.TemporaryDirectory(prefix="arzbench-") as aside:
        _, listed = _list(flags, whole=False)
        chosen = _chosen(flags, listed)
        manifest = chosen.manifest
        assert manifest is not None
        remote = flags.remote()
        if remote is not None:
            record = remote.run_record()
            try:
                with remote.reading():
                    path = remote.download(chosen.name, Path(aside))
            except UnsoundError as error:
                raise StateError(f"{chosen.name} is not sound: {error}", _WHICH) from error
        else:
            path = flags.states() / chosen.name
            record = _record(flags, manifest)
        if record is None or record.study_digest != manifest.study:
            raise UsageError(
                f"the study of {chosen.name} is not known: no run record of it was found",
                "export where the run is: arzbench checkpoint export --run ID --dir FOLDER",
            )
        require_training_stack(record.study)
        target = flags.output or Path(model_file(record.study, manifest.training))
        ensure_file(target, "--output")
        _write_model(path, record, target)
    say(make_console(), f"{chosen.name} as {target}")


def _chosen(flags: CheckpointFlags, listed: Sequence[_Listed]) -> _Listed:
    sound = [one for one in listed if not one.why]
    if flags.best:
        best = _best(listed)
        if best is None:
            raise UsageError("no sound checkpoint here has a best evaluation", "leave out --best")
        return best
    if flags.name is not None:
        named = next((one for one in listed if one.name == flags.name), None)
        if named is None:
            raise unknown("checkpoint", flags.name, [one.name for one in listed])
        if named.why:
            raise StateError(f"{named.name} is not sound: {named.why}", _WHICH)
        return named
    if not sound:
        raise StateError(f"no sound checkpoint: {listed[-1].name}: {listed[-1].why}", "restore one")
    return sound[-1]


def _record(flags: CheckpointFlags, manifest: Manifest) -> RunRecord | None:
    """The run that a local checkpoint is of: its record holds the study."""
    if flags.where is None:
        return runs.find(flags.folder, flags.run_id).record
    return next((run.record for run in runs.of_study(flags.folder, manifest.study)), None)


def _write_model(path: Path, record: RunRecord, target: Path) -> None:
    from arzbench.sb3.workload import SB3Workload

    saved = Checkpoint(path, read_manifest(path))
    config = record.study.trainings[saved.manifest.training]
    training = SB3Workload(SystemClock()).create(config, PhaseTotals(), state=saved.load())
    aside = target.with_name(f".{target.stem}.{os.getpid()}.zip")
    try:
        training.export(str(aside))
        os.replace(aside, target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StateError(
            f"cannot write {target}: {error.strerror}", "free space, or --output FILE.zip"
        ) from error
    finally:
        training.close()
    store.fsync_directory(target.parent)
