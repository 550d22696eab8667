"""Compiles every CUDA kernel for one compute capability, without a GPU; a process of its own.

Prints one line of JSON for each kernel: dtype, scheme, lines of its PTX that touch float64,
registers and spilled bytes of its SASS.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numba
import numba.cuda.dispatcher as dispatcher
import numpy as np
from numba import cuda, types

from arzbench.physics.cuda import numbers_of
from arzbench.physics.cuda_kernel import kernel
from arzbench.physics.scenario import DTYPES, SCHEMES, Scenario


def ptxas() -> Path:
    spec = find_spec("nvidia.cuda_nvcc")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / "bin" / "ptxas"


def signature(scenario: Scenario) -> tuple[types.Type, ...]:
    real, integer = numba.from_dtype(np.dtype(scenario.float_type)), types.int64
    arrays = [(real, 3), (real, 2), (real, 2), (integer, 2), (real, 3), (real, 2), (integer, 1), (real, 1)]
    numbers = (numba.typeof(number) for number in numbers_of(scenario))
    return (*(types.Array(kind, ndim, "C") for kind, ndim in arrays), *numbers)


def compile_all(capability: tuple[int, int]) -> None:
    # A device function asks for the present device, and only to learn its capability.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    for dtype in DTYPES:
        for scheme, number in SCHEMES.items():
            scenario = Scenario(dtype=dtype, scheme=scheme)
            compiled, _ = kernel(scenario.float_type, scenario.n_cells, number)
            ptx, _ = cuda.compile_ptx(compiled.py_func, signature(scenario), cc=capability, device=False)
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder) / "kernel.ptx"
                source.write_text(ptx)
                arch = f"-arch=sm_{capability[0]}{capability[1]}"
                command = [str(ptxas()), arch, "-v", str(source), "-o", str(Path(folder) / "kernel.cubin")]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            row = {
                "dtype": dtype,
                "scheme": scheme,
                "f64_lines": sum(".f64" in line for line in ptx.splitlines()),
                "registers": int(re.search(r"Used (\d+) registers", said)[1]),
                "spilled_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", said))),
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    compile_all((int(sys.argv[1][0]), int(sys.argv[1][1])))
