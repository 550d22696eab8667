"""Envs whose steps are made by one call, where their class can (`plugins`), and then taken one by one.

The envs, their wrappers and the vectorised env stay what they are: each is stepped by the library's own code,
only finds its step made when it comes to the env itself. So what is returned, captured, timed and logged is
what it would be without.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from arzbench.sb3.attached import attach

#: wrappers that hand on each action as it is
HANDING_ON = (Monitor, TimeLimit, OrderEnforcing, PassiveEnvChecker)


class Seat:
    """An env in a group: where its step lies once it is made, until the env is asked for it."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self.bare = env.unwrapped
        self.made: Any = None
        own_step = self.bare.step

        def step(action: Any) -> Any:
            if self.made is None:
                return own_step(action)
            made, self.made = self.made, None
            return made

        self._step = step
        attach(self.bare, "step", step)

    def is_silent(self) -> bool:
        """Whether neither the env itself nor a step of it sends messages."""
        outermost = vars(self.env).get("step")
        return getattr(self.bare, "message_log", None) is None and outermost in (None, self._step)


class Together:
    """Envs in seats, and what makes a step of all of them."""

    def __init__(self, seats: Sequence[Seat], step: Callable[[Any], Sequence[Any]]) -> None:
        self._seats = seats
        self._step = step

    def ask(self, actions: Any) -> Sequence[Any]:
        """What each env's step returns; an error in here is the envs' own."""
        return self._step(actions)

    @contextlib.contextmanager
    def step(self, actions: Any) -> Iterator[None]:
        """Make a step of every env; each is to be asked for it within, with the same action."""
        for seat, made in zip(self._seats, self.ask(actions), strict=True):
            seat.made = made
        try:
            yield
        finally:
            for seat in self._seats:  # after an error
                seat.made = None


def can(env: Any) -> bool:
    """Whether `env` is one of those that can be stepped together with others like it."""
    bare = env.unwrapped
    while env is not bare:
        if type(env) not in HANDING_ON:
            return False
        env = env.env
    return "step_together" in vars(type(bare))  # a subclass may step in a way of its own


def join(seats: Sequence[Seat], threads: int) -> Together | None:
    """Let the envs in `seats`, alike and such as `can` approves, be stepped together; None: theirs cannot."""
    bare = [seat.bare for seat in seats]
    step = type(bare[0]).step_together(bare, threads)
    return None if step is None else Together(seats, step)


def cores() -> int:
    """How many there are for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def join_vec_env(vec_env: DummyVecEnv) -> None:
    """Let the envs in `vec_env`, made alike, be stepped together where they can."""
    if len(vec_env.envs) < 2 or not all(map(can, vec_env.envs)):
        return
    seats = [Seat(env) for env in vec_env.envs]
    joined = join(seats, cores())
    if joined is None:
        return
    together, one_by_one = joined, vec_env.step_wait

    def step_wait() -> Any:
        with together.step(vec_env.actions):
            return one_by_one()

    def anew() -> None:
        nonlocal together
        together = join(seats, cores()) or together

    vars(step_wait)["join_anew"] = anew
    attach(vec_env, "step_wait", step_wait)


def join_anew(vec_env: Any) -> None:
    """The envs in `vec_env` were restored: they may consist of other objects than when they joined."""
    again = getattr(vars(vec_env).get("step_wait"), "join_anew", None) if vec_env is not None else None
    if again is not None:
        again()
