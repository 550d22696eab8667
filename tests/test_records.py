"""Records refuse what cannot be, and answer what they are asked."""

from typing import Any

import msgspec
import pytest

from arzbench.facts import EnvFacts, Phase
from arzbench.records import HostInfo, PhaseCount, PhaseSamples
from tests import worlds


def sample(**changes: Any) -> PhaseSamples:
    plain: dict[str, Any] = {"phase": Phase.UPDATE, "repetition": 0, "seconds": (1.0, 4.0), "units": (1, 4)}
    return PhaseSamples(**{**plain, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"units": (1,)}, {"seconds": (-0.1, 1.0)}, {"units": (0, 1)}, {"seconds": (float("nan"), 1.0)},
     {"seconds": (float("inf"), 1.0)}, {"seconds": (), "units": ()}],
    ids=str,
)  # fmt: skip
def test_impossible_measurements_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="update: "):
        sample(**changes)


@pytest.mark.parametrize("numbers", [(-1, 0), (5, 4), (0, -1)])
def test_impossible_counts_are_refused(numbers: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="outside"):
        PhaseCount(phase=Phase.UPDATE, count=numbers[0], high=numbers[1])


@pytest.mark.parametrize(
    ("known", "train", "evaluated", "expected"),
    [
        (240, (), (), ((240, 240), (240, 240))),  # nothing seen: the limit
        (500, (10, 20), (30,), ((30, 500), (15, 500))),
        (500, (10, 20), (), ((15, 500), (15, 500))),  # the other kind stands in
        (500, (), (30, 50), ((40, 500), (40, 500))),
        (None, (10, 20), (), ((15, 20), (15, 20))),  # no limit: the longest seen
        (100, (150,), (), ((150, 150), (150, 150))),  # longer than it says
        (None, (), (), ((0, 0), (0, 0))),
    ],
)
def test_episode_lengths(
    known: int | None,
    train: tuple[int, ...],
    evaluated: tuple[int, ...],
    expected: tuple[tuple[float, float], tuple[float, float]],
) -> None:
    facts = EnvFacts(n_envs=1, max_episode_steps=known, episode_steps=train, eval_episode_steps=evaluated)
    assert (facts.eval_length(), facts.train_length()) == expected


def test_hosts_differ_in_what_decides_speed() -> None:
    replace = msgspec.structs.replace
    assert worlds.HOST.differs_from(worlds.HOST) == []
    assert worlds.HOST.differs_from(replace(worlds.HOST, system="other", python="3.12", memory_bytes=1)) == []
    other = replace(worlds.HOST, name="b", cpu="c", cores=1, device="P100", torch_threads=2)
    assert worlds.HOST.differs_from(other) == ["name", "cpu", "cores", "device", "torch_threads"]


@pytest.mark.parametrize("name", ["../../etc", "a/b c:d", "höst", "node-1.lab_2", "..", ""])
def test_a_hosts_folder_is_one_safe_name(name: str) -> None:
    host: HostInfo = msgspec.structs.replace(worlds.HOST, name=name)
    assert "/" not in host.key
    assert host.key
    assert not host.key.startswith(".")
