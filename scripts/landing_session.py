#!/usr/bin/env python3
"""Does a user's own loop end before its quota, and does it use it? Real processes, beside a busy neighbour.

Each run is a process of its own that trains a net under `arzbench.Session`, with more units than fit and a
quota of 10 to 30 s; every second one with torch, at 20 s or more, since importing that may take 10 s on a
busy machine. Units take 20 ms to 1 s (even, with a long tail, every fifth longer, slower and slower), saves
write 10 kB to 30 MB. `--jobs` runs at a time and a process that never rests share the machine. Each is
measured from outside, from before its start to its end; its newest state must be sound and hold the unit at
which it says it stopped, and there must be none if it did nothing. 20 runs take about four minutes, two at a
time; cases are kept as they are made, the same command goes on where it was.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import evidence  # noqa: E402

import arzbench  # noqa: E402
from arzbench.saves.folders import StateFolders  # noqa: E402

LEAST_S, LEAST_TORCH_S, MOST_S = 10.0, 20.0, 30.0
SHAPES: dict[str, Callable[[random.Random, int], float]] = {
    "even": lambda dice, unit: dice.uniform(0.5, 1.5),
    "long tail": lambda dice, unit: dice.lognormvariate(0, 0.4),
    "fifth longer": lambda dice, unit: 3.0 if unit % 5 == 4 else 1.0,
    "slower and slower": lambda dice, unit: 0.5 + 0.02 * unit,
}


# ---------------------------------------------------------------- one run, in a process of its own


Step = Callable[[], None]
Save = Callable[[Path], None]


def torch_net() -> tuple[Step, Save]:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(32, 128), torch.nn.Tanh(), torch.nn.Linear(128, 1))
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        loss = model(torch.rand(64, 32)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, lambda into: torch.save(model.state_dict(), into / "model.pt")


def numpy_net() -> tuple[Step, Save]:
    import numpy as np

    draw = np.random.default_rng(1)
    first, last = draw.normal(size=(32, 128)), draw.normal(size=(128, 1))

    def step() -> None:
        inputs = draw.random((64, 32))
        hidden = np.tanh(inputs @ first)
        error = hidden @ last / 64
        back = (error @ last.T) * (1 - hidden**2)
        np.subtract(last, 1e-3 * hidden.T @ error, out=last)
        np.subtract(first, 1e-3 * inputs.T @ back, out=first)

    return step, lambda into: np.savez(into / "model.npz", first=first, last=last)


def session(quota_s: float, folder: Path, seed: int) -> None:
    """Train until the session ends; tells how long it took to begin, and the units done."""
    step, save_model = torch_net() if seed % 2 else numpy_net()
    dice = random.Random(seed)
    shape, usual_s = SHAPES[dice.choice(sorted(SHAPES))], 0.02 * 50 ** dice.random()
    size = int(1e4 * 3000 ** dice.random())

    def train(steps: float) -> None:
        for _ in range(max(1, round(steps))):
            step()

    train(10)
    began = time.perf_counter()
    train(50)
    steps_per_s = 50 / (time.perf_counter() - began)

    def save(into: Path) -> None:
        save_model(into)
        (into / "buffer.bin").write_bytes(os.urandom(size))
        (into / "done").write_text(str(done))

    done = 0
    with arzbench.Session(quota_s, folder=folder, save=save, restore=print, save_every=3) as landed:
        print(quota_s - (landed.left_s or 0.0))
        for unit in landed.units("unit", total=10_000_000):
            train(steps_per_s * usual_s * shape(dice, unit))
            done += 1
    print(done)
    landed.leave()


# ---------------------------------------------------------------- all of them


def once(work: Path, number: int, quota_s: float, seed: int) -> dict[str, Any]:
    """One run: wall seconds, and whether what it says is what is on the disk."""
    folder = work / str(number)
    words = [str(quota_s), str(folder), str(seed * 1000 + number)]
    began = time.monotonic()
    done = subprocess.run([sys.executable, __file__, "--loop", *words], capture_output=True, text=True)
    wall_s = time.monotonic() - began
    found = StateFolders(folder).newest() if folder.is_dir() else None
    start_s, *told = done.stdout.split()
    if found is None:  # the start took all of the quota
        sound = told == ["0"]
    else:
        sound = told == [(found[0] / "done").read_text()] == [str(found[1].loops[0].done)]
    stop = [line for line in done.stderr.splitlines() if "more to do" in line]
    load = os.getloadavg()[0]
    return {
        "case": str(number),
        "torch": bool(number % 2),
        "quota_s": quota_s,
        "wall_s": round(wall_s, 3),
        "share": round(wall_s / quota_s, 4),
        "start_s": round(float(start_s), 2),
        "load": round(load, 1),
        "code": int(done.returncode),
        "units": int(told[0]) if told else None,
        "sound": sound and done.returncode == 4,
        "said": stop[-1].removeprefix("arzbench: ") if stop else done.stderr.strip()[-300:],
    }


def counts(cases: list[dict[str, Any]]) -> dict[str, Any]:
    shares = [c["share"] for c in cases]
    return {
        "runs": len(cases),
        "ended after the quota": sum(c["wall_s"] > c["quota_s"] for c in cases),
        "of them, started after the quota": sum(c["start_s"] > c["quota_s"] for c in cases),
        "stopped with a sound newest state where they say": sum(c["sound"] for c in cases),
        "share of the quota used, median": f"{statistics.median(shares):.1%}",
        "least and most": f"{min(shares):.1%}, {max(shares):.1%}",
        "from the start to the session, most": f"{max(c['start_s'] for c in cases)} s",
        "load of the machine, least and most": f"{min(c['load'] for c in cases)}, "
        f"{max(c['load'] for c in cases)} on {os.cpu_count()} cores",
        "least time left": f"{min(c['quota_s'] - c['wall_s'] for c in cases):.2f} s",
        "units done, least and most": f"{min(c['units'] for c in cases)}, {max(c['units'] for c in cases)}",
    }


def line(case: dict[str, Any]) -> str:
    verdict = "LATE" if case["wall_s"] > case["quota_s"] else "ok" if case["sound"] else "NOT SOUND"
    return (
        f"{case['wall_s']:6.2f} s of {case['quota_s']:4.1f} s {case['share']:6.1%}  "
        f"{case['units'] or 0:5} units  {verdict}  {case['said']}"
    )


def to_do(cases: evidence.Cases, times: int, seed: int) -> Iterator[tuple[int, float]]:
    dice = random.Random(seed)
    for number in range(times):
        quota_s = round(dice.uniform(LEAST_TORCH_S if number % 2 else LEAST_S, MOST_S), 1)
        if str(number) not in cases.done:
            yield number, quota_s


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2, help="at a time, each the other's neighbour")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="default: reports/landing-session-<host>-<date>")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("times", "jobs", "seed")}
    given = evidence.circumstances(**settings)
    out = options.out or evidence.folder("landing-session")
    cases = evidence.Cases(out, given)
    with tempfile.TemporaryDirectory(prefix="landing-") as folder:
        work = Path(folder)
        todo = ((work, i, q, options.seed) for i, q in to_do(cases, options.times, options.seed))
        found = evidence.beside_a_busy_process(once, todo, options.jobs, cases, line)
    good = len(found) == options.times and all(c["sound"] and c["wall_s"] <= c["quota_s"] for c in found)
    title = "Loops under arzbench.Session beside a busy neighbour"
    return evidence.conclude(out, title, given, counts(found), good)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--loop"]:
        session(float(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    sys.exit(main())
