"""The user's own callbacks in a training: run by the library as always, saved and restored with it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from arzbench.facts import Phase
from arzbench.sb3.phase_timer import PhaseTimer
from arzbench.sb3.plain_fill import NotHereError
from arzbench.sb3.plain_state import PlainState

#: what is put into callbacks here
_HOOKED = frozenset({"on_training_start", "on_rollout_start", "_on_step"})


class Callbacks:
    """What a user passes to `learn` beside the number of steps.

    Attributes:
        arguments: `callback`, `log_interval` and others, as the library's `learn` takes them.
        saved: States to put back once `learn` has begun; None: there are none.
    """

    def __init__(
        self, arguments: dict[str, Any], timer: PhaseTimer, built: list[dict[str, Any]] | None = None
    ) -> None:
        """`built` is what they were built with, if they have been trained with since."""
        given = arguments.get("callback")
        if isinstance(given, list):
            given = CallbackList(given)  # as the library would
        self.arguments = {**arguments, "callback": given}
        self.saved: dict[str, Any] | None = None
        self._timer = timer
        self._states = [s for one in _tree(given) for s in _states(one)]
        self.built = built or [_scalars(state.root) for state in self._states]
        self._evaluating: list[EvalCallback] = []
        self._hooked: list[tuple[Any, str]] = []  # in which objects something was put, under which name
        self._within: Callable[[int, int], None]
        self._evaluated: Callable[[tuple[float, ...], tuple[int, ...]], None]

    def watch_evaluations(
        self,
        within: Callable[[int, int], None],
        evaluated: Callable[[tuple[float, ...], tuple[int, ...]], None],
    ) -> None:
        """Call `within` before each step of an evaluation by a callback, and `evaluated` after it.

        `within` gets the steps done of it and its number of episodes, and may raise `StopTraining`;
        `evaluated` gets returns and lengths of its episodes.
        """
        self._within, self._evaluated = within, evaluated

    def begin(self, callback: BaseCallback) -> None:
        """`learn` begins with `callback`, which the library made of what was given."""
        self.end()
        self._evaluating = list(evaluating(callback))
        begin = callback.on_training_start

        def on_training_start(*args: Any) -> None:
            begin(*args)
            self.put_back()

        self._hook(callback, "on_training_start", on_training_start)
        for one in self._evaluating:
            self._hook(one, "_on_step", self._timed(one))

    def end(self) -> None:
        """Leave the callbacks as their maker knew them."""
        while self._hooked:
            owner, name = self._hooked.pop()
            vars(owner).pop(name, None)

    @property
    def unsaved(self) -> list[str]:
        """What of the callbacks and their evaluation envs cannot be saved."""
        others = ["the callbacks, others than were saved"] * self._are_others
        return others + [name for state in self._states for name in state.unseen]

    @property
    def _are_others(self) -> bool:
        return self.saved is not None and self.saved["kinds"] != self._kinds()

    def _kinds(self) -> list[str]:
        return [type(state.root).__name__ for state in self._states]

    def capture(self) -> dict[str, Any]:
        """The plain state of each callback and of its evaluation env, and what they were built with.

        As long as `learn` has not begun, it is what a checkpoint held: it is put back only then.
        """
        if self.saved is not None:
            return self.saved
        states = [state.copy() for state in self._states]
        return {"kinds": self._kinds(), "states": states, "built": self.built}

    def put_back(self, saved: dict[str, Any] | None = None) -> None:
        """Give the callbacks the states that `saved`, or else a checkpoint, holds; others are left alone."""
        self.saved = saved or self.saved
        if self.saved is not None and not self._are_others:
            parts = zip(self._states, self.saved["states"], self.saved["built"], self.built, strict=True)
            for state, tree, before, now in parts:
                try:
                    state.restore(tree)
                except NotHereError as error:  # the script has other functions or classes than it had
                    kind = type(state.root).__name__
                    warnings.warn(f"{kind} goes on as it was built: {error.message}", stacklevel=2)
                    continue
                for name in now.keys() & before.keys():
                    if getattr(state.root, name) == before[name]:  # nothing changed it but the script
                        setattr(state.root, name, now[name])
        self.saved = None

    def _hook(self, owner: Any, name: str, function: Callable[..., Any]) -> None:
        setattr(owner, name, function)
        self._hooked.append((owner, name))

    @property
    def steps_to_evaluation(self) -> float:
        """After how many vectorised steps a callback evaluates: 1 is the next; infinity: none does."""
        return min((c.eval_freq - c.n_calls % c.eval_freq for c in self._evaluating), default=math.inf)

    def _timed(self, callback: EvalCallback) -> Callable[[], bool]:
        inner, timer = callback._on_step, self._timer

        def on_step() -> bool:
            if callback.n_calls % callback.eval_freq:
                return inner()
            began = timer.ticks()
            returns, lengths, steps = self._watch(callback.eval_env, callback.n_eval_episodes)
            try:
                goes_on = inner()
            finally:
                del callback.eval_env.step
            took = timer.ticks() - began
            timer.evaluating_s += took
            timer.add(Phase.EVAL_STEP, took, steps[0])
            self._evaluated(tuple(returns), tuple(lengths))
            return goes_on

        return on_step

    def _watch(self, env: Any, episodes: int) -> tuple[list[float], list[int], list[int]]:
        """Returns and lengths of the episodes that end in `env` from now on, and its steps."""
        returns: list[float] = []
        lengths: list[int] = []
        steps = [0]
        inner, within = env.step, self._within

        def step(actions: Any) -> Any:
            if steps[0]:
                within(steps[0], episodes)
            result = inner(actions)
            steps[0] += env.num_envs
            for info in result[3]:
                if "episode" in info:
                    returns.append(float(info["episode"]["r"]))
                    lengths.append(int(info["episode"]["l"]))
            return result

        env.step = step
        return returns, lengths, steps


def _states(callback: BaseCallback) -> Iterator[PlainState]:
    """What a callback keeps, but for other callbacks and what `learn` gives it; and its evaluation env."""
    given = {"model", "locals", "globals", "parent", "eval_env", *_HOOKED}
    within = {name for name, value in vars(callback).items() if any(_callbacks(value))}
    yield PlainState(callback, given | within)
    eval_env = getattr(callback, "eval_env", None)
    if isinstance(eval_env, VecEnv):
        yield PlainState(eval_env)


def _scalars(root: Any) -> dict[str, Any]:
    kinds = (bool, int, float, str, type(None))
    values = vars(root) if isinstance(root, BaseCallback) else {}
    return {name: value for name, value in values.items() if type(value) in kinds and value == value}


def _callbacks(value: Any) -> Iterator[BaseCallback]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, BaseCallback):
            yield one


def _tree(callback: Any) -> Iterator[BaseCallback]:
    """`callback` and those within it; nothing where it is no callback of a class."""
    if not isinstance(callback, BaseCallback):
        return
    yield callback
    for name, value in vars(callback).items():
        if name != "parent":
            for inner in _callbacks(value):
                yield from _tree(inner)


def evaluating(given: Any) -> Iterator[EvalCallback]:
    """Those of the callbacks given to `learn` that evaluate: called at each step, not by an event."""
    inner = given.callbacks if isinstance(given, CallbackList) else given
    if isinstance(inner, list):
        for one in inner:
            yield from evaluating(one)
    elif isinstance(inner, EvalCallback) and inner.eval_freq > 0:
        yield inner
