"""Compiles every CUDA kernel for one compute capability, without a GPU; a process of its own.

Prints one line of JSON for each kernel: its dtype, scheme and roads of an environment; lines of its
PTX that touch float64; threads of a block; and what the assembler says of its SASS: registers of a
thread, bytes of local memory (stack and spills) and of shared memory.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numba.cuda.dispatcher as dispatcher
import numpy as np
from numba import cuda, types

from arzbench.traffic.physics.cuda import numbers_of
from arzbench.traffic.physics.cuda_kernel import block_threads, kernel, shared_bytes
from arzbench.traffic.physics.scenario import DTYPES, SCHEMES, Scenario

# What an environment is made of: a road, with or without an on-ramp, or two roads that cross.
LAYOUTS: dict[int, dict[str, Any]] = {1: {"stop_line": None, "ramp": 600.0}, 2: {"stop_line": 500.0}}


def ptxas() -> Path:
    spec = find_spec("nvidia.cuda_nvcc")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "bin" / "ptxas"


def signature(scenario: Scenario) -> tuple[types.Type, ...]:
    real, integer = numba.from_dtype(np.dtype(scenario.float_type)), types.int64
    state = [(real, 3), (real, 2), (real, 2), (integer, 2), (real, 3)]
    others = [(real, 2), (real, 2), (types.float32, 2), (real, 2)]  # orders, narrowing, seen, report
    numbers = (numba.typeof(number) for number in numbers_of(scenario))
    return (*(types.Array(kind, ndim, "C") for kind, ndim in state + others), *numbers)


def assemble(ptx: str, arch: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [str(ptxas()), f"-arch=sm_{arch}", "-v", str(source), "-o", str(Path(folder) / "cubin")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def compile_all(arch: str) -> None:
    capability = int(arch[0]), int(arch[1])
    # A device function asks for the present device, and only to learn its capability.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    for dtype, (scheme, number), (roads, layout) in product(DTYPES, SCHEMES.items(), LAYOUTS.items()):
        scenario = Scenario(dtype=dtype, scheme=scheme, **layout)
        compiled = kernel(scenario.float_type, scenario.n_cells, number, roads)
        ptx, _ = cuda.compile_ptx(compiled.py_func, signature(scenario), cc=capability, device=False)
        report = assemble(ptx, arch)
        row = {
            "dtype": dtype,
            "scheme": scheme,
            "roads": roads,
            "f64_lines": sum(".f64" in line for line in ptx.splitlines()),
            "threads": roads * block_threads(scenario.n_cells),
            "registers": int(re.search(r"Used (\d+) registers", report)[1]),
            "local": sum(map(int, re.findall(r"(\d+) bytes (?:stack|spill)", report))),
            "shared": int(re.search(r"(\d+) bytes smem", report)[1]),
            "promised": shared_bytes(scenario.float_type, scenario.n_cells, roads),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    compile_all(sys.argv[1])
