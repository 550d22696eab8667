"""The state of a model of the training library, as plain values and back.

By duck typing: counters and random generators are found by the names that the library gives them; networks,
optimizers and tensors wherever they hang on the model. Restoring writes into a model made anew from the same
configuration. Schedules and other functions are code: they are never saved. For buffers see `buffer_state`.
"""

from __future__ import annotations

import operator
import random
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch as th

from arzbench.errors import StateError
from arzbench.sb3 import own_state
from arzbench.sb3.codec import generator_state, make_generator

Array = np.ndarray[Any, Any]
#: where the library has optimizers; there may be others
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
#: what recurrent policies carry from step to step
MEMORY = "_last_lstm_states"


def capture_weights(model: Any) -> dict[str, Any]:
    """Every tensor of the policy, target networks included, and what is learned beside it."""
    log_ent_coef = getattr(model, "log_ent_coef", None)
    weights: dict[str, Any] = {
        "policy": _state_of(model.policy),
        "log_ent_coef": None if log_ent_coef is None else array_of(log_ent_coef),
        "noise": _sde_matrices(model),
    }
    if tensors := {name: array_of(tensor) for name, tensor in _tensors(model).items()}:
        weights["tensors"] = tensors
    if modules := {name: _state_of(module) for name, module in _modules(model).items()}:
        weights["modules"] = modules
    return weights


def _state_of(module: th.nn.Module) -> dict[str, Array]:
    return {name: array_of(tensor) for name, tensor in module.state_dict().items()}


def _tensors(model: Any) -> dict[str, th.Tensor]:
    """Beside the policy."""
    return {n: v for n, v in vars(model).items() if isinstance(v, th.Tensor) and n != "log_ent_coef"}


def _modules(model: Any) -> dict[str, th.nn.Module]:
    """Networks that are no part of the policy."""
    return {name: vars(model)[name] for name in _layout(model).modules}


def restore_weights(model: Any, saved: dict[str, Any]) -> None:
    """Write what `capture_weights` gave into `model`."""
    _load(model.policy, saved["policy"])
    modules, tensors = _modules(model), _tensors(model)
    for name, arrays in saved.get("modules", {}).items():
        _load(modules[name], arrays)
    learned = {} if saved["log_ent_coef"] is None else {"log_ent_coef": saved["log_ent_coef"]}
    for name, array in (learned | saved.get("tensors", {})).items():
        tensor = model.log_ent_coef if name == "log_ent_coef" else tensors[name]
        if tensor.shape != array.shape:
            raise StateError(f"{name} has shape {array.shape}, not {tuple(tensor.shape)}")
        with th.no_grad():
            tensor.copy_(th.from_numpy(array))
    if (saved["noise"] is None) == bool(getattr(model, "use_sde", False)):
        raise StateError("the saved state and this training differ in use_sde")
    for name, matrix in (saved["noise"] or {}).items():
        if name not in SDE_MATRICES:
            raise StateError(f"the saved exploration noise has an unknown part {name[:40]!r}")
        setattr(_sde_distribution(model), name, th.from_numpy(matrix.copy()).to(model.device))


def _load(module: th.nn.Module, arrays: dict[str, Array]) -> None:
    module.load_state_dict({name: th.from_numpy(a.copy()) for name, a in arrays.items()})


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


def find_optimizers(model: Any) -> list[tuple[str, th.optim.Optimizer]]:
    """Every optimizer that hangs on the model or on one of its networks, with the path of its attribute."""
    return [(path, operator.attrgetter(path)(model)) for path in _layout(model).optimizers]


class _Layout(NamedTuple):
    """Where a model has what it learns with; found anew when it has got another attribute."""

    attributes: int
    modules: tuple[str, ...]
    optimizers: tuple[str, ...]


_layouts: weakref.WeakKeyDictionary[Any, _Layout] = weakref.WeakKeyDictionary()


def _layout(model: Any) -> _Layout:
    known = _layouts.get(model)
    if known is None or known.attributes != len(vars(model)):
        parts = set(model.policy.modules())
        beside = [n for n, v in vars(model).items() if isinstance(v, th.nn.Module) and v not in parts]
        paths: dict[int, str] = {}
        for path, optimizer in _optimizers(model):
            paths.setdefault(id(optimizer), path)
        known = _layouts[model] = _Layout(len(vars(model)), tuple(beside), tuple(paths.values()))
    return known


def _optimizers(model: Any) -> Iterator[tuple[str, th.optim.Optimizer]]:
    """Those of the library first, under the paths that it gives them."""
    for path in OPTIMIZERS:
        owner: Any = model
        for part in path.split("."):
            owner = getattr(owner, part, None)
        if isinstance(owner, th.optim.Optimizer):
            yield path, owner
    for name, value in vars(model).items():
        if isinstance(value, th.optim.Optimizer):
            yield name, value
        for inner, module in value.named_modules() if isinstance(value, th.nn.Module) else ():
            for attribute, owned in vars(module).items():
                if isinstance(owned, th.optim.Optimizer):
                    yield ".".join(filter(None, (name, inner, attribute))), owned


