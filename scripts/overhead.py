#!/usr/bin/env python3
"""What a run costs beside bare SB3 `learn()` on the same work: the median ratio of interleaved pairs.

    overhead.py --pairs 10 --steps 24000 [--only dqn-null] [--skip] [--json FILE] [--dir FOLDER]

Both sides make the same model on the same env and train it for the same steps: collection and updates. The
run's side is everything `run` does from its first step to the exported model: guard, phases, ledger, a
durable checkpoint every 1,000 steps and at the end; not the display with its predicted end, nor the watcher
of stalls. Building, which both do once, is left out of both.
The two sides of a pair take turns, 1,000 steps each, half-way between two checkpoints: what disturbs the
machine for longer than a turn disturbs both. Who waits has its random generators and torch's settings kept,
and its clock stopped.
Who comes first alternates from pair to pair; the interval is a bootstrap of the median.
A run skips redundant per-step work of the library (docs/decisions/0011). With --skip the bare side
does, too: what is left is the price of hooks and saves alone, to which no target belongs.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import msgspec
import numpy as np
import stable_baselines3 as sb3
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.distributions import Distribution

from arzbench.clock import SystemClock
from arzbench.measure.host import host_info
from arzbench.run.job import RunRequest, run_job
from arzbench.sb3.building import make_env
from arzbench.sb3.models import NullCallback
from arzbench.sb3.plugins import register_plugins
from arzbench.sb3.skipped_work import skip_mode_switches
from arzbench.sb3.workload import SB3Workload
from arzbench.study import DQN, PPO, Checkpoints, Study, TrainConfig

#: at most this much, where it is promised
TARGETS = {"dqn-null": 1.0, "ppo-cartpole": 1.0, "dqn-arz": 1.0, "ppo-arz": 1.0}
SIDES = ("bare", "run")
M_ARENA_MAX = -8
#: steps of a turn
TURN = 1000
UPDATE = BaseAlgorithm._update_info_buffer  # called after each step of either side


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

    def say(self, line: str) -> None:
        return

    def close(self) -> None:
        return


class Turns:
    """Two sides, each in a thread of its own, of which one goes on while the other waits."""

    def __init__(self, first: str) -> None:
        self.seconds = dict.fromkeys(SIDES, 0.0)
        self.cpu = dict.fromkeys(SIDES, 0.0)
        self._turn = {side: threading.Event() for side in SIDES}
        self._turn[first].set()
        self._began = self._cpu_began = 0.0
        self.over = False  # one of the two has ended

    def start(self) -> None:
        """Time what comes."""
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    def stop(self, side: str) -> None:
        """Time no longer."""
        self.seconds[side] += time.perf_counter() - self._began
        self.cpu[side] += time.process_time() - self._cpu_began

    def wait(self, side: str) -> None:
        """Until it is the turn of `side`, or the other has ended."""
        self._turn[side].wait()
        self._turn[side].clear()

    def give(self, side: str) -> None:
        """Now it is the other's turn."""
        self._turn[SIDES[1 - SIDES.index(side)]].set()

    def step(self, side: str, steps: int) -> None:
        """So many steps are done."""
        if steps % TURN != TURN // 2 or self.over:
            return
        self.stop(side)
        kept = common_state()
        Distribution.set_default_validate_args(True)  # as whoever comes first finds it
        self.give(side)
        self.wait(side)
        restore(kept)
        self.start()

    def end(self, side: str) -> None:
        """Of a side, come to it as it may."""
        self.over = True
        self.give(side)


def common_state() -> Any:
    """What the two sides would share: random generators, and whether torch checks its distributions."""
    cuda = th.cuda.get_rng_state() if th.cuda.is_available() else None
    generators = random.getstate(), np.random.get_state(), th.get_rng_state(), cuda
    return generators, Distribution._validate_args


def restore(kept: Any) -> None:
    (python, numpy, torch, cuda), checks = kept
    random.setstate(python)
    np.random.set_state(numpy)
    th.set_rng_state(torch)
    if cuda is not None:
        th.cuda.set_rng_state(cuda)
    Distribution.set_default_validate_args(checks)


class Stopped(SystemClock):
    """Goes on in the turns of the run's side only."""

    def __init__(self, turns: Turns) -> None:
        def ticks() -> float:
            return turns.seconds["run"] + time.perf_counter() - turns._began

        self.ticks = self.now = ticks


