"""All of a training as one `TrainingState`, and back into a training made anew.

The groups are those that `fingerprint` tells apart. Random generators are put back last, by `run`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from arzbench.errors import StateError
from arzbench.sb3 import buffer_state, codec, env_state, model_state, own_state, together
from arzbench.sb3.episodes import Episodes, Pending
from arzbench.sb3.open_episodes import innermost
from arzbench.sb3.plain_fill import NotHereError
from arzbench.sb3.plain_kinds import copied
from arzbench.sb3.state import STAGES, LiveState
from arzbench.training_state import Ring, TrainingState
from arzbench.workload import EvaluationResult

#: 1 had the replay buffer among the arrays; 3 has a pending evaluation, which those before know nothing of
FORMAT, PENDING_FORMAT = 2, 3
#: what a malformed state makes NumPy, torch and Python raise
MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError,
             AssertionError)  # fmt: skip
RESET_SEED = 2  # beside those of the evaluations


def capture(live: LiveState) -> TrainingState:
    """The state of `live`, which must be at a consistent point."""
    arrays: dict[str, codec.Array] = {}
    groups = _groups(live)
    values = {
        "format": FORMAT if live.episodes.pending is None else PENDING_FORMAT,
        "algo": live.config.algo,
        "env": live.config.env,
        "n_envs": live.config.n_envs,
        "groups": {name: codec.pack(group, name, arrays) for name, group in groups.items()},
    }
    tier = groups["env"]["tier"]
    if tier in ("exact", "replay") and unsaved(live.model):
        tier = "unproven"
    ring = buffer_state.replay_ring(live.model)
    return TrainingState(arrays=arrays, values=values, tier=tier, ring=ring)


def fingerprint(live: LiveState) -> dict[str, str]:
    """The SHA-256 of each group."""
    groups = _groups(live)
    for plain in filter(None, (groups["env"]["plain"], groups["evaluations"]["env"])):
        plain["outside"] = sorted(plain["outside"] + plain.pop("constants"), key=lambda item: str(item[0]))
    if ring := buffer_state.replay_ring(live.model):
        size = live.model.replay_buffer.size()
        groups["buffers"]["replay"] |= {"edge": None, "rows": {n: a[:size] for n, a in ring.arrays.items()}}
    return {name: codec.digest(group) for name, group in groups.items()}


def _groups(live: LiveState) -> dict[str, Any]:
    model, rollout = live.model, live.rollout
    buffer = getattr(model, "rollout_buffer", None)
    collected = buffer is not None and rollout.open
    counters = model_state.capture_counters(model)
    if live.noise:
        counters["noise"] = live.noise
    plain = live.episodes.plain
    return {
        "weights": model_state.capture_weights(model),
        "optimizer": model_state.capture_optimizers(model),
        "buffers": {
            "replay": buffer_state.capture_replay(getattr(model, "replay_buffer", None)),
            "rollout": buffer_state.capture_rollout(buffer, live.rollout_steps) if collected else None,
        },
        "rng": live.random or model_state.capture_random(model),
        "counters": {
            **counters,
            "stage": live.stage,
            "updates": live.updates,
            "rollout": [rollout.open, live.rollout_steps, rollout.first_episode],
            "ended": [list(item) for item in live.episodes_ended],
            "ended_early": live.ended,
            "callbacks": None if live.callbacks is None else live.callbacks.capture(),
            "seen": np.array(live.lengths, np.int64),
            **({} if live.unmonitored is None else {"unmonitored": list(live.unmonitored)}),
        },
        "env": live.env_before or capture_world(live),
        "evaluations": {**_results(live.episodes), "env": None if plain is None else plain.capture()},
    }


def capture_world(live: LiveState) -> dict[str, Any]:
    """The state of the envs, and of what normalises what they give."""
    normalization = model_state.capture_normalization(live.model.get_vec_normalize_env())
    return {**live.env_state.capture(), "normalization": normalization}


def restore_world(
    live: LiveState, saved: dict[str, Any], begun: bool = True, not_back: Sequence[str] = ()
) -> None:
    """Put the envs into the state that `capture_world` gave; `begun`: they had been reset by then.

    `not_back` is what of the evaluation env could not be.
    """
    model_state.restore_normalization(live.model.get_vec_normalize_env(), saved["normalization"])
    if begun:
        innermost(live.model.env)._reset_seeds()  # the first reset used them up
    _restore_envs(live, saved, begun, not_back)
    together.join_anew(innermost(live.model.env))


def unsaved(model: Any) -> list[str]:
    """What a model and buffers of the user's own classes hold that cannot be saved: a resumption lacks it."""
    names = own_state.unsaved(model, learned=True)
    for name in ("replay_buffer", "rollout_buffer"):
        if (buffer := getattr(model, name, None)) is not None:
            names += [f"{name}.{part}" for part in own_state.unsaved(buffer, learned=False)]
    return names


