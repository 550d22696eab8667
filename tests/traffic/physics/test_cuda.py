"""What the CUDA kernels compile to, where the compiler is; `env/test_device.py` has their numbers."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent

# Registers of a thread when last looked at (numba-cuda 0.30, ptxas 12.9), for one road and for two
# in a block: more is a step back.
REGISTERS: dict[str, dict[str, dict[int, tuple[int, ...]]]] = {
    "60": {
        "float32": {1: (102, 114, 128), 2: (102, 114, 128)},
        "float64": {1: (154, 168, 190), 2: (152, 166, 188)},
    },
    "70": {
        "float32": {1: (102, 119, 128), 2: (102, 119, 128)},
        "float64": {1: (152, 162, 192), 2: (152, 162, 192)},
    },
    "80": {
        "float32": {1: (79, 102, 125), 2: (79, 102, 125)},
        "float64": {1: (130, 160, 176), 2: (130, 160, 176)},
    },
    "90": {
        "float32": {1: (80, 104, 128), 2: (80, 104, 126)},
        "float64": {1: (140, 147, 176), 2: (140, 160, 176)},
    },
}
ORDER = ("first_order", "muscl", "weno5")
BLOCK_REGISTERS = 65_536  # of a block, on all of these


def run(script: str, *arguments: str) -> list[dict[str, Any]]:
    """Rows a script of this folder prints, in a process of its own."""
    path = os.pathsep.join(filter(None, [str(HERE.parents[2]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_roads_that_do_not_fit_a_block_are_refused() -> None:
    from arzbench.traffic.physics.cuda_kernel import kernel

    with pytest.raises(ValueError, match=r"n_cells=200 with 2 road.*256 threads.*or the CPU"):
        kernel(np.float64, 200, 0, 2)


@pytest.fixture(scope="module")
def compiled() -> dict[str, list[dict[str, Any]]]:
    """What every kernel compiles to, by architecture; two compilers at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(REGISTERS, pool.map(lambda arch: run("cuda_ptx.py", arch), REGISTERS), strict=True))


@pytest.mark.skipif(find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install arzbench[cuda]")
@pytest.mark.parametrize("arch", REGISTERS)
def test_kernels_compile_within_what_the_device_has(compiled: dict[str, Any], arch: str) -> None:
    rows = compiled[arch]
    assert len(rows) == 12
    for row in rows:
        recorded = REGISTERS[arch][row["dtype"]][row["roads"]][ORDER.index(row["scheme"])]
        assert row["registers"] <= recorded, row
        assert row["local"] == 0, row
        assert (row["f64_lines"] == 0) == (row["dtype"] == "float32"), row
        assert row["shared"] == row["promised"] <= 48 * 1024, row
        # Registers are given to a warp in units of 256.
        assert row["threads"] // 32 * (-(-row["registers"] * 32 // 256) * 256) <= BLOCK_REGISTERS, row


def test_the_guide_shows_what_is_recorded() -> None:
    page = (HERE.parents[2] / "docs" / "guides" / "device.md").read_text(encoding="utf-8")
    for dtype in ("float32", "float64"):
        for roads, name in ((1, "one road"), (2, "two roads")):
            cells = [", ".join(map(str, REGISTERS[arch][dtype][roads])) for arch in REGISTERS]
            assert f"| {dtype}, {name} | {' | '.join(cells)} |" in page
