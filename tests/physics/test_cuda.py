"""The CUDA engine in Numba's simulator against the CPU engine; and, where the compiler is, its PTX."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CASES = [
    "crossing weno5",
    "crossing muscl",
    "crossing first_order",
    "crossing incident",
    "on-ramp",
    "lane drop",
]


# Registers of a thread when last looked at (numba-cuda 0.30, ptxas 12.9): more is a step back.
REGISTERS = {
    "60": {"float32": (123, 133, 144), "float64": (178, 186, 215)},
    "70": {"float32": (128, 138, 159), "float64": (179, 188, 219)},
    "80": {"float32": (92, 96, 101), "float64": (150, 156, 186)},
    "90": {"float32": (91, 99, 127), "float64": (158, 166, 192)},
}
ORDER = ("first_order", "muscl", "weno5")


def run(script: str, *arguments: str, **environment: str) -> list[dict[str, Any]]:
    """Rows a script of this folder prints, in a process of its own."""
    path = os.pathsep.join(filter(None, [str(HERE.parent.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def gaps() -> dict[str, float]:
    """Largest relative differences, from a process with the simulator switched on."""
    rows = run("cuda_cases.py", *CASES, NUMBA_ENABLE_CUDASIM="1")
    return {row["case"]: row["gap"] for row in rows}


@pytest.mark.parametrize("case", CASES)
def test_simulator_agrees_with_the_cpu(gaps: dict[str, float], case: str) -> None:
    assert gaps[case] <= 1e-12


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install arzbench[cuda]")
@pytest.mark.parametrize("capability", REGISTERS)
def test_kernels_compile_without_spills_or_stray_doubles(capability: str) -> None:
    rows = run("cuda_ptx.py", capability)
    assert len(rows) == 6
    for row in rows:
        assert row["spilled_bytes"] == 0
        assert row["registers"] <= REGISTERS[capability][row["dtype"]][ORDER.index(row["scheme"])]
        assert (row["f64_lines"] == 0) == (row["dtype"] == "float32")