def _results(episodes: Episodes) -> dict[str, Any]:
    """Long lists as arrays: they are saved again and again."""
    results, pending = episodes.results, episodes.pending
    return {
        **({} if pending is None else {"pending": asdict(pending)}),
        "kinds": [r.kind for r in results],
        "steps": np.array([r.num_timesteps for r in results], np.int64),
        "sizes": np.array([len(r.returns) for r in results], np.int64),
        "returns": np.array([x for r in results for x in r.returns], float),
        "lengths": np.array([n for r in results for n in r.lengths], np.int64),
        "open": [list(episodes.returns), list(episodes.lengths)],
        "best": episodes.best,
    }


def restore(live: LiveState, state: TrainingState) -> None:
    """Put `live`, made anew, into `state`.

    Raises:
        StateError: `state` is incomplete, malformed or of another live.
    """
    try:
        _check_identity(live, state)
        packed = state.values["groups"]
        groups = {name: codec.unpack(group, state.arrays) for name, group in packed.items()}
        _restore(live, groups, state.ring)
    except MALFORMED as error:
        what = f"{type(error).__name__}: {error}"[:200]
        raise StateError(f"the saved state does not fit this training ({what})") from error


def _check_identity(live: LiveState, state: TrainingState) -> None:
    config, values = live.config, state.values
    if values["format"] not in (1, FORMAT, PENDING_FORMAT):
        raise StateError(
            f"the saved state is of format {values['format']!r}, this arzbench reads up to {PENDING_FORMAT}"
        )
    identity = {"algo": config.algo, "env": config.env, "n_envs": config.n_envs}
    other = {name: values[name] for name in identity}
    if other != identity:
        raise StateError(f"the saved state is of another training: {other}, not {identity}")


def _restore(live: LiveState, groups: dict[str, Any], ring: Ring | None) -> None:
    model, counters = live.model, groups["counters"]
    model_state.restore_weights(model, groups["weights"])
    model_state.restore_optimizers(model, groups["optimizer"])
    buffers = groups["buffers"]
    buffer_state.restore_replay(getattr(model, "replay_buffer", None), buffers["replay"], ring)
    model_state.restore_counters(model, counters)
    begun = live.begun = model._last_obs is not None
    live.noise = counters["noise"] if begun else []
    _restore_progress(live, counters)
    if live.rollout.open and hasattr(model, "rollout_buffer"):
        if buffers["rollout"]["pos"] != live.rollout_steps:
            raise StateError("the saved rollout and its counter disagree")
        buffer_state.restore_rollout(model, buffers["rollout"])
    _restore_results(live, groups["evaluations"])
    not_back = _restore_evaluation_env(live, groups["evaluations"].get("env"))
    restore_world(live, groups["env"], begun, not_back)
    model_state.restore_random(model, groups["rng"])  # proves that it can be; `run` does it again
    live.random = copy.deepcopy(groups["rng"])


