#!/usr/bin/env python3
"""How much faster `arzbench run` is than plain Stable-Baselines3, with the same weights at the end.

    speed.py --pairs 5 [--only incident] [--set fast=false] [--out FOLDER]

Both sides are whole processes, from the start of the interpreter to its end, one after the other; who comes
first alternates from pair to pair. The plain side is speed_plain.py, as a user would write it; the other one
is `arzbench run`, with its guard, ledger and checkpoints. torch has one thread on both.
The weights must be the same, bit for bit. Where there are evaluations the plain side is run once more, not
timed, with the seeds and the moments of arzbench's: the returns must be the same, too.
The interval is a bootstrap of the median. Cases are kept as they are made: the same command goes on.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evidence
import numpy as np
import torch

PLAIN = Path(__file__).with_name("speed_plain.py")
STUDIES = evidence.ROOT / "profiles" / "studies"


@dataclass(frozen=True, kw_only=True)
class Case:
    study: str  # TOML, but for the number of STEPS
    plain: str  # a function of speed_plain.py
    steps: int
    target: float  # plain over arzbench, at least
    one_core: bool = False
    evaluated: bool = False


def study(env: str, algo: str, **table: Any) -> str:
    table = {"schema": "arzbench/study", "version": 1, "name": "speed", "env": env, "algo": algo, **table}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join([*lines, "total_timesteps = STEPS", ""])


#: the incident's first training alone
INCIDENT = "[[training]]".join((STUDIES / "incident.toml").read_text().split("[[training]]")[:2])
INCIDENT = INCIDENT.replace("total_timesteps = 24_000", "total_timesteps = STEPS")
CASES = {
    "incident": Case(study=INCIDENT, plain="incident", steps=24_000, target=1.9, evaluated=True),
    "incident-one-core": Case(
        study=INCIDENT, plain="incident", steps=24_000, target=1.4, one_core=True, evaluated=True
    ),
    "ppo-16": Case(
        study=study("arzbench/TrafficLight-v0", "ppo", n_envs=16) + "hyperparameters.n_steps = 128\n",
        plain="ppo_16",
        steps=20_480,
        target=1.5,
    ),
    "sac-pendulum": Case(study=study("Pendulum-v1", "sac"), plain="sac_pendulum", steps=3_000, target=1.3),
    "td3-pendulum": Case(study=study("Pendulum-v1", "td3"), plain="td3_pendulum", steps=3_000, target=1.3),
}


def whole_process(case: Case, *command: str) -> float:
    """Seconds of wall time of a Python process."""
    pinned = ["taskset", "-c", "0"] if case.one_core else []
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join(filter(None, (str(evidence.ROOT), os.environ.get("PYTHONPATH"))))
    began = time.perf_counter()
    done = subprocess.run(
        [*pinned, sys.executable, *command],
        env={**os.environ, **threads, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    took = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"error: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return took


def weights(path: Path) -> str:
    """A digest of all weights in a model of the library."""
    with zipfile.ZipFile(path) as archive:
        state = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
    found = hashlib.sha256()
    for name, tensor in state.items():
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()[:16]


def plain(case: Case, steps: int, folder: Path, *options: str) -> tuple[float, str]:
    folder.mkdir()
    took = whole_process(case, str(PLAIN), case.plain, str(steps), str(folder), *options)
    return took, weights(folder / "model.zip")


def plain_returns(case: Case, steps: int, folder: Path) -> tuple[str, list[list[float]]]:
    _, digest = plain(case, steps, folder, "--returns")
    return digest, np.load(folder / "evaluations.npz")["results"].tolist()


def arzbench(case: Case, steps: int, folder: Path, options: list[str]) -> tuple[float, str, Any]:
    """Seconds, weights, and the returns of each evaluation."""
    folder.mkdir()
    (folder / "study.toml").write_text(case.study.replace("STEPS", str(steps)))
    own = [word for option in options for word in ("--set", option)]
    what = ("--study", str(folder / "study.toml"), "--timesteps", str(steps), "--dir", str(folder))
    took = whole_process(case, "-m", "arzbench", "run", *what, *own)
    (ledger,) = folder.glob("reports/*/ledger.jsonl")
    told = [json.loads(line)["data"] for line in ledger.read_text().splitlines()]
    found = {d["num_timesteps"]: d["returns"] for d in told if d.get("evaluation") == "evaluation"}
    (model,) = folder.glob("checkpoints/*/*.zip")
    return took, weights(model), [found[step] for step in sorted(found)]


def pair(name: str, number: int, steps: int, options: list[str]) -> dict[str, Any]:
    case, found = CASES[name], {"case": f"{name} {number}"}
    place = Path(tempfile.mkdtemp(prefix="speed-"))
    try:
        for side in ("plain", "arzbench") if number % 2 else ("arzbench", "plain"):
            if side == "plain":
                found["plain_s"], plain_weights = plain(case, steps, place / "plain")
            else:
                found["arzbench_s"], own_weights, returns = arzbench(case, steps, place / "own", options)
        found["same weights"] = plain_weights == own_weights
        if case.evaluated and number == 1:
            digest, expected = plain_returns(case, steps, place / "returns")
            found["same returns"] = digest == own_weights and rounded(returns) == rounded(expected)
    finally:
        shutil.rmtree(place)
    return {**found, "weights": own_weights}


def rounded(returns: list[list[float]]) -> list[list[float]]:
    """To the six digits that a Monitor keeps."""
    return [[round(one, 6) for one in evaluation] for evaluation in returns]


def median_and_interval(ratios: list[float]) -> tuple[float, float, float]:
    """The median and its 95 % bootstrap interval."""
    dice = np.random.default_rng(0)
    drawn = np.median(dice.choice(ratios, (5000, len(ratios))), axis=1)
    return float(np.median(ratios)), *map(float, np.quantile(drawn, [0.025, 0.975]))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=CASES, action="append", help="one case; may be repeated")
    parser.add_argument("--steps", type=int, help="training steps of every case, in place of its own")
    parser.add_argument(
        "--set", action="append", default=[], help="as of `arzbench run`", metavar="KEY=VALUE"
    )
    parser.add_argument("--out", type=Path, help="default: reports/speed-<host>-<date>")
    options = parser.parse_args()
    names = options.only or list(CASES)
    given = evidence.circumstances(
        "cpu", pairs=options.pairs, cases=names, steps=options.steps, set=options.set
    )
    out = options.out or evidence.folder("speed")
    cases = evidence.Cases(out, given)
    counts: dict[str, Any] = {}
    good = True
    for name in names:
        steps = options.steps or CASES[name].steps
        for number in range(1, options.pairs + 1):
            if f"{name} {number}" not in cases.done:
                cases.add(found := pair(name, number, steps, options.set))
                print(json.dumps(found), flush=True)
        pairs = [cases.done[f"{name} {number}"] for number in range(1, options.pairs + 1)]
        middle, low, high = median_and_interval([p["plain_s"] / p["arzbench_s"] for p in pairs])
        seconds = [float(np.median([p[f"{side}_s"] for p in pairs])) for side in ("plain", "arzbench")]
        same = all(p["same weights"] and p.get("same returns", True) for p in pairs)
        good = good and same and middle >= CASES[name].target
        what = "weights and returns" if CASES[name].evaluated else "weights"
        counts[name] = (
            f"{middle:.2f} ({low:.2f}-{high:.2f}) of {CASES[name].target}: {seconds[0]:.1f} s and "
            f"{seconds[1]:.1f} s, {what} {'the same' if same else 'NOT the same'}"
        )
    title = "Plain Stable-Baselines3 over `arzbench run`, whole processes"
    return evidence.conclude(out, title, given, counts, good)


if __name__ == "__main__":
    sys.exit(main())
