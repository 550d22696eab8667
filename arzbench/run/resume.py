"""A job on disk: the states that earlier sessions left, and the names of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from arzbench.clock import Clock
from arzbench.digest import digest
from arzbench.errors import StateError
from arzbench.saves.checkpoints import Checkpoint, CheckpointStore
from arzbench.study import Study


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """What earlier sessions left."""

    newest: Checkpoint | None  # of the whole job
    by_training: tuple[Checkpoint | None, ...]
    skipped: Mapping[str, str]  # unsound checkpoints and why

    @property
    def steps(self) -> list[int]:
        """Training env steps done, per training."""
        return [0 if c is None else c.manifest.num_timesteps for c in self.by_training]


def find_resume_point(study: Study, folder: Path, clock: Clock) -> ResumePoint:
    """The newest sound states in `folder`.

    Raises:
        StateError: only damaged ones are there, or they are of another study.
        UsageError: written by a newer arzbench.
    """
    checkpoints = CheckpointStore(folder, 1, clock)
    identity = digest(study)
    newest = checkpoints.newest(identity)
    if newest is None and checkpoints.skipped:
        reasons = "; ".join(f"{name}: {why}" for name, why in checkpoints.skipped.items())
        raise StateError(
            f"no sound checkpoint in {folder}: {reasons}", "restore one, or start anew with --fresh"
        )
    by_training = tuple(checkpoints.newest(identity, index) for index in range(len(study.trainings)))
    return ResumePoint(newest, by_training, dict(checkpoints.skipped))


def model_file(study: Study, training: int) -> str:
    """The name of the file that a training's finished model is exported to."""
    names = [re.sub(r"[^\w.-]+", "-", t.name).strip(".-") or "training" for t in study.trainings]
    unique = names.count(names[training]) == 1
    return f"{names[training]}.zip" if unique else f"{names[training]}-{training + 1}.zip"
