"""The buffers of a model, as plain values and back: rows of a replay buffer, and the rollout being collected.

A replay buffer's rows travel in a `Ring`, which promises that a row once written stays as it is. What the
library writes over later (`REWRITTEN`), and all rows of a buffer class of the user's own, travel whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.utils import obs_as_tensor

from arzbench.errors import StateError
from arzbench.sb3 import own_state
from arzbench.training_state import Ring

Array = np.ndarray[Any, Any]
#: arrays of HerReplayBuffer whose rows change when their episode ends, or when another one takes its place
REWRITTEN = frozenset({"ep_length"})
#: what it keeps beside its rows
BESIDE_ROWS = ("_current_ep_start",)
#: what a rollout buffer works out when the rollout is complete
WORKED_OUT = frozenset({"returns", "advantages"})


def replay_ring(model: Any) -> Ring | None:
    """The rows of `model`'s replay buffer that stay as they are, one per vectorised step."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None:
        return None
    size, pos = buffer.buffer_size, buffer.pos
    total = model.num_timesteps // buffer.n_envs
    if total % size != pos or (total >= size) != buffer.full:
        total = size * buffer.full + pos  # filled by other means than steps
    arrays = ring_arrays(buffer)
    return Ring(arrays=arrays, total=total) if arrays else None


def capture_replay(buffer: Any) -> dict[str, Any] | None:
    """What a replay buffer holds beside its rows: where the next one goes, and what is there now.

    With `optimize_memory_usage` that place has the last observation already. Rows that change once written
    are here, too.

    Raises:
        StateError: HER keeps the infos of its steps (`copy_info_dict`), and they are not plain.
    """
    if buffer is None:
        return None
    arrays, used = replay_arrays(buffer), buffer.size()
    edge = {path: array[buffer.pos] for path, array in arrays.items()}
    saved: dict[str, Any] = {"pos": buffer.pos, "full": buffer.full, "edge": edge}
    if later := arrays.keys() - ring_arrays(buffer).keys():
        saved["rewritten"] = {path: arrays[path][:used] for path in sorted(later)}
    if beside := {name: getattr(buffer, name) for name in BESIDE_ROWS if hasattr(buffer, name)}:
        saved["beside"] = beside
    if getattr(buffer, "copy_info_dict", False):
        saved["infos"] = [dict(info) for info in buffer.infos[:used].flat]
    if own := own_state.capture(buffer):
        saved["own"] = own
    return saved


def restore_replay(buffer: Any, saved: dict[str, Any] | None, ring: Ring | None) -> None:
    """Write what `capture_replay` gave and the rows of `ring` into an empty replay buffer of the same shape.

    States of format 1 have their rows in `saved`.
    """
    if buffer is None or saved is None:
        if buffer is not saved:
            raise StateError("the saved state is of an algorithm of another kind")
        return
    pos, full, size = saved["pos"], saved["full"], buffer.buffer_size
    if type(pos) is not int or type(full) is not bool or not 0 <= pos < size:
        raise StateError(f"the saved replay buffer ends at {pos!r}, this training has {size} rows")
    if "rows" in saved:
        ring = Ring(arrays=saved["rows"], total=size * full + pos)
    _restore_ring(buffer, pos, size if full else pos, ring)
    _restore_beside(buffer, saved)
    buffer.pos, buffer.full = pos, full


def _restore_ring(buffer: Any, pos: int, used: int, ring: Ring | None) -> None:
    size, arrays = buffer.buffer_size, ring_arrays(buffer)
    if ring is None and not arrays:
        return
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


def _restore_beside(buffer: Any, saved: dict[str, Any]) -> None:
    pos, arrays = saved["pos"], replay_arrays(buffer)
    used = buffer.buffer_size if saved["full"] else pos
    rewritten = saved.get("rewritten", {})
    if used and not arrays.keys() - ring_arrays(buffer).keys() <= rewritten.keys():
        raise StateError("the saved replay buffer holds other things")
    for name, rows in rewritten.items():
        copy_rows(arrays[name], rows, f"replay buffer, {name}")
    for name, value in saved.get("edge", {}).items():
        copy_rows(arrays[name][pos:], value[np.newaxis], f"replay buffer, {name}")
    for name, value in saved.get("beside", {}).items():
        if name not in BESIDE_ROWS:
            raise StateError(f"the saved replay buffer has an unknown part {name[:40]!r}")
        copy_rows(getattr(buffer, name), value, f"replay buffer, {name}")
    if "infos" in saved:
        infos = np.empty(len(saved["infos"]), object)
        infos[:] = saved["infos"]
        buffer.infos[:used] = infos.reshape(used, buffer.n_envs)
    own_state.restore(buffer, saved.get("own", {}))