def _restore_progress(live: LiveState, counters: dict[str, Any]) -> None:
    opened, steps, first_episode = counters["rollout"]
    if counters["stage"] not in STAGES or type(opened) is not bool:
        raise StateError("the saved state has an unknown stage or rollout")
    if opened and not live.loop.fits(steps):
        raise StateError(f"the saved rollout has {steps} steps already: rollouts here are shorter")
    live.stage = counters["stage"]
    live.updates = int(counters["updates"])
    if live.callbacks is not None:
        live.callbacks.saved = counters.get("callbacks")
    live.ended = str(counters.get("ended_early", ""))
    rollout = live.rollout
    rollout.open, rollout.first_episode = opened, int(first_episode)
    rollout.first_step = live.model.num_timesteps - steps * live.config.n_envs
    live.episodes_ended = [(float(r), int(n)) for r, n in counters["ended"]]
    live.lengths.extend(counters["seen"].tolist())
    if live.unmonitored is not None and "unmonitored" in counters:
        for now, saved in zip(live.unmonitored, counters["unmonitored"], strict=True):
            now[:] = saved


def _restore_results(live: LiveState, saved: dict[str, Any]) -> None:
    returns, lengths = saved["returns"].tolist(), saved["lengths"].tolist()
    sizes = saved["sizes"].tolist()
    if not sum(sizes) == len(returns) == len(lengths) or min(sizes, default=0) < 0:
        raise StateError("the saved evaluations lack episodes")
    ends = np.cumsum(saved["sizes"]).tolist()
    for kind, step, size, end in zip(saved["kinds"], saved["steps"].tolist(), sizes, ends, strict=True):
        part = slice(end - size, end)
        result = EvaluationResult(
            kind=str(kind), num_timesteps=step, returns=tuple(returns[part]), lengths=tuple(lengths[part])
        )
        live.episodes.keep(result)
    open_returns, open_lengths = saved["open"]
    live.episodes.returns = [float(r) for r in open_returns]
    live.episodes.lengths = [int(n) for n in open_lengths]
    pending = saved.get("pending")
    if pending is not None and live.episodes.env is not None:
        live.episodes.pending = _pending(live, pending)


def _pending(live: LiveState, saved: dict[str, Any]) -> Pending:
    """An evaluation to be played as of its time, proved to be one of this training's."""
    pending = Pending(
        num_timesteps=int(saved["num_timesteps"]),
        limit=int(saved["limit"]),
        weights=saved["weights"],
        normalization=saved["normalization"],
    )
    now = copied(model_state.capture_weights(live.model))
    normalizer = live.model.get_vec_normalize_env()
    model_state.restore_weights(live.model, pending.weights)
    model_state.restore_weights(live.model, now)
    model_state.restore_normalization(normalizer, copied(pending.normalization))  # that of now follows
    return pending


def _restore_envs(live: LiveState, saved: dict[str, Any], begun: bool, not_back: Sequence[str]) -> None:
    if "plain" in saved:
        live.env_state.restore(saved)
        live.resumed, live.unseen = live.env_state.tier, list(live.env_state.unseen)
        if live.resumed == "exact" and not_back:
            live.resumed = "unproven"
            live.unseen += [f"{name} of the evaluation env (not as it was)" for name in not_back]
    elif saved["envs"] is not None:
        live.resumed = "exact"
        for env, state in zip(live.envs, saved["envs"], strict=True):
            env_state.restore_earlier(env, state)
    else:
        live.resumed = "reset"
    if names := unsaved(live.model):
        live.unseen += names
        live.resumed = "unproven" if live.resumed in ("exact", "replay") else live.resumed
    if live.resumed == "reset" and begun:
        _start_new_episodes(live)


def _restore_evaluation_env(live: LiveState, saved: dict[str, Any] | None) -> list[str]:
    """What it keeps between episodes; names of what cannot be put back: evaluations may be others."""
    try:
        plain = live.episodes.plain
        return [] if saved is None or plain is None else plain.restore(saved)
    except NotHereError as error:
        return [error.message]


def _start_new_episodes(live: LiveState) -> None:
    """Where envs cannot be captured: episodes begin anew, others than those already seen."""
    model = live.model
    key = [live.config.seed, RESET_SEED, model.num_timesteps]
    model.env.seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    model._last_obs = model.env.reset()
    model._last_episode_starts = np.ones(live.config.n_envs, dtype=bool)
    buffer_state.leave_episodes(getattr(model, "replay_buffer", None))
    for of_env in live.unmonitored or ():
        of_env[:] = 0
    if model.get_vec_normalize_env() is not None:
        model._last_original_obs = model.get_vec_normalize_env().get_original_obs()
