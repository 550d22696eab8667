"""The env's messages: passing over silent ones changes neither what is written nor what is counted."""

import io
from typing import Any

import pytest

from arzbench.logs.periodic import PeriodicLogger
from arzbench.traffic.env.base import MESSAGES
from arzbench.traffic.env.crossing import TrafficLightEnv


class Plain:
    """A log that cannot skip."""

    def __init__(self, log: PeriodicLogger) -> None:
        self._log = log

    def log(self, *message: Any) -> None:
        self._log.log(*message)


@pytest.mark.parametrize("period", [1, 7, 1000])
def test_skipping_silent_messages_changes_nothing(period: int) -> None:
    told = []
    for wrap in (Plain, lambda log: log):
        stream, env = io.StringIO(), TrafficLightEnv()
        log = PeriodicLogger(period, stream)
        env.message_log = wrap(log)  # type: ignore[assignment]
        env.reset(seed=1)
        for action in (0, 1, 1):
            env.step(action)
        told.append((stream.getvalue(), log.calls))
    assert told[0] == told[1]
    assert set(told[0][1]) == set(MESSAGES)
    assert told[0][1]["DEBUG_BC_GPU"] * 3 == told[0][1]["DEBUG_BC_DISPATCHER"] * 4
