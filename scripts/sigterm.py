#!/usr/bin/env python3
"""From SIGTERM to the end of the process with a sound newest checkpoint: how long, at any moment?

Starts the real `arzbench run` (DQN and PPO, CartPole and the traffic light), sends SIGTERM at a random moment
between the start of the process and its end, and measures from the signal to the end of the process. Then
every byte of the newest checkpoint is read; it must be there once the ledger says that a save returned, and
hold the step at which the session says it stopped. Every second time the run has a checkpoint to go on from.
About 20 minutes for 100; cases are kept as they are made, the same command goes on where it was.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import evidence  # noqa: E402
from victims import TRAINED, Job, Process, ledger, serial, write_studies  # noqa: E402

LIMIT_S = 1.0


def stage(job: Job, entries: int) -> str:
    """What the run was doing, by what its session has told."""
    told = ledger.read(job.ledger).entries[entries:] if job.ledger.exists() else []
    if not told:
        return "start"
    last = told[-1]
    if last.kind == "stop":
        return "end"
    done = {e.data["evaluation"] for e in told if e.kind == "evaluation"}
    if not any("env step" in e.phases or "eval step" in e.phases or "baseline" in e.phases for e in told):
        return "set-up or first steps"
    return "final" if last.data.get("done") or "final" in done else "training"


def once(job: Job, moment_s: float) -> dict[str, Any]:
    """A session, told to end `moment_s` after its start."""
    before = len(ledger.read(job.ledger).entries) if job.ledger.exists() else 0
    process = job.start()
    if process.wait(process.began + moment_s):
        return {"stage": "ended before"}
    at = stage(job, before)
    told = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    process.wait()
    seconds = process.ended - told
    look = job.look()
    stop = ledger.read(job.ledger).stop if job.ledger.exists() else None
    saved = stop is not None and stop.data["checkpoint"] == look.newest
    return {
        "stage": at,
        "seconds": round(seconds, 4),
        "code": process.code,
        # before anything was done the signal may end the process as it ends any other
        "sound": not look.lost and not look.unreadable and (saved or process.code == -signal.SIGTERM),
        "newest": look.newest,
    }


def case(
    work: Path, files: dict[str, Path], seed: int, number: int, whole: dict[str, float]
) -> dict[str, Any]:
    dice = random.Random(f"{seed}/sigterm/{number}")
    name = TRAINED[number % len(TRAINED)]
    resumed = number // len(TRAINED) % 2 == 1
    while True:
        job = Job(work / str(number), files[name], True)
        if resumed:  # a session before, killed: its last checkpoint is there
            earlier = job.start()
            while not serial(job.look().newest):
                earlier.wait(time.monotonic() + 0.05)
            earlier.kill()
        moment_s = dice.uniform(0.0, whole[name])
        found = once(job, moment_s)
        shutil.rmtree(job.folder)
        if "seconds" in found:
            return {"case": str(number), "study": name, "resumed": resumed, "moment_s": moment_s, **found}


def length(work: Path, files: dict[str, Path], name: str) -> float:
    """Seconds of the whole command."""
    job = Job(work / f"whole-{name}", files[name], True)
    process: Process = job.start()
    process.wait()
    if process.code != 0:
        sys.exit((job.folder / "log").read_text()[-2000:])
    return process.ended - process.began


def counts(cases: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = sorted(c["seconds"] for c in cases)
    told: dict[str, Any] = {
        "signals": len(seconds),
        "newest checkpoint sound, and where the session stopped": f"{sum(c['sound'] for c in cases)}",
        f"ended within {LIMIT_S:.0f} s": f"{sum(s <= LIMIT_S for s in seconds)} of {len(seconds)}",
        "median, 90 %, worst": ", ".join(
            f"{seconds[min(len(seconds) - 1, int(q * len(seconds)))]:.3f} s" for q in (0.5, 0.9, 1.0)
        ),
    }
    by_stage = collections.defaultdict(list)
    for c in cases:
        by_stage[c["stage"]].append(c["seconds"])
        by_stage[c["study"]].append(c["seconds"])
    for name, values in sorted(by_stage.items()):
        told[f"{name}: number, median, worst"] = (
            f"{len(values)}, {sorted(values)[len(values) // 2]:.3f} s, {max(values):.3f} s"
        )
    return told


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the nets and the roads")
    parser.add_argument("--out", type=Path, help="default: reports/sigterm-<host>-<date>")
    options = parser.parse_args()
    given = evidence.circumstances(options.device, times=options.times, seed=options.seed)
    out = options.out or evidence.folder("sigterm")
    cases = evidence.Cases(out, given)
    with tempfile.TemporaryDirectory(prefix="sigterm-") as folder:
        work = Path(folder)
        files = write_studies(work / "studies", options.device)
        whole = {name: length(work, files, name) for name in TRAINED}
        for number in range(options.times):
            if str(number) not in cases.done:
                cases.add(found := case(work, files, options.seed, number, whole))
                print(
                    f"{number + 1:4d}  {found['study']:13} {'resumed' if found['resumed'] else 'new':8}"
                    f"{found['stage']:22} {found['seconds']:.3f} s  exit {found['code']}"
                    f"{'' if found['sound'] else '  NOT SOUND'}",
                    flush=True,
                )
    found_all = list(cases.done.values())
    good = len(found_all) == options.times and all(c["sound"] and c["seconds"] <= LIMIT_S for c in found_all)
    return evidence.conclude(out, "SIGTERM to the end of the process", given, counts(found_all), good)


if __name__ == "__main__":
    sys.exit(main())
