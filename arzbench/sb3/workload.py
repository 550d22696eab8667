"""Stable-Baselines3 as a workload: trainings on registered Gymnasium envs."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import signal
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import torch as th
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from arzbench.clock import Clock, SystemClock
from arzbench.digest import digest
from arzbench.errors import UsageError, unknown
from arzbench.facts import Phase
from arzbench.loop import TrainingLoop
from arzbench.run.signals import HONOURED
from arzbench.sb3 import together
from arzbench.sb3.batch_episodes import BatchEpisodes
from arzbench.sb3.building import build, check_device, make_env
from arzbench.sb3.env_errors import check_seeded, is_of_env, try_step
from arzbench.sb3.episodes import Episodes, Player, controlled, is_masked, randomly
from arzbench.sb3.loading import loaded
from arzbench.sb3.model_loop import apply_loop
from arzbench.sb3.models import adopt
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.plugins import baseline_controllers, register_plugins
from arzbench.sb3.skipped_work import skip_mode_switches
from arzbench.sb3.state import LiveState
from arzbench.sb3.training import SB3Training
from arzbench.study import TrainConfig
from arzbench.training_state import TrainingState
from arzbench.workload import AbstractWorkload, Recorder


class SB3Workload(AbstractWorkload):
    """Trainings of Stable-Baselines3 on Gymnasium envs.

    Messages of the envs are appended to `log_path`; None drops what is written.
    """

    def __init__(self, clock: Clock | None = None, log_path: Path | None = None) -> None:
        self._clock = clock or SystemClock()
        self._log_path = log_path
        self._tried: set[str] = set()  # what was found to be sound: an env may take long to make
        #: whether the envs that were checked or stepped have messages of their own
        self.has_messages = False

    def load(self) -> dict[str, str]:
        register_plugins()
        return library_versions()

    def check(self, config: TrainConfig) -> None:
        register_plugins()
        if _tried_as(config) in self._tried:
            return
        began = self._clock.ticks()
        model, envs, eval_env, _ = _make(config)
        try:
            for env in envs[:1]:
                self._try(config, env)
        finally:
            for one in filter(None, (model.env, eval_env)):
                one.close()
        if not envs:
            self.first_step(config)  # those in processes of their own are closed
        self._tried.add(_tried_as(config))
        self.checked_s += self._clock.ticks() - began

    def create(
        self,
        config: TrainConfig,
        recorder: Recorder,
        *,
        budget: int | None = None,
        state: TrainingState | None = None,
        loop: TrainingLoop | None = None,
    ) -> SB3Training:
        register_plugins()
        th.set_num_threads(config.torch_threads)
        timer = PhaseTimer(self._clock, recorder)
        began = timer.ticks()
        model, envs, eval_env, baseline = _make(config)
        if loop is not None:
            apply_loop(model, loop)
        recorder.add(Phase.BUILD, timer.ticks() - began, 1)
        episodes = Episodes(eval_env, timer, config.seed, model, _batch(config, model, eval_env))
        loaded()
        training = SB3Training(
            LiveState(config, loop or config.loop, model, envs, episodes),
            timer,
            config.total_timesteps if budget is None else budget,
            baseline=baseline,
            stream=self._open_log(),
        )
        if state is not None:
            try:
                training.restore(state)
            except Exception:
                training.close()
                raise
        return training

    def _open_log(self) -> TextIO:
        path = self._log_path or Path(os.devnull)
        try:
            return path.open("a", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write the messages to {path}: {error.strerror}") from error

    def first_step(self, config: TrainConfig) -> None:
        if _tried_as(config) in self._tried:
            return
        register_plugins()
        env = make_env(config)
        try:
            self._try(config, env)
        finally:
            env.close()

    def _try(self, config: TrainConfig, env: Any) -> None:
        self.has_messages = hasattr(env.unwrapped, "message_log")
        try_step(config.env, env, config.seed)

    def is_of_env(self, error: BaseException) -> bool:
        return is_of_env(error)


def _tried_as(config: TrainConfig) -> str:
    """What a check of `config` has found out, for others like it, too."""
    return digest([config.workload_digest(), config.evaluation, config.baseline])


def library_versions() -> dict[str, str]:
    """The versions of what decides speed and bits, as far as it is installed."""
    names = ("torch", "stable_baselines3", "sb3-contrib", "gymnasium", "numpy", "numba", "numba-cuda")
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _make(config: TrainConfig) -> tuple[Any, Sequence[Any], Any, Player | None]:
    """The model, its envs, an env to evaluate in and the baseline's player, where there are such episodes.

    Raises:
        UsageError: they cannot be made, all of them at the same time.
    """
    check_device(config.device)
    model, envs = make_model(config)
    if not config.evaluates:
        return model, envs, None, None
    eval_env = None
    try:
        eval_env = make_env(config)
        return model, envs, eval_env, make_baseline(config, eval_env)
    except UsageError as error:
        for env in filter(None, (model.env, eval_env)):
            env.close()
        if eval_env is None:
            raise UsageError(
                f"a second {config.env}, to evaluate in, cannot be made beside the first: {_reason(error)}",
                "train without (--set): evaluation.eval_freq=0, also evaluation.final_episodes=0 and "
                "baseline.episodes=0; evaluate the model afterwards",
            ) from error.__cause__
        raise


def _batch(config: TrainConfig, model: Any, eval_env: Any) -> BatchEpisodes | None:
    """What plays the episodes of an evaluation at once, where that changes nothing."""
    one_by_one = config.fast is False or not config.evaluation.deterministic or is_masked(model)
    if one_by_one or eval_env is None or not together.can(eval_env):
        return None
    another = functools.partial(make_env, config)
    return BatchEpisodes(eval_env, another, config.evaluation.n_eval_episodes, model)


def _reason(error: BaseException) -> BaseException:
    return error.__cause__ or error


def make_baseline(config: TrainConfig, env: Any) -> Player:
    """How baseline episodes are played.

    Raises:
        UsageError: the controller is not one for this env.
    """
    name = config.baseline.controller
    if name == "random" or not config.baseline.episodes:
        return randomly(env)
    controllers = baseline_controllers(env)
    if not controllers:
        raise UsageError(f"the baseline {name!r} is not for {config.env}", "controllers for any env: random")
    if name not in controllers:
        raise unknown("baseline controller", name, [*controllers, "random"], f"those for {config.env}")
    return controlled(controllers[name](), env)


def make_model(config: TrainConfig) -> tuple[Any, Sequence[Any]]:
    """The model, not yet trained, and the envs inside its vectorised env, none where they have own processes.

    Raises:
        UsageError: the env or an argument does not suit the algorithm.
    """
    envs: list[Any] = []

    def make_vec_env() -> VecEnv:
        if config.vec_env == "subproc":
            return _in_processes(config)
        try:
            for _ in range(config.n_envs):
                envs.append(_monitored(make_env(config)))
        except UsageError as error:
            for env in envs:
                env.close()
            if envs:
                raise UsageError(
                    f"{config.env} was made {len(envs)} times and cannot be once more: {_reason(error)}",
                    f"n_envs = {len(envs)}",
                ) from error.__cause__
            raise
        check_seeded(config.env, envs[0])
        vec_env = DummyVecEnv([lambda env=env: env for env in envs])  # type: ignore[misc]
        if config.fast is not False:
            together.join_vec_env(vec_env)
        return vec_env

    model = build(config, make_vec_env)
    if is_masked(model) and envs and not envs[0].has_wrapper_attr("action_masks"):
        model.env.close()
        raise UsageError(
            f"{config.env} has no action_masks, which {type(config).__name__} asks for",
            "a method of the env, or of a wrapper such as sb3_contrib.common.wrappers:ActionMasker",
        )
    model.set_logger(Logger(None, []))  # its own would make a folder
    skip_mode_switches(model.policy)
    return adopt(model), envs


def _in_processes(config: TrainConfig) -> VecEnv:
    try:
        return SubprocVecEnv([functools.partial(_make_in_process, config)] * config.n_envs)
    except (EOFError, OSError) as error:
        raise UsageError(
            f"{config.env} cannot be made {config.n_envs} times in processes of their own",
            "vec_env = 'dummy' shows the error; where only one can be open, n_envs = 1",
        ) from error


def _make_in_process(config: TrainConfig) -> Any:
    """An env in a process of its own, which ends with this one: a signal to all of them is for this one."""
    for number in HONOURED:
        signal.signal(number, signal.SIG_IGN)
    register_plugins()
    return _monitored(make_env(config))


def _monitored(env: Any) -> Monitor[Any, Any]:
    """`env` in a Monitor that does not keep what the ledger has."""
    monitor = Monitor(env)
    for name in ("episode_returns", "episode_lengths", "episode_times"):
        setattr(monitor, name, deque(maxlen=1))
    return monitor
