"""What a user's code would train, found out in a process of its own or from what was measured before."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from arzbench.errors import UsageError
from arzbench.profiles import calibrations
from arzbench.study import Built, Code, Study
from arzbench.study_changes import change_study
from arzbench.user_code import changed_sources

#: lines shown of what a script printed last
_LINES = 12


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a script trains, in order, and the digests of the source files it consists of."""

    trainings: tuple[Built, ...]
    sources: dict[str, str]


def script_study(
    working: Path, script: Path, arguments: Sequence[str], changes: Sequence[str], *others: object
) -> Study:
    """The study that `script`, run with `arguments`, is, under `changes`.

    Known from its newest calibration, else by running it: run so, it trains nothing and saves no model.

    Raises:
        UsageError: there is no such file, it failed, or it calls `arzbench.learn` nowhere; or `others`,
            the options that name another study, are given.
    """
    if any(others):
        raise UsageError("a script is a study: --study, --env and --algo name another", "give one of them")
    return change_study(_study(working, script, arguments), changes)


def _study(working: Path, script: Path, arguments: Sequence[str]) -> Study:
    if not script.is_file():
        raise UsageError(f"no script {str(script)!r}", "the path of a Python file that calls arzbench.learn")
    code = Code(script=str(script), arguments=tuple(arguments))
    for calibration in calibrations(working):
        changed = any(changed_sources(samples.sources) for samples in calibration.workloads)
        if calibration.study.code == code and not changed:
            return calibration.study
    description = _describe(script, arguments)
    if not description.trainings:
        raise UsageError(
            f"{script} trains nothing: it does not call arzbench.learn",
            "arzbench.learn(model, total_timesteps) takes the place of model.learn(total_timesteps)",
        )
    return Study(name=script.stem, trainings=description.trainings)


def is_script(study: Study) -> bool:
    """Whether a script trains it."""
    return study.code is not None and bool(study.code.script)


def _describe(script: Path, arguments: Sequence[str]) -> Description:
    with tempfile.TemporaryDirectory(prefix="arzbench-") as folder:
        answer = Path(folder) / "description.json"
        command = [sys.executable, "-m", "arzbench", "_describe", str(answer), str(script), "--", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
        )
        if done.returncode or not answer.exists():
            last = (done.stderr or done.stdout).strip().splitlines()[-_LINES:]
            raise UsageError(
                f"{script} failed before anything was measured (exit code {done.returncode})",
                "\n".join(last) or "it printed nothing",
            )
        return msgspec.json.decode(answer.read_bytes(), type=Description)
