"""Trainings around models that a user's own function built."""

import io
from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.logger import Logger

from arzbench.clock import VirtualClock
from arzbench.loop import TrainingLoop
from arzbench.sb3.episodes import Episodes, randomly
from arzbench.sb3.model_loop import apply_loop, loop_of
from arzbench.sb3.models import adopt
from arzbench.sb3.open_episodes import innermost
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.state import LiveState
from arzbench.sb3.training import SB3Training
from arzbench.study import A2C
from arzbench.training_state import TrainingState
from tests.sb3.controls import STARTED, Log
from tests.sb3.envs import Known

Make = Callable[[], Any]


def quiet(model: Any) -> Any:
    th.set_num_threads(1)
    model.set_logger(Logger(None, []))
    return model


def bare(make: Make, total: int) -> Any:
    """The model after the library's own `learn`."""
    model = quiet(make())
    model.learn(total)
    return model


def around(
    make: Make, total: int, state: TrainingState | None = None, loop: TrainingLoop | None = None
) -> tuple[SB3Training, Log]:
    """A training of the model that `make` builds, as `SB3Workload.create` makes one of a study."""
    model = adopt(quiet(make()))
    if loop is not None:
        apply_loop(model, loop)
    log = Log()
    timer = PhaseTimer(VirtualClock(), log)
    config = A2C(env="the user's own", n_envs=model.n_envs, total_timesteps=total, seed=model.seed or 0)
    envs = getattr(innermost(model.env), "envs", [])
    episodes = Episodes(Known(), timer, 0, model)
    live = LiveState(config, loop or loop_of(model, total), model, envs, episodes)
    live.like_library = True
    training = SB3Training(live, timer, total, baseline=randomly(Known()), stream=io.StringIO())
    STARTED.append(training)
    if state is not None:
        training.restore(state)
    return training, log


def weights(model: Any) -> dict[str, Any]:
    """All that is learned, as bytes."""
    parts = {"policy": model.policy, **{n: v for n, v in vars(model).items() if isinstance(v, th.nn.Module)}}
    found = {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}
    found |= {n: v for n, v in vars(model).items() if isinstance(v, th.Tensor)}
    return {name: tensor.detach().numpy().tobytes() for name, tensor in found.items()}
