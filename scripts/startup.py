"""How long `arzbench --help` takes in a fresh interpreter: the median of 11 starts, beside a bare one."""

import statistics
import subprocess
import sys
import time

RUNS = 11
TARGET_S = 0.35


def seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    seconds("-m", "arzbench", "--help")  # writes the byte code
    pairs = [(seconds("-c", "pass"), seconds("-m", "arzbench", "--help")) for _ in range(RUNS)]
    bare, command = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"arzbench --help {command:.3f} s (target {TARGET_S} s), bare interpreter {bare:.3f} s")
    return 0 if command < TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
