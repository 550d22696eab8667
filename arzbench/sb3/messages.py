"""Switches the messages of an env: its own, or one line per step for an env that has none."""

from __future__ import annotations

from typing import Any

from arzbench.logs.periodic import PeriodicLogger
from arzbench.sb3.phase_timer import PhaseTimer


class Messages:
    """The messages of one env, timed.

    An env with an attribute `message_log` sends its messages there, from `emit_messages`.
    """

    def __init__(self, env: Any, timer: PhaseTimer) -> None:
        self._env = env
        self._base = env.unwrapped
        self._own = hasattr(self._base, "message_log")
        self._steps = 0
        self._unlogged: Any = None  # what logging steps took the place of in the env
        self._logging = False
        self._time = timer.timed
        if self._own and hasattr(self._base, "emit_messages"):
            self._base.emit_messages = self._time(self._base.emit_messages)

    def switch(self, logger: PeriodicLogger | None) -> None:
        """Send messages to `logger`, None: make none."""
        if self._own:
            self._base.message_log = logger
            return
        if self._logging:
            del self._env.step
            if self._unlogged is not None:
                self._env.step = self._unlogged
        self._logging = logger is not None
        if logger is not None:
            self._unlogged = vars(self._env).get("step")
            self._log_steps(logger)

    def _log_steps(self, logger: PeriodicLogger) -> None:
        inner, log = self._env.step, self._time(logger.log)

        def step(action: Any) -> Any:
            result = inner(action)
            self._steps += 1
            log("STEP", "%d: reward %.6g", self._steps, result[1])
            return result

        self._env.step = step
