"""How windows are timed: the length of each, what is inside of some, and the others divided likewise."""

from typing import Any

import pytest

from arzbench.clock import VirtualClock
from arzbench.measure.phase_times import PhaseTotals
from arzbench.records import Phase
from arzbench.sb3.phase_timer import LEAST_UNTIMED, TIMED_EVERY, Meter

ENV_S, POLICY_S, REST_S = 0.03, 0.01, 0.02


class World:
    """An env and a policy that take what they are told to, collected from by a loop like the library's."""

    num_envs = 2

    def __init__(self, unasked: int) -> None:
        self.clock, self.totals = VirtualClock(), PhaseTotals()
        self.meter = Meter(self.clock, self.totals)
        self.slow = 1.0
        self.unasked = unasked
        self.points = 0
        self.random = 0  # steps to come whose actions are drawn at random
        self.policy: Any = self

    def forward(self, obs: Any, deterministic: bool = False) -> None:
        self.clock.advance(self.slow * POLICY_S)

    def predict(self, *arguments: Any) -> None:
        self.forward(None)

    def _sample_action(self, *arguments: Any) -> None:
        if self.random:
            self.random -= 1
        else:
            self.policy.predict(None, None, None, False)

    def step_async(self, actions: Any) -> None:
        self.clock.advance(self.slow * ENV_S)

    def step_wait(self) -> None:
        return

    def step(self, actions: Any) -> None:
        self.step_async(actions)
        self.step_wait()

    def point(self) -> None:
        self.points += 1
        self.meter.end_steps(0)
        self.meter.begin_steps(self.unasked)

    def on_policy(self, steps: int) -> None:
        for _ in range(steps):
            self.forward(None)
            self.step(None)
            self.clock.advance(self.slow * REST_S)

    def off_policy(self, steps: int) -> None:
        for _ in range(steps):
            self._sample_action(0, None, 1)
            self.step(None)
            self.clock.advance(self.slow * REST_S)

    def told(self) -> dict[Phase, tuple[float, int]]:
        self.meter.end_steps(0)
        return {phase: (round(s, 9), n) for phase, (s, n) in self.totals.totals.items()}


@pytest.mark.parametrize("unasked", [0, LEAST_UNTIMED - 1, LEAST_UNTIMED, 49])
@pytest.mark.parametrize("kind", ["forward", "predict"])
def test_totals_are_those_of_the_clock(kind: str, unasked: int) -> None:
    world, steps = World(unasked), 50 * 40
    if kind == "forward":
        world.meter.watch_forward(world, world, world.point)
        world.on_policy(steps)
    else:
        world.meter.watch_predict(world, world, world.point)
        world.off_policy(steps)
    assert world.points == -(-steps // (1 + unasked))
    assert world.told() == {
        Phase.ENV_STEP: (pytest.approx(ENV_S * steps), world.num_envs * steps),
        Phase.POLICY: (pytest.approx(POLICY_S * steps), steps),
        Phase.ROLLOUT: (pytest.approx(REST_S * steps), steps),
    }


def test_windows_that_are_not_timed_inside_are_divided_like_those_that_are() -> None:
    """All becomes three times as slow in windows that are not timed: their own length says so."""
    world = World(49)
    world.meter.watch_forward(world, world, world.point)
    world.on_policy(50)
    world.slow = 3.0
    world.on_policy(50 * (TIMED_EVERY - 1))
    weight = 1 + 3 * (TIMED_EVERY - 1)
    assert {phase: s for phase, (s, _) in world.told().items()} == {
        Phase.ENV_STEP: pytest.approx(ENV_S * 50 * weight),
        Phase.POLICY: pytest.approx(POLICY_S * 50 * weight),
        Phase.ROLLOUT: pytest.approx(REST_S * 50 * weight),
    }


def test_choices_before_the_first_that_was_timed_take_what_is_left() -> None:
    """A replay buffer is filled with random actions first; each choice is counted, timed or not."""
    world = World(49)
    world.meter.watch_predict(world, world, world.point)
    world.random = 100
    world.off_policy(150)
    told = world.told()
    assert told[Phase.POLICY] == (pytest.approx(POLICY_S * 50), 50)
    assert told[Phase.ENV_STEP] == (pytest.approx(ENV_S * 150), 300)


def test_a_window_that_is_broken_off_tells_of_its_whole_steps() -> None:
    world = World(49)
    world.meter.watch_forward(world, world, world.point)
    world.on_policy(50 + 20)
    world.meter.break_off(0)
    world.meter.end_steps(0)  # none is open
    assert {phase: n for phase, (_, n) in world.told().items()} == {
        Phase.ENV_STEP: 140, Phase.POLICY: 70, Phase.ROLLOUT: 50,
    }  # fmt: skip
