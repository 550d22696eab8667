"""`arzbench run --checkpoints URL`: a run goes on from what another machine left at a URL."""

from __future__ import annotations

import msgspec

from arzbench import runs, store
from arzbench.commands.resolve import RunOptions, asked_study
from arzbench.errors import UsageError
from arzbench.saves.remote import Remote


def open_remote(options: RunOptions) -> Remote | None:
    """The URL of `--checkpoints`, proved to be readable and writable; None without one.

    Raises:
        UsageError: it is not, or it is no URL; nothing was written here.
    """
    if options.checkpoints is None:
        return None
    remote = Remote(options.checkpoints)
    remote.check()
    return remote


def take_up(options: RunOptions, remote: Remote, named: runs.Run | None) -> runs.Run | None:
    """The run whose checkpoints are at the URL, not yet written down here; `named` where there is none.

    Raises:
        UsageError: it is another run than the one asked for, or nothing says what to train.
    """
    record = remote.run_record()
    given = options.auto_budget or options.plan_file is not None or options.timesteps is not None
    if record is None:
        if named is None and not given:
            raise UsageError(
                f"how much to train was not said, and {remote.url} holds no run to go on with",
                "--auto-budget (what fits the quota), --plan FILE or --timesteps N",
            )
        return named
    other = f"{remote.url} holds the checkpoints of run {record.id}"
    if named is not None and named.record.id != record.id:
        raise UsageError(f"{other}, not of {named.record.id}", "name another URL, or leave out --run")
    study = asked_study(options)
    if study is not None and store.digest(study) != record.study_digest:
        raise UsageError(f"{other}, which is of another study", "name another URL for this study")
    here = [run for run in runs.newest_first(options.working) if run.record.id == record.id]
    folder = runs.reports_folder(options.working) / record.id
    found = here[0] if here else runs.Run(folder=folder, record=record)
    newest = remote.session()
    if newest is None or newest.run != record.id:
        return found
    if len(newest.budgets) != len(record.budgets) or min(newest.sessions, *newest.budgets) < 0:
        raise UsageError(f"{remote.url}/session.json does not fit its run.json", "remove it")
    return msgspec.structs.replace(found, sessions=newest.sessions, budgets=newest.budgets)


def fetch(options: RunOptions, remote: Remote, run: runs.Run) -> list[str]:
    """Copy what is newer at the URL than here; what was done, in words."""
    return remote.fetch(run.record.study_digest, runs.checkpoints_folder(options.working, run.record.id))
