"""Calibration with a process that only declares what it measured: what is asked of it, and what is kept."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arzbench.clock import VirtualClock
from arzbench.errors import ArzbenchError, StateError, UsageError
from arzbench.facts import Phase
from arzbench.measure import calibrate as module
from arzbench.measure.calibrate import BURST_S, calibrate
from arzbench.records import Calibration
from arzbench.study import Study
from tests import worlds
from tests.measure import fake_worker

ONE_CORE = msgspec.structs.replace(worlds.HOST, cores=1)
SCRIPT = Path(fake_worker.__file__)
Jobs = list[dict[str, Any]]


def run(
    folder: Path,
    study: Study | None = None,
    *,
    mode: str = "",
    steps: int = 100,
    repetitions: int = 3,
    max_s: float = 30.0,
    process_s: float = 2.0,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> tuple[Calibration, Jobs]:
    """A calibration whose processes each take `process_s` on its clock, and the jobs they were given."""
    clock = VirtualClock(1000.0)
    log = folder / "jobs.jsonl"
    work = folder / "work"
    work.mkdir()

    def tell(what: str, share: float) -> None:
        clock.advance(process_s)
        progress(what, share)

    found = calibrate(
        study or worlds.study(),
        (sys.executable, str(SCRIPT), str(log), mode),
        clock,
        steps=steps,
        repetitions=repetitions,
        max_s=max_s,
        folder=work,
        progress=tell,
    )
    assert list(work.iterdir()) == []
    return found, [json.loads(line) for line in log.read_text().splitlines()]


def test_the_raw_record_keeps_every_process(tmp_path: Path) -> None:
    study = worlds.study()
    record, jobs = run(tmp_path, study)
    assert len(jobs) == 3
    (samples,) = record.workloads
    assert samples.workload == study.trainings[0].workload_digest()
    assert samples.config == study.trainings[0]
    assert record.study == study
    assert (record.steps, record.repetitions, record.versions) == (100, 3, {"fake": "1"})
    assert sorted({s.repetition for s in samples.phases}) == [0, 1, 2]
    assert len([s for s in samples.phases if s.phase is Phase.ENV_STEP]) == 6  # warm-ups kept
    assert samples.notes == ("note 0", "note 1")
    assert samples.state_bytes == (1002, 10)
    assert samples.facts.episode_steps == (20, 21, 22)
    assert record.took_s == 6.0
    assert record.id == "job-20260101T001646Z"


def test_the_end_of_a_process_is_measured_from_outside(tmp_path: Path) -> None:
    record, _ = run(tmp_path, process_s=2.5)
    ends = [s for s in record.workloads[0].phases if s.phase is Phase.TEARDOWN]
    assert [(s.repetition, s.seconds, s.units) for s in ends] == [(n, (2.5,), (1,)) for n in range(3)]


def test_drift_is_the_spread_of_a_training_step_between_processes(tmp_path: Path) -> None:
    record, _ = run(tmp_path)  # prices rise by 10 % from process to process
    assert record.drift == pytest.approx(0.2 / 1.1, rel=1e-6)


@pytest.mark.parametrize(
    ("mode", "empty"),
    [("cached", [False, True, False]), ("compiles", [False] * 3), ("ok", [False] * 3)],
)
def test_a_process_gets_an_empty_cache_only_where_compiling_was_not_seen(
    mode: str, empty: list[bool], tmp_path: Path
) -> None:
    _, jobs = run(tmp_path, worlds.study(worlds.config(torch_threads=3)), mode=mode)
    assert [j["cold"] for j in jobs] == empty
    inside = [str(tmp_path / "work") in (j["environment"]["NUMBA_CACHE_DIR"] or "") for j in jobs]
    assert inside == empty
    assert {j["environment"]["OMP_NUM_THREADS"] for j in jobs} == {"3"}


@pytest.mark.parametrize(("steps", "repetitions"), [(100, 3), (1, 4), (100_000, 2), (7, 1)])
def test_the_steps_asked_for_are_a_floor(steps: int, repetitions: int, tmp_path: Path) -> None:
    _, jobs = run(tmp_path, steps=steps, repetitions=repetitions)
    assert sum(j["steps"] for j in jobs) >= steps


def test_cheap_steps_fill_the_time_a_process_has(tmp_path: Path) -> None:
    """The pace seen in the first process, first calls apart, decides how much the others measure."""
    _, jobs = run(tmp_path, steps=10, max_s=1000.0)
    steps, updates, evaluated = 6, 5, 20
    cycle = fake_worker.STEP_S + fake_worker.UPDATE_S * updates / steps
    assert jobs[0]["steps"] == 4
    assert jobs[1]["steps"] == pytest.approx(BURST_S / cycle, abs=1)
    assert jobs[1]["steps"] > 100
    assert jobs[0]["eval_episodes"] == 1
    wanted = module.EVAL_S / (fake_worker.EVAL_S * evaluated)
    assert jobs[1]["eval_episodes"] == pytest.approx(wanted, abs=1)


def test_little_time_left_shortens_a_process_but_not_below_the_floor(tmp_path: Path) -> None:
    _, jobs = run(tmp_path, steps=300, repetitions=3, max_s=0.1)
    assert [j["steps"] for j in jobs] == [100, 100, 100]


def test_on_policy_rollouts_are_shortened_only_while_the_pace_is_unknown_or_slow(tmp_path: Path) -> None:
    slow = worlds.config(algo="ppo", hyperparameters={"n_steps": 2048})
    short = worlds.config(algo="a2c", name="a2c")
    _, jobs = run(tmp_path, worlds.study(slow, short), repetitions=2, steps=100)
    by_name: dict[str, list[int | None]] = {}
    for job in jobs:
        by_name.setdefault(job["config"]["name"], []).append(job["rollout"])
    assert by_name["t"][0] == 64  # one minibatch at least
    assert by_name["t"][1] is not None
    assert by_name["a2c"][0] == 5


QUIET = worlds.config(logging={"mode": "off"}, evaluation={"eval_freq": 100})


def test_evaluations_are_measured_beside_the_training_where_they_may_be_played_so(tmp_path: Path) -> None:
    _, jobs = run(tmp_path, worlds.study(QUIET))
    episode_s = fake_worker.EVAL_S * fake_worker.EPISODE
    first, *others = [job["beside"] for job in jobs]
    assert first == 0  # its pace is not known yet
    assert [n * episode_s for n in others] == [pytest.approx(BURST_S / 8, abs=0.1)] * 2


@pytest.mark.parametrize("changes", [
    {"evaluation": {"eval_freq": 100, "concurrent": False}},
    {"evaluation": {"eval_freq": 100, "deterministic": False}},
    {"evaluation": {"final_episodes": 5}},
    {"logging": {"mode": "periodic"}},
    {"torch_threads": 2},
])  # fmt: skip
def test_they_are_not_where_a_study_forbids_it(changes: dict[str, Any], tmp_path: Path) -> None:
    plain = {"logging": {"mode": "off"}, "evaluation": {"eval_freq": 100}}
    _, jobs = run(tmp_path, worlds.study(worlds.config(**{**plain, **changes})))
    assert [job["beside"] for job in jobs] == [0, 0, 0]


def test_they_are_not_on_one_core_nor_where_an_episode_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, changed in (("slow", ("BURST_S", 0.2)), ("one core", ("host_of", lambda config: ONE_CORE))):
        (tmp_path / name).mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(module, *changed)
            _, jobs = run(tmp_path / name, worlds.study(QUIET))
        assert [job["beside"] for job in jobs] == [0, 0, 0]


def test_each_workload_is_measured_once_with_a_baseline_where_one_is_needed(tmp_path: Path) -> None:
    study = worlds.study(
        worlds.config(name="a"),
        worlds.config(name="b", total_timesteps=5, baseline={"episodes": 2}),
        worlds.config(name="c", n_envs=2),
    )
    record, jobs = run(tmp_path, study, repetitions=1)
    assert [j["config"]["name"] for j in jobs] == ["b", "c"]
    assert [w.config.name for w in record.workloads] == ["b", "c"]
    assert all(record.find(t.workload_digest()) for t in study.trainings)


def test_progress_goes_from_0_to_1_and_says_what_is_measured(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    study = worlds.study(worlds.config(), worlds.config(name="second", n_envs=2))
    run(tmp_path, study, repetitions=2, progress=lambda *line: told.append(line))
    assert [share for _, share in told] == [pytest.approx(x) for x in (0.125, 0.375, 0.625, 0.875)]
    assert told[0][0] == "t, process 1/2: training"
    assert told[-1][0] == "second, process 2/2: training"


def test_what_an_env_prints_is_passed_over(tmp_path: Path) -> None:
    told: list[str] = []
    run(tmp_path, mode="noisy", repetitions=1, progress=lambda what, share: told.append(what))
    assert told == ["t, process 1/1: training"]


@pytest.mark.parametrize(
    ("mode", "kind", "message", "hint"),
    [
        ("usage", UsageError, "unknown env 'Nope-v0'", "valid: Yes-v0"),
        (
            "crash",
            StateError,
            "a measuring process ended with code 7",
            "\n".join(f"line {n}" for n in range(12, 20)),
        ),
        ("silent", StateError, "a measuring process ended with code 0", "it printed nothing"),
        ("hang", StateError, "a measuring process took longer than 300 ms", ""),
    ],
)
def test_a_process_without_a_result_is_one_error(
    mode: str,
    kind: type[ArzbenchError],
    message: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if mode == "hang":
        monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    with pytest.raises(kind) as caught:
        run(tmp_path, mode=mode)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert list((tmp_path / "work").iterdir()) == []
