"""The state of a model of the training library, as plain values and back.

By duck typing: networks, optimizers, buffers, counters and random generators are found by the names
that the library gives them. Restoring writes into a model made anew from the same configuration.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import torch as th

from arzbench.errors import StateError
from arzbench.training_state import Ring

Array = np.ndarray[Any, Any]
OPTIMIZERS = ("policy.optimizer", "actor.optimizer", "critic.optimizer", "ent_coef_optimizer")
#: counters and schedules that a step changes
COUNTERS = (
    "num_timesteps",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "_current_progress_remaining",
    "exploration_rate",
)
SDE_MATRICES = ("exploration_mat", "exploration_matrices")
LAST = ("_last_obs", "_last_original_obs", "_last_episode_starts")
#: a rollout buffer's parts that are filled step by step
ROLLOUT_PARTS = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs")


def capture_weights(model: Any) -> dict[str, Any]:
    """Every tensor of the policy, target networks included, and what is learned beside it."""
    log_ent_coef = getattr(model, "log_ent_coef", None)
    return {
        "policy": {name: array_of(tensor) for name, tensor in model.policy.state_dict().items()},
        "log_ent_coef": None if log_ent_coef is None else array_of(log_ent_coef),
        "noise": _sde_matrices(model),
    }


def restore_weights(model: Any, saved: dict[str, Any]) -> None:
    """Write what `capture_weights` gave into `model`."""
    model.policy.load_state_dict({name: th.from_numpy(a.copy()) for name, a in saved["policy"].items()})
    if saved["log_ent_coef"] is not None:
        with th.no_grad():
            model.log_ent_coef.copy_(th.from_numpy(saved["log_ent_coef"]))
    if (saved["noise"] is None) == bool(getattr(model, "use_sde", False)):
        raise StateError("the saved state and this training differ in use_sde")
    for name, matrix in (saved["noise"] or {}).items():
        if name not in SDE_MATRICES:
            raise StateError(f"the saved exploration noise has an unknown part {name[:40]!r}")
        setattr(_sde_distribution(model), name, th.from_numpy(matrix.copy()).to(model.device))


def _sde_distribution(model: Any) -> Any:
    owner = getattr(model, "actor", None) or model.policy
    return owner.action_dist


def _sde_matrices(model: Any) -> dict[str, Array] | None:
    """The exploration noise of gSDE, drawn for several steps at once."""
    if not getattr(model, "use_sde", False):
        return None
    distribution = _sde_distribution(model)
    return {
        name: array_of(getattr(distribution, name)) for name in SDE_MATRICES if hasattr(distribution, name)
    }


def capture_optimizers(model: Any) -> dict[str, Any]:
    """State and settings of every optimizer."""
    return {path: _optimizer(optimizer) for path, optimizer in find_optimizers(model)}


def _optimizer(optimizer: Any) -> dict[str, Any]:
    saved = optimizer.state_dict()  # parameters by number
    return {
        "state": {
            str(number): {name: _plain(value) for name, value in fields.items()}
            for number, fields in saved["state"].items()
        },
        "groups": [{name: _plain(value) for name, value in group.items()} for group in saved["param_groups"]],
    }


def array_of(tensor: th.Tensor) -> Array:
    """`tensor` as an array: on a CPU its own memory, else a copy."""
    array: Array = tensor.detach().cpu().numpy()
    return array


def _plain(value: Any) -> Any:
    return array_of(value) if isinstance(value, th.Tensor) else value


def restore_optimizers(model: Any, saved: dict[str, Any]) -> None:
    """Write what `capture_optimizers` gave into the optimizers of `model`."""
    optimizers = dict(find_optimizers(model))
    if optimizers.keys() != saved.keys():
        raise StateError("the saved state has other optimizers")
    for path, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state = {}
        for key, fields in saved[path]["state"].items():
            shape = parameters[int(key)].shape
            for name, value in fields.items():
                if isinstance(value, np.ndarray) and value.shape not in ((), tuple(shape)):
                    raise StateError(f"{path}: {name} has shape {value.shape}, not {tuple(shape)}")
            state[int(key)] = {n: _tensor(v) for n, v in fields.items()}
        groups = [{k: _tensor(v) for k, v in group.items()} for group in saved[path]["groups"]]
        fresh = optimizer.state_dict()["param_groups"]
        if [g.keys() for g in groups] != [g.keys() for g in fresh]:
            raise StateError(f"{path}: the saved settings are of another optimizer")
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def find_optimizers(model: Any) -> list[tuple[str, Any]]:
    """Every optimizer, with the path of its attribute."""
    optimizers = []
    for path in OPTIMIZERS:
        owner: Any = model
        for part in path.split("."):
            owner = getattr(owner, part, None)
        if owner is not None:
            optimizers.append((path, owner))
    return optimizers


def replay_ring(model: Any) -> Ring | None:
    """The replay buffer of `model`, a row per vectorised step; None for algorithms without one."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None:
        return None
    size, pos = buffer.buffer_size, buffer.pos
    total = model.num_timesteps // buffer.n_envs
    if total % size != pos or (total >= size) != buffer.full:
        total = size * buffer.full + pos  # filled by other means than steps
    return Ring(arrays=replay_arrays(buffer), total=total)


