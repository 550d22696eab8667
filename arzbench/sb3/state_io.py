"""All of a training as one `TrainingState`, and back into a training made anew.

The groups are those that `fingerprint` tells apart. Random generators are put back last, by `run`.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from arzbench.errors import StateError
from arzbench.sb3 import codec, env_state, model_state
from arzbench.sb3.episodes import Episodes
from arzbench.sb3.state import STAGES, TrainingParts
from arzbench.workload import Evaluation, Ring, TrainingState

#: 1 had the replay buffer among the arrays
FORMAT = 2
#: what a malformed state makes NumPy, torch and Python raise
MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError,
             AssertionError)  # fmt: skip
RESET_SEED = 2  # beside those of the evaluations


def capture(training: TrainingParts) -> TrainingState:
    """The state of `training`, which must be at a consistent point."""
    arrays: dict[str, codec.Array] = {}
    groups = _groups(training)
    values = {
        "format": FORMAT,
        "algo": training.config.algo,
        "env": training.config.env,
        "n_envs": training.config.n_envs,
        "groups": {name: codec.pack(group, name, arrays) for name, group in groups.items()},
    }
    played, kept = groups["env"]["open"], groups["env"]["envs"]
    tier = "exact" if kept is not None else "reset" if played is None else "replay"
    ring = model_state.replay_ring(training.model)
    return TrainingState(arrays=arrays, values=values, tier=tier, ring=ring)


def fingerprint(training: TrainingParts) -> dict[str, str]:
    """The SHA-256 of each group."""
    groups = _groups(training)
    if ring := model_state.replay_ring(training.model):
        size = training.model.replay_buffer.size()
        groups["buffers"]["replay"] |= {"edge": None, "rows": {n: a[:size] for n, a in ring.arrays.items()}}
    return {name: codec.digest(group) for name, group in groups.items()}


def _groups(training: TrainingParts) -> dict[str, Any]:
    model, rollout = training.model, training.rollout
    buffer = getattr(model, "rollout_buffer", None)
    collected = buffer is not None and rollout.open
    counters = model_state.capture_counters(model)
    if training.noise:
        counters["noise"] = training.noise
    episodes = training.open_episodes
    return {
        "weights": model_state.capture_weights(model, training.tensors),
        "optimizer": model_state.capture_optimizers(model, training.tensors),
        "buffers": {
            "replay": model_state.capture_replay(getattr(model, "replay_buffer", None)),
            "rollout": model_state.capture_rollout(buffer, training.rollout_steps) if collected else None,
        },
        "rng": training.random or model_state.capture_random(model),
        "counters": {
            **counters,
            "stage": training.position,
            "updates": training.updates,
            "rollout": [rollout.open, training.rollout_steps, rollout.first_episode],
            "ended": [list(item) for item in training.ended],
            "seen": np.array(training.lengths, np.int64),
        },
        "env": {
            "envs": None if episodes else [env_state.capture_env(env) for env in training.envs],
            "open": None if episodes is None else episodes.capture(),
            "unreproducible": episodes is not None and episodes.unreproducible,
            "normalization": model_state.capture_normalization(model.get_vec_normalize_env()),
        },
        "evaluations": _results(training.episodes),
    }


def _results(episodes: Episodes) -> dict[str, Any]:
    """Long lists as arrays: they are saved again and again."""
    results = episodes.results
    return {
        "kinds": [r.kind for r in results],
        "steps": np.array([r.num_timesteps for r in results], np.int64),
        "sizes": np.array([len(r.returns) for r in results], np.int64),
        "returns": np.array([x for r in results for x in r.returns], float),
        "lengths": np.array([n for r in results for n in r.lengths], np.int64),
        "open": [list(episodes.returns), list(episodes.lengths)],
        "best": episodes.best,
    }


def restore(training: TrainingParts, state: TrainingState) -> None:
    """Put `training`, made anew, into `state`.

    Raises:
        StateError: `state` is incomplete, malformed or of another training.
    """
    try:
        _check_identity(training, state)
        packed = state.values["groups"]
        groups = {name: codec.unpack(group, state.arrays) for name, group in packed.items()}
        _restore(training, groups, state.ring)
    except MALFORMED as error:
        what = f"{type(error).__name__}: {error}"[:200]
        raise StateError(f"the saved state does not fit this training ({what})") from error


def _check_identity(training: TrainingParts, state: TrainingState) -> None:
    config, values = training.config, state.values
    if values["format"] not in (1, FORMAT):
        raise StateError(f"the saved state is of format {values['format']!r}, this arzbench reads {FORMAT}")
    mine = {"algo": config.algo, "env": config.env, "n_envs": config.n_envs}
    other = {name: values[name] for name in mine}
    if other != mine:
        raise StateError(f"the saved state is of another training: {other}, not {mine}")


def _restore(training: TrainingParts, groups: dict[str, Any], ring: Ring | None) -> None:
    model, counters = training.model, groups["counters"]
    model_state.restore_weights(model, groups["weights"])
    model_state.restore_optimizers(model, groups["optimizer"])
    buffers = groups["buffers"]
    model_state.restore_replay(getattr(model, "replay_buffer", None), buffers["replay"], ring)
    model_state.restore_counters(model, counters)
    begun = model._last_obs is not None
    training.noise = counters["noise"] if begun else []
    _restore_progress(training, counters)
    if training.rollout.open and hasattr(model, "rollout_buffer"):
        if buffers["rollout"]["pos"] != training.rollout_steps:
            raise StateError("the saved rollout and its counter disagree")
        model_state.restore_rollout(model.rollout_buffer, buffers["rollout"])
    _restore_results(training, groups["evaluations"])
    model_state.restore_normalization(model.get_vec_normalize_env(), groups["env"]["normalization"])
    _restore_envs(training, groups["env"], begun)
    model_state.restore_random(model, groups["rng"])  # proves that it can be; `run` does it again
    training.random = copy.deepcopy(groups["rng"])


def _restore_progress(training: TrainingParts, counters: dict[str, Any]) -> None:
    opened, steps, first_episode = counters["rollout"]
    if counters["stage"] not in STAGES or type(opened) is not bool:
        raise StateError("the saved state has an unknown stage or rollout")
    if opened and not training.rule.fits(steps):
        raise StateError(f"the saved rollout has {steps} steps already: rollouts here are shorter")
    training.position = counters["stage"]
    training.updates = int(counters["updates"])
    rollout = training.rollout
    rollout.open, rollout.first_episode = opened, int(first_episode)
    rollout.first_step = training.model.num_timesteps - steps * training.config.n_envs
    training.ended = [(float(r), int(n)) for r, n in counters["ended"]]
    training.lengths.extend(counters["seen"].tolist())


def _restore_results(training: TrainingParts, saved: dict[str, Any]) -> None:
    returns, lengths = saved["returns"].tolist(), saved["lengths"].tolist()
    sizes = saved["sizes"].tolist()
    if not sum(sizes) == len(returns) == len(lengths) or min(sizes, default=0) < 0:
        raise StateError("the saved evaluations lack episodes")
    ends = np.cumsum(saved["sizes"]).tolist()
    for kind, step, size, end in zip(saved["kinds"], saved["steps"].tolist(), sizes, ends, strict=True):
        part = slice(end - size, end)
        result = Evaluation(
            kind=str(kind), num_timesteps=step, returns=tuple(returns[part]), lengths=tuple(lengths[part])
        )
        training.episodes.keep(result)
    open_returns, open_lengths = saved["open"]
    training.episodes.returns = [float(r) for r in open_returns]
    training.episodes.lengths = [int(n) for n in open_lengths]


def _restore_envs(training: TrainingParts, saved: dict[str, Any], begun: bool) -> None:
    episodes, played = training.open_episodes, saved.get("open")
    if saved["envs"] is not None:
        training.resumed = "exact"
        for env, state in zip(training.envs, saved["envs"], strict=True):
            env_state.restore_env(env, state)
        return
    if episodes is not None:
        episodes.unreproducible = bool(saved.get("unreproducible"))
        if played is not None and episodes.restore(played):
            training.resumed = "replay"
            return
    training.resumed = "reset"
    if begun:
        _start_new_episodes(training)


def _start_new_episodes(training: TrainingParts) -> None:
    """Where envs cannot be captured: episodes begin anew, others than those already seen."""
    model = training.model
    key = [training.config.seed, RESET_SEED, model.num_timesteps]
    model.env.seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    model._last_obs = model.env.reset()
    model._last_episode_starts = np.ones(training.config.n_envs, dtype=bool)
    if model.get_vec_normalize_env() is not None:
        model._last_original_obs = model.get_vec_normalize_env().get_original_obs()
