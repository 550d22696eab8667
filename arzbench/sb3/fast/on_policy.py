"""PPO and A2C without autograd."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor
from stable_baselines3.common.utils import explained_variance
from torch import Tensor

from arzbench.sb3.fast.distributions import distribution
from arzbench.sb3.fast.learner import Learner, check_observations
from arzbench.sb3.fast.nets import MEAN, Gradients, Perceptron, mse_loss, mse_loss_backward
from arzbench.sb3.fast.parameters import NotFastError, flat


class Batch(NamedTuple):
    """Steps of a rollout; all but the first two of shape (batch,)."""

    observations: Tensor
    actions: Tensor
    values: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor


class Evaluated(NamedTuple):
    """A batch under the policy as it is now."""

    values: Tensor
    log_prob: Tensor
    entropy: Tensor
    kept: Any  # for the gradients


class OnPolicyLearner(Learner):
    """Of an `MlpPolicy` with a perceptron for the actor and one for the critic."""

    def __init__(self, model: Any) -> None:
        policy = model.policy
        for part, known in (
            (policy, ActorCriticPolicy),
            (policy.mlp_extractor, MlpExtractor),
            (model.rollout_buffer, RolloutBuffer),
        ):
            if type(part) is not known:
                raise NotFastError(f"{type(part).__name__} in place of {known.__name__}")
        self._shape = check_observations(
            policy.observation_space, policy.pi_features_extractor, policy.vf_features_extractor
        )
        self._model = model
        self._parameters = flat(policy.optimizer)
        self._distribution = distribution(policy, self._parameters)
        nets = policy.mlp_extractor
        self._actor = Perceptron(nets.policy_net, policy.action_net)
        self._critic = Perceptron(nets.value_net, policy.value_net)
        self._actor_gradients = Gradients(self._actor, self._parameters)
        self._critic_gradients = Gradients(self._critic, self._parameters)

    def forward(self, observations: Tensor, deterministic: bool = False) -> Any:
        """In place of the policy's; None: the library is to do it."""
        if deterministic or not self._takes(observations):
            return None
        actions, log_prob = self._distribution.sample(self._actor(observations))
        return actions, self._critic(observations), log_prob

    def predict_values(self, observations: Tensor) -> Tensor | None:
        """In place of the policy's."""
        return self._critic(observations) if self._takes(observations) else None

    def _actions(self, observations: Tensor, deterministic: bool) -> Any:
        return self._distribution.predict(self._actor(observations), deterministic=deterministic)

    def _takes(self, observations: Tensor) -> bool:
        """Plain vectors, and nobody wants to go backward from what the policy makes of them."""
        plain = observations.dtype is th.float32 and observations.shape[1:] == self._shape
        return plain and not th.is_grad_enabled()

    def _batches(self, batch_size: int) -> Iterator[Batch]:
        """The rollout in a random order: the same for the same state of NumPy's generator."""
        buffer = self._model.rollout_buffer
        total = buffer.buffer_size * buffer.n_envs
        order = np.random.permutation(total)
        if not buffer.generator_ready:
            for name in Batch._fields:
                setattr(buffer, name, buffer.swap_and_flatten(getattr(buffer, name)))
            buffer.generator_ready = True
        whole = [th.from_numpy(getattr(buffer, name)) for name in Batch._fields]
        whole[1] = whole[1].to(self._distribution.DTYPE)
        whole[2:] = [column.flatten() for column in whole[2:]]
        for first in range(0, total, batch_size):
            some = th.from_numpy(order[first : first + batch_size])
            yield Batch._make([column.index_select(0, some) for column in whole])

    def _evaluate(self, batch: Batch) -> Evaluated:
        actor, critic = self._actor.layers(batch.observations), self._critic.layers(batch.observations)
        log_prob, entropy, kept = self._distribution.evaluate(actor[-1], batch.actions)
        return Evaluated(critic[-1].flatten(), log_prob, entropy, (actor, critic, kept))

    def _step(self, evaluated: Evaluated, of_values: Tensor, of_log_prob: Tensor) -> None:
        """Change the weights by the gradients of values and log probabilities, and by the entropy."""
        actor, critic, kept = evaluated.kept
        of_entropy = th.tensor(-float(self._model.ent_coef)) / len(of_values)
        self._actor_gradients(actor, self._distribution.gradient(kept, of_log_prob, of_entropy))
        self._critic_gradients(critic, of_values.unsqueeze(1))
        self._parameters.clip(self._model.max_grad_norm)
        self._parameters.step()

    def _value_gradient(self, values: Tensor, returns: Tensor) -> Tensor:
        of_loss = th.tensor(float(self._model.vf_coef))
        return mse_loss_backward(of_loss, values, returns, MEAN)  # type: ignore[no-any-return]

    def _record(self, **values: Any) -> None:
        for name, value in values.items():
            exclude = "tensorboard" if name == "n_updates" else None
            self._model.logger.record(f"train/{name}", value, exclude=exclude)

    def _explained_variance(self) -> Any:
        buffer = self._model.rollout_buffer
        return explained_variance(buffer.values.flatten(), buffer.returns.flatten())

    def _record_deviation(self) -> None:
        if hasattr(self._model.policy, "log_std"):
            self._record(std=self._model.policy.log_std.data.exp().mean().item())