def capture_counters(model: Any) -> dict[str, Any]:
    """Counters, the last observation, episode statistics and the state of action noise."""
    counters = {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)}
    episodes = model.ep_info_buffer
    more: dict[str, Any] = {}
    if (memory := getattr(model, MEMORY, None)) is not None:
        more["memory"] = [array_of(tensor) for tensor in _flat(memory)]
    if own := own_state.capture(model):
        more["own"] = own
    if orders := _memory_orders(model._last_obs):
        more["orders"] = orders
    return {
        **more,
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
    normalizer = model.get_vec_normalize_env()
    original = model.env if normalizer is None else normalizer.venv  # as the envs gave it
    for name, env in (("_last_obs", model.env), ("_last_original_obs", original)):
        if last[name] is not None:
            _check_like(last[name], env.observation_space, model.n_envs)
    starts = last["_last_episode_starts"]
    if starts is not None and np.shape(starts) != (model.n_envs,):
        raise StateError(f"the saved episode starts have shape {np.shape(starts)}, not ({model.n_envs},)")
    for name in LAST:
        setattr(model, name, last[name])
    model._last_obs = _laid_out(model._last_obs, saved.get("orders", {}))
    if "memory" in saved:
        setattr(model, MEMORY, _like(getattr(model, MEMORY), iter(saved["memory"])))
    own_state.restore(model, saved.get("own", {}))
    if saved["returns"] is not None:
        window = model._stats_window_size
        pairs = zip(saved["returns"].tolist(), saved["lengths"].tolist(), strict=True)
        model.ep_info_buffer = deque([{"r": r, "l": n, "t": 0.0} for r, n in pairs], maxlen=window)
        model.ep_success_buffer = deque(saved["successes"].tolist(), maxlen=window)


def _memory_orders(observation: Any) -> dict[str, list[int]]:
    """Axes in the order of memory, the outermost first, of each part that has them in another one.

    VecTransposeImage leaves pictures so, and the bits of a convolution depend on it.
    """
    parts = observation if isinstance(observation, dict) else {"": observation}
    return {
        name: np.argsort([-stride for stride in part.strides], kind="stable").tolist()
        for name, part in parts.items()
        if part is not None and not part.flags.c_contiguous
    }


def _laid_out(observation: Any, orders: dict[str, list[int]]) -> Any:
    """`observation` in memory as `_memory_orders` found it."""
    if isinstance(observation, dict):
        own = {name: {"": orders[name]} for name in observation if name in orders}
        return {name: _laid_out(part, own.get(name, {})) for name, part in observation.items()}
    if "" not in orders:
        return observation
    order = orders[""]
    return np.ascontiguousarray(observation.transpose(order)).transpose(np.argsort(order))


def _flat(memory: Any) -> Iterator[th.Tensor]:
    """The tensors in tuples of tuples."""
    if isinstance(memory, th.Tensor):
        yield memory
    else:
        for part in memory:
            yield from _flat(part)


def _like(memory: Any, arrays: Iterator[Array]) -> Any:
    """`memory` with other numbers; its own stay as they are."""
    if isinstance(memory, th.Tensor):
        array = next(arrays, None)
        if array is None or array.shape != tuple(memory.shape):
            raise StateError("the saved memory is of another recurrent policy")
        return th.from_numpy(array.copy()).to(memory.device)
    parts = [_like(part, arrays) for part in memory]
    return type(memory)(*parts) if hasattr(memory, "_fields") else tuple(parts)


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
    return {
        "observations": {name: _moments(rms) for name, rms in _means(wrapper).items()},
        "return": _moments(wrapper.ret_rms),
        "returns": wrapper.returns,
    }


def restore_normalization(wrapper: Any, saved: dict[str, Any] | None) -> None:
    """Write what `capture_normalization` gave into `wrapper`."""
    if wrapper is None or saved is None:
        if wrapper is not saved:
            raise StateError("the saved state and this training differ in vec_normalize")
        return
    means = _means(wrapper)
    if means.keys() != saved["observations"].keys() or saved["returns"].shape != wrapper.returns.shape:
        raise StateError("the saved normalization is of other observations")
    for name, rms in means.items():
        _set_moments(rms, saved["observations"][name])
    _set_moments(wrapper.ret_rms, saved["return"])
    wrapper.returns = saved["returns"].copy()


def _means(wrapper: Any) -> dict[str, Any]:
    """By name of the observation; none where only rewards are normalised."""
    means = getattr(wrapper, "obs_rms", None) or {}
    return means if isinstance(means, dict) else {"": means}


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


def _tensor(value: Any) -> Any:
    return th.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