def capture_replay(buffer: Any) -> dict[str, Any] | None:
    """What a replay buffer holds beside its rows: where the next one goes, and what is there now.

    With `optimize_memory_usage` that place has the last observation already.
    """
    if buffer is None:
        return None
    edge = {path: array[buffer.pos] for path, array in replay_arrays(buffer).items()}
    return {"pos": buffer.pos, "full": buffer.full, "edge": edge}


def restore_replay(buffer: Any, saved: dict[str, Any] | None, ring: Ring | None) -> None:
    """Write what `capture_replay` gave and the rows of `ring` into an empty replay buffer of the same shape.

    States of format 1 have their rows in `saved`.
    """
    if buffer is None or saved is None:
        if buffer is not saved:
            raise StateError("the saved state is of an algorithm of another kind")
        return
    pos, full, size, arrays = saved["pos"], saved["full"], buffer.buffer_size, replay_arrays(buffer)
    if type(pos) is not int or type(full) is not bool or not 0 <= pos < size:
        raise StateError(f"the saved replay buffer ends at {pos!r}, this training has {size} rows")
    used = size if full else pos
    if "rows" in saved:
        ring = Ring(arrays=saved["rows"], total=size * full + pos)
    if ring is None or (used and arrays.keys() != ring.arrays.keys()):
        raise StateError("the saved replay buffer holds other things")
    if ring.total % size != pos or ring.total < used or ring.total - used < ring.first:
        raise StateError(f"the saved replay buffer lacks some of its {used} rows")
    start = ring.total - used
    turn = min(used, size - start % size)  # rows up to the end of the ring; the others begin it anew
    for first, rows in (
        (start, ring.rows(start, start + turn)),
        (start + turn, ring.rows(start + turn, ring.total)),
    ):
        for name, array in rows.items():
            copy_rows(arrays[name][first % size :], array, f"replay buffer, {name}")
    for name, value in saved.get("edge", {}).items():
        copy_rows(arrays[name][pos:], value[np.newaxis], f"replay buffer, {name}")
    buffer.pos, buffer.full = pos, full


def replay_arrays(buffer: Any) -> dict[str, Array]:
    """The arrays of a replay buffer with a row per vectorised step; a dict's parts as name.key."""
    arrays: dict[str, Array] = {}
    for name, value in vars(buffer).items():
        parts = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
        for path, part in parts.items():
            if isinstance(part, np.ndarray) and part.shape[:1] == (buffer.buffer_size,):
                arrays[path] = part
    return arrays


def capture_rollout(buffer: Any, steps: int) -> dict[str, Any]:
    """The first `steps` rows of the rollout being collected."""
    rows = {name: array[:steps] for name, array in _rollout_arrays(buffer).items()}
    return {"pos": steps, "rows": rows}


