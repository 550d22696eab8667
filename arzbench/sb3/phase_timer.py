"""Splits the time of collecting steps into phases, from within the library's own loop.

Callables are wrapped on the instances that the loop calls; whatever the wrapped calls do not account
for between two consistent points is the rollout's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arzbench.clock import Clock
from arzbench.records import Phase
from arzbench.workload import Recorder

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
#: windows of at least `LEAST_UNTIMED` steps are timed inside one time in `TIMED_EVERY`
TIMED_EVERY, LEAST_UNTIMED = 8, 8
#: weight of what was known before, at each window that was timed
_KEPT = 0.5


class _Shares:
    """What the parts of a step cost in windows that were timed: by this the others are divided."""

    def __init__(self) -> None:
        self._known = [0.0] * 5

    def note(self, *found: float) -> None:
        """Of a window: seconds in the env, steps, seconds of choices, choices, seconds of the rest."""
        self._known = [_KEPT * a + b for a, b in zip(self._known, found, strict=True)]

    @property
    def known(self) -> bool:
        """Any window was timed."""
        return self._known[1] > 0

    def divide(self, seconds: float, steps: int, choices: int) -> tuple[float, float, float]:
        """`seconds` of so many steps: in the env, choosing, and the rest."""
        env, counted, choosing, chosen, rest = self._known
        env, rest = env / counted * steps, rest / counted * steps
        # before the first choice that was timed, they took what is left
        policy = choosing / chosen * choices if chosen else max(0.0, seconds - env - rest) * (choices > 0)
        whole = env + policy + rest
        scale = seconds / whole if whole > 0 else 0.0
        return scale * env, scale * policy, scale * rest


class Meter:
    """Books phases with a recorder; all times in seconds of `clock.ticks`.

    A window is what is collected between two calls, `begin_steps` and `end_steps`: one vectorised step or
    several. Its length and its updates are always timed. What is inside is timed, too, in short windows and
    in one of `TIMED_EVERY` others; the rest of the windows are divided as those were.
    """

    def __init__(self, clock: Clock, recorder: Recorder) -> None:
        self.ticks = clock.ticks
        self.add = recorder.add
        self.logged = 0.0  # in messages, since the beginning
        self._n_envs = 1
        self._shares = _Shares()
        self._windows = 0  # that need not be timed inside
        # of the window that is open
        self._timed = True
        self._began = 0.0
        self._steps = self._left = 0  # vectorised steps: in all (0: none is open), and to come
        self._stepped: list[float] = []  # seconds of each vectorised env step
        self._acted: list[float] = []  # and of each choice of the policy
        self._nested = 0.0  # resets and messages within env steps
        self.updated: list[float] = []  # seconds of each update
        self._always_chooses = False  # each step begins with a choice: those not timed are not counted
        self._switch: Callable[[], None] = lambda: None

    def begin_steps(self, unasked: int) -> None:
        """Open a window at a consistent point: of the next step, and so many more."""
        self._steps = self._left = 1 + unasked
        self._timed = unasked < LEAST_UNTIMED or self._windows % TIMED_EVERY == 0 or not self._shares.known
        self._windows += unasked >= LEAST_UNTIMED
        self._nested = 0.0
        self._switch()
        self._began = self.ticks()

    def end_steps(self, gradient_steps: int) -> None:
        """At a consistent point: close the window, if one is open; its updates did so many gradient steps."""
        if self._steps:
            steps = self._steps - self._left
            self.add(_ROLLOUT, self.break_off(gradient_steps), steps)

    def break_off(self, gradient_steps: int) -> float:
        """Record what was noted, be it within a step: what whole steps took beside it is not known then.

        Returns the seconds that nothing was noted for.
        """
        steps, updated = self._steps - self._left, sum(self.updated)
        choices = len(self._acted) if self._timed or not self._always_chooses else steps
        took = self.ticks() - self._began - self._nested - updated
        if self._timed:
            env, policy = sum(self._stepped) - self._nested, sum(self._acted)
            rest = took - env - policy
            if self._steps > LEAST_UNTIMED:
                self._shares.note(env, steps, policy, choices, rest)
        else:
            env, policy, rest = self._shares.divide(took, steps, choices)
        if steps:
            self.add(_ENV_STEP, env, self._n_envs * steps)
        if choices:
            self.add(_POLICY, policy, choices)
        if self.updated:
            self.add(_UPDATE, updated, gradient_steps)
        self._stepped.clear()
        self._acted.clear()
        self.updated.clear()
        self._steps = self._left = 0
        self._timed = True
        self._switch()
        return rest

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

    def watch_forward(self, policy: Any, vec_env: Any, point: Callable[[], None]) -> None:
        """Time the steps of a collection that begins each with `policy.forward`, called to collect only.

        `point` is called before, at each consistent point: it opens a window.
        """
        inner, ticks, note = policy.forward, self.ticks, self._acted.append

        def timed(obs: Any, deterministic: bool = False) -> Any:
            began = ticks()
            result = inner(obs, deterministic)
            note(ticks() - began)
            return result

        def ask(obs: Any, deterministic: bool = False) -> Any:
            point()
            return policy.forward(obs, deterministic)

        def choose() -> None:
            policy.forward = (timed if self._timed else inner) if self._left else ask

        self._always_chooses = True
        self._watch_steps(vec_env, choose)

    def watch_predict(self, model: Any, vec_env: Any, point: Callable[[], None]) -> None:
        """Time the steps of a collection that begins each with `model._sample_action`, as `watch_forward`.

        It calls `policy.predict`, or draws at random.
        """
        policy, ticks, note = model.policy, self.ticks, self._acted.append
        sample, predict = model._sample_action, policy.predict

        def timed(
            observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> Any:
            began = ticks()
            result = predict(observation, state, episode_start, deterministic)
            note(ticks() - began)
            return result

        def counted(
            observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> Any:
            note(0.0)
            return predict(observation, state, episode_start, deterministic)

        def ask(learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> Any:
            point()
            return sample(learning_starts, action_noise, n_envs)

        def choose() -> None:
            model._sample_action = sample if self._left else ask
            policy.predict = (timed if self._timed else counted) if self._left else predict

        self._watch_steps(vec_env, choose)

    def _watch_steps(self, vec_env: Any, choose: Callable[[], None]) -> None:
        """Time or count each `vec_env.step`; `choose` puts what else is watched in place for what is open."""
        inner, ticks, note = vec_env.step, self.ticks, self._stepped.append
        step_async, step_wait = vec_env.step_async, vec_env.step_wait  # what its `step` consists of
        self._n_envs = vec_env.num_envs

        def timed(actions: Any) -> Any:
            began = ticks()
            step_async(actions)
            result = step_wait()
            note(ticks() - began)
            self._left -= 1
            if not self._left:
                choose()
            return result

        def counted(actions: Any) -> Any:
            step_async(actions)
            result = step_wait()
            self._left -= 1
            if not self._left:
                choose()
            return result

        def switch() -> None:
            vec_env.step = (timed if self._timed else counted) if self._left else inner
            choose()

        self._switch = switch
        switch()

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
