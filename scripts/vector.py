#!/usr/bin/env python3
"""What a step of a vector environment costs by its size, device and type: medians of interleaved rounds.

    python scripts/vector.py [--devices cpu,cuda] [--sizes 1,64,1024] [--rounds 15] [--env ID] [--json FILE]

A step is everything a learner waits for: orders, the engine, observations, rewards and accounts on the host.
The CPU takes a thread for each core. `first` is what the first step of the process takes with this device
and type, compilation included.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from arzbench.measure.host import host_info
from arzbench.traffic.env.vector import ArzVectorEnv

GREEN = 4  # decisions: the light changes every minute
WARM_UP = 40  # decisions until roads carry traffic


class Case:
    def __init__(self, name: str, size: int, device: str, dtype: str) -> None:
        self.size, self.device, self.dtype = size, device, dtype
        self.time = 0
        self.seconds: list[float] = []
        began = time.perf_counter()
        self.threads = min(size, host_info().cores) if device == "cpu" else 0
        self.env = ArzVectorEnv(name, size, device=device, dtype=dtype, threads=max(1, self.threads))
        self.env.reset(seed=1)
        self.step()
        self.first_s = time.perf_counter() - began
        for _ in range(WARM_UP):
            self.step()

    def step(self) -> None:
        self.env.step(np.full(self.size, self.time // GREEN % 2))
        self.time += 1

    def measure(self, slice_s: float) -> None:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < slice_s:
            self.step()
            count += 1
        self.seconds.append((time.perf_counter() - began) / count)

    def record(self) -> dict[str, Any]:
        keys = ("device", "threads", "dtype", "size", "first_s", "seconds")
        return {key: getattr(self, key) for key in keys}


def main() -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--devices", default="cpu,cuda")
    parser.add_argument("--sizes", default="1,64,1024,4096")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--env", default="arzbench/TrafficLight-v0")
    parser.add_argument("--json", type=Path, help="write every round here")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    kinds = itertools.product(options.devices.split(","), ("float64", "float32"), sizes)
    cases = [Case(options.env, size, device, dtype) for device, dtype, size in kinds]
    for _ in range(options.rounds):
        for case in cases:
            case.measure(0.05)
    print(f"{options.env}\n{'device':7}{'type':9}{'envs':>6}{'first':>9}{'a step':>12}{'env steps/s':>14}")
    for case in cases:
        step_s = statistics.median(case.seconds)
        print(
            f"{case.device:7}{case.dtype:9}{case.size:6,}{case.first_s:7.2f} s{1e3 * step_s:9.3f} ms"
            f"{case.size / step_s:14,.0f}"
        )
    if options.json:
        host = msgspec.to_builtins(host_info("auto"))
        record = {"env": options.env, "host": host, "cases": [case.record() for case in cases]}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
