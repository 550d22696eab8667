"""How often each phase occurs in a training: counted, never guessed.

Its loop says how often it steps and learns (`arzbench.loop`); evaluations and saves come as by SB3's
`EvalCallback` and `CheckpointCallback`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from arzbench.facts import EnvFacts, Phase
from arzbench.records import EvaluationsBeside, PhaseCount, TrainSchedule
from arzbench.study import Study, TrainConfig


def count_training(
    config: TrainConfig,
    facts: EnvFacts,
    *,
    budget: int | None = None,
    state_bytes: tuple[int, int] = (0, 0),
) -> TrainSchedule:
    """The schedule of `config` stopped after `budget` steps (None: its own `total_timesteps`).

    The exploration schedule keeps the horizon of `config.total_timesteps` whatever the budget.
    `state_bytes` is a checkpoint's size without and per transition of the replay buffer.
    """
    total = config.total_timesteps if budget is None else budget
    loop = config.loop
    train_length, _ = facts.train_length()
    rollouts, steps, updates = loop.counts(total, train_length)
    calls = steps // config.n_envs
    evaluation = config.evaluation
    evaluations = calls // evaluation.eval_freq if evaluation.eval_freq else 0
    # periodic ones before the end, and the one at the end
    freq = config.checkpoint.checkpoint_freq
    checkpoints = (calls - 1) // freq + 1 if freq and calls else 1
    if loop.candidates:
        evaluations, checkpoints = min(evaluations, rollouts), min(checkpoints, rollouts)
    length, bound = facts.eval_length()
    episodes = evaluations * evaluation.n_eval_episodes + evaluation.final_episodes
    baseline = config.baseline.episodes
    evaluated = (episodes * length, episodes * bound)
    counts = [
        _exactly(Phase.BUILD, 1),
        _exactly(Phase.ENV_STEP, steps),
        _exactly(Phase.POLICY, loop.policy_calls(calls)),
        _exactly(Phase.UPDATE, updates),
        _exactly(Phase.ROLLOUT, calls),
        PhaseCount(phase=Phase.EVAL_STEP, count=evaluated[0], high=evaluated[1]),
        PhaseCount(phase=Phase.BASELINE, count=baseline * length, high=baseline * bound),
        _exactly(Phase.CHECKPOINT, checkpoints, size=_mean_state(config, steps, state_bytes)),
    ]
    if config.vec_env != "subproc":  # where they are a part of the steps
        resets = config.n_envs + rollouts * loop.candidates
        counts.append(_exactly(Phase.RESET, resets + (steps / train_length if train_length else 0)))
    if config.logging.mode != "off":
        counts.append(PhaseCount(phase=Phase.LOG, count=steps + evaluated[0], high=steps + evaluated[1]))
    return TrainSchedule(
        training=config.name,
        total_timesteps=steps,
        rollouts=rollouts,
        updates=updates,
        evaluations=evaluations,
        checkpoints=checkpoints,
        counts=tuple(counts),
        beside=_beside(config, evaluations, calls, episodes),
    )


def _beside(
    config: TrainConfig, evaluations: int, calls: int, episodes: int
) -> tuple[EvaluationsBeside, ...]:
    """All but the first; each is waited for by the next, the last one at the end of the training."""
    if evaluations < 2 or not episodes or not config.evaluates_beside:
        return ()
    each = config.evaluation.n_eval_episodes / episodes
    period = config.evaluation.eval_freq / calls
    last = EvaluationsBeside(evaluations=1, units=each, training=max(0.0, 1 - evaluations * period))
    between = evaluations - 2
    if not between:
        return (last,)
    return (
        EvaluationsBeside(evaluations=between, units=between * each, training=between * period),
        last,
    )


def whole_rollouts(config: TrainConfig, steps: float) -> int:
    """`steps` rounded down to whole rollouts: SB3 finishes every rollout it begins."""
    # a share of the total may come out a rounding error short of the rollout it is meant to be
    return math.floor(steps / config.rollout_steps + 1e-9) * config.rollout_steps


def budgets_for(study: Study, fraction: float) -> tuple[int, ...]:
    """`fraction` of every training, each rounded down to whole rollouts."""
    return tuple(whole_rollouts(t, t.total_timesteps * fraction) for t in study.trainings)


def total_env_steps(schedules: Sequence[TrainSchedule]) -> tuple[float, float]:
    """Env steps of a job, training and hidden (calibrated episode length, bound)."""
    pairs = [s.env_steps for s in schedules]
    return sum(p[0] for p in pairs), sum(p[1] for p in pairs)


def _exactly(phase: Phase, count: float, size: float = 0.0) -> PhaseCount:
    return PhaseCount(phase=phase, count=count, high=count, size=size)


def _mean_state(config: TrainConfig, steps: int, state_bytes: tuple[int, int]) -> float:
    """Mean size of a training's checkpoints in bytes, the replay buffer growing to its limit."""
    base, per_transition = state_bytes
    if not per_transition or not steps:
        return base
    loop = config.loop
    freq = config.checkpoint.checkpoint_freq * config.n_envs
    periodic = (steps - 1) // freq if freq else 0
    growing = min(periodic, loop.buffer_size // freq) if freq else 0  # saves before the buffer is full
    rows = freq * growing * (growing + 1) // 2 + (periodic - growing) * loop.buffer_size
    return base + per_transition * (rows + loop.stored(steps)) / (periodic + 1)
