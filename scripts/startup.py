"""How long the command takes to start, in fresh processes: medians, and interleaved what they stand beside.

python scripts/startup.py              `arzbench --help`, beside a bare interpreter
python scripts/startup.py run [N]      from the start of `arzbench run` to its first training step, and
                                       where that time goes, beside `import torch`; N (7) rounds
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 11
TARGET_S = 0.35
TRAINING = "run --study incident --set baseline.episodes=0 --timesteps 24 --fresh"

# Runs the command up to its first training step. Told to, it also measures the parts, each without those
# within it.
PROBE = """
import builtins, gc, json, os, sys, time
gc.disable()  # as arzbench.__main__ does
from arzbench.clock import SystemClock, process_start
clock = SystemClock()
began, parts, inner = process_start(clock), {}, [0.0]
where, detailed = sys.argv[1], sys.argv[2] == "parts"
sys.argv = ["arzbench", *sys.argv[3:]]

def measured(part, function):
    def call(*args, **kwargs):
        start = clock.now()
        inner.append(0.0)
        try:
            return function(*args, **kwargs)
        finally:
            took = clock.now() - start
            parts[part] = parts.get(part, 0.0) + took - inner.pop()
            inner[-1] += took
    return call

PACKAGES = {"arzbench", "gymnasium", "numba", "numpy", "rich", "stable_baselines3", "torch", "typer"}
plain = builtins.__import__
def imported(name, *args, **kwargs):
    package = name.partition(".")[0]
    if name in sys.modules or package not in PACKAGES:
        return plain(name, *args, **kwargs)
    return measured("import " + package, plain)(name, *args, **kwargs)

if detailed:
    parts["interpreter"] = inner[-1] = clock.now() - began
    builtins.__import__ = imported

from arzbench import cli
from arzbench.commands import run
from arzbench.run import control, job
from arzbench.wiring import session

def first_step(*args):
    total = clock.now() - began
    parts["command line, files"] = total - inner[0]
    found = {"total": total, "cpu": time.process_time(), "parts": parts, "modules": len(sys.modules)}
    with open(where, "w") as file:
        json.dump(found, file)
    os._exit(0)

control.TrainingControl.before_step = first_step
if detailed:
    session._check = measured("first step of the env: compiled code", session._check)
    session._begin = measured("files of the run", session._begin)
    job.Job._create = measured("envs and model", job.Job._create)
cli.main()
"""


def seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def to_first_step(kind: str) -> dict:
    """What `PROBE` found in a fresh process; `kind`: total or parts."""
    with tempfile.TemporaryDirectory() as folder:
        answer = f"{folder}/answer.json"
        command = [sys.executable, "-c", PROBE, answer, kind, *TRAINING.split(), "--dir", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with open(answer) as file:
            return json.load(file)


def run(runs: int) -> int:
    to_first_step("total")  # writes the byte code and the compiled code
    rounds = [
        (seconds("-c", "import torch, os; os._exit(0)"), to_first_step("total"), to_first_step("parts"))
        for _ in range(runs)
    ]
    torch, whole, detailed = zip(*rounds, strict=True)
    rows = {
        part: [found["parts"].get(part, 0.0) for found in detailed]
        for part in dict.fromkeys(part for found in detailed for part in found["parts"])
    }
    rows["all of these, measuring included"] = [found["total"] for found in detailed]
    rows[f"arzbench {TRAINING}: to the first step"] = [found["total"] for found in whole]
    rows[f"of it on a processor; {whole[0]['modules']} modules"] = [found["cpu"] for found in whole]
    rows["python -c 'import torch', without its teardown"] = list(torch)
    for name, values in rows.items():
        print(f"{statistics.median(values):8.3f} s  {name}")
    return 0


def show_help() -> int:
    seconds("-m", "arzbench", "--help")  # writes the byte code
    pairs = [(seconds("-c", "pass"), seconds("-m", "arzbench", "--help")) for _ in range(RUNS)]
    bare, command = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"arzbench --help {command:.3f} s (target {TARGET_S} s), bare interpreter {bare:.3f} s")
    return 0 if command < TARGET_S else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        sys.exit(run(int(sys.argv[2]) if len(sys.argv) > 2 else 7))
    sys.exit(show_help())