def restore_rollout(buffer: Any, saved: dict[str, Any]) -> None:
    """Write what `capture_rollout` gave into a fresh rollout buffer."""
    pos, arrays = saved["pos"], _rollout_arrays(buffer)
    if type(pos) is not int or not 0 <= pos <= buffer.buffer_size or arrays.keys() != saved["rows"].keys():
        raise StateError("the saved rollout does not fit this training's n_steps")
    for name, rows in saved["rows"].items():
        if len(rows) != pos:
            raise StateError(f"the saved rollout has {len(rows)} rows of {name}, not {pos}")
        copy_rows(arrays[name], rows, f"rollout, {name}")
    buffer.pos, buffer.full = pos, pos == buffer.buffer_size


def _rollout_arrays(buffer: Any) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name in ROLLOUT_PARTS:
        value = getattr(buffer, name)
        arrays |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return arrays


def copy_rows(target: Array, rows: Array, what: str) -> None:
    """Write `rows` over the first rows of `target`, which must be of the same shape and type."""
    if rows.shape[1:] != target.shape[1:] or rows.dtype != target.dtype or len(rows) > len(target):
        raise StateError(
            f"{what}: {rows.shape} of {rows.dtype} does not fit into {target.shape} of {target.dtype}"
        )
    target[: len(rows)] = rows


def capture_counters(model: Any) -> dict[str, Any]:
    """Counters, the last observation, episode statistics and the state of action noise."""
    counters = {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)}
    episodes = model.ep_info_buffer
    return {
        "counters": counters,
        "last": {name: getattr(model, name) for name in LAST},
        "returns": None if episodes is None else np.array([info["r"] for info in episodes], float),
        "lengths": None if episodes is None else np.array([info["l"] for info in episodes], np.int64),
        "successes": None if episodes is None else np.array(model.ep_success_buffer, float),
        "noise": [getattr(n, "noise_prev", None) for n in _noises(model)],
    }


def restore_counters(model: Any, saved: dict[str, Any]) -> None:
    """Write what `capture_counters` gave into `model`, but for the noise (see `restore_noise`)."""
    for name, value in saved["counters"].items():
        if name not in COUNTERS or isinstance(value, bool) or not isinstance(value, int | float):
            raise StateError(f"the saved counter {name[:40]!r} is not one of this library")
        setattr(model, name, value)
    last = saved["last"]
    for name in ("_last_obs", "_last_original_obs"):
        if last[name] is not None:
            _check_like(last[name], model.env.observation_space, model.n_envs)
    starts = last["_last_episode_starts"]
    if starts is not None and np.shape(starts) != (model.n_envs,):
        raise StateError(f"the saved episode starts have shape {np.shape(starts)}, not ({model.n_envs},)")
    for name in LAST:
        setattr(model, name, last[name])
    if saved["returns"] is not None:
        window = model._stats_window_size
        pairs = zip(saved["returns"].tolist(), saved["lengths"].tolist(), strict=True)
        model.ep_info_buffer = deque([{"r": r, "l": n, "t": 0.0} for r, n in pairs], maxlen=window)
        model.ep_success_buffer = deque(saved["successes"].tolist(), maxlen=window)


def restore_noise(model: Any, states: list[Any]) -> None:
    """Write the state of action noise back: `learn` resets it when it begins."""
    for noise, state in zip(_noises(model), states, strict=True):
        if state is not None:
            noise.noise_prev = state.copy()


def _noises(model: Any) -> list[Any]:
    noise = getattr(model, "action_noise", None)
    return [] if noise is None else list(getattr(noise, "noises", [noise]))


def _check_like(observation: Any, space: Any, n_envs: int) -> None:
    """Raise unless `observation` is a batch of `n_envs` observations of `space`."""
    if isinstance(observation, dict):
        for name, part in observation.items():
            _check_like(part, space[name], n_envs)
    elif not isinstance(observation, np.ndarray) or observation.shape != (n_envs, *space.shape):
        shape = getattr(observation, "shape", None)
        raise StateError(f"the saved observation has shape {shape}, not {(n_envs, *space.shape)}")


def capture_normalization(wrapper: Any) -> dict[str, Any] | None:
    """Running statistics of observations and returns."""
    if wrapper is None:
        return None
    means = wrapper.obs_rms if isinstance(wrapper.obs_rms, dict) else {"": wrapper.obs_rms}
    return {
        "observations": {name: _moments(rms) for name, rms in means.items()},
        "return": _moments(wrapper.ret_rms),
        "returns": wrapper.returns,
    }


