"""Environments on the device `cuda`: the CPU's numbers, in Numba's simulator and on a GPU if there is one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from arzbench.traffic.env import ENVIRONMENTS, batch
from arzbench.traffic.env.vec_env import ArzVecEnv
from arzbench.traffic.env.vector import ArzVectorEnv, env_class

HERE = Path(__file__).parent
CASES = {  # largest gap; float32 to its own precision, a captured state bit for bit
    "engine": 1e-12,
    "crossing": 1e-12,
    "crossing, incident": 1e-12,
    "crossing, queue_change, float32": 1e-4,
    "on-ramp": 1e-12,
    "lane drop": 1e-12,
    "restored": 0.0,
    "episodes": 1e-12,
}


MISSING = batch.missing_for_cuda()
GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(MISSING != "", reason=f"not measured: {MISSING}"),
)


@pytest.fixture(scope="module", params=["simulator", pytest.param("gpu", marks=GPU)])
def gaps(request: pytest.FixtureRequest) -> dict[str, float]:
    """Largest relative differences, from a process that has the simulator switched on, or a GPU."""
    path = os.pathsep.join(filter(None, [str(HERE.parents[2]), os.environ.get("PYTHONPATH")]))
    switch = "1" if request.param == "simulator" else "0"
    done = subprocess.run(
        [sys.executable, str(HERE / "device_cases.py")], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "NUMBA_ENABLE_CUDASIM": switch},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["case"]: row["gap"] for row in rows}


@pytest.mark.parametrize("case", CASES)
def test_whole_steps_give_the_numbers_of_the_cpu(gaps: dict[str, float], case: str) -> None:
    assert gaps[case] <= CASES[case]


@pytest.mark.parametrize("missing", ["no NVIDIA GPU was found on this machine", ""])
def test_a_device_is_chosen_or_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(batch, "missing_for_cuda", lambda: missing)
    assert gymnasium.make("arzbench/TrafficLight-v0", device="cpu").unwrapped.batch.device == "cpu"
    assert batch.choose_device("auto") == ("cpu" if missing else "cuda")
    if not missing:
        assert batch.choose_device("cuda") == "cuda"
        return
    for make in (ArzVectorEnv, ArzVecEnv, gymnasium.make):
        with pytest.raises(ValueError, match=r"device='cuda': no NVIDIA GPU was found.*use device='cpu'"):
            make("arzbench/SpeedControl-v0", device="cuda")


@GPU[0]
@GPU[1]
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_gpu_gives_the_same_bits_again_and_in_any_batch(name: str) -> None:
    actions = np.random.default_rng(0).integers(0, env_class(name).batch_type.actions, (20, 8))
    runs = []
    for width in (8, 8, 1):
        env = ArzVectorEnv(name, width, device="cuda")
        env.reset(seed=1)
        runs.append([env.step(row[:width])[:2] for row in actions])
    for wide, again, alone in zip(*runs, strict=True):
        for part in range(2):
            np.testing.assert_array_equal(wide[part], again[part])
            np.testing.assert_array_equal(wide[part][:1], alone[part])


@GPU[0]
@GPU[1]
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_hour_on_a_gpu_stays_near_that_on_the_cpu(name: str, dtype: str) -> None:
    """The two round in other places, and a threshold crossed a decision earlier or later is a jump."""
    actions = np.random.default_rng(0).integers(0, env_class(name).batch_type.actions, (240, 4))
    delay = []
    for where in ("cpu", "cuda"):
        env = ArzVectorEnv(name, 4, device=where, dtype=dtype)
        env.reset(seed=1)
        delay.append(sum(env.step(row)[4]["delay"] for row in actions))
    np.testing.assert_allclose(delay[0], delay[1], rtol=1e-6 if dtype == "float64" else 1e-2)


STEPS = """
import hashlib, sys
import numpy as np
from arzbench.traffic.env import ENVIRONMENTS
from arzbench.traffic.env.vector import ArzVectorEnv
from arzbench.worker import numba_cache

total, threads = hashlib.sha256(), 2 if sys.argv[1] == "cpu" else 1
for name in ENVIRONMENTS:
    for scheme, dtype in ("weno5", "float64"), ("muscl", "float32"):
        kind = {"device": sys.argv[1], "scheme": scheme, "dtype": dtype, "demand": "rush", "threads": threads}
        env = ArzVectorEnv(name, 3, **kind)
        total.update(env.reset(seed=11)[0].tobytes())
        for row in np.random.default_rng(2).integers(0, env.batch.actions, (245, 3)):
            for part in env.step(row)[:2]:
                total.update(part.tobytes())
print(numba_cache(), total.hexdigest())
"""


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_a_second_process_gives_the_same_bits_from_what_the_first_compiled(
    tmp_path: Path, device: str
) -> None:
    results = []
    for _ in range(2):
        command = [sys.executable, "-c", STEPS, device]
        folder = {"PYTHONPATH": str(HERE.parents[2]), "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **folder})
        assert done.returncode == 0, done.stderr
        results.append(done.stdout.split())
    assert [state for state, _ in results] == ["cold", "warm"]
    assert results[0][1] == results[1][1]


@GPU[0]
@GPU[1]
def test_bench_measures_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "arzbench", "bench", "--quick", "--device", "cuda", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"device": "cuda"' in json.dumps(json.loads(done.stdout))
