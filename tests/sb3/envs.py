"""Small envs for trainings: cheap, stochastic, of a length that is known."""

import random
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from arzbench.clock import VirtualClock


class Drift(gym.Env):
    """A noisy state that actions push; ends after `length` steps, or earlier at random."""

    metadata = {"render_modes": []}

    def __init__(
        self,
        length: int = 10,
        continuous: bool = False,
        ends: float = 0.0,
        mapping: bool = False,
        pairs: bool = False,
        double: bool = False,
    ) -> None:
        self.length, self.ends, self.mapping = length, ends, mapping
        self.dtype: Any = np.float64 if double else np.float32
        box = spaces.Box(-np.inf, np.inf, (3,), self.dtype)
        self.observation_space = spaces.Dict({"x": box, "t": box}) if mapping else box
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32) if continuous else spaces.Discrete(3)
        if double and continuous:  # as MuJoCo's have them
            self.action_space = spaces.Box(np.float32([-2.0, -0.5]), np.float32([1.0, 3.0]))
        if pairs:
            self.action_space = spaces.MultiDiscrete([3, 2])
        self.x = np.zeros(3)
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.x = self.np_random.standard_normal(3)
        self.t = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        push = float(np.sum(action)) - (0 if isinstance(self.action_space, spaces.Box) else 1)
        self.x = 0.9 * self.x + 0.3 * self.np_random.standard_normal(3) + 0.2 * push
        terminated = bool(self.np_random.random() < self.ends)
        return self.observe(), float(-np.abs(self.x).sum()), terminated, self.t >= self.length, {}

    def action_masks(self) -> Any:
        return np.ones(3, dtype=bool)

    def observe(self) -> Any:
        x = self.x.astype(self.dtype)
        return {"x": x, "t": np.full(3, self.t, np.float32)} if self.mapping else x


class Known(Drift):
    """Its state can be captured."""

    def get_state(self) -> dict[str, Any]:
        return {"x": self.x.copy(), "t": self.t}

    def set_state(self, state: dict[str, Any]) -> None:
        self.x, self.t = state["x"].copy(), int(state["t"])


class Hidden(Drift):
    """Has a part that cannot be looked into."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = iter([1])


class Careless(Known):
    """Draws from Python's own generator."""

    def step(self, action: Any) -> Any:
        self.x[0] += random.random()
        return super().step(action)


class Sharing(Drift):
    """All of its kind push one state."""

    shared = np.zeros(3)

    def step(self, action: Any) -> Any:
        self.shared += 0.01
        self.x = self.x + 1e-3 * self.shared
        return super().step(action)


class Worn(Known):
    """Fails after so many steps of its life."""

    def __init__(self, lasts: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lasts = lasts

    def step(self, action: Any) -> Any:
        self.lasts -= 1
        if not self.lasts:
            raise RuntimeError("worn out")
        return super().step(action)


class Talking(Known):
    """Has messages of its own: two per step."""

    message_log: Any = None

    def step(self, action: Any) -> Any:
        result = super().step(action)
        if self.message_log is not None:
            self.emit_messages()
        return result

    def emit_messages(self) -> None:
        self.message_log.log("X", "x = %r", Spoken(self.t))
        self.message_log.log("X", "again")


class Spoken:
    """Counts how often it was turned into text."""

    count = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __repr__(self) -> str:
        Spoken.count += 1
        return str(self.value)


class Timed(Talking):
    """Takes 5 s a step, 2 s a reset and 0.5 s for its messages, on a clock of its own."""

    clock = VirtualClock()

    def reset(self, **kwargs: Any) -> Any:
        self.clock.advance(2)
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        self.clock.advance(5)
        return super().step(action)

    def emit_messages(self) -> None:
        self.clock.advance(0.5)
        super().emit_messages()


class Joined(Talking):
    """Offers to be stepped with others."""

    @staticmethod
    def step_together(envs: Sequence["Joined"], threads: int) -> Any:
        def step(actions: Any) -> list[Any]:
            return [Talking.step(env, action) for env, action in zip(envs, actions, strict=True)]

        return step


class Shared(Talking):
    """Likewise, with one array for the states of all."""

    def in_place(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        mine = self.x
        result = call(*args, **kwargs)
        mine[:] = self.x
        self.x = mine
        return result

    def reset(self, **kwargs: Any) -> Any:
        return self.in_place(super().reset, **kwargs)

    def step(self, action: Any) -> Any:
        return self.in_place(super().step, action)

    def set_state(self, state: dict[str, Any]) -> None:
        self.in_place(super().set_state, state)

    @staticmethod
    def step_together(envs: Sequence["Shared"], threads: int) -> Any:
        shared = np.array([env.x for env in envs])
        for env, row in zip(envs, shared, strict=True):
            env.x = row

        def step(actions: Any) -> list[Any]:
            results = []
            for env, row, action in zip(envs, shared, actions, strict=True):
                own, env.x = env.x, row  # the array is what it computes with
                results.append(Shared.step(env, action))
                env.x = own
            return results

        return step


class Unlike(Joined):
    """Steps in a way of its own, which does not make it like others."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, reward - 1.0, *rest


for name, kind in (
    ("Joined", Joined),
    ("Shared", Shared),
    ("Unlike", Unlike),
    ("Drift", Drift),
    ("Hidden", Hidden),
    ("Known", Known),
    ("Careless", Careless),
    ("Sharing", Sharing),
    ("Worn", Worn),
    ("Talking", Talking),
    ("Timed", Timed),
):
    if f"arztest/{name}-v0" not in gym.registry:
        gym.register(f"arztest/{name}-v0", entry_point=kind)
