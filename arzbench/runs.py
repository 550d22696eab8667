"""The runs of a working folder: reports/<id>/ holds what is kept, checkpoints/<id>/ the states."""

from __future__ import annotations

from pathlib import Path

import msgspec

from arzbench import store
from arzbench.errors import ArzbenchError, UsageError, unknown
from arzbench.records import Plan, RunRecord
from arzbench.run import ledger

_ENDED = ("finished", "budget")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run on disk."""

    folder: Path
    record: RunRecord
    sessions: int = 0  # that have begun, by what its URL tells
    budgets: tuple[int, ...] = ()  # of the last of these

    @property
    def ledger_path(self) -> Path:
        """Its ledger; absent until its first session begins."""
        return self.folder / ledger.FILE

    def summary(self) -> ledger.Summary:
        """What its ledger tells; empty before its first session."""
        return ledger.read(self.ledger_path) if self.ledger_path.exists() else ledger.summarise([])

    def plan(self) -> Plan | None:
        """The plan it goes by; None without one."""
        path = self.folder / "plan.json"
        return store.load(path, "arzbench/plan", Plan, "plan") if path.exists() else None

    @property
    def ended(self) -> bool:
        """Whether its last session reached its budget."""
        return self._reason in _ENDED

    @property
    def finished(self) -> bool:
        """Whether its last session reached the end of its study."""
        return self._reason == "finished"

    @property
    def _reason(self) -> str | None:
        stop = self.summary().stop
        return None if stop is None else str(stop.data.get("reason"))


def reports_folder(working: Path) -> Path:
    """Below it, one folder a run."""
    return working / "reports"


def checkpoints_folder(working: Path, run_id: str) -> Path:
    """Where the states of a run are."""
    return working / "checkpoints" / run_id


def begin(working: Path, record: RunRecord) -> Run:
    """Write down what a new run sets out to do."""
    folder = reports_folder(working) / record.id
    store.save(folder / "run.json", "arzbench/run", record)
    return Run(folder=folder, record=record)


def newest_first(working: Path) -> list[Run]:
    """All runs."""
    runs = [
        Run(folder=path.parent, record=store.load(path, "arzbench/run", RunRecord, "run record"))
        for path in reports_folder(working).glob("*/run.json")
    ]
    return sorted(runs, key=lambda r: (r.record.created, r.record.id), reverse=True)


def find(working: Path, run_id: str | None) -> Run:
    """The run called `run_id`; None: the newest.

    Raises:
        UsageError: there is none.
    """
    runs = newest_first(working)
    if not runs:
        raise UsageError(
            f"no run in {reports_folder(working)}", "start one: arzbench run --auto-budget --quota 1h"
        )
    if run_id is None:
        return runs[0]
    for run in runs:
        if run.record.id == run_id:
            return run
    raise unknown("run", run_id, [r.record.id for r in runs])


def of_study(working: Path, study_digest: str) -> list[Run]:
    """The runs of a study, the newest first."""
    return [run for run in newest_first(working) if run.record.study_digest == study_digest]


def unfinished(working: Path, study_digest: str) -> Run | None:
    """The newest run of a study, if it still has something to do."""
    for run in of_study(working, study_digest)[:1]:
        try:
            return None if run.ended else run
        except ArzbenchError:
            return run  # its ledger is broken: carrying it out reports that
    return None


def free_id(working: Path, wanted: str) -> str:
    """`wanted`, or with a number behind it where it is taken."""
    number, candidate = 2, wanted
    while (reports_folder(working) / candidate).exists():
        candidate = f"{wanted}-{number}"
        number += 1
    return candidate
