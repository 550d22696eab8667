"""The training loop of a model, read from its own attributes and written into them.

Every algorithm of Stable-Baselines3 and sb3-contrib is one of three: it learns from a replay buffer, from
each rollout once, or (ARS) from whole episodes of perturbed policies.
"""

from __future__ import annotations

from typing import Any

from stable_baselines3.common.utils import LinearSchedule

from arzbench.errors import UsageError
from arzbench.loop import TrainingLoop


def loop_of(model: Any, total_timesteps: int) -> TrainingLoop:
    """When `model` collects and when it learns, in a training of `total_timesteps` env steps.

    Raises:
        UsageError: it is of none of the known kinds.
    """
    if hasattr(model, "replay_buffer_class"):
        return _off_policy(model, total_timesteps)
    if hasattr(model, "rollout_buffer"):
        return _on_policy(model)
    if hasattr(model, "n_delta"):
        return TrainingLoop(
            frequency=2 * model.n_delta * model.n_eval_episodes,
            unit="episode",
            gradient_steps=1,
            candidates=2 * model.n_delta,
        )
    raise UsageError(
        f"{type(model).__name__} has no replay buffer and no rollout buffer: when it learns is not known",
        "any algorithm of Stable-Baselines3 or sb3-contrib will do, or a subclass of one",
    )


def _off_policy(model: Any, total_timesteps: int) -> TrainingLoop:
    rollout = model.train_freq
    random: dict[str, Any] = {}
    if hasattr(model, "exploration_schedule"):
        random = {
            "exploration_initial_eps": float(model.exploration_initial_eps),
            "exploration_final_eps": float(model.exploration_final_eps),
            "exploration_steps": float(model.exploration_fraction * total_timesteps),
            "exploration_horizon": total_timesteps,
        }
    return TrainingLoop(
        n_envs=model.n_envs,
        frequency=rollout.frequency,
        unit=rollout.unit.value,
        learning_starts=model.learning_starts,
        gradient_steps=model.gradient_steps,
        buffer_size=model.buffer_size,
        **random,
    )


def _on_policy(model: Any) -> TrainingLoop:
    """PPO and its kin go over minibatches `n_epochs` times, TRPO fits its critic, A2C makes one step."""
    trust_region = hasattr(model, "n_critic_updates")
    epochs = model.n_critic_updates if trust_region else getattr(model, "n_epochs", 1)
    return TrainingLoop.on_policy(
        model.n_envs,
        model.n_steps,
        batch_size=getattr(model, "batch_size", None) or 0,
        n_epochs=epochs,
        works_on_whole=trust_region,
    )


def apply_loop(model: Any, loop: TrainingLoop) -> None:
    """Let `model` collect and learn as `loop` says: its own, brought forward."""
    if loop.off_policy:
        model.learning_starts = loop.learning_starts
        if hasattr(model, "exploration_schedule"):
            initial, final = loop.exploration_initial_eps, loop.exploration_final_eps
            model.exploration_initial_eps, model.exploration_final_eps = initial, final
            model.exploration_schedule = LinearSchedule(initial, final, model.exploration_fraction)
    elif hasattr(model, "rollout_buffer"):
        buffer = model.rollout_buffer
        model.n_steps = buffer.buffer_size = loop.frequency
        if hasattr(buffer, "hidden_state_shape"):
            buffer.hidden_state_shape = (loop.frequency, *buffer.hidden_state_shape[1:])
        buffer.reset()
