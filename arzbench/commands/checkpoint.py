"""`arzbench checkpoint`: what states there are, whether they are sound, and a model file of one."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arzbench import runs, store
from arzbench.clock import SystemClock
from arzbench.commands.common import ensure_file, require_training_stack
from arzbench.errors import ExitCode, StateError, UsageError, unknown
from arzbench.measure.phase_times import PhaseTotals
from arzbench.records import RunRecord
from arzbench.report.console import make_console, say, show
from arzbench.report.sheets import Sheet
from arzbench.run.resume import model_file
from arzbench.saves.checkpoints import Checkpoint, checkpoint_paths
from arzbench.saves.read import Manifest, UnsoundError, read_manifest, verify
from arzbench.saves.remote import Remote, all_manifests
from arzbench.units import format_bytes

ACTIONS = ("ls", "verify", "export")
_WHICH = "arzbench checkpoint verify tells which are; --name chooses one"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """The command line of `arzbench checkpoint`."""

    action: str
    where: str | None
    run_id: str | None
    name: str | None
    best: bool
    output: Path | None
    working: Path
    as_json: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """A checkpoint; `why` it is not sound, empty if it is."""

    name: str
    manifest: Manifest | None
    why: str


def run_checkpoint(options: CheckpointOptions) -> int:
    """Carry out the action; the exit code: 1 where something is unsound."""
    if options.action not in ACTIONS:
        raise unknown("action", options.action, ACTIONS, "of arzbench checkpoint")
    if options.action == "export":
        return _export(options)
    if options.best or options.name is not None or options.output is not None:
        raise UsageError(
            f"--name, --best and --output belong to export, not to {options.action}", "leave them out"
        )
    where, found = _look(options, whole=options.action == "verify")
    _tell(options, where, found)
    return int(ExitCode.FAILURE if any(one.why for one in found) else ExitCode.OK)


def _look(options: CheckpointOptions, *, whole: bool) -> tuple[str, list[_Found]]:
    """Every checkpoint there is; those at a URL are read as a whole only to verify them."""
    if options.where is not None and "://" in options.where:
        remote = Remote(options.where)
        with remote.reading():
            found = _remote_found(remote, whole)
        where = remote.url
    else:
        folder = _folder(options)
        where = str(folder)
        looked = [(path, _local_found(path)) for path in checkpoint_paths(folder)]
        found = [one for path, one in looked if os.path.lexists(path)]  # a run that goes on removes old ones
    if not found:
        raise UsageError(
            f"no checkpoint in {where}",
            "name the run with --run, or a folder, or a URL (arzbench run writes them)",
        )
    return where, found


def _folder(options: CheckpointOptions) -> Path:
    if options.where is not None and options.run_id is not None:
        raise UsageError("a place and --run were given", "give one of them")
    if options.where is not None:
        folder = Path(options.where)
        if not folder.is_dir():
            raise UsageError(f"no folder {folder}", "name a folder of checkpoints, or a run with --run")
        return folder
    return runs.checkpoints_folder(options.working, runs.find(options.working, options.run_id).record.id)


def _local_found(path: Path) -> _Found:
    try:
        manifest = read_manifest(path)
    except (UnsoundError, UsageError) as error:
        return _Found(path.name, None, str(error))
    try:
        verify(path, manifest)
    except UnsoundError as error:
        return _Found(path.name, manifest, str(error))
    return _Found(path.name, manifest, "")


def _remote_found(remote: Remote, whole: bool) -> list[_Found]:
    found = [_Found(name, manifest, why) for name, manifest, why in all_manifests(remote)]
    if not whole:
        return found
    with tempfile.TemporaryDirectory(prefix="arzbench-") as aside:
        for index, one in enumerate(found):
            if not one.why:
                try:
                    remote.download(one.name, Path(aside))
                except UnsoundError as error:
                    found[index] = dataclasses.replace(one, why=str(error))
    return found


def _tell(options: CheckpointOptions, where: str, found: Sequence[_Found]) -> None:
    best = _best(found)
    if options.as_json:
        rows = [
            {
                "name": one.name,
                "sound": not one.why,
                "why": one.why,
                "is_best": one is best,
                **({} if one.manifest is None else _facts(one.manifest)),
            }
            for one in found
        ]
        print(json.dumps({"where": where, "checkpoints": rows}, indent=1))
        return
    remote = "://" in where and options.action == "ls"
    notes = [f"{one.name}: {one.why}" for one in found if one.why]
    notes += ["sound here: every part is there with its size; verify reads every byte"] if remote else []
    sheet = Sheet(
        title=where,
        columns=("checkpoint", "training", "step", "stage", "tier", "size", "sound", "best"),
        align="lrrllrll",
        rows=tuple(_row(one, one is best) for one in found),
        notes=tuple(notes),
    )
    show(make_console(), [sheet])


def _facts(manifest: Manifest) -> dict[str, object]:
    return {
        "training": manifest.training,
        "num_timesteps": manifest.num_timesteps,
        "stage": _stage(manifest),
        "tier": manifest.tier,
        "bytes": manifest.bytes,
        "best": manifest.best,
        "created": manifest.created,
    }


def _row(one: _Found, best: bool) -> tuple[str, ...]:
    m = one.manifest
    if m is None:
        return (one.name, "-", "-", "-", "-", "-", "no", "")
    told = "" if m.best is None or not best else f"{m.best[0]:.6g} at step {m.best[1]:,}"
    cells = (str(m.training + 1), f"{m.num_timesteps:,}", _stage(m), m.tier, format_bytes(m.bytes))
    return (one.name, *cells, "no" if one.why else "yes", told)


def _stage(manifest: Manifest) -> str:
    return "done" if manifest.done else manifest.stage or "-"


def _best(found: Sequence[_Found]) -> _Found | None:
    """The newest sound one that was the best when it was saved."""
    return next(
        (o for o in reversed(found) if o.manifest is not None and o.manifest.is_best and not o.why), None
    )


def _export(options: CheckpointOptions) -> int:
    require_training_stack()
    if options.name is not None and options.best:
        raise UsageError("--name and --best exclude each other", "give one of them")
    if options.output is not None:
        ensure_file(options.output, "--output")
    with tempfile.TemporaryDirectory(prefix="arzbench-") as aside:
        _, found = _look(options, whole=False)
        chosen = _chosen(options, found)
        assert chosen.manifest is not None
        if options.where is not None and "://" in options.where:
            remote = Remote(options.where)
            record = remote.run_record()
            try:
                with remote.reading():
                    path = remote.download(chosen.name, Path(aside))
            except UnsoundError as error:
                raise StateError(f"{chosen.name} is not sound: {error}", _WHICH) from error
        else:
            path = _folder(options) / chosen.name
            record = _record(options, chosen.manifest)
        if record is None or record.study_digest != chosen.manifest.study:
            raise UsageError(
                f"the study of {chosen.name} is not known: no run record of it was found",
                "export where the run is: arzbench checkpoint export --run ID --dir FOLDER",
            )
        target = options.output or Path(model_file(record.study, chosen.manifest.training))
        ensure_file(target, "--output")
        _write_model(Checkpoint(path, read_manifest(path)), record, target)
    say(make_console(), f"{chosen.name} as {target}")
    return int(ExitCode.OK)


def _chosen(options: CheckpointOptions, found: Sequence[_Found]) -> _Found:
    sound = [one for one in found if not one.why]
    if options.best:
        best = _best(found)
        if best is None:
            raise UsageError("no sound checkpoint here has a best evaluation", "leave out --best")
        return best
    if options.name is not None:
        named = next((one for one in found if one.name == options.name), None)
        if named is None:
            raise unknown("checkpoint", options.name, [one.name for one in found])
        if named.why:
            raise StateError(f"{named.name} is not sound: {named.why}", _WHICH)
        return named
    if not sound:
        raise StateError(f"no sound checkpoint: {found[-1].name}: {found[-1].why}", "restore one")
    return sound[-1]


def _record(options: CheckpointOptions, manifest: Manifest) -> RunRecord | None:
    """The run that a local checkpoint is of: its record holds the study."""
    if options.where is None:
        return runs.find(options.working, options.run_id).record
    of_study = (
        r.record for r in runs.newest_first(options.working) if r.record.study_digest == manifest.study
    )
    return next(of_study, None)


def _write_model(checkpoint: Checkpoint, record: RunRecord, target: Path) -> None:
    from arzbench.sb3.workload import SB3Workload

    config = record.study.trainings[checkpoint.manifest.training]
    training = SB3Workload(SystemClock()).create(config, PhaseTotals(), state=checkpoint.load())
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
