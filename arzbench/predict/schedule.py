"""How often each phase occurs in a training: counted from SB3's loops, never guessed.

Sources: SB3 `OffPolicyAlgorithm.learn/collect_rollouts`, `OnPolicyAlgorithm.learn`, `PPO.train`,
`EvalCallback`, `CheckpointCallback`. tests/predict/test_schedule.py compares every count with an
instrumented real training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from arzbench.records import EnvFacts, Phase, PhaseCount, TrainSchedule
from arzbench.study import DQN, PPO, OffPolicyConfig, OnPolicyConfig, Study, TrainConfig


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
    rollouts, steps, updates = _rollouts_and_updates(config, facts, total)
    calls = steps // config.n_envs
    evaluation = config.evaluation
    evaluations = calls // evaluation.eval_freq if evaluation.eval_freq else 0
    checkpoints = _checkpoints(config, calls)
    length, bound = facts.eval_length()
    episodes = evaluations * evaluation.n_eval_episodes + evaluation.final_episodes
    baseline = config.baseline.episodes
    evaluated = (episodes * length, episodes * max(length, bound))
    counts = [
        _exactly(Phase.BUILD, 1),
        _exactly(Phase.RESET, _resets(config, facts, steps)),
        _exactly(Phase.ENV_STEP, steps),
        _exactly(Phase.POLICY, _forward_passes(config, calls)),
        _exactly(Phase.UPDATE, updates),
        _exactly(Phase.ROLLOUT, calls),
        PhaseCount(phase=Phase.EVAL_STEP, count=evaluated[0], high=evaluated[1]),
        PhaseCount(phase=Phase.BASELINE, count=baseline * length, high=baseline * max(length, bound)),
        _exactly(Phase.CHECKPOINT, checkpoints, size=_mean_state(config, steps, state_bytes)),
    ]
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


def _rollouts_and_updates(config: TrainConfig, facts: EnvFacts, total: int) -> tuple[int, int, int]:
    """(rollouts, env steps, gradient steps) of SB3's `learn(total)`."""
    if isinstance(config, OnPolicyConfig):
        rollouts = math.ceil(total / config.rollout_steps)
        per_rollout = 1
        if isinstance(config, PPO):
            per_rollout = config.n_epochs * math.ceil(config.rollout_steps / config.batch_size)
        return rollouts, rollouts * config.rollout_steps, rollouts * per_rollout
    assert isinstance(config, OffPolicyConfig)
    size = _off_policy_rollout(config, facts)
    rollouts = math.ceil(total / size)
    # learn() trains after a rollout when num_timesteps > learning_starts
    before = min(rollouts, math.floor(config.learning_starts / size))
    gradient_steps = config.gradient_steps if config.gradient_steps >= 0 else size
    return rollouts, round(rollouts * size), round((rollouts - before) * gradient_steps)


def _off_policy_rollout(config: OffPolicyConfig, facts: EnvFacts) -> float:
    frequency, unit = config.frequency
    if unit == "step":
        return frequency * config.n_envs
    return max(1.0, frequency * facts.train_length()[0])


def _forward_passes(config: TrainConfig, calls: int) -> float:
    """Calls of the policy network while collecting; for DQN the expected number."""
    if not isinstance(config, OffPolicyConfig):
        return calls
    random_calls = min(calls, math.ceil(config.learning_starts / config.n_envs))
    if not isinstance(config, DQN):
        return calls - random_calls
    return _greedy_calls(config, random_calls, calls)


def _greedy_calls(config: DQN, first: int, last: int) -> float:
    """Expected greedy actions among calls first..last under the linear epsilon schedule."""
    start, final = config.exploration_initial_eps, config.exploration_final_eps
    ramp = config.exploration_fraction * config.total_timesteps / config.n_envs

    def epsilon_sum(calls: float) -> float:
        """Integral of epsilon over the first `calls` calls."""
        inside = min(calls, ramp)
        rising = start * inside + (final - start) * inside**2 / (2 * ramp) if ramp > 0 else 0.0
        return rising + final * (calls - inside)

    return max(0.0, (last - first) - (epsilon_sum(last) - epsilon_sum(first)))


def _resets(config: TrainConfig, facts: EnvFacts, steps: int) -> float:
    length = facts.train_length()[0]
    return config.n_envs + (steps / length if length else 0)


def _checkpoints(config: TrainConfig, calls: int) -> int:
    """Periodic saves before the end, and the one at the end."""
    freq = config.checkpoint.checkpoint_freq
    return (calls - 1) // freq + 1 if freq and calls else 1


def _mean_state(config: TrainConfig, steps: int, state_bytes: tuple[int, int]) -> float:
    """Mean size of a training's checkpoints in bytes, the replay buffer growing to its limit."""
    base, per_transition = state_bytes
    if not isinstance(config, OffPolicyConfig) or not per_transition or not steps:
        return base
    last = min(steps, config.buffer_size)
    freq = config.checkpoint.checkpoint_freq * config.n_envs
    periodic = (steps - 1) // freq if freq else 0
    growing = min(periodic, config.buffer_size // freq) if freq else 0  # saves before the buffer is full
    rows = freq * growing * (growing + 1) // 2 + (periodic - growing) * config.buffer_size + last
    fill = rows / (periodic + 1)
    return base + per_transition * fill
