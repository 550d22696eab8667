"""Splits the time of collecting steps into phases, from within the library's own loop.

Callables are wrapped on the instances that the loop calls; whatever the wrapped calls do not account
for between two consistent points is the rollout's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from arzbench.clock import Clock
from arzbench.records import Phase
from arzbench.workloads.base import Recorder

# looked up once: an enum's attribute costs as much as a reading of the clock
_ROLLOUT, _ENV_STEP, _RESET, _POLICY, _UPDATE, _LOG = (
    Phase.ROLLOUT,
    Phase.ENV_STEP,
    Phase.RESET,
    Phase.POLICY,
    Phase.UPDATE,
    Phase.LOG,
)
#: what is done with the return and length of an episode
Ended = Callable[[float, int], None]


class Steps(Protocol):
    """What is told of consistent points, but for so many that are `free`."""

    free: int

    def consistent_point(self) -> None: ...


class Meter:
    """Books phases with a recorder; all times in seconds of `clock.ticks`.

    A window is what is collected between two calls, `begin_steps` and `end_steps`: one vectorised step or
    several. Within it each phase's seconds are only noted; at its end they are added up and recorded.
    """

    def __init__(self, clock: Clock, recorder: Recorder) -> None:
        self.ticks = clock.ticks
        self.add = recorder.add
        self.collecting = False  # in a window: the policy is choosing actions
        self.logged = 0.0  # in messages, since the beginning
        self._n_envs = 1
        # of the window that is open
        self._began = 0.0
        self._stepped: list[float] = []  # seconds of each vectorised env step
        self._acted: list[float] = []  # and of each choice of the policy
        self._nested = 0.0  # resets and messages within env steps
        self.updated: list[float] = []  # seconds of each update

    def begin_steps(self) -> None:
        """Open a window, at a consistent point."""
        self.collecting = True
        self._nested = 0.0
        self._began = self.ticks()

    def end_steps(self, gradient_steps: int) -> None:
        """At a consistent point: close the window, if one is open; what nothing was noted for is rollout.

        `gradient_steps` is what its updates did.
        """
        if self.collecting:
            took, number = self.ticks() - self._began, len(self._stepped)
            self.add(_ROLLOUT, took - self.break_off(gradient_steps), number)

    def break_off(self, gradient_steps: int) -> float:
        """Record what was noted, be it within a step: what whole steps took beside it is not known then.

        Returns its seconds.
        """
        self.collecting = False
        stepped, acted, updated = sum(self._stepped), sum(self._acted), sum(self.updated)
        if self._stepped:
            self.add(_ENV_STEP, stepped - self._nested, self._n_envs * len(self._stepped))
            self._stepped.clear()
        if self._acted:
            self.add(_POLICY, acted, len(self._acted))
            self._acted.clear()
        if self.updated:
            self.add(_UPDATE, updated, gradient_steps)
            self.updated.clear()
        return stepped + acted + updated

    def watch_steps(self, vec_env: Any) -> None:
        """Time `vec_env.step`, resets and messages inside it left out."""
        ticks, note = self.ticks, self._stepped.append
        step_async, step_wait = vec_env.step_async, vec_env.step_wait  # what its `step` consists of
        self._n_envs = vec_env.num_envs

        def step(actions: Any) -> Any:
            began = ticks()
            step_async(actions)
            result = step_wait()
            note(ticks() - began)
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

    def watch_forward(self, policy: Any, steps: Steps) -> None:
        """Time `policy.forward`, which is called to collect only, at each consistent point."""
        inner, ticks, note = policy.forward, self.ticks, self._acted.append

        def forward(obs: Any, deterministic: bool = False) -> Any:
            if steps.free:
                steps.free -= 1
            else:
                steps.consistent_point()
            began = ticks()
            result = inner(obs, deterministic)
            note(ticks() - began)
            return result

        policy.forward = forward

    def watch_predict(self, policy: Any) -> None:
        """Time `policy.predict` while collecting."""
        inner, ticks, note = policy.predict, self.ticks, self._acted.append

        def predict(
            observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> Any:
            if not self.collecting:
                return inner(observation, state, episode_start, deterministic)
            began = ticks()
            result = inner(observation, state, episode_start, deterministic)
            note(ticks() - began)
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
