#!/usr/bin/env python3
"""What a run costs beside bare SB3 `learn()` on the same work: the median ratio of interleaved pairs.

    overhead.py --pairs 10 --steps 24000 [--only dqn-null] [--json FILE] [--dir FOLDER]

Both sides make the same model on the same env and train it for the same steps: collection and updates. The
run's side is everything `run` does from its first step to the exported model: guard, phases, ledger, a
durable checkpoint every 1,000 steps and at the end; not the display with its predicted end, nor the watcher
of stalls. Building, which both do once, is left out of both.
The order alternates from pair to pair; the interval is a bootstrap of the median.
"""

import argparse
import gc
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import msgspec
import numpy as np
import stable_baselines3 as sb3
import torch as th
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from arzbench.clock import SystemClock
from arzbench.measure.host import host_info
from arzbench.run.session import RunRequest, run_job
from arzbench.study import DQN, PPO, Checkpoints, Study, TrainConfig
from arzbench.workloads.sb3 import SB3Workload, make_env, register_plugins

#: at most this much, where it is promised
TARGETS = {"dqn-null": 1.03, "ppo-cartpole": 1.01, "dqn-arz": 1.01, "ppo-arz": 1.01}


class Null(gym.Env):
    """Costs nothing: what is left is the training itself. 240 steps an episode."""

    observation_space = gym.spaces.Box(0.0, 1.0, (24,), np.float32)
    action_space = gym.spaces.Discrete(2)
    seen = np.full(24, 0.5, np.float32)
    t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self.seen.copy(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.seen.copy(), 1.0, False, self.t >= 240, {}

    def get_state(self) -> Any:
        return {"t": self.t}

    def set_state(self, state: Any) -> None:
        self.t = state["t"]


class Quiet:
    def show(self, progress: object) -> None:
        return

    def close(self) -> None:
        return


class Timed(SB3Workload):
    """Notes when a training begins to run and when it is closed."""

    wall = cpu = 0.0

    def create(self, *args: Any, **kwargs: Any) -> Any:
        training = super().create(*args, **kwargs)
        run, close = training.run, training.close

        def timed_run(control: Any) -> None:
            self.wall, self.cpu = -time.perf_counter(), -time.process_time()
            run(control)

        def timed_close() -> None:
            self.wall += time.perf_counter()
            self.cpu += time.process_time()
            close()

        training.run, training.close = timed_run, timed_close
        return training


def cases(steps: int, every: int = 1000, device: str = "cpu") -> dict[str, TrainConfig]:
    common: dict[str, Any] = {
        "total_timesteps": steps, "checkpoint": Checkpoints(checkpoint_freq=every), "device": device,
    }  # fmt: skip
    dqn: dict[str, Any] = {
        "buffer_size": 50_000, "learning_starts": 1_000, "batch_size": 32, "train_freq": 4,
        "gradient_steps": 1, "exploration_fraction": 0.1,
        "hyperparameters": {"learning_rate": 1e-3, "target_update_interval": 1_000},
    }  # fmt: skip
    light = "arzbench/TrafficLight-v0"
    return {
        "dqn-null": DQN(name="dqn", env="Null-v0", **dqn, **common),
        "ppo-cartpole": PPO(name="ppo", env="CartPole-v1", **common),
        "dqn-arz": DQN(name="dqn", env=light, **dqn, **common),
        "ppo-arz": PPO(name="ppo", env=light, n_steps=256, **common),
    }


def bare(config: TrainConfig) -> tuple[float, float]:
    envs = [Monitor(make_env(config)) for _ in range(config.n_envs)]
    kind = {"dqn": sb3.DQN, "ppo": sb3.PPO}[config.algo]
    model: Any = kind(
        config.policy,
        DummyVecEnv([lambda env=env: env for env in envs]),
        seed=config.seed,
        device=config.device,
        **config.constructor_arguments(),
    )
    model.set_logger(sb3.common.logger.Logger(None, []))
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    model.learn(config.total_timesteps, log_interval=None)
    return time.perf_counter() - wall, time.process_time() - cpu


def watched(config: TrainConfig, where: Path) -> tuple[float, float]:
    clock = SystemClock()
    workload = Timed(clock)
    with tempfile.TemporaryDirectory(dir=where) as folder:
        request = RunRequest(
            study=Study(name="overhead", trainings=(config,)),
            budgets=(config.total_timesteps,),
            quota_s=3600.0,
            run_id="r",
            run_folder=Path(folder) / "reports",
            checkpoint_folder=Path(folder) / "checkpoints",
            session_start=clock.now(),
        )
        gc.collect()
        outcome = run_job(request, workload, clock, Quiet())
        assert outcome.exit_code == 0, outcome
    return workload.wall, workload.cpu


def measure(config: TrainConfig, pairs: int, where: Path) -> list[dict[str, float]]:
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "bare": lambda: bare(config),
        "run": lambda: watched(config, where),
    }
    for side in sides.values():
        side()  # compiled, imported, warm
    found = []
    for number in range(pairs):
        pair: dict[str, float] = {}
        for name in ("bare", "run") if number % 2 else ("run", "bare"):
            pair[f"{name}_s"], pair[f"{name}_cpu_s"] = sides[name]()
        found.append(pair)
    return found


def median_and_interval(ratios: list[float]) -> tuple[float, float, float]:
    """The median and its 95 % bootstrap interval."""
    dice = np.random.default_rng(0)
    drawn = np.median(dice.choice(ratios, (5000, len(ratios))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return statistics.median(ratios), float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=24_000, help="training steps of each side of a pair")
    parser.add_argument(
        "--every", type=int, default=1000, help="steps between checkpoints; 0: one at the end"
    )
    parser.add_argument("--only", help="one case")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the nets and the roads")
    parser.add_argument("--json", type=Path, help="write every pair here")
    parser.add_argument("--dir", type=Path, help="where checkpoints go; the system's temporary folder")
    options = parser.parse_args()
    th.set_num_threads(1)
    gym.register("Null-v0", Null)
    register_plugins()
    result: dict[str, Any] = {"host": msgspec.to_builtins(host_info(options.device)), "steps": options.steps}
    kept = True
    print(f"{'case':14s} {'wall':>7s} {'95 % interval':>17s} {'CPU':>7s}   target")
    for name, config in cases(options.steps, options.every, options.device).items():
        if options.only not in (None, name):
            continue
        pairs = measure(config, options.pairs, options.dir or Path(tempfile.gettempdir()))
        wall, low, high = median_and_interval([p["run_s"] / p["bare_s"] for p in pairs])
        cpu = statistics.median(p["run_cpu_s"] / p["bare_cpu_s"] for p in pairs)
        kept = kept and not math.isnan(wall) and wall <= TARGETS[name]
        print(
            f"{name:14s} {wall:7.4f} {low:8.4f}-{high:8.4f} {cpu:7.4f}   {TARGETS[name]:.2f} "
            f"{'kept' if wall <= TARGETS[name] else 'MISSED'}",
            flush=True,
        )
        result[name] = {"median": wall, "interval": [low, high], "cpu_median": cpu, "pairs": pairs}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
