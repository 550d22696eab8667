"""A user's script: trains models by their names, with `arzbench.learn` or with their own `learn`.

    python learn_victim.py arzbench|library FOLDER NAME...

What each has come to is in FOLDER/NAME/result.json: digests by what they are of.
"""

import collections
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_normalize

import arzbench
from tests.sb3.user_models import MODELS

#: times the steps that the tests train; random search is quick
LONGER, QUICK = 3, 30
SAVES = 16


class Counting(BaseCallback):
    """Keeps numbers, texts and arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.rollouts = 0
        self.returns: list[float] = []
        self.moments = np.zeros(3)
        self.by_action: dict[str, int] = {}

    def _on_rollout_start(self) -> None:
        self.rollouts += 1

    def _on_step(self) -> bool:
        self.returns += [info["episode"]["r"] for info in self.locals.get("infos", []) if "episode" in info]
        reward = float(np.sum(self.locals.get("rewards", 0.0)))
        self.moments += (1, reward, reward**2)
        action = str(np.ravel(self.locals.get("actions", 0))[0])[:4]
        self.by_action[action] = self.by_action.get(action, 0) + 1
        return True


def plain(value: Any) -> Any:
    """What can be written down, by its type; functions, envs and the like are left out."""
    if isinstance(value, th.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, RunningMeanStd):
        value = vars(value)
    if isinstance(value, np.random.Generator):
        value = value.bit_generator.state
    if isinstance(value, dict):
        return [(str(k), plain(v)) for k, v in value.items()]
    if isinstance(value, list | tuple | collections.deque):
        return [plain(v) for v in value]
    if isinstance(value, bool | int | float | str | np.generic | None):
        return repr(value)
    return type(value).__name__


def parts(model: Any, callbacks: list[Any], logged: Path) -> dict[str, Any]:
    """All that must not depend on kills, by what it is of."""
    optimizers = {
        name: module.state_dict()
        for owner in (model, model.policy, getattr(model, "actor", None), getattr(model, "critic", None))
        for name, module in (vars(owner) if owner is not None else {}).items()
        if isinstance(module, th.optim.Optimizer)
    }
    for network in ("actor", "critic"):
        if (owner := getattr(model, network, None)) is not None and hasattr(owner, "optimizer"):
            optimizers[network] = owner.optimizer.state_dict()
    normalization = unwrap_vec_normalize(model.env)
    counters = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate")
    counting, evaluation = callbacks
    seldom = ("n_calls", "num_timesteps", "best_mean_reward", "last_mean_reward", "evaluations_results",
              "evaluations_timesteps", "evaluations_length")  # fmt: skip
    with np.load(logged / "evaluations.npz") as file:
        evaluations = {name: file[name] for name in file.files}
    return {
        "weights": model.policy.state_dict(),
        "other tensors": {n: v for n, v in vars(model).items() if isinstance(v, th.Tensor)},
        "optimizers": optimizers,
        "counters": {name: getattr(model, name, None) for name in counters},
        "last episodes": [(info["r"], info["l"]) for info in model.ep_info_buffer or ()],
        "replay buffer": replay(getattr(model, "replay_buffer", None)),
        "normalization": statistics(normalization),
        "own callback": {name: getattr(counting, name) for name in ("n_calls", *vars(Counting()))
                         if name not in ("model", "locals", "globals", "parent", "logger", "training_env")},
        "evaluation callback": {name: getattr(evaluation, name) for name in seldom},
        "its normalization": statistics(unwrap_vec_normalize(evaluation.eval_env)),
        "evaluations on the disk": evaluations,
        "generators": [random.getstate(), np.random.get_state(), th.get_rng_state()],
    }  # fmt: skip


def replay(buffer: Any) -> dict[str, Any]:
    if buffer is None:
        return {}
    size = buffer.size()
    rows = {n: v[:size] if isinstance(v, np.ndarray) and len(v) == buffer.buffer_size else v
            for n, v in vars(buffer).items()}  # fmt: skip
    rows.pop("infos", None)  # of a dict an info, with the time of day in it
    return rows


def statistics(normalization: VecNormalize | None) -> dict[str, Any]:
    if normalization is None:
        return {}
    return {name: getattr(normalization, name, None) for name in ("obs_rms", "ret_rms", "returns")}


def train(name: str, folder: Path, own: bool) -> None:
    make, steps = MODELS[name]
    steps *= QUICK if name.startswith("ars") else LONGER
    eval_env = make().env
    model = make()
    calls = steps // model.n_envs
    evaluation = EvalCallback(
        eval_env, log_path=str(folder), eval_freq=calls // 4, n_eval_episodes=2, verbose=0
    )
    callbacks = [Counting(), evaluation]
    if own:
        freq = max(1, calls // SAVES)
        arzbench.learn(model, steps, callback=callbacks, checkpoint_freq=freq, folder=folder, name=name)
    else:
        model.learn(steps, callback=callbacks)
    found = {what: hashlib.sha256(repr(plain(value)).encode()).hexdigest()[:16]
             for what, value in parts(model, callbacks, folder).items()}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(found, indent=1))
    model.env.close()
    eval_env.close()


def main() -> None:
    th.set_num_threads(1)
    by, where, *names = sys.argv[1:]
    for each in names:
        (Path(where) / each).mkdir(parents=True, exist_ok=True)
        train(each, Path(where) / each, by == "arzbench")


if __name__ == "__main__":
    main()
