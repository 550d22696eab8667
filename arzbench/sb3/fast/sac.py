"""SAC and TQC without autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor

from arzbench.sb3.fast.continuous import ContinuousLearner, Critics
from arzbench.sb3.fast.gaussian import Sample
from arzbench.sb3.fast.nets import MEAN, Gradients, Perceptron, mse_loss, mse_loss_backward
from arzbench.sb3.fast.parameters import NotFastError, flat
from arzbench.sb3.fast.quantiles import QuantileLoss
from arzbench.sb3.fast.replay import Batch, draw


class SACLearner(ContinuousLearner):
    """Of `stable_baselines3.SAC` with an `MlpPolicy`."""

    POLICY: type = SACPolicy

    def __init__(self, model: Any) -> None:
        actor = model.actor
        super().__init__(model, self.POLICY, actor, model.critic, model.critic_target)
        if model.use_sde or type(actor.action_dist) is not SquashedDiagGaussianDistribution:
            raise NotFastError(f"the noise of {type(actor.action_dist).__name__}")
        self._parameters = flat(actor.optimizer)
        nets = [Perceptron(net) for net in (actor.latent_pi, actor.mu, actor.log_std)]
        self._latent, self._mean, self._log_std = nets
        self._gradients = [Gradients(net, self._parameters) for net in nets]
        self._of_critics = flat(model.critic.optimizer)
        self._critics = Critics(self._of_critics, model.critic, model.critic_target)
        self._entropy = None if model.ent_coef_optimizer is None else flat(model.ent_coef_optimizer)
        self._of_log = None if self._entropy is None else self._entropy.gradient_of(model.log_ent_coef)
        self._half = th.tensor(0.5)

    def _choose(self, observations: Tensor, deterministic: bool) -> Tensor:
        latent = self._latent(observations)
        mean = self._mean(latent)
        return mean.tanh_() if deterministic else Sample(mean, self._log_std(latent)).actions

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        model = self._model
        optimizers = [model.actor.optimizer, model.critic.optimizer]
        if self._entropy is not None:
            optimizers.append(model.ent_coef_optimizer)
        model._update_learning_rate(optimizers)
        logged: dict[str, list[float]] = {"ent_coef": [], "actor_loss": [], "critic_loss": []}
        if self._entropy is not None:
            logged["ent_coef_loss"] = []
        for step in range(gradient_steps):
            for name, value in self._step(draw(model, batch_size)).items():
                logged[name].append(value)
            if step % model.target_update_interval == 0:
                self._critics.follow(model.tau)
        model._n_updates += gradient_steps
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        for name, values in logged.items():
            model.logger.record(f"train/{name}", np.mean(values))

    def _step(self, batch: Batch) -> dict[str, float]:
        """What is logged of it, by name."""
        critics, epsilon = self._critics, self._model.actor.action_dist.epsilon
        layers = self._latent.layers(batch.observations)
        sample = Sample(self._mean(layers[-1]), self._log_std(layers[-1]))
        log_prob = sample.log_prob(epsilon)
        entropy, logged = self._entropy_step(log_prob)

        latent = self._latent(batch.next_observations)
        next_sample = Sample(self._mean(latent), self._log_std(latent))
        next_log_prob = next_sample.log_prob(epsilon)
        values = self._next_values(critics.targets(batch.next_observations, next_sample.actions))
        expected = batch.rewards + (1 - batch.dones) * batch.discounts * (values - entropy * next_log_prob)
        of_critics = critics.layers(batch.observations, batch.actions)
        loss, gradients = self._critic_loss([each[-1] for each in of_critics], expected)
        logged["critic_loss"] = loss.item()
        critics.learn(of_critics, gradients)

        of_critics = critics.layers(batch.observations, sample.actions)
        of_loss = self._mean_gradient(len(log_prob))
        values, gradients = self._values([each[-1] for each in of_critics], -of_loss)
        logged["actor_loss"] = (entropy * log_prob - values).mean().item()
        of_actions = critics.action_gradient(of_critics, gradients, batch.observations)
        self._actor_step(layers, *sample.gradients(of_actions, of_loss * entropy))
        return logged

    def _entropy_step(self, log_prob: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The coefficient of the entropy before a step of its own, and what is logged."""
        model = self._model
        if self._entropy is None:
            return model.ent_coef_tensor, {"ent_coef": model.ent_coef_tensor.item()}
        log = model.log_ent_coef.data
        coefficient = log.exp()
        surplus = log_prob + model.target_entropy
        loss = -(log * surplus).mean().item()
        of_log = -self._mean_gradient(len(log_prob)) * surplus
        th.sum(of_log, 0, out=self._of_log)
        self._entropy.step()
        return coefficient, {"ent_coef": coefficient.item(), "ent_coef_loss": loss}

    def _actor_step(self, layers: Sequence[Tensor], of_mean: Tensor, of_log_std: Tensor) -> None:
        latent, mean, log_std = self._gradients
        of_latent = log_std([layers[-1], layers[-1]], of_log_std, of_input=True)
        of_latent = of_latent + mean([layers[-1], layers[-1]], of_mean, of_input=True)
        latent(layers, of_latent)
        self._parameters.step()

    def _next_values(self, outputs: list[Tensor]) -> Tensor:
        """Of what the targets gave for next observations, to be learned from; one or several a row."""
        return th.cat(outputs, dim=1).min(dim=1, keepdim=True)[0]

    def _critic_loss(self, outputs: list[Tensor], expected: Tensor) -> tuple[Tensor, list[Tensor]]:
        """And its gradients, one for each of the critics' `outputs`."""
        loss = 0.5 * sum(mse_loss(output, expected) for output in outputs)
        return loss, [mse_loss_backward(self._half, output, expected, MEAN) for output in outputs]

    def _values(self, outputs: list[Tensor], gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the actor is to make larger, shape (batch, 1); the outputs' gradients from the values'."""
        together = th.cat(outputs, dim=1)
        least, places = together.min(dim=1, keepdim=True)
        of_together = th.zeros_like(together).scatter_(1, places, gradient)
        return least, list(th.split(of_together, 1, dim=1))


class TQCLearner(SACLearner):
    """Of `sb3_contrib.TQC` with an `MlpPolicy`: its critics give quantiles."""

    def __init__(self, model: Any) -> None:
        from sb3_contrib.tqc.policies import TQCPolicy

        self.POLICY = TQCPolicy
        super().__init__(model)
        self._loss = QuantileLoss(model.critic.n_quantiles)

    def _next_values(self, outputs: list[Tensor]) -> Tensor:
        critic = self._model.critic
        kept = critic.quantiles_total - self._model.top_quantiles_to_drop_per_net * critic.n_critics
        return th.stack(outputs, dim=1).reshape(len(outputs[0]), -1).sort()[0][:, :kept]

    def _critic_loss(self, outputs: list[Tensor], expected: Tensor) -> tuple[Tensor, list[Tensor]]:
        current = th.stack(outputs, dim=1)
        pairs = current.numel() * expected.shape[1]
        losses, gradients = self._loss(current, expected.unsqueeze(1), pairs)
        return losses.mean(), list(gradients.unbind(1))

    def _values(self, outputs: list[Tensor], gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
        together = th.stack(outputs, dim=1)
        _, critics, numbers = together.shape
        of_critics = (gradient.expand(-1, critics) / critics).unsqueeze(2)
        of_together = of_critics.expand_as(together) / numbers
        return together.mean(dim=2).mean(dim=1, keepdim=True), list(of_together.unbind(1))
