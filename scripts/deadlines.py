#!/usr/bin/env python3
"""Does a run told to stop at a quota end before it, and resume to the same total_timesteps?

`deadlines.py --times 10 --quota 60` calibrates once, then each time starts the whole `incident` study (more
than fits) anew with that quota, measures the process from outside, and compares what it says was trained
with its newest checkpoint and with where the next session goes on. The last run is resumed to its end.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ARZBENCH = [sys.executable, "-m", "arzbench"]


def call(*words: str) -> tuple[int, float]:
    """Exit code and wall seconds, the start of the interpreter included."""
    began = time.monotonic()
    done = subprocess.run([*ARZBENCH, *words], stdout=subprocess.DEVNULL, check=False)
    return done.returncode, time.monotonic() - began


def entries(run: Path, kind: str) -> list[dict]:
    lines = (run / "ledger.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["kind"] == kind]


def once(work: Path, quota: int) -> tuple[float, int, bool]:
    """(wall seconds, steps trained, whether all accounts of them agree)."""
    where = ["--dir", str(work)]
    flags = ["--auto-budget", "--option", "C", "--quota", f"{quota}s", "--fresh"]
    code, wall = call("run", "--study", "incident", *flags, *where)
    run = max((p for p in (work / "reports").iterdir() if (p / "run.json").exists()), key=lambda p: p.name)
    stop = entries(run, "stop")[-1]["data"]
    newest = work / "checkpoints" / run.name / stop["checkpoint"] / "manifest.json"
    saved = json.loads(newest.read_text())["num_timesteps"]
    again, _ = call("run", "--run", run.name, "--quota", "15s", *where)
    resumed = entries(run, "session")[-1]["data"]["resumed_from"]
    trained = [s for s in stop["num_timesteps"] if s]
    # the second session may well have time to finish
    agree = code == 4 and again in (0, 4) and resumed == stop["checkpoint"] and saved == trained[-1]
    return wall, sum(trained), agree


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--quota", type=int, default=60, help="seconds")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="deadlines-"))
    call("calibrate", "--study", "incident", "--repetitions", "3", "--dir", str(work))
    kept = 0
    for number in range(1, options.times + 1):
        wall, steps, agree = once(work, options.quota)
        good = wall < options.quota and agree
        kept += good
        print(
            f"{number:3d}  {wall:6.2f} s of {options.quota} s  {steps:6,} steps  {'ok' if good else 'BAD'}",
            flush=True,
        )
    code, _ = call("run", "--run", newest_run(work), "--dir", str(work))
    run = work / "reports" / newest_run(work)
    print(f"resumed to its end: exit {code}, steps {entries(run, 'stop')[-1]['data']['num_timesteps']}")
    print(f"{kept} of {options.times} ended before the quota and resumed where they were")
    return 0 if kept == options.times and code == 0 else 1


def newest_run(work: Path) -> str:
    return max(p.name for p in (work / "reports").iterdir() if (p / "run.json").exists())


if __name__ == "__main__":
    sys.exit(main())