def count_steps(turns: Turns) -> None:
    """Tell `turns` of every step of both sides, at the same price."""

    def told(self: Any, infos: Any, dones: Any = None) -> None:
        UPDATE(self, infos, dones)
        turns.step("run" if hasattr(self, "hooks") else "bare", self.num_timesteps)

    BaseAlgorithm._update_info_buffer = told


class Timed(SB3Workload):
    """Timed from when a training begins to run to when it is closed."""

    turns: Turns

    def create(self, *args: Any, **kwargs: Any) -> Any:
        training = super().create(*args, **kwargs)
        run, close = training.run, training.close

        def timed_run(control: Any) -> None:
            self.turns.start()
            run(control)

        def timed_close() -> None:
            self.turns.stop("run")
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


def bare(config: TrainConfig, turns: Turns, skip: bool) -> None:
    th.set_num_threads(1)  # of this thread
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
    if skip:
        skip_mode_switches(model.policy)
        Distribution.set_default_validate_args(False)
    turns.start()
    model.learn(config.total_timesteps, callback=NullCallback() if skip else None, log_interval=None)
    turns.stop("bare")


def watched(config: TrainConfig, turns: Turns, where: Path) -> None:
    clock = Stopped(turns)
    turns.start()  # the clock goes; what comes before the training is not counted
    workload = Timed(clock)
    workload.turns = turns
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
        outcome = run_job(request, workload, clock, Quiet())
        assert outcome.exit_code == 0, outcome


def pair(config: TrainConfig, first: str, where: Path, skip: bool = False) -> dict[str, float]:
    """Seconds of both sides, and of the processor."""
    turns = Turns(first)
    count_steps(turns)
    gc.collect()
    failed: list[BaseException] = []

    def beside() -> None:
        turns.wait("bare")
        try:
            bare(config, turns, skip)
        except BaseException as error:
            failed.append(error)
        turns.end("bare")

    thread = threading.Thread(target=beside)
    thread.start()
    turns.wait("run")
    try:
        watched(config, turns, where)
    finally:
        turns.end("run")
        thread.join()
        Distribution.set_default_validate_args(True)
    if failed:
        raise failed[0]
    found = {f"{side}_s": turns.seconds[side] for side in SIDES}
    return found | {f"{side}_cpu_s": turns.cpu[side] for side in SIDES}


def measure(config: TrainConfig, pairs: int, where: Path, skip: bool) -> list[dict[str, float]]:
    pair(msgspec.structs.replace(config, total_timesteps=2 * TURN), "bare", where)  # compiled, imported, warm
    return [pair(config, SIDES[number % 2], where, skip) for number in range(pairs)]


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
    parser.add_argument("--skip", action="store_true", help="the bare side skips what the run's side skips")
    parser.add_argument("--json", type=Path, help="write every pair here")
    parser.add_argument("--dir", type=Path, help="where checkpoints go; the system's temporary folder")
    options = parser.parse_args()
    with contextlib.suppress(AttributeError):  # both threads get their memory in the same way
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    th.set_num_threads(1)
    gym.register("Null-v0", Null)
    register_plugins()
    result: dict[str, Any] = {
        "host": msgspec.to_builtins(host_info(options.device)),
        "steps": options.steps,
        "skip": options.skip,
    }
    kept = True
    print(f"{'case':14s} {'wall':>7s} {'95 % interval':>17s} {'CPU':>7s}   target")
    for name, config in cases(options.steps, options.every, options.device).items():
        if options.only not in (None, name):
            continue
        where = options.dir or Path(tempfile.gettempdir())
        pairs = measure(config, options.pairs, where, options.skip)
        wall, low, high = median_and_interval([p["run_s"] / p["bare_s"] for p in pairs])
        cpu = statistics.median(p["run_cpu_s"] / p["bare_cpu_s"] for p in pairs)
        within = wall <= TARGETS[name]
        kept = kept and (within or options.skip)
        verdict = "no target" if options.skip else f"{TARGETS[name]:.2f} {'kept' if within else 'MISSED'}"
        print(f"{name:14s} {wall:7.4f} {low:8.4f}-{high:8.4f} {cpu:7.4f}   {verdict}", flush=True)
        result[name] = {"median": wall, "interval": [low, high], "cpu_median": cpu, "pairs": pairs}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
