"""What people measure beforehand: the first 100 steps by the clock, and the speed that the library logs.

A process of its own: a training's configuration comes in as JSON, the two figures go out as JSON.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger

from arzbench.clock import Clock, SystemClock
from arzbench.sb3.building import build, make_env
from arzbench.sb3.plugins import register_plugins
from arzbench.study import AnyConfig, TrainConfig

#: the rule of thumb: time 100 steps, multiply
FIRST_STEPS = 100
#: training steps of the trial whose logged speed is read, at least
TRIAL_STEPS = 1000


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of the library's `learn(100)`, and its last `time/fps` in a trial (0: it logged none)."""

    first_100_s: float
    own_fps: float
    trial_steps: int


class _Fps(KVWriter):
    def __init__(self) -> None:
        self.last = 0.0

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.last = float(key_values.get("time/fps", self.last))

    def close(self) -> None:
        return


def _library_model(config: TrainConfig) -> tuple[Any, _Fps]:
    """A model and envs as the library's documentation makes them, without this package's additions."""
    model = build(config, lambda: make_vec_env(lambda: make_env(config), n_envs=config.n_envs))
    fps = _Fps()
    model.set_logger(Logger(None, [fps]))
    return model, fps


def measure(config: TrainConfig, clock: Clock) -> Speeds:
    """Both figures, in this process."""
    register_plugins()
    th.set_num_threads(config.torch_threads)
    model, _ = _library_model(config)
    began = clock.ticks()
    model.learn(FIRST_STEPS)
    took = clock.ticks() - began
    steps = max(TRIAL_STEPS, 2 * config.rollout_steps)
    model, fps = _library_model(config)
    model.learn(steps, log_interval=1)
    return Speeds(first_100_s=took, own_fps=fps.last, trial_steps=steps)


if __name__ == "__main__":
    asked: TrainConfig = msgspec.json.decode(sys.stdin.buffer.read(), type=AnyConfig)
    sys.stdout.buffer.write(msgspec.json.encode(measure(asked, SystemClock())))
