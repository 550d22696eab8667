"""The clock and the recorder of one training, and what is timed by itself: resets and messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arzbench.clock import Clock
from arzbench.facts import Phase
from arzbench.sb3.attached import attach
from arzbench.workload import Recorder


class PhaseTimer:
    """Times in seconds of `clock.ticks`, reported to a recorder.

    Attributes:
        nested_s: Of resets and messages, which happen within env steps, since it was last set to 0.
        evaluating_s: Of evaluations by callbacks, which happen within rollouts, likewise.
        logged_s: Of messages, since the beginning.
    """

    def __init__(self, clock: Clock, recorder: Recorder) -> None:
        self.ticks = clock.ticks
        self.add = recorder.add
        self.nested_s = self.evaluating_s = 0.0
        self.logged_s = 0.0

    def watch_resets(self, env: Any) -> None:
        """Time `env.reset`."""
        inner, ticks = env.reset, self.ticks

        def reset(**kwargs: Any) -> Any:
            began = ticks()
            result = inner(**kwargs)
            took = ticks() - began
            self.nested_s += took
            self.add(Phase.RESET, took, 1)
            return result

        attach(env, "reset", reset)

    def timed(self, emit: Callable[..., None]) -> Callable[..., None]:
        """`emit`, which sends the messages of one env step, with its time reported."""
        ticks = self.ticks

        def timed(*args: Any) -> None:
            began = ticks()
            emit(*args)
            took = ticks() - began
            self.logged_s += took
            self.nested_s += took
            self.add(Phase.LOG, took, 1)

        return timed
