"""Same seed, same episode, bit for bit, in other processes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import arzbench.traffic.env
from arzbench.traffic.env.vector import ArzVectorEnv


def digest(name: str, scheme: str, dtype: str) -> str:
    """Of a whole episode and the first steps of the next, single and in a batch on two threads."""
    single, h = gymnasium.make(name, scheme=scheme, dtype=dtype, demand="rush"), hashlib.sha256()
    batch = ArzVectorEnv(name, 3, scheme=scheme, dtype=dtype, demand="rush", threads=2)
    h.update(single.reset(seed=11)[0].tobytes() + batch.reset(seed=11)[0].tobytes())
    for actions in np.random.default_rng(2).integers(0, single.action_space.n, (245, 3)):
        observation, reward, _, done, info = single.step(actions[0])
        observations, rewards, *_ = batch.step(actions)
        h.update(observation.tobytes() + np.float64([reward, *info.values()]).tobytes())
        h.update(observations.tobytes() + rewards.tobytes())
        if done:
            h.update(single.reset()[0].tobytes())
    return h.hexdigest()


@pytest.mark.parametrize(("scheme", "dtype"), [("weno5", "float64"), ("muscl", "float32")])
@pytest.mark.parametrize("name", sorted(arzbench.traffic.env.ENVIRONMENTS))
def test_same_seed_same_episode_across_processes(name: str, scheme: str, dtype: str) -> None:
    code = f"from {__name__} import digest; print(digest({name!r}, {scheme!r}, {dtype!r}))"
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True,
        text=True, check=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert ran.stdout.strip() == digest(name, scheme, dtype)
