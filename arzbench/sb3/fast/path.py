"""A fast path is tried against the library at the start of every training, then used or given up."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch as th

from arzbench.sb3 import codec, model_state, own_state, updates
from arzbench.sb3.fast.learner import Learner
from arzbench.sb3.fast.parameters import FlatParameters, NotFastError

#: by the algorithm's class
LEARNERS = {
    "stable_baselines3.a2c.a2c.A2C": "on_policy:A2CLearner",
    "stable_baselines3.dqn.dqn.DQN": "dqn:DQNLearner",
    "stable_baselines3.ddpg.ddpg.DDPG": "td3:TD3Learner",
    "stable_baselines3.ppo.ppo.PPO": "on_policy:PPOLearner",
    "stable_baselines3.sac.sac.SAC": "sac:SACLearner",
    "stable_baselines3.td3.td3.TD3": "td3:TD3Learner",
    "sb3_contrib.qrdqn.qrdqn.QRDQN": "qrdqn:QRDQNLearner",
    "sb3_contrib.tqc.tqc.TQC": "sac:TQCLearner",
}
#: actions that are chosen both ways first, and gradient steps of an update at most
ACTIONS, MOST_STEPS = 8, 16


class _EnoughError(Exception):
    """So many gradient steps were made."""


class FastPath:
    """Chooses actions and does updates for a model that was adopted.

    Attributes:
        why: What the model has that no fast path is known for, or what differed; empty while it is used.
        trying: Gradient steps that are done now will be undone.
    """

    def __init__(self, model: Any, *, wanted: bool = True) -> None:
        """`wanted` is false where a study says so: everything is the library's then."""
        self.why = "fast = false"
        self._model = model
        self._learner: Learner | None = None
        self._flat: list[FlatParameters] = []
        self._update_tried = self.trying = False
        if wanted:
            try:
                self._learner, self.why = _learner(model), ""
                owned = vars(self._learner).values()
                self._flat = [part for part in owned if isinstance(part, FlatParameters)]
            except NotFastError as error:
                self.why = str(error)

    @property
    def said(self) -> str:
        """Which way was used, in words."""
        if self._learner is None:
            return f"the library's own ({self.why})"
        if not self._update_tried:
            return "not tried: no update was done"
        return "fast: the first actions and gradient steps had the library's bits"

    def acting(self, name: str) -> Callable[..., Any]:
        """The learner's method of that name in place of the policy's."""
        library: Callable[..., Any] = getattr(self._model.policy, name)
        if self._learner is None:
            return library
        fast = getattr(self._learner, name)
        left = ACTIONS

        def act(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if self._learner is None:
                return library(*args, **kwargs)
            if left:
                left -= 1
                return self._try_action(library, fast, *args, **kwargs)
            result = fast(*args, **kwargs)
            return library(*args, **kwargs) if result is None else result

        return act

    def _try_action(
        self, library: Callable[..., Any], fast: Callable[..., Any], *args: Any, **kw: Any
    ) -> Any:
        before = th.get_rng_state()
        expected = library(*args, **kw)
        after = th.get_rng_state()
        th.set_rng_state(before)
        result = fast(*args, **kw)
        if result is not None and (
            _bits(result) != _bits(expected) or not th.equal(th.get_rng_state(), after)
        ):
            self._give_up("it chose other actions")
        th.set_rng_state(after)
        return expected

    def train(self, library: Callable[..., None], *args: Any) -> None:
        """Do an update with the arguments of the algorithm's `train`, which is `library`."""
        if self._learner is not None and not self._intact():
            self._give_up("its parameters or optimizers were replaced")
        if self._learner is not None and not self._update_tried:
            self.trying, verbose, self._model.verbose = True, self._model.verbose, 0
            try:
                self._try_update(library, *args)
            finally:
                self.trying, self._model.verbose = False, verbose
            self._update_tried = True  # not before: it may be stopped
        if self._learner is None:
            library(*args)
        else:
            self._learner.train(*args)

    def _intact(self) -> bool:
        """The learner's optimizers are still the model's, and their parameters where they were put."""
        known = {id(optimizer) for _, optimizer in model_state.find_optimizers(self._model)}
        return all(id(flat.optimizer) in known and flat.intact for flat in self._flat)

    def release(self) -> None:
        """Give every tensor of the model and its optimizers memory of its own again."""
        if not self._flat:
            return
        self._give_up("released")
        for flat in self._flat:
            flat.take_apart()
        self._flat = []
        for parameter in self._model.policy.parameters():
            parameter.data = parameter.data.clone()

    def _try_update(self, library: Callable[..., None], *args: Any) -> None:
        """Do the first gradient steps both ways; each is undone again."""
        assert self._learner is not None
        if args:
            args = (max(args[0], self._learner.TRIED), *args[1:])
        before = updates.Before(self._model)
        expected = self._outcome(library, *args)
        before.put_back()
        outcome = self._outcome(self._learner.train, *args)
        before.put_back()
        if outcome != expected:
            self._give_up("it gave other weights")

    def _outcome(self, train: Callable[..., None], *args: Any) -> str:
        """The digest of what an update, broken off after some gradient steps, leaves behind."""
        model, logged = self._model, self._model.logger.name_to_value
        for name in [name for name in logged if name.startswith("train/")]:
            del logged[name]
        left = MOST_STEPS

        def count(*_: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise _EnoughError

        optimizers = model_state.find_optimizers(model)
        handles = [optimizer.register_step_post_hook(count) for _, optimizer in optimizers[:1]]
        try:
            train(*args)
        except _EnoughError:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return codec.digest(
            {
                "weights": model_state.capture_weights(model),
                "optimizers": model_state.capture_optimizers(model),
                "random": model_state.capture_random(model),
                "updates": model._n_updates,
                "logged": {name: value for name, value in logged.items() if name.startswith("train/")},
            }
        )

    def _give_up(self, why: str) -> None:
        self._learner, self.why = None, why


def _learner(model: Any) -> Learner:
    kind = type(model).__bases__[1]  # below the hooks
    name = LEARNERS.get(f"{kind.__module__}.{kind.__qualname__}")
    if name is None:
        raise NotFastError(f"none for {kind.__name__}")
    if model.device.type != "cpu":
        raise NotFastError(f"device {model.device.type}")
    buffer = getattr(model, "replay_buffer", None)
    if own_state.is_own(buffer):  # drawing from it may change it
        raise NotFastError(f"the replay buffer {type(buffer).__name__}")
    module, _, name = name.partition(":")
    learner: Learner = getattr(importlib.import_module(f"arzbench.sb3.fast.{module}"), name)(model)
    return learner


def _bits(result: Any) -> Any:
    """Numbers, arrays and tensors as bytes with their shapes and types."""
    if isinstance(result, tuple):
        return [_bits(part) for part in result]
    if isinstance(result, th.Tensor):
        result = result.numpy()
    return (result.dtype.str, result.shape, result.tobytes()) if hasattr(result, "tobytes") else result
