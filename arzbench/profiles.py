"""Finds studies, platforms and calibrations: in the working folder first, then in the package."""

from __future__ import annotations

import contextlib
import datetime
import math
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from arzbench import importing, store
from arzbench.errors import UsageError, unknown
from arzbench.predict.spread import PastRun
from arzbench.records import Calibration, HostInfo, Platform
from arzbench.study import Study
from arzbench.study_file import load_study
from arzbench.user_code import changed_sources

#: days after which a calibration is refused unless --allow-expired
EXPIRES_DAYS = 30
_STAMP = re.compile(r"\d{8}T\d{6}Z")
_PACKAGED = (Path(__file__).parent / "profiles", Path(__file__).parent.parent / "profiles")


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One finished run of this host: what was predicted, and what it took."""

    run_id: str
    at: str
    predicted_p50_s: float
    actual_s: float
    learned: float = 1.0  # the factor from earlier runs that the prediction contains
    predicted_p90_s: float | None = None
    training: str = ""  # its `training_key`
    calibration: str = ""  # the id of the one that priced it


def _folders(working: Path, kind: str) -> list[Path]:
    return [base / kind for base in (working / "profiles", *_PACKAGED)]


def names(working: Path, kind: str) -> list[str]:
    """Return the names of all studies, platforms or imported calibrations (made from others' records)."""
    ending = "json" if kind == "imported" else "toml"
    return sorted({p.stem for folder in _folders(working, kind) for p in folder.glob(f"*.{ending}")})


def _find(working: Path, kind: str, what: str, name: str) -> Path:
    if name.endswith(".toml"):
        path = Path(name) if Path(name).exists() else working / name
        if not path.is_file():
            raise UsageError(f"no {what} file {name!r}", f"known: {', '.join(names(working, kind))}")
        return path
    for folder in _folders(working, kind):
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise unknown(what, name, names(working, kind), f"or the path of a .toml file with your own {what}")


def find_study(working: Path, name: str) -> Study:
    """Load the study called `name`, or in the TOML file `name`, which may name modules beside it."""
    path = _find(working, "studies", "study", name)
    if name.endswith(".toml"):
        importing.also_from(path.parent)
    return load_study(path)


def find_platform(working: Path, name: str) -> Platform:
    """Load the platform called `name`, or in the TOML file `name`."""
    path = _find(working, "platforms", "platform", name)
    body = store.check_schema(store.load_toml(path, "platform file"), "arzbench/platform", str(path))
    platform: Platform = store.convert({"name": path.stem, **body}, Platform, str(path))
    return platform


def calibrations_folder(working: Path) -> Path:
    """Return the folder of all hosts' calibrations, one folder each."""
    return working / "profiles" / "calibrations"


def save_calibration(working: Path, calibration: Calibration) -> Path:
    """Write the raw record and return its path."""
    path = calibrations_folder(working) / calibration.host.key / f"{calibration.id}.json"
    store.save(path, "arzbench/calibration", calibration)
    return path


def load_calibration(path: Path) -> Calibration:
    """Load the calibration in `path`."""
    return store.load(
        path, "arzbench/calibration", Calibration, "calibration", "make one: arzbench calibrate"
    )


def named_calibration(working: Path, name: str) -> tuple[Path, Calibration]:
    """Load the calibration in the file `name`, imported under this name, or with this id.

    Raises:
        UsageError: there is none; the hint names those there are.
    """
    if name.endswith(".json"):
        path = Path(name) if Path(name).exists() else working / name
        return path, load_calibration(path)
    measured = sorted(calibrations_folder(working).glob("*/*.json"))
    for path in [*(f / f"{name}.json" for f in _folders(working, "imported")), *measured]:
        if path.stem == name and path.is_file():
            return path, load_calibration(path)
    valid = [*names(working, "imported"), *(p.stem for p in measured)]
    raise unknown("calibration", name, valid, "or the path of a .json file that arzbench calibrate wrote")


def age_days(calibration: Calibration, now: datetime.datetime) -> float:
    """Return the days since it was made; infinite where its date cannot be read."""
    try:
        made = datetime.datetime.fromisoformat(calibration.created)
    except ValueError:
        return math.inf
    made = made if made.tzinfo is not None else made.replace(tzinfo=datetime.UTC)
    return (now - made).total_seconds() / 86400


def expired(calibration: Calibration, now: datetime.datetime) -> str:
    """Return why it is too old to use, or an empty text; imported ones do not expire."""
    age = age_days(calibration, now)
    if calibration.imported or age <= EXPIRES_DAYS:
        return ""
    when = f"made {age:.0f} days ago" if math.isfinite(age) else "its date cannot be read"
    return f"expired ({when}; calibrations are trusted for {EXPIRES_DAYS} days)"


def newest_calibration(
    working: Path,
    host: HostInfo,
    study: Study | None,
    *,
    allow_foreign: bool,
    now: datetime.datetime | None = None,
) -> tuple[Path, Calibration]:
    """Load the newest calibration that covers `study` (None: any) on this host.

    With `allow_foreign`, that of another host where this one has none. Those expired at `now` are
    skipped (None: none is).

    Raises:
        UsageError: there is none; the hint says which were skipped and why.
    """
    skipped: list[str] = []
    foreign: tuple[Path, Calibration] | None = None
    too_old = False
    for path in sorted(calibrations_folder(working).glob("*/*.json"), key=_age, reverse=True):
        try:
            calibration = load_calibration(path)
        except UsageError as error:
            skipped.append(error.message)
            continue
        reasons = _unfit(calibration, host, study)
        elsewhere = not _unfit(calibration, calibration.host, study)  # it fits, but for its host
        if old := expired(calibration, now) if now is not None else "":
            too_old = too_old or (elsewhere if allow_foreign else not reasons)
            reasons.append(old)
        elif not reasons:
            return path, calibration
        elif foreign is None and elsewhere:
            foreign = path, calibration
        skipped.append(f"{path.stem}: {'; '.join(reasons)}")
    if allow_foreign and foreign is not None:
        return foreign
    target = "" if study is None else f" of study {study.name!r}"
    again = ""
    if study is not None:
        named = study.name in names(working, "studies")
        again = f" --study {study.name}" if named else " with the same --env, --algo, --study and --set"
        if study.code is not None:
            again = f" {study.code.command}"
    hint = [f"measure it: arzbench calibrate{again}"]
    if study is not None and study.code is not None and not study.code.is_named:
        hint = ["to measure it, put it into a script: arzbench calibrate train.py"]
    if foreign is not None:
        hint.append("or use another machine's with --allow-foreign")
    if too_old:
        hint.append("or use the expired one with --allow-expired")
    raise UsageError(f"no fitting calibration{target} on this host", "\n".join([*skipped[:5], *hint]))


def calibrations(working: Path) -> Iterator[Calibration]:
    """Load what was measured, of all hosts, newest first; those that cannot be read are left out."""
    for path in sorted(calibrations_folder(working).glob("*/*.json"), key=_age, reverse=True):
        with contextlib.suppress(UsageError):
            yield load_calibration(path)


def of_machine(working: Path, host: HostInfo) -> list[Calibration]:
    """Load what was measured on the machine of `host`, newest first, for any device and threads."""
    calibrations = []
    for path in sorted((calibrations_folder(working) / host.key).glob("*.json"), key=_age, reverse=True):
        try:
            calibrations.append(load_calibration(path))
        except UsageError:
            continue
    return [c for c in calibrations if not set(c.host.differs_from(host)) - {"device", "torch_threads"}]


def _age(path: Path) -> tuple[str, float]:
    """Return when it was made by its name: a checkout gives all files the same date."""
    changed = path.stat().st_mtime
    stamp = path.stem.rpartition("-")[2]
    if _STAMP.fullmatch(stamp) is None:
        stamp = f"{datetime.datetime.fromtimestamp(changed, datetime.UTC):%Y%m%dT%H%M%SZ}"
    return stamp, changed


def _unfit(calibration: Calibration, host: HostInfo, study: Study | None) -> list[str]:
    reasons = []
    if study is not None:
        samples = {t.name: calibration.find(t.workload_digest()) for t in study.trainings}
        if lacking := [name for name, found in samples.items() if found is None]:
            measured = calibration.study.code
            asked = study.code
            if measured and asked and measured != asked and measured.script == asked.script:
                reasons.append(f"it is of {measured.command}")
            else:
                reasons.append(f"another workload than {', '.join(lacking)}")
        sources = {file: was for found in samples.values() if found for file, was in found.sources.items()}
        if changed := changed_sources(sources):
            reasons.append(f"{', '.join(dict.fromkeys(changed))} changed since")
    differing = calibration.host.differs_from(host)
    if study is None:  # device and threads are a study's choice, and any study will do
        differing = [n for n in differing if n not in ("device", "torch_threads")]
    if differing:
        values = ", ".join(f"{n} {getattr(calibration.host, n)!r}" for n in differing)
        reasons.append(f"another host ({values})")
    return reasons


def predictions_path(working: Path, host: HostInfo) -> Path:
    """Return the file that records this host's finished runs."""
    return calibrations_folder(working) / host.key / "predictions.jsonl"


def record_prediction(working: Path, host: HostInfo, prediction: Prediction) -> None:
    """Append what a finished run took beside what was predicted."""
    store.append_line(predictions_path(working, host), prediction)


def past_runs(working: Path, host: HostInfo) -> list[PastRun]:
    """Load this host's finished runs, oldest first."""
    path = predictions_path(working, host)
    if not path.exists():
        return []
    return [
        PastRun(
            ratio=p.actual_s / p.predicted_p50_s * p.learned,
            training=p.training or p.run_id,  # one without a training is like no other
            calibration=p.calibration or p.run_id,
            within_p90=None if p.predicted_p90_s is None else p.actual_s <= p.predicted_p90_s,
        )
        for p in store.read_lines(path, Prediction)
        if p.predicted_p50_s > 0 and p.actual_s > 0
    ]
