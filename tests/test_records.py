"""Records refuse what cannot be, and answer what they are asked."""

from typing import Any

import msgspec
import pytest

from arzbench.facts import EnvFacts, Phase
from arzbench.records import Calibration, HostInfo, PhaseCount, PhaseSamples, TrainSchedule
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


def test_a_mean_is_over_units_not_over_measurements() -> None:
    item = sample(seconds=(1.0, 12.0), units=(1, 3))
    assert item.count == 4
    assert item.mean_s == 13 / 4
    assert item.per_unit() == [1.0, 4.0]


def test_records_are_frozen_and_take_no_unknown_field() -> None:
    with pytest.raises(AttributeError):
        sample().repetition = 3  # type: ignore[misc]
    text = msgspec.json.encode({**msgspec.to_builtins(sample()), "colour": "red"})
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        msgspec.json.decode(text, type=PhaseSamples)


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


def test_hidden_steps_are_evaluation_and_baselines() -> None:
    counts = (
        PhaseCount(phase=Phase.EVAL_STEP, count=100, high=500),
        PhaseCount(phase=Phase.BASELINE, count=10, high=20),
    )
    schedule = TrainSchedule(
        training="t",
        total_timesteps=1000,
        rollouts=1,
        updates=0,
        evaluations=1,
        checkpoints=1,
        counts=counts,
    )
    assert schedule.hidden_steps == (110, 520)
    assert schedule.env_steps == (1110, 1520)
    assert schedule.get(Phase.UPDATE).count == 0


def test_a_calibration_finds_its_workloads_and_survives_json() -> None:
    job = worlds.study(worlds.config(), worlds.config(name="b", n_envs=2))
    record = worlds.calibration(job)
    for training in job.trainings:
        found = record.find(training.workload_digest())
        assert found is not None
        assert found.facts.n_envs == training.n_envs
    assert record.find("0" * 16) is None
    assert msgspec.json.decode(msgspec.json.encode(record), type=Calibration) == record
