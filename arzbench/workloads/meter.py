"""Splits the time of collecting steps into phases, from within the library's own loop.

Callables are wrapped on the instances that the loop calls; whatever the wrapped calls do not account
for between two consistent points is the rollout's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arzbench.clock import Clock
from arzbench.records import Phase
from arzbench.workloads.base import Recorder

# looked up once: an enum's attribute costs as much as a reading of the clock
_ROLLOUT, _ENV_STEP, _RESET, _POLICY, _LOG = (
    Phase.ROLLOUT,
    Phase.ENV_STEP,
    Phase.RESET,
    Phase.POLICY,
    Phase.LOG,
)
#: what is done with the return and length of an episode
Ended = Callable[[float, int], None]


class Meter:
    """Books phases with a recorder; all times in seconds of `clock.ticks`."""

    def __init__(self, clock: Clock, recorder: Recorder) -> None:
        self.ticks = clock.ticks
        self.add = recorder.add
        self.collecting = False  # between two consistent points: the policy is choosing actions
        self.logged = 0.0  # in messages, since the beginning
        self.began = 0.0  # the collection step now running
        self.booked = 0.0  # within it
        self._nested = 0.0  # resets and messages within the env step now running
        self._series = recorder.series
        self.add_rollout = recorder.series(_ROLLOUT, 1)

    def step_ended(self) -> None:
        """Arrive at a consistent point: what was not booked since the last one is rollout."""
        if self.collecting:
            self.collecting = False
            self.add_rollout(self.ticks() - self.began - self.booked)

    def book(self, phase: Phase, seconds: float, units: int) -> None:
        """A part of the collection step that is a phase of its own."""
        self.booked += seconds
        self.add(phase, seconds, units)

    def watch_steps(self, vec_env: Any) -> None:
        """Time `vec_env.step`, resets and messages inside it left out."""
        inner, ticks, add = vec_env.step, self.ticks, self._series(_ENV_STEP, vec_env.num_envs)

        def step(actions: Any) -> Any:
            self._nested = 0.0
            began = ticks()
            result = inner(actions)
            took = ticks() - began
            self.booked += took
            add(took - self._nested)
            return result

        vec_env.step = step

    def watch_resets(self, env: Any, ended: Ended) -> None:
        """Time `env.reset` of a Monitor, and tell of the episode that ended before it."""
        inner, ticks = env.reset, self.ticks

        def reset(**kwargs: Any) -> Any:
            if env.episode_lengths:
                ended(env.episode_returns.pop(), env.episode_lengths.pop())
                env.episode_times.clear()
            began = ticks()
            result = inner(**kwargs)
            took = ticks() - began
            self._nested += took
            self.add(_RESET, took, 1)
            return result

        env.reset = reset

    def watch_forward(self, policy: Any, before: Callable[[], None]) -> None:
        """Time `policy.forward`, which is called to collect only; `before` is called before each."""
        inner, ticks, add = policy.forward, self.ticks, self._series(_POLICY, 1)

        def forward(*args: Any, **kwargs: Any) -> Any:
            before()
            began = ticks()
            result = inner(*args, **kwargs)
            took = ticks() - began
            self.booked += took
            add(took)
            return result

        policy.forward = forward

    def watch_predict(self, policy: Any) -> None:
        """Time `policy.predict` while collecting."""
        inner, ticks, add = policy.predict, self.ticks, self._series(_POLICY, 1)

        def predict(*args: Any, **kwargs: Any) -> Any:
            if not self.collecting:
                return inner(*args, **kwargs)
            began = ticks()
            result = inner(*args, **kwargs)
            took = ticks() - began
            self.booked += took
            add(took)
            return result

        policy.predict = predict

    def timed(self, emit: Callable[..., None]) -> Callable[..., None]:
        """`emit`, which sends the messages of one env step, with its time booked."""
        ticks = self.ticks

        def timed(*args: Any) -> None:
            began = ticks()
            emit(*args)
            took = ticks() - began
            self.logged += took
            self._nested += took
            self.add(_LOG, took, 1)

        return timed
