#!/usr/bin/env python3
"""Does a run end before its quota, and does it use it? Real runs, beside a busy neighbour.

Starts the real `arzbench run` with more work than fits and quotas of 10 to 60 s, more of them short: random
trainings (DQN and PPO, CartPole and the traffic light; evaluations, checkpoints, rollouts, buffers), every
third with a calibration, the others learning prices as they go. `--jobs` runs at a time and a process that
never rests share the machine. Each is measured from outside, from before its start to its end; its newest
checkpoint must be sound and hold the step at which it says it stopped. 50 runs take about a quarter of an
hour; cases are kept as they are made, the same command goes on where it was.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import evidence  # noqa: E402
import victims  # noqa: E402

ARZBENCH = [sys.executable, "-m", "arzbench"]
LEAST_S, MOST_S = 10.0, 60.0
SHARE = 0.9


def study(name: str, dice: random.Random) -> str:
    """A random training as a study file; it would take hours."""
    env, algo = name.split("-")
    drawn = {
        "dqn": {"buffer_size": [1000, 20000, 100000], "learning_starts": [100, 2000], "train_freq": [1, 4]},
        "ppo": {"n_steps": [64, 512, 2048], "batch_size": [64], "n_epochs": [4, 10]},
    }[algo]
    base = victims.STUDIES[f"{env}-{algo}"]
    values = {
        **base,
        "n_envs": dice.choice([1, 4]) if algo == "ppo" else 1,
        "steps": 10_000_000,
        "hyperparameters": "\n".join(f"{key} = {dice.choice(some)}" for key, some in drawn.items()),
        "eval_freq": dice.choice([0, 500, 2000]),
        "checkpoint_freq": dice.choice([0, 200, 1000]),
    }
    return victims.TOML.format(name=name, **values)


def quotas(times: int, dice: random.Random) -> list[float]:
    """From least to most, denser where short, in random order."""
    found = [LEAST_S + (MOST_S - LEAST_S) * (i / max(1, times - 1)) ** 1.6 for i in range(times)]
    dice.shuffle(found)
    return [round(q, 1) for q in found]


def once(work: Path, number: int, quota_s: float, seed: int) -> dict[str, Any]:
    """One run: wall seconds, and whether what it says is what is on the disk."""
    dice = random.Random(f"{seed}/deadlines/{number}")
    calibrated = number % 3 == 0
    names = sorted(victims.TRAINED)
    name = names[number // 3 % len(names)] if calibrated else dice.choice(names)
    folder = work / str(number)
    file = work / f"{name}.toml" if calibrated else folder / "study.toml"
    folder.mkdir()
    if calibrated:
        (folder / "profiles").symlink_to(work / "profiles")
    else:
        file.write_text(study(name, dice))
    words = ["--study", str(file), "--timesteps", "10000000", "--quota", f"{quota_s}s", "--dir", str(folder)]
    began = time.monotonic()
    done = subprocess.run([*ARZBENCH, "run", *words], capture_output=True, text=True)
    wall_s = time.monotonic() - began
    kept: dict[str, Any] = {
        "case": str(number),
        "study": name,
        "calibrated": calibrated,
        "quota_s": quota_s,
        "wall_s": round(wall_s, 3),
        "share": round(wall_s / quota_s, 4),
        "code": done.returncode,
    }
    job = victims.Job(folder, file, True)
    if not job.ledger.exists():  # the start took all of the quota: nothing was begun
        refused = done.returncode == 3
        return {**kept, "prices": False, "sound": refused, "steps": None, "said": done.stderr.strip()[-200:]}
    look, told = job.look(), victims.ledger.read(job.ledger)
    stop = told.stop
    agreed = done.returncode == 4 and stop is not None and stop.data["checkpoint"] == look.newest
    return {
        **kept,
        "prices": bool(told.sessions) and told.sessions[-1].data["plan"] is not None,
        "sound": agreed and not look.lost and not look.unreadable,
        "steps": None if stop is None else sum(stop.data["num_timesteps"]),
        "said": "" if stop is None else stop.data["detail"],
    }


def calibrate(work: Path) -> None:
    """Prices of the four trainings, as every third run has them."""
    for name in victims.TRAINED:
        file = work / f"{name}.toml"
        file.write_text(study(name, random.Random(name)))
        words = ["--study", str(file), "--repetitions", "2", "--dir", str(work)]
        subprocess.run([*ARZBENCH, "calibrate", *words], check=True, stdout=subprocess.DEVNULL)


def counts(cases: list[dict[str, Any]]) -> dict[str, Any]:
    late = [c for c in cases if c["wall_s"] > c["quota_s"]]
    shares = [c["share"] for c in cases]
    told: dict[str, Any] = {
        "runs": len(cases),
        "ended after the quota": len(late),
        "stopped with a sound newest checkpoint where they say": sum(c["sound"] for c in cases),
        "share of the quota used, median": f"{statistics.median(shares):.1%}",
        "least and most": f"{min(shares):.1%}, {max(shares):.1%}",
        "least time left": f"{min(c['quota_s'] - c['wall_s'] for c in cases):.2f} s",
    }
    for low, high in ((10, 15), (15, 30), (30, 61)):
        part = [c["share"] for c in cases if low <= c["quota_s"] < high]
        if part:
            told[f"quotas of {low} to {min(high, 60)} s: number, median share"] = (
                f"{len(part)}, {statistics.median(part):.1%}"
            )
    for prices in (True, False):
        part = [c["share"] for c in cases if c["prices"] is prices]
        if part:
            kind = "calibrated" if prices else "not calibrated"
            told[f"{kind}: number, median share"] = f"{len(part)}, {statistics.median(part):.1%}"
    return told


def line(case: dict[str, Any]) -> str:
    verdict = "LATE" if case["wall_s"] > case["quota_s"] else "ok" if case["sound"] else "NOT SOUND"
    return (
        f"{case['study']:13} {case['wall_s']:6.2f} s of {case['quota_s']:4.1f} s {case['share']:6.1%}  "
        f"{case['steps'] or 0:8,} steps  {verdict}  {case['said']}"
    )


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=2, help="at a time, each the other's neighbour")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: reports/deadlines-<host>-<date>")
    options = parser.parse_args()
    given = evidence.circumstances(times=options.times, jobs=options.jobs, seed=options.seed)
    out = options.out or evidence.folder("deadlines")
    cases = evidence.Cases(out, given)
    times = quotas(options.times, random.Random(options.seed))
    with tempfile.TemporaryDirectory(prefix="deadlines-") as folder:
        work = Path(folder)
        calibrate(work)
        todo = ((work, i, q, options.seed) for i, q in enumerate(times) if str(i) not in cases.done)
        found = evidence.beside_a_busy_process(once, todo, options.jobs, cases, line)
    good = len(found) == options.times and all(c["sound"] and c["wall_s"] <= c["quota_s"] for c in found)
    good = good and statistics.median(c["share"] for c in found) >= SHARE
    return evidence.conclude(out, "Runs with a quota beside a busy neighbour", given, counts(found), good)


if __name__ == "__main__":
    sys.exit(main())