def restore_normalization(wrapper: Any, saved: dict[str, Any] | None) -> None:
    """Write what `capture_normalization` gave into `wrapper`."""
    if wrapper is None or saved is None:
        if wrapper is not saved:
            raise StateError("the saved state and this training differ in vec_normalize")
        return
    means = wrapper.obs_rms if isinstance(wrapper.obs_rms, dict) else {"": wrapper.obs_rms}
    if means.keys() != saved["observations"].keys() or saved["returns"].shape != wrapper.returns.shape:
        raise StateError("the saved normalization is of other observations")
    for name, rms in means.items():
        _set_moments(rms, saved["observations"][name])
    _set_moments(wrapper.ret_rms, saved["return"])
    wrapper.returns = saved["returns"].copy()


def _moments(rms: Any) -> dict[str, Any]:
    return {"mean": rms.mean, "var": rms.var, "count": float(rms.count)}


def _set_moments(rms: Any, saved: dict[str, Any]) -> None:
    if np.shape(saved["mean"]) != np.shape(rms.mean) or np.shape(saved["var"]) != np.shape(rms.var):
        raise StateError("the saved normalization is of other observations")
    rms.mean, rms.var, rms.count = saved["mean"], saved["var"], saved["count"]


def capture_random(model: Any) -> dict[str, Any]:
    """The random generators of actions: Python's, NumPy's, torch's and the action space's."""
    device = model.device
    version, words, gauss = random.getstate()
    kind, keys, pos, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": {"version": version, "words": np.array(words, np.uint64), "gauss": gauss},
        "numpy": {"kind": kind, "keys": keys, "pos": pos, "has_gauss": has_gauss, "cached": cached},
        "torch": th.get_rng_state().numpy(),
        "cuda": th.cuda.get_rng_state(device).numpy() if device.type == "cuda" else None,
        "actions": generator_state(model.action_space.np_random),
    }


def restore_random(model: Any, saved: dict[str, Any]) -> None:
    """Put the random generators of actions into the captured state."""
    device = model.device
    python, numpy = saved["python"], saved["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    state = (numpy["kind"], numpy["keys"], numpy["pos"], numpy["has_gauss"], numpy["cached"])
    np.random.set_state(state)
    th.set_rng_state(th.from_numpy(saved["torch"].copy()))
    if saved["cuda"] is not None and device.type == "cuda":
        th.cuda.set_rng_state(th.from_numpy(saved["cuda"].copy()), device)
    generator = make_generator(saved["actions"])
    there = model.action_space._np_random
    if there is None or generator is None:
        model.action_space._np_random = generator
    else:  # its seed, which matters when it spawns others, has come back with the envs
        there.bit_generator.state = generator.bit_generator.state


def generator_state(generator: np.random.Generator | None) -> dict[str, Any] | None:
    """The state of a random generator, None for one that was never made."""
    return None if generator is None else dict(generator.bit_generator.state)


def make_generator(state: Any) -> np.random.Generator | None:
    """A generator in the state that `generator_state` gave.

    Raises:
        StateError: of a kind that Gymnasium does not use.
    """
    if state is None:
        return None
    if state["bit_generator"] != "PCG64":
        raise StateError(f"the saved random generator is a {str(state['bit_generator'])[:40]}, not a PCG64")
    bits = np.random.PCG64()
    bits.state = state
    return np.random.Generator(bits)


def _tensor(value: Any) -> Any:
    return th.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def prefill(buffer: Any, transitions: int) -> None:
    """Repeat the used rows of a replay buffer until it holds `transitions`, at most its size."""
    used = buffer.size()
    wanted = min(transitions // buffer.n_envs, buffer.buffer_size)
    if wanted <= used:
        return
    for array in replay_arrays(buffer).values():
        if used:
            array[used:wanted] = np.resize(array[:used], (wanted - used, *array.shape[1:]))
        else:
            array[:wanted] = 0  # written, so that the memory is really there
    buffer.full = wanted == buffer.buffer_size
    buffer.pos = 0 if buffer.full else wanted
