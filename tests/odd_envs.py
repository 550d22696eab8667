"""Envs that are not as the library would have them, each the smallest of its kind."""

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Plain(gym.Env[Any, Any]):
    """A walk of 20 steps; how often it was made is kept in the file that ODD_COUNT names."""

    length = 20

    def __init__(self) -> None:
        self.observation_space: Any = spaces.Box(-10, 10, (2,), np.float32)
        self.action_space: Any = spaces.Discrete(2)
        if "ODD_COUNT" in os.environ:
            with Path(os.environ["ODD_COUNT"]).open("a") as file:
                file.write("made\n")

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        self.x = float(self.np_random.uniform(-1, 1))
        return self.seen(), {}

    def seen(self) -> Any:
        return np.array([self.x, self.t / 50], np.float32)

    def step(self, action: Any) -> Any:
        self.t += 1
        self.x += 0.1 if action else -0.1
        return self.seen(), -abs(self.x), False, self.t >= self.length, {}


class OneOnly(Plain):
    """A second one cannot be open in the same process or another: as behind a port."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = Path(os.environ["ODD_LOCK"])
        self.lock.touch(exist_ok=False)

    def close(self) -> None:
        self.lock.unlink(missing_ok=True)


class NoSeed(Plain):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class AnyArguments(Plain):
    def reset(self, **others: Any) -> Any:
        return super().reset()


class Unending(Plain):
    length = 10**9


class Dropping(Plain):
    """Its connection is lost in each 150th step of all."""

    steps = 0
    losses = 3

    def step(self, action: Any) -> Any:
        Dropping.steps += 1
        if Dropping.steps % 150 == 0 and Dropping.losses:
            Dropping.losses -= 1
            raise ConnectionResetError("the simulator hung up")
        return super().step(action)


class NoNumber(Plain):
    def step(self, action: Any) -> Any:
        seen, _, *rest = super().step(action)
        return seen, float("nan"), *rest


class NoObservation(Plain):
    def seen(self) -> Any:
        return np.array([np.nan, 0], np.float32)


class WrongShape(Plain):
    def seen(self) -> Any:
        return np.zeros(3, np.float32)


class OldReset(Plain):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class Text(Plain):
    def seen(self) -> Any:
        return "left"


class Doubles(Plain):
    """float64 where float32 was said: the library casts."""

    def seen(self) -> Any:
        return np.array([self.x, 0.5])


class Unmade(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.rate = 1 / len([])


class Broken(Plain):
    def step(self, action: Any) -> Any:
        return self.physics()

    def physics(self) -> Any:
        raise ZeroDivisionError("no mass")


class Late(Plain):
    """Breaks in its 100th step."""

    def __init__(self) -> None:
        super().__init__()
        self.all = 0

    def step(self, action: Any) -> Any:
        self.all += 1
        if self.all == 100:
            raise ZeroDivisionError("no mass")
        return super().step(action)


gym.register("Odd-v0", entry_point=Plain)
