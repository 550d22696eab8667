"""The batch as a Stable-Baselines3 `VecEnv`; apart, so that nothing else needs that package."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from arzbench.traffic.env.batch import whole
from arzbench.traffic.env.vector import EpisodeBatch


class ArzVecEnv(EpisodeBatch, VecEnv):
    """Native `VecEnv`: environments are rows of one batch, not objects of their own.

    `get_attr` and `env_method` answer for the batch; there is nothing to wrap.
    """

    def __init__(self, name: str, num_envs: int = 1, **options: Any) -> None:
        """Make the environments; arguments and errors are those of `EpisodeBatch`."""
        EpisodeBatch.__init__(self, name, num_envs, **options)
        self._actions = np.zeros(num_envs, np.int64)
        VecEnv.__init__(self, num_envs, *self.spaces)

    def reset(self) -> VecEnvObs:
        """Start all environments, with the seeds given to `seed` if any."""
        observations = self.start(list(self._seeds))
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = whole(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step all environments."""
        observations, report, done, last = self.advance(self._actions)
        # Written out: a third of the time that a loop over the names takes.
        rows: list[dict[str, Any]] = [
            {"throughput": a, "queue": b, "delay": c, "stops": d, "TimeLimit.truncated": False}
            for a, b, c, d in zip(*report[:-1].tolist(), strict=True)
        ]
        if last is not None:
            for env in np.flatnonzero(done):
                rows[env] |= {"TimeLimit.truncated": True, "terminal_observation": last[env]}
        return observations, report[-1].astype(np.float32), done, rows

    def close(self) -> None:
        """Nothing to close."""

    def _count(self, indices: VecEnvIndices) -> int:
        return len(list(self._get_indices(indices)))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the batch, once for each environment asked for."""
        value = None if attr_name == "render_mode" else getattr(self.batch, attr_name)
        return [value] * self._count(indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: the environments share their attributes.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"the environments of a batch share {attr_name!r}")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch with each environment's index before the arguments."""
        method = getattr(self.batch, method_name)
        return [method(i, *method_args, **method_kwargs) for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """No environment is wrapped."""
        return [False] * self._count(indices)

    def get_images(self) -> Sequence[np.ndarray | None]:
        """No images: render a single environment instead."""
        return [None] * self.num_envs
