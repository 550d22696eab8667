#!/usr/bin/env python3
"""Does `BudgetCallback` end a script before its quota? Real runs, beside a busy neighbour.

Each is a script of its own that calls `model.learn` with more timesteps than fit: PPO, A2C, DQN, SAC or TQC,
some with an EvalCallback before or after it, some with a `save_path`, at random quotas of 10 to 30 s.
`--jobs` at a time and a process that never rests share the machine. Each is measured from outside, from
before its start to its end; a saved model must hold the timestep at which the script says it ended. Cases
are kept as they are made, the same command goes on where it was.
"""

import argparse
import importlib.metadata
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import evidence  # noqa: E402

LEAST_S, MOST_S = 10.0, 30.0
SHARE = 0.75
MODELS = {
    "PPO": ("stable_baselines3", "CartPole-v1", {"n_steps": [128, 2048], "n_epochs": [4, 10]}),
    "A2C": ("stable_baselines3", "CartPole-v1", {"n_steps": [5, 50]}),
    "DQN": ("stable_baselines3", "CartPole-v1", {"learning_starts": [100, 5000], "train_freq": [1, 4]}),
    "SAC": ("stable_baselines3", "Pendulum-v1", {"train_freq": [1, 64, (1, "episode")]}),
    "TQC": ("sb3_contrib", "Pendulum-v1", {"gradient_steps": [1, -1], "train_freq": [1, 8]}),
}
SCRIPT = """
import json
import gymnasium as gym
import torch
from stable_baselines3.common.callbacks import EvalCallback
from {package} import {algorithm}
from arzbench import BudgetCallback
from arzbench.clock import SystemClock, process_start

torch.set_num_threads(1)
budget = BudgetCallback("{quota_s}s", save_path={save_path!r})
evaluation = EvalCallback(gym.make("{env}"), eval_freq={eval_freq}, n_eval_episodes=3, verbose=0, warn=False)
model = {algorithm}("MlpPolicy", "{env}", seed={seed}, device="cpu", **{options})
clock = SystemClock()
start_s = clock.now() - process_start(clock)
model.learn(100_000_000, callback={callbacks})
print(json.dumps([budget.stopped, model.num_timesteps, round(start_s, 2)]))
"""


def script(number: int, quota_s: float, seed: int, folder: Path) -> tuple[str, dict[str, Any]]:
    """A training script, and what was drawn for it."""
    dice = random.Random(f"{seed}/landing-budget/{number}")
    algorithm = list(MODELS)[number % len(MODELS)]  # each as often
    package, env, drawn = MODELS[algorithm]
    evaluated = dice.choice(["no", "before", "after"])
    values = {
        "algorithm": algorithm,
        "options": {key: dice.choice(some) for key, some in drawn.items()},
        "evaluated": evaluated,
        "eval_freq": dice.choice([500, 3000]),
        "saved": dice.random() < 0.6,
        "quota_s": quota_s,
    }
    order = {"no": "budget", "before": "[evaluation, budget]", "after": "[budget, evaluation]"}
    save_path = str(folder / "model") if values["saved"] else None
    given = {"package": package, "env": env, "callbacks": order[evaluated], "save_path": save_path}
    return SCRIPT.format(seed=number, **given, **values), values


def once(work: Path, number: int, quota_s: float, seed: int) -> dict[str, Any]:
    """One run: wall seconds, and whether what it says is what was saved."""
    folder = work / str(number)
    folder.mkdir()
    text, values = script(number, quota_s, seed, folder)
    file = folder / "train.py"
    file.write_text(text)
    began = time.monotonic()
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True)
    wall_s = time.monotonic() - began
    told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else [None] * 3
    stopped, steps, start_s = told
    sound = stopped == "deadline"
    if sound and values["saved"]:
        with zipfile.ZipFile(folder / "model.zip") as saved:
            sound = json.loads(saved.read("data"))["num_timesteps"] == steps
    return {
        "case": str(number),
        **values,
        "wall_s": round(wall_s, 3),
        "start_s": start_s,  # until `learn`: too late is nothing that a callback can mend
        "share": round(wall_s / quota_s, 4),
        "code": done.returncode,
        "sound": sound,
        "steps": steps,
        "said": (done.stderr.splitlines() or [""])[-1][-300:],
    }


def counts(cases: list[dict[str, Any]]) -> dict[str, Any]:
    shares = [c["share"] for c in cases]
    told: dict[str, Any] = {
        "runs": len(cases),
        "ended after the quota": sum(c["wall_s"] > c["quota_s"] for c in cases),
        "of these, the quota was over before learn began": sum(
            c["wall_s"] > c["quota_s"] and (c["start_s"] or 0.0) > c["quota_s"] for c in cases
        ),
        "ended by the callback, the saved model where they say": sum(c["sound"] for c in cases),
        "with a saved model": sum(c["saved"] for c in cases),
        "with an EvalCallback": sum(c["evaluated"] != "no" for c in cases),
        "share of the quota used, median": f"{statistics.median(shares):.1%}",
        "least and most": f"{min(shares):.1%}, {max(shares):.1%}",
        "least time left": f"{min(c['quota_s'] - c['wall_s'] for c in cases):.2f} s",
    }
    for algorithm in MODELS:
        part = [c["share"] for c in cases if c["algorithm"] == algorithm]
        if part:
            told[f"{algorithm}: number, median share"] = f"{len(part)}, {statistics.median(part):.1%}"
    return told


def line(case: dict[str, Any]) -> str:
    verdict = "LATE" if case["wall_s"] > case["quota_s"] else "ok" if case["sound"] else "NOT SOUND"
    return (
        f"{case['algorithm']:4} {case['wall_s']:6.2f} s of {case['quota_s']:4.1f} s {case['share']:6.1%}  "
        f"{case['steps'] or 0:8,} steps  {verdict}  {case['said']}"
    )


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="at a time, each the other's neighbour")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: reports/landing-budget-<host>-<date>")
    options = parser.parse_args()
    given = evidence.circumstances(times=options.times, jobs=options.jobs, seed=options.seed)
    given["versions"]["sb3_contrib"] = importlib.metadata.version("sb3_contrib")
    out = options.out or evidence.folder("landing-budget")
    cases = evidence.Cases(out, given)
    dice = random.Random(options.seed)
    quotas = [round(dice.uniform(LEAST_S, MOST_S), 1) for _ in range(options.times)]
    with tempfile.TemporaryDirectory(prefix="landing-budget-") as folder:
        work = Path(folder)
        todo = ((work, i, q, options.seed) for i, q in enumerate(quotas) if str(i) not in cases.done)
        found = evidence.beside_a_busy_process(once, todo, options.jobs, cases, line)
    good = len(found) == options.times and all(c["sound"] and c["wall_s"] <= c["quota_s"] for c in found)
    good = good and statistics.median(c["share"] for c in found) >= SHARE
    title = "Scripts with BudgetCallback beside a busy neighbour"
    return evidence.conclude(out, title, given, counts(found), good)


if __name__ == "__main__":
    sys.exit(main())
