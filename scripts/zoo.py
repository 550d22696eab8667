#!/usr/bin/env python3
"""Every tuned configuration of RL Baselines3 Zoo: imported, and calibrated where its env is installed.

--hyperparams is the folder of its YAML files, one per algorithm. Each entry is imported as a study, written
and read again. Where its env can be made here, `arzbench calibrate --steps 100` measures it in a folder of
its own. "default" is tried on CartPole-v1 or Pendulum-v1, and an env that can no longer be made under its
newest version, which is said. Under a minute for each that is calibrated; cases are kept as they are made,
the same command goes on where it was.
"""

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import evidence  # noqa: E402
import msgspec  # noqa: E402
from gymnasium.envs.registration import find_highest_version, get_env_id, parse_env_id  # noqa: E402

from arzbench.errors import UsageError  # noqa: E402
from arzbench.rl_zoo import as_toml, import_zoo, read_zoo  # noqa: E402
from arzbench.sb3.building import make_env  # noqa: E402
from arzbench.sb3.plugins import register_plugins  # noqa: E402
from arzbench.study import ALGORITHMS, ALIASES, TrainConfig  # noqa: E402
from arzbench.study_file import make_study  # noqa: E402

#: the files whose entries the project promises to import, all of them
PROMISED = ("ppo", "sac", "dqn", "td3", "a2c")


def tried_on(entry: str, algo: str) -> str:
    """The env of an entry; those for several envs are tried on one."""
    boxes = ALGORITHMS[ALIASES.get(algo, algo)].ACTIONS == ("Box",)
    return {"default": "Pendulum-v1" if boxes else "CartPole-v1", "atari": "ALE/Pong-v5"}.get(entry, entry)


def why_not(config: TrainConfig) -> str:
    """Why the env cannot be made here; empty if it can."""
    try:
        make_env(config).close()
    except UsageError as error:
        message = error.message.partition("\n")[0]
        return f"{message}: no package here registers it" if "unknown env" in message else message
    return ""


def newest(env: str) -> str:
    """The env's id with the highest version that is registered; as it is if there is none."""
    namespace, name, _ = parse_env_id(env)
    highest = find_highest_version(namespace, name)
    return env if highest is None else get_env_id(namespace, name, highest)


def installed(*names: str) -> dict[str, str]:
    """The versions of those packages that are here."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def calibrate(study: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        Path(folder, "study.toml").write_text(study)
        where = f"--study {folder}/study.toml --dir {folder}"
        command = f"calibrate {where} --steps 100 --repetitions 2 --max-time 10s"
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "arzbench", *command.split()],
            cwd=evidence.ROOT, capture_output=True, text=True,
        )  # fmt: skip
    told = "" if done.returncode == 0 else done.stderr[-400:]
    return {"calibrated": done.returncode == 0, "seconds": round(time.monotonic() - began, 1), "told": told}


def case(path: Path, entry: str) -> dict[str, Any]:
    env = tried_on(entry, path.stem)
    found: dict[str, Any] = {"case": f"{path.stem}/{entry}", "env": env, "imported": False}
    try:
        imported = import_zoo(path, entry)
    except UsageError as error:
        return {**found, "told": f"{error.message}; {error.hint}"}
    imported.table["env"] = env
    text = as_toml(imported, "imported")
    (config,) = make_study(tomllib.loads(text), "imported").trainings
    found |= {"imported": True, "left out": list(imported.notes), "not here": why_not(config)}
    other = newest(env)
    if found["not here"] and other != env and not why_not(msgspec.structs.replace(config, env=other)):
        imported.table["env"] = other
        text = as_toml(imported, "imported")
        found |= {"not here": "", "env": other, "in place of": env}
    return found if found["not here"] else {**found, **calibrate(text)}


def refused(case: dict[str, Any]) -> bool:
    """Whether the library does not take what the entry says: in ppo_lstm/default a policy without an LSTM."""
    return "cannot be made as asked" in case.get("told", "")


def counts(cases: list[dict[str, Any]], asked: int) -> dict[str, Any]:
    def of(some: list[dict[str, Any]], key: str) -> str:
        return f"{sum(bool(c.get(key)) for c in some)} of {len(some)}"

    promised = [c for c in cases if c["case"].partition("/")[0] in PROMISED]
    here = [c for c in cases if c["imported"] and not c["not here"]]
    missing = collections.Counter(c["not here"].rpartition(": ")[2] for c in cases if c.get("not here"))
    table = {
        "entries tried": f"{len(cases)} of {asked}",
        f"imported of {', '.join(PROMISED)}": of(promised, "imported"),
        "imported of all": of(cases, "imported"),
        "env can be made here": f"{len(here)} of {len(cases)}",
        "of these, calibrated": of(here, "calibrated"),
        "refused by the library itself": ", ".join(c["case"] for c in here if refused(c)) or "none",
        "tried under a newer version of the env": ", ".join(
            f"{c['case']} as {c['env']}" for c in cases if "in place of" in c
        )
        or "none",
        "seconds of the slowest": max((c["seconds"] for c in here), default=0),
    }
    return table | {f"not here: {why}": n for why, n in missing.most_common(8)}


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--hyperparams", type=Path, required=True, help="folder of RL Zoo's YAML files")
    parser.add_argument("--algos", help="files to read, separated by commas; default: all that can be")
    parser.add_argument("--envs", default="", help="entries in whose name this regular expression is found")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no entry after that long")
    parser.add_argument("--out", type=Path, help="default: reports/zoo-<host>-<date>")
    options = parser.parse_args()
    files = sorted(p for p in options.hyperparams.glob("*.yml") if p.stem in {*ALGORITHMS, *ALIASES})
    if options.algos:
        files = [p for p in files if p.stem in options.algos.split(",")]
    register_plugins()
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of envs that have a newer version
    given = evidence.circumstances(
        "cpu", files=[p.name for p in files], envs=options.envs, **installed("sb3_contrib", "mujoco", "Box2D")
    )
    out = options.out or evidence.folder("zoo")
    cases = evidence.Cases(out, given)
    began = time.monotonic()
    asked = [(path, entry) for path in files for entry in read_zoo(path) if re.search(options.envs, entry)]
    for path, entry in asked:
        in_time = time.monotonic() - began < 60 * options.minutes
        if in_time and f"{path.stem}/{entry}" not in cases.done:
            cases.add(found := case(path, entry))
            what = found.get("not here") or found.get("told") or f"calibrated in {found['seconds']} s"
            print(f"{found['case']:50} {what[:100]}", flush=True)
    found_all = list(cases.done.values())
    good = all(c["imported"] and (c["not here"] or c["calibrated"] or refused(c)) for c in found_all)
    return evidence.conclude(out, "Configurations of RL Zoo", given, counts(found_all, len(asked)), good)


if __name__ == "__main__":
    sys.exit(main())
