"""What reading, watching and silent messages cost here.

python scripts/logs.py calls      ns a silent call of the periodic logger takes
python scripts/logs.py watch      how much longer a command printing 5,000 lines/s takes under watch
python scripts/logs.py reading    MB/s and memory of `arzbench logs` on 1 GB of a flooded log
"""

import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator
from pathlib import Path

from arzbench.logs.periodic import PeriodicLogger

GIGABYTE = 10**9
WATCH = [sys.executable, "-m", "arzbench", "watch", "--"]
PRINTER = """
import sys, time
began = time.perf_counter()
for i in range(int(sys.argv[1])):
    sys.stdout.write("[DEBUG_BC_GPU] inflow_L: [0.3, 0.14089506172839514, 0.096, 0.0540123] %d\\n" % i)
    sys.stdout.flush()
    early = began + i / 5000 - time.perf_counter()
    if early > 0.001:
        time.sleep(early)
"""


def calls() -> None:
    log = PeriodicLogger(10**12, io.StringIO())
    log.log("BC_GPU", "first")
    names = {"log": log}
    rounds, number = 200, 20_000

    def fastest(statement: str) -> float:
        timer = timeit.Timer(statement, globals=names, timer=time.process_time)
        return min(timer.repeat(rounds, number)) / number * 1e9

    empty = fastest("pass")
    for statement in (
        'log.log("BC_GPU", "inflow_L=%r", 1.0)',
        'log.log("BC_GPU", "inflow_L=[%r, %r, %r, %r]", 0.3, 0.1, 0.1, 0.05)',
    ):
        print(f"{fastest(statement) - empty:5.0f} ns  {statement}")
    skip = fastest('log.skip({"BC_GPU": 7}, 216)') - empty
    print(f"{skip / (7 * 216):5.1f} ns  a call passed over with log.skip, 7 x 216 at once")


def watch() -> None:
    """CPU and wall time of the same command alone and watched, in turn."""
    lines = "100000"
    alone, watched = [], []
    for _ in range(3):
        alone.append(_wall([sys.executable, "-c", PRINTER, lines]))
        watched.append(_wall([*WATCH, sys.executable, "-c", PRINTER, lines]))
    before, after = statistics.median(alone), statistics.median(watched)
    start = statistics.median(_wall([*WATCH, "true"]) for _ in range(5))
    print(
        f"alone {before:.2f} s, watched {after:.2f} s: {after / before - 1:+.2%}; "
        f"watching `true` takes {start:.2f} s"
    )


def _wall(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def reading() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flood.log"
        with path.open("wb") as file:
            for block in flood(GIGABYTE):
                file.write(block)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "arzbench", "logs", str(path)], check=True, stdout=subprocess.DEVNULL
        )
        took = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        size = os.path.getsize(path) / 1e6
    print(f"{size:,.0f} MB in {took:.1f} s: {size / took:.0f} MB/s ({size / cpu:.0f} MB/s of CPU time)")
    print(f"memory: {after.ru_maxrss / 1e3:.0f} MB")


def flood(size: int) -> Iterator[bytes]:
    """A text tail as the incident's: seven lines a boundary application, 214 of those a step."""
    number, written, step = 0, 0, 0
    round_ = (
        "[DEBUG_BC_GPU] inflow_L: [0.3, 0.14089506172839514, 0.096, 0.0540123456790124]",
        "[DEBUG_BC_GPU] inflow_R: [0.0, 0.0, 0.0, 0.0]",
        "[DEBUG_BC_GPU] left_type_code: 0, right_type_code: 1",
        "[DEBUG_BC_DISPATCHER] Entered apply_boundary_conditions. current_bc_params: <class 'dict'>",
        "[DEBUG_BC_DISPATCHER] Using current_bc_params (dynamic)",
        "[DEBUG_BC_DISPATCHER] Left inflow: [0.3, 0.14089506172839514, 0.096, 0.0540123456790124]",
        "[DEBUG_BC_GPU] About to launch GPU kernel",
    )
    while written < size:
        step += 1
        messages = [*round_ * 214, f"[REWARD_MICROSCOPE] step={step} t={15.0 * (step % 240)}s phase=0"]
        now = 0.59 * step
        lines = [f"{now:.1f}s {number + i} {message}\n" for i, message in enumerate(messages, 1)]
        number += len(lines)
        block = "".join(lines).encode()
        written += len(block)
        yield block


if __name__ == "__main__":
    known = {"calls": calls, "watch": watch, "reading": reading}
    if len(sys.argv) != 2 or sys.argv[1] not in known:
        sys.exit(__doc__)
    known[sys.argv[1]]()
