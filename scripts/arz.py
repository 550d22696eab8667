#!/usr/bin/env python3
"""Do the committed studies learn to beat the baselines? Trains each with several seeds, compares, writes.

`arz.py --seeds 5 --episodes 50` trains traffic-light, ramp-metering and speed-control (about a quarter of an
hour on an idle machine of two cores), plays 50 held-out episodes under each baseline and each model, and puts
a table for each into docs/concepts/arz.md. Every training is listed, also one that learned nothing.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "concepts" / "arz.md"
BEGIN, END = "<!-- made by scripts/arz.py: {} -->", "<!-- end -->"
ARZBENCH = [sys.executable, "-m", "arzbench"]
STUDIES = {"traffic-light": 61_440, "ramp-metering": 80_640, "speed-control": 299_520}
MEASURE = "delay [veh h]"


def train(study: str, steps: int, seed: int, work: Path) -> tuple[str, float]:
    """(run, wall seconds of the whole command) of a new training."""
    began = time.monotonic()
    words = f"run --study {study} --timesteps {steps} --set seed={seed} --fresh --dir".split()
    subprocess.run([*ARZBENCH, *words, str(work)], stdout=subprocess.DEVNULL, check=True)
    took = time.monotonic() - began
    return max((work / "reports").glob(f"{study}-*"), key=lambda p: p.stat().st_mtime).name, took


def compare(run: str, episodes: int, work: Path) -> dict:
    words = ["compare", "--run", run, "--seeds", str(episodes), "--json", "--dir", str(work)]
    return json.loads(subprocess.run([*ARZBENCH, *words], capture_output=True, check=True).stdout)


def interval(comparison: dict, policy: str, baseline: str) -> str:
    if policy == baseline:
        return ""
    (one,) = (d for d in comparison["differences"]
              if (d["policy"], d["baseline"], d["measure"]) == (policy, baseline, MEASURE))  # fmt: skip
    return f"{one['relative']:+.1%} [{one['low']:+.1%}, {one['high']:+.1%}]"


def rows(study: str, steps: int, seeds: int, episodes: int, work: Path) -> list[str]:
    """Table rows of a study: its baselines, then one model for each training seed."""
    lines = []
    for seed in range(1, seeds + 1):
        run, took = train(study, steps, seed, work)
        comparison = compare(run, episodes, work)
        baselines = [p["name"] for p in comparison["policies"] if p["kind"] == "baseline"]
        for policy in comparison["policies"]:
            name, trained = policy["name"], policy["kind"] == "trained"
            if not trained and seed > 1:
                continue
            delay = np.mean(policy["values"][MEASURE])
            label = f"PPO, training seed {seed}, {took:.0f} s" if trained else name
            best = min(
                (p for p in comparison["policies"] if p["name"] in baselines),
                key=lambda p: np.mean(p["values"][MEASURE]),
            )["name"]
            first = interval(comparison, name, baselines[0])
            against = interval(comparison, name, best) + f" ({best})" if trained else ""
            lines.append(f"| {label} | {delay:.1f} | {first} | {against} |")
            print(lines[-1], flush=True)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each study")
    parser.add_argument("--episodes", type=int, default=50, help="held-out episodes")
    parser.add_argument("--study", choices=STUDIES, action="append", help="only this study")
    parser.add_argument("--note", default="", help="of the machine, such as ', beside other work'")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="arz-"))
    head = [
        "| policy | delay [veh h] | against the first baseline | against the best baseline |",
        "|---|---|---|---|",
    ]
    for study, steps in STUDIES.items():
        if options.study is None or study in options.study:
            caption = (
                f"`{study}`, measured {time.strftime('%Y-%m-%d')}, {platform.machine()}, {options.episodes} "
                "held-out episodes each; seconds are of the whole `arzbench run`, start and final evaluation "
                f"included{options.note}."
            )
            table = rows(study, steps, options.seeds, options.episodes, work)
            begin = BEGIN.format(study)
            before, _, rest = PAGE.read_text().partition(begin)
            PAGE.write_text(
                "\n".join([before + begin, caption, "", *head, *table, END]) + rest.partition(END)[2]
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