class A2CLearner(OnPolicyLearner):
    """Of `stable_baselines3.A2C`."""

    def train(self) -> None:
        model = self._model
        model._update_learning_rate(model.policy.optimizer)
        for batch in self._batches(model.rollout_buffer.buffer_size * model.n_envs):  # a single one
            evaluated = self._evaluate(batch)
            values, log_prob, entropy, _ = evaluated
            advantages = _normalised(batch.advantages) if model.normalize_advantage else batch.advantages
            policy_loss = -(advantages * log_prob).mean()
            value_loss = mse_loss(batch.returns, values)
            entropy_loss = -entropy.mean()
            of_values = self._value_gradient(values, batch.returns)
            self._step(evaluated, of_values, _share_of_mean(advantages) * advantages)
        model._n_updates += 1
        self._record(
            n_updates=model._n_updates,
            explained_variance=self._explained_variance(),
            entropy_loss=entropy_loss.item(),
            policy_loss=policy_loss.item(),
            value_loss=value_loss.item(),
        )
        self._record_deviation()


class Losses(NamedTuple):
    """Of one minibatch, as PPO logs them; scalars."""

    policy_gradient_loss: Tensor
    value_loss: Tensor
    entropy_loss: Tensor
    clip_fraction: Tensor
    approx_kl: Any


class PPOLearner(OnPolicyLearner):
    """Of `stable_baselines3.PPO`."""

    def train(self) -> None:
        model = self._model
        model._update_learning_rate(model.policy.optimizer)
        clip = model.clip_range(model._current_progress_remaining)
        clip_vf = model.clip_range_vf and model.clip_range_vf(model._current_progress_remaining)
        losses: list[Losses] = []
        for epoch in range(model.n_epochs):
            before = len(losses)
            goes_on = self._epoch(clip, clip_vf, losses)
            model._n_updates += 1
            if not goes_on:
                if model.verbose >= 1:
                    divergence = losses[-1].approx_kl
                    print(f"Early stopping at step {epoch} due to reaching max kl: {divergence:.2f}")
                break
        self._record_losses(losses, before)
        self._record_deviation()
        self._record(n_updates=model._n_updates, clip_range=clip)
        if model.clip_range_vf is not None:
            self._record(clip_range_vf=clip_vf)

    def _epoch(self, clip: float, clip_vf: float | None, losses: list[Losses]) -> bool:
        """Learn from each step of the rollout once; false if the policy has come too far from the old one."""
        model = self._model
        for batch in self._batches(model.batch_size):
            evaluated = self._evaluate(batch)
            of_log_prob, *policy_losses = self._policy_loss(batch, evaluated.log_prob, clip)
            of_values, value_loss = self._value_loss(batch, evaluated.values, clip_vf)
            losses.append(Losses(policy_losses[0], value_loss, -evaluated.entropy.mean(), *policy_losses[1:]))
            if model.target_kl is not None and losses[-1].approx_kl > 1.5 * model.target_kl:
                return False
            self._step(evaluated, of_values, of_log_prob)
        return True

    def _policy_loss(self, batch: Batch, log_prob: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor, Any]:
        """The gradient of the log probabilities, the loss, the share that was clipped, and the divergence."""
        advantages = batch.advantages
        if self._model.normalize_advantage and len(advantages) > 1:
            advantages = _normalised(advantages)
        log_ratio = log_prob - batch.log_probs
        ratio = log_ratio.exp()
        free = advantages * ratio
        clipped = advantages * ratio.clamp(1 - clip, 1 + clip)
        loss = -th.min(free, clipped).mean()
        # the smaller has the gradient; where they are equal each has half of it
        share = _share_of_mean(advantages)
        each = th.where(free == clipped, share / 2, share)
        of_free = each.masked_fill(free > clipped, 0) * advantages
        of_clipped = each.masked_fill_(free < clipped, 0) * advantages
        of_ratio = of_free + _clamp_gradient(of_clipped, ratio, 1 - clip, 1 + clip)
        less = ratio - 1
        fraction = (less.abs() > clip).float().mean()
        return of_ratio * ratio, loss, fraction, (less - log_ratio).mean().numpy()

    def _value_loss(self, batch: Batch, values: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
        """The gradient of the values, and the loss."""
        if clip is None:
            return self._value_gradient(values, batch.returns), mse_loss(batch.returns, values)
        change = values - batch.values
        clipped = batch.values + change.clamp(-clip, clip)
        gradient = _clamp_gradient(self._value_gradient(clipped, batch.returns), change, -clip, clip)
        return gradient, mse_loss(batch.returns, clipped)

    def _record_losses(self, losses: list[Losses], last_epoch: int) -> None:
        model, last = self._model, losses[-1]
        loss = (
            last.policy_gradient_loss + model.ent_coef * last.entropy_loss + model.vf_coef * last.value_loss
        )
        self._record(
            entropy_loss=np.mean([each.entropy_loss.item() for each in losses]),
            policy_gradient_loss=np.mean([each.policy_gradient_loss.item() for each in losses]),
            value_loss=np.mean([each.value_loss.item() for each in losses]),
            approx_kl=np.mean([each.approx_kl for each in losses[last_epoch:]]),
            clip_fraction=np.mean([each.clip_fraction.item() for each in losses]),
            loss=loss.item(),
            explained_variance=self._explained_variance(),
        )


def _normalised(advantages: Tensor) -> Tensor:
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def _share_of_mean(values: Tensor) -> Tensor:
    """The gradient of each of `values` in a loss that is minus their mean."""
    return th.tensor(-1.0) / len(values)


def _clamp_gradient(gradient: Tensor, clamped: Tensor, low: float, high: float) -> Tensor:
    return th.where((clamped >= low).logical_and_(clamped <= high), gradient, 0.0)
