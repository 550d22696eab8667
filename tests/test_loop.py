"""The training loop beside itself played out step by step; that it is a real one says tests/predict."""

import ast
import itertools
from pathlib import Path

import pytest

from arzbench import study
from arzbench.loop import TrainingLoop
from arzbench.workload import LIGHT
from tests import worlds

EPISODE = 10
PACKAGE = Path(study.__file__).parent
LOOPS = [
    TrainingLoop(
        frequency=frequency,
        unit="episode" if episodes else "step",
        learning_starts=learning_starts,
        gradient_steps=gradient_steps,
        n_envs=n_envs,
    )
    for frequency, learning_starts, gradient_steps, (episodes, n_envs) in itertools.product(
        (1, 4, 7), (0, 3, 30), (-1, 0, LIGHT, LIGHT + 1), ((False, 1), (False, 3), (True, 1))
    )
    if frequency == 1 or not episodes
]


def played(loop: TrainingLoop, total: int) -> tuple[int, int, int]:
    """(rollouts, env steps, gradient steps), one vectorised step after the other."""
    rollouts = timesteps = updates = number = 0
    while timesteps < total or number:
        number += 1
        ended = loop.complete(number, number // EPISODE)
        if ended:
            updates += loop.updates_after(number, timesteps)
        assert loop.fits(number)
        timesteps += loop.n_envs
        rollouts += ended
        number = 0 if ended else number
    return rollouts, timesteps, updates


@pytest.mark.parametrize("loop", LOOPS)
def test_counts_are_those_of_the_loop_played_out(loop: TrainingLoop) -> None:
    for total in (1, 29, 30, 31, 90):
        assert loop.counts(total, EPISODE) == played(loop, total), total


@pytest.mark.parametrize("loop", LOOPS)
def test_steps_that_little_follows_are_counted_exactly(loop: TrainingLoop) -> None:
    numbers = range(1, 13 if loop.unit == "episode" else loop.frequency + 1)
    for number, timesteps in itertools.product(numbers, range(60)):
        at, count = number, 0
        while count < 100:
            at = at + 1 if loop.fits(at + 1) else 1
            if loop.updates_after(at, timesteps + (count + 1) * loop.n_envs) > LIGHT:
                break
            count += 1
        assert min(100, loop.light_steps(number, timesteps, LIGHT)) == count, (number, timesteps)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(("learning_starts", "ramp"), [(0, 0), (50, 200), (300, 200), (0, 5000)])
def test_policy_calls_are_the_sum_of_what_is_not_random(n_envs: int, learning_starts: int, ramp: int) -> None:
    loop = TrainingLoop(
        n_envs=n_envs,
        frequency=4,
        gradient_steps=1,
        learning_starts=learning_starts,
        exploration_initial_eps=1.0,
        exploration_final_eps=0.1,
        exploration_steps=ramp,
    )
    for calls in (1, 60, 400, 1000):
        shares = [1 - loop.random_share(call * n_envs) for call in range(calls)]
        assert loop.policy_calls(calls) == pytest.approx(sum(shares), abs=1.0)


def test_a_rollout_has_no_more_steps_than_its_length() -> None:
    steps, episodes = (TrainingLoop(frequency=4, gradient_steps=1, unit=u) for u in ("step", "episode"))  # type: ignore[arg-type]
    assert [n for n in range(-1, 7) if steps.fits(n)] == [0, 1, 2, 3, 4]
    assert [n for n in range(-1, 7) if episodes.fits(n)] == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("algo", study.ALGORITHMS)
def test_every_algorithm_has_a_loop_and_can_be_measured(algo: str) -> None:
    training = worlds.config(algo=algo, n_envs=2, total_timesteps=100_000)
    assert training.loop.off_policy == ("buffer_size" in training.schedule_fields())
    short = training.loop.brought_forward(training.loop.short_rollout(100))
    if training.loop.unit == "episode" or training.loop.works_on_whole:
        assert short == training.loop  # shortened, it would be another
        return
    assert training.loop.n_envs == 2
    assert short.learning_starts + 2 * short.rollout_steps <= 1000
    assert short.counts(1000, 100)[2] > 0
    assert training.loop.without_updates(500).light_steps(1, 0, 0) * 2 >= 490


def test_nothing_but_the_library_s_side_asks_which_algorithm_it_is() -> None:
    """A new algorithm is a class in study.py, and not another branch elsewhere."""
    kinds = {base.__name__ for kind in study.ALGORITHMS.values() for base in kind.__mro__[:3]}
    asked = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        and node.func.id in ("isinstance", "issubclass")
        and kinds & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    ]  # fmt: skip
    assert asked == []
