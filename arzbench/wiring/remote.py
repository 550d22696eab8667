"""`arzbench run --checkpoints URL`: a run goes on from what another machine left at a URL."""

from __future__ import annotations

from pathlib import Path

import msgspec

from arzbench import runs
from arzbench.digest import digest
from arzbench.errors import UsageError
from arzbench.saves.remote import Remote
from arzbench.study import Study


def open_remote(url: str) -> Remote:
    """The place at `url`, proved to be readable and writable.

    Raises:
        UsageError: it is not, or it is no URL; nothing was written here.
    """
    remote = Remote(url)
    remote.check()
    return remote


def take_up(
    remote: Remote, working: Path, named: runs.Run | None, study: Study | None, *, budgeted: bool
) -> runs.Run | None:
    """The run whose checkpoints are at the URL, not yet written down here; `named` where there is none.

    Raises:
        UsageError: it is another run, or of another study, than asked for, or nothing says what to train.
    """
    record = remote.run_record()
    if record is None:
        if named is None and not budgeted:
            raise UsageError(
                f"how much to train was not said, and {remote.url} holds no run to go on with",
                "--auto-budget (what fits the quota), --plan FILE or --timesteps N",
            )
        return named
    other = f"{remote.url} holds the checkpoints of run {record.id}"
    if named is not None and named.record.id != record.id:
        raise UsageError(f"{other}, not of {named.record.id}", "name another URL, or leave out --run")
    if study is not None and digest(study) != record.study_digest:
        raise UsageError(f"{other}, which is of another study", "name another URL for this study")
    here = [run for run in runs.newest_first(working) if run.record.id == record.id]
    run = here[0] if here else runs.Run(folder=runs.reports_folder(working) / record.id, record=record)
    newest = remote.session()
    if newest is None or newest.run != record.id:
        return run
    if len(newest.budgets) != len(record.budgets) or min(newest.sessions, *newest.budgets) < 0:
        raise UsageError(f"{remote.url}/session.json does not fit its run.json", "remove it")
    return msgspec.structs.replace(run, sessions=newest.sessions, budgets=newest.budgets)