def replay_arrays(buffer: Any) -> dict[str, Array]:
    """The numbers in a replay buffer that have a row per vectorised step; a dict's parts as name.key."""
    return _rows(buffer)


def ring_arrays(buffer: Any) -> dict[str, Array]:
    """Those of `replay_arrays` whose rows stay as they were written."""
    if own_state.is_own(buffer):  # who knows what it does with them
        return {}
    return {path: array for path, array in _rows(buffer).items() if path not in REWRITTEN}


def _rows(buffer: Any) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, value in vars(buffer).items():
        parts = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
        for path, part in parts.items():
            if isinstance(part, np.ndarray) and part.shape[:1] == (buffer.buffer_size,):
                if part.dtype.kind in "biufc":
                    arrays[path] = part
    return arrays


def capture_rollout(buffer: Any, steps: int) -> dict[str, Any]:
    """The first `steps` rows of the rollout being collected."""
    rows = {name: array[:steps] for name, array in _rollout_arrays(buffer, steps).items()}
    own = own_state.capture(buffer)
    return {"pos": steps, "rows": rows, **({"own": own} if own else {})}


def restore_rollout(model: Any, saved: dict[str, Any]) -> None:
    """Write what `capture_rollout` gave into the fresh rollout buffer of `model`, restored otherwise.

    Returns and advantages that were not saved are worked out anew.
    """
    buffer, pos = model.rollout_buffer, saved["pos"]
    arrays = _rollout_arrays(buffer, pos)
    missing = arrays.keys() ^ saved["rows"].keys()
    if type(pos) is not int or not 0 <= pos <= buffer.buffer_size or missing - WORKED_OUT:
        raise StateError("the saved rollout does not fit this training's n_steps")
    for name, rows in saved["rows"].items():
        if len(rows) != pos:
            raise StateError(f"the saved rollout has {len(rows)} rows of {name}, not {pos}")
        copy_rows(arrays[name], rows, f"rollout, {name}")
    buffer.pos, buffer.full = pos, pos == buffer.buffer_size
    own_state.restore(buffer, saved.get("own", {}))
    if missing:  # of an arzbench that did not save them
        model.policy.set_training_mode(False)
        with th.no_grad():
            values = model.policy.predict_values(obs_as_tensor(model._last_obs, model.device))
        buffer.compute_returns_and_advantage(values, model._last_episode_starts)


def _rollout_arrays(buffer: Any, steps: int) -> dict[str, Array]:
    left_out = frozenset() if steps == buffer.buffer_size else WORKED_OUT
    return {path: array for path, array in _rows(buffer).items() if path not in left_out}


def copy_rows(target: Array, rows: Array, what: str) -> None:
    """Write `rows` over the first rows of `target`, which must be of the same shape and type."""
    if rows.shape[1:] != target.shape[1:] or rows.dtype != target.dtype or len(rows) > len(target):
        raise StateError(
            f"{what}: {rows.shape} of {rows.dtype} does not fit into {target.shape} of {target.dtype}"
        )
    target[: len(rows)] = rows


def prefill(buffer: Any, transitions: int) -> None:
    """Repeat the used rows of a replay buffer until it holds `transitions`, at most its size."""
    used = buffer.size()
    wanted = min(transitions // buffer.n_envs, buffer.buffer_size)
    if wanted > used:
        _repeat_rows(buffer, used, wanted)
    if hasattr(buffer, "ep_length"):  # of HER, which samples from whole episodes: of one step each
        filled = buffer.size()
        buffer.ep_start[:filled] = np.arange(filled)[:, np.newaxis]
        buffer.ep_length[:filled] = 1
        buffer._current_ep_start[:] = buffer.pos


def _repeat_rows(buffer: Any, used: int, wanted: int) -> None:
    for array in replay_arrays(buffer).values():
        if used:
            array[used:wanted] = np.resize(array[:used], (wanted - used, *array.shape[1:]))
        else:
            array[:wanted] = 0  # written, so that the memory is really there
    buffer.full = wanted == buffer.buffer_size
    buffer.pos = 0 if buffer.full else wanted


def leave_episodes(buffer: Any) -> None:
    """The episodes that are open will not go on: HER may sample from what there is of them."""
    if hasattr(buffer, "_compute_episode_length"):
        for index in range(buffer.n_envs):
            buffer._compute_episode_length(index)
