"""The study that a command is about, also where the user's own code says what it trains.

That is found out in a process of its own, or known from what was measured before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from arzbench.choose_study import AD_HOC, choose_study
from arzbench.errors import UsageError
from arzbench.profiles import calibrations
from arzbench.study import Built, Code, Factory, Study
from arzbench.study_changes import change_study
from arzbench.study_file import make_config
from arzbench.user_code import changed_sources

#: the exit code with which argparse leaves
_USAGE = 2
#: lines shown of what the user's code printed last
_LINES = 12


class DescriptionTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to find out: what a script trains, or what factories build."""

    script: str = ""
    arguments: tuple[str, ...] = ()
    factories: tuple[Factory, ...] = ()


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained, in order, and the digests of the source files that say so."""

    trainings: tuple[Built, ...]
    sources: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """The options of a command line that name a study."""

    script: Path | None = None
    arguments: Sequence[str] = ()
    factory: str | None = None
    study: str | None = None
    env: str | None = None
    algo: str | None = None
    changes: Sequence[str] = ()
    timesteps: int | None = None

    def find(self, working: Path) -> Study | None:
        """The study; None where nothing names one: `changes` are then left to the caller.

        A script or a factory is run for it, unless a calibration tells: nothing is trained, no model saved.

        Raises:
            UsageError: options that name two, an unknown name, a change that does not fit, or code of the
                user's that failed.
        """
        named = [self.script, self.factory, self.study, self.env or self.algo]
        if sum(map(bool, named)) > 1:
            raise UsageError("a script, --factory, --study and --env each name a study", "give one of them")
        if self.script is not None:
            return change_study(_script_study(working, self.script, self.arguments), self.changes)
        if self.factory is not None:
            table = {"factory": self.factory, **{k: AD_HOC[k] for k in ("total_timesteps", "checkpoint")}}
            if self.timesteps is not None:
                table["total_timesteps"] = self.timesteps
            config = make_config({"name": self.factory.rpartition(":")[2], **table}, "--factory")
            found: Study | None = change_study(Study(name=config.name, trainings=(config,)), self.changes)  # type: ignore[arg-type]
        else:
            found = choose_study(
                working, study=self.study, env=self.env, algo=self.algo, changes=self.changes,
                timesteps=self.timesteps,
            )  # fmt: skip
        return None if found is None else _built(working, found)


def _script_study(working: Path, script: Path, arguments: Sequence[str]) -> Study:
    if not script.is_file():
        raise UsageError(f"no script {str(script)!r}", "the path of a Python file that calls arzbench.learn")
    code = Code(script=str(script), arguments=tuple(arguments))
    for calibration in calibrations(working):
        changed = any(changed_sources(samples.sources) for samples in calibration.workloads)
        if calibration.study.code == code and not changed:
            return calibration.study
    description = _describe(DescriptionTask(script=str(script), arguments=tuple(arguments)), str(script))
    if not description.trainings:
        raise UsageError(
            f"{script} trains nothing: it does not call arzbench.learn",
            "arzbench.learn(model, total_timesteps) takes the place of model.learn(total_timesteps)",
        )
    return Study(name=script.stem, trainings=description.trainings)


def _built(working: Path, study: Study) -> Study:
    """`study`, its factories called, or known from what was measured."""
    unbuilt = {i: t for i, t in enumerate(study.trainings) if isinstance(t, Factory)}
    known = {i: built for i, t in unbuilt.items() if (built := _measured(working, t)) is not None}
    to_build = {i: t for i, t in unbuilt.items() if i not in known}
    if to_build:
        names = ", ".join(dict.fromkeys(t.factory for t in to_build.values()))
        description = _describe(DescriptionTask(factories=tuple(to_build.values())), f"the factory {names}")
        known |= dict(zip(to_build, description.trainings, strict=True))
    trainings = tuple(known.get(i, t) for i, t in enumerate(study.trainings))
    return msgspec.structs.replace(study, trainings=trainings)


def _measured(working: Path, config: Factory) -> Built | None:
    """What `config` builds, where a calibration holds it and its sources have not changed since."""
    code = Code(factory=config.factory, kwargs=config.kwargs)
    for calibration in calibrations(working):
        for samples in calibration.workloads:
            found = samples.config
            if isinstance(found, Built) and found.code == code and not changed_sources(samples.sources):
                loop = found.loop.with_horizon(config.total_timesteps)
                keys = ("name", "total_timesteps", "evaluation", "checkpoint", "env_errors", "fast")
                own = {k: getattr(config, k) for k in keys}
                return msgspec.structs.replace(found, loop=loop, **own)
    return None


def _describe(task: DescriptionTask, what: str) -> Description:
    with tempfile.TemporaryDirectory(prefix="arzbench-") as folder:
        asked, answer = Path(folder) / "task.json", Path(folder) / "answer.json"
        asked.write_bytes(msgspec.json.encode(task))
        done = subprocess.run(
            [sys.executable, "-m", "arzbench.worker", "describe", str(asked), str(answer)],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
        problem = answer.with_suffix(".error")
        if problem.exists():
            error = json.loads(problem.read_text())
            message = error["message"]
            if error["trace"]:  # of the user's own code: else the message says it all
                message = f"{what} failed before anything was measured: {message}"
            raise UsageError(message, error["hint"], error["trace"])
        if done.returncode or not answer.exists():
            last = (done.stderr or done.stdout).strip().splitlines()[-_LINES:] or ["it printed nothing"]
            if done.returncode == _USAGE and not task.arguments and task.script:  # as argparse leaves
                last.append(f"the script's own arguments go behind --: {what} -- ARGUMENTS")
            raise UsageError(
                f"{what} failed before anything was measured (exit code {done.returncode})", "\n".join(last)
            )
        return msgspec.json.decode(answer.read_bytes(), type=Description)


def is_script(study: Study) -> bool:
    """Whether a script trains it."""
    return study.code is not None and bool(study.code.script)
