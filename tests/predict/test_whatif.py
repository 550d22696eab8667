"""What would make it fit: each change judged alone, ranked by what it saves, done by the command shown."""

import inspect
import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arzbench import store
from arzbench.facts import Phase
from arzbench.predict.whatif import WORKLOADS, Question, what_ifs
from arzbench.records import Calibration, Plan, Verdict, WhatIf
from arzbench.report.console import to_markdown
from arzbench.report.sheets import plan_sheets
from arzbench.study import Study
from arzbench.study_changes import change_study
from arzbench.traffic.env.batch import ArzBatch
from tests import worlds
from tests.calls import CARTPOLE, calibrated, call
from tests.worlds import PAIR, plan

LOGGED = worlds.study(worlds.config(**worlds.EVERYTHING, logging={"mode": "every"}))


def ask(study: Study, quota_s: float | None, **changes: Any) -> tuple[Plan, list[WhatIf]]:
    others: list[Calibration] = changes.pop("others", [])
    record = changes.pop("calibration", None) or worlds.calibration(study, spread=0.03)
    made = plan(study, quota_s, calibration=record, **changes)
    found = what_ifs(
        Question(plan=made, calibration=record, others=others, flags=" --quota 1m", study_flags=" --study s")
    )
    return made, list(found)


def by_change(found: list[WhatIf]) -> dict[str, WhatIf]:
    return {w.changes[0]: w for w in found if w.changes}


@pytest.mark.parametrize("quota_s", [None, 60.0, 150.0, 1e6])
def test_each_is_what_a_plan_of_the_changed_study_says(quota_s: float | None) -> None:
    made, found = ask(PAIR, quota_s)
    measured = [w for w in found if w.estimate is not None and w.changes]
    assert len(measured) >= 4
    for item in measured:
        again = plan(change_study(PAIR, item.changes), quota_s).rows[-1]
        assert item.estimate == again.estimate
        assert (item.probability, item.verdict) == (again.probability, again.verdict)
        assert item.saved_s == made.rows[-1].estimate.p50_s - again.estimate.p50_s > 0


def test_the_most_time_saved_comes_first_and_what_was_not_measured_last() -> None:
    _, found = ask(PAIR, 60.0)
    saved = [w.saved_s for w in found]
    measured = [s for s in saved if s is not None]
    assert saved == [*sorted(measured, reverse=True), *([None] * (len(saved) - len(measured)))]
    unknown = [w.changes for w in found if w.saved_s is None]
    assert unknown == [("n_envs=4",), ("device=cuda",), ("logging.log_period=5000",)]
    assert {w.note for w in found if w.saved_s is None} == {"not measured"}


@pytest.mark.parametrize(
    ("device", "found_on", "other"),
    [("cpu", "cpu", "cuda"), ("auto", "cpu", "cuda"), ("auto", "T4", "cpu"), ("cuda", "T4", "cpu")],
)
def test_the_device_not_measured_is_the_one_it_did_not_run_on(device: str, found_on: str, other: str) -> None:
    study = change_study(PAIR, [f"device={device}"])
    host = msgspec.structs.replace(worlds.HOST, device=found_on)
    _, found = ask(study, 60.0, calibration=worlds.calibration(study, host=host))
    item = by_change(found)[f"device={other}"]
    assert (item.note, item.saved_s, item.estimate) == ("not measured", None, None)


def test_the_command_makes_the_change() -> None:
    for item in ask(PAIR, 60.0)[1]:
        words = shlex.split(item.command)
        sets = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
        if item.saved_s is None:
            assert words[:2] == ["arzbench", "calibrate"]
        elif item.changes:
            assert words[:5] == ["arzbench", "run", "--auto-budget", "--quota", "1m"]
        assert tuple(sets) == item.changes


def test_fewer_steps_are_those_that_fit() -> None:
    made, found = ask(PAIR, 60.0)
    (fewer,) = [w for w in found if w.estimate is not None and not w.changes]
    recommended = next(o for o in made.options if o.key == "B")
    assert fewer.estimate == recommended.estimate
    assert fewer.verdict is Verdict.FITS
    assert fewer.command == recommended.command
    assert not [w for w in ask(PAIR, 1e6)[1] if w.estimate is not None and not w.changes]


def test_evaluations_that_would_never_come_are_called_so() -> None:
    study = worlds.study(worlds.config(total_timesteps=4000, evaluation={"eval_freq": 1000}))
    item = by_change(ask(study, None)[1])["evaluation.eval_freq=0"]
    assert item.title == "no evaluation during the training"


def test_nothing_is_proposed_that_saves_nothing() -> None:
    bare = worlds.study(worlds.config(logging={"mode": "off"}))
    assert [w for w in ask(bare, None)[1] if w.saved_s is not None] == []


def test_quieter_logging_is_priced_as_it_was_measured() -> None:
    """In these worlds every mode but the study's own costs 50 times more: to go quiet would not pay."""
    assert "logging.mode=periodic" not in by_change(ask(LOGGED, None)[1])
    training = LOGGED.trainings[0]
    cheap = worlds.samples(training)
    phases = tuple(
        msgspec.structs.replace(p, seconds=tuple(s / 5000 for s in p.seconds))
        if p.variant == "periodic"
        else p
        for p in cheap.phases
    )
    record = worlds.calibration(LOGGED)
    record = msgspec.structs.replace(record, workloads=(msgspec.structs.replace(cheap, phases=phases),))
    made, found = ask(LOGGED, None, calibration=record)
    quiet = by_change(found)["logging.mode=periodic"]
    per_step = worlds.PRICES[Phase.ENV_STEP] * 0.99  # 50 / 5000 of the price
    assert quiet.saved_s > 24_000 * per_step
    assert made.rows[-1].estimate.p50_s > quiet.saved_s
    own = tuple(p for p in phases if p.variant != "periodic")  # not measured: not proposed
    record = msgspec.structs.replace(record, workloads=(msgspec.structs.replace(cheap, phases=own),))
    assert "logging.mode=periodic" not in by_change(ask(LOGGED, None, calibration=record)[1])


def test_another_period_of_messages_is_said_to_be_priced_as_measured() -> None:
    record = worlds.calibration(PAIR)
    assert plan(PAIR, None, calibration=record).warnings == ()
    rarer = change_study(PAIR, ["logging.log_period=50"])
    (said,) = plan(rarer, None, calibration=record).warnings
    assert said == "messages of one call in 50 are priced at the period measured"


@pytest.mark.parametrize("change", ["n_envs=8", 'device="cuda"'])
def test_another_workload_counts_where_it_was_measured(change: str) -> None:
    study = worlds.study(worlds.config(algo="ppo", hyperparameters={"n_steps": 64}, total_timesteps=50_000))
    wide = change_study(study, [change])
    prices = {**worlds.PRICES, Phase.ENV_STEP: 0.0005}
    other = worlds.calibration(wide, created="20260102T000000Z", prices=prices)
    _, found = ask(study, 60.0, others=[other])
    item = by_change(found)[change.replace('"', "")]
    assert item.saved_s > 50_000 * 0.003
    assert item.note == f"prices: {other.id}"
    assert by_change(ask(study, 60.0)[1]).get(change) is None  # unmeasured, none of its time is said


#: evaluations that take longer than it takes to begin them
WAITING = worlds.study(
    worlds.config(logging={"mode": "off"}, evaluation={"eval_freq": 2000, "concurrent": False})
)
BESIDE = msgspec.structs.replace(worlds.calibration(WAITING, spread=0.03, beside=1.1), id="beside")


def test_evaluations_beside_the_training_are_offered_where_the_study_alone_forbids_them() -> None:
    made, found = ask(WAITING, 60.0, calibration=BESIDE)
    item = by_change(found)["evaluation.concurrent=true"]
    again = plan(change_study(WAITING, item.changes), 60.0, calibration=BESIDE).rows[-1]
    assert item.estimate == again.estimate
    assert made.rows[-1].estimate.p50_s - again.estimate.p50_s == item.saved_s > 30
    assert (item.results, item.note) == ("the same results", "")
    assert item.command == "arzbench run --auto-budget --quota 1m --set evaluation.concurrent=true"
    _, found = ask(WAITING, 60.0, others=[BESIDE])  # another calibration measured it
    other = by_change(found)["evaluation.concurrent=true"]
    assert (other.estimate, other.note) == (item.estimate, "prices: beside")


def test_evaluations_beside_the_training_that_were_not_measured_are_said_to_be() -> None:
    item = by_change(ask(WAITING, 60.0)[1])["evaluation.concurrent=true"]
    assert (item.note, item.saved_s) == ("not measured", None)
    assert item.command == "arzbench calibrate --study s --set evaluation.concurrent=true"
    one = msgspec.structs.replace(worlds.HOST, cores=1)
    cannot = [
        (WAITING, worlds.calibration(WAITING, host=one)),
        *((study, worlds.calibration(study)) for study in (
            change_study(WAITING, ["logging.mode=every"]),
            change_study(WAITING, ["evaluation.deterministic=false"]),
            change_study(WAITING, ["evaluation.eval_freq=0"]),
            change_study(WAITING, ["evaluation.concurrent=true"]),
        )),
    ]  # fmt: skip
    for study, record in cannot:
        assert "evaluation.concurrent=true" not in by_change(ask(study, 60.0, calibration=record)[1])


WIDE = worlds.study(
    worlds.config(algo="ppo", n_envs=4, hyperparameters={"n_steps": 64}, logging={"mode": "off"})
)
ROAD = worlds.study(worlds.config(env="arzbench/TrafficLight-v0", n_envs=2))


@pytest.mark.parametrize(
    ("study", "change", "results"),
    [
        (WIDE, "vec_env=subproc", "the same results, but a resumed session begins new episodes"),
        (ROAD, "env_kwargs.scheme=muscl", "another env: second order"),
        (ROAD, "env_kwargs.scheme=first_order", "another env: the fronts of queues are smeared"),
        (ROAD, "env_kwargs.dtype=float32", "another env: rounded to 7 digits"),
        (ROAD, "n_envs=8", "another training"),
    ],
)
def test_another_workload_is_judged_where_it_was_measured_and_named_where_not(
    study: Study, change: str, results: str
) -> None:
    unknown = by_change(ask(study, 60.0)[1])[change]
    assert (unknown.note, unknown.estimate) == ("not measured", None)
    assert unknown.command == f"arzbench calibrate --study s --set {change}"
    changed = change_study(study, [change])
    prices = {**worlds.PRICES, Phase.ENV_STEP: 0.0005}
    other = worlds.calibration(changed, created="20260102T000000Z", prices=prices)
    known = by_change(ask(study, 60.0, others=[other])[1])[change]
    assert known.estimate == plan(changed, 60.0, calibration=other).rows[-1].estimate
    assert known.note == f"prices: {other.id}"
    assert known.results == unknown.results
    assert known.results.startswith(results)


def test_a_model_of_the_road_is_no_choice_elsewhere_nor_processes_where_they_do_not_pay() -> None:
    def offered(study: Study) -> set[str]:
        return {change.partition("=")[0] for change in by_change(ask(study, 60.0)[1])}

    road = {"env_kwargs.scheme", "env_kwargs.dtype"}
    assert road <= offered(ROAD)
    assert not road & offered(WIDE)
    for change in ("n_envs=1", "logging.mode=every", "vec_env=subproc"):
        assert "vec_env" not in offered(change_study(WIDE, [change]))
    assert "vec_env" not in offered(change_study(ROAD, ["logging.mode=off"]))
    cheaper = change_study(ROAD, ["env_kwargs.scheme=muscl"])
    assert "env_kwargs.scheme" not in offered(cheaper)


def test_the_models_of_the_road_are_those_the_env_has_without_being_asked() -> None:
    parameters = inspect.signature(ArzBatch.__init__).parameters
    assert parameters["scheme"].default == WORKLOADS["env_kwargs.scheme"]
    assert parameters["dtype"].default == WORKLOADS["env_kwargs.dtype"]


def test_each_says_what_it_does_to_the_results() -> None:
    for study in (PAIR, LOGGED, WIDE, ROAD, WAITING):
        made, found = ask(study, 60.0)
        assert all(w.results for w in found)
        text = "".join(map(to_markdown, plan_sheets(msgspec.structs.replace(made, what_ifs=tuple(found)))))
        assert all(w.results in text for w in found)
    drawn = change_study(PAIR, ["evaluation.deterministic=false"])
    item = by_change(ask(drawn, 60.0)[1])["evaluation.eval_freq=5000"]
    assert item.results.startswith("another training")


def test_they_are_shown_where_the_study_does_not_fit_and_kept_always() -> None:
    for quota_s, shown in ((60.0, True), (1e6, False), (None, False)):
        made, found = ask(PAIR, quota_s)
        made = msgspec.structs.replace(made, what_ifs=tuple(found))
        titles = [s.title for s in plan_sheets(made)]
        assert any("what would make it fit" in t for t in titles) is shown
        assert store.decode(store.encode("arzbench/plan", made), "arzbench/plan", Plan, "plan") == made
        text = "".join(to_markdown(s) for s in plan_sheets(made))
        assert (found[0].command in text) is shown


@pytest.mark.parametrize("wrong", ["0", "3", "true", "1.5", "first"])
def test_trainings_that_are_not_there_cannot_be_kept(wrong: str) -> None:
    with pytest.raises(Exception, match="--set trainings") as caught:
        change_study(PAIR, [f"trainings={wrong}"])
    assert "1 to 2" in caught.value.hint  # type: ignore[attr-defined]
    assert change_study(PAIR, ["trainings=1"]).trainings == PAIR.trainings[:1]


def test_on_the_command_line(tmp_path: Path) -> None:
    """The command of each change is one that `plan` takes, too, and it says what was foretold."""
    calibrated(tmp_path)
    made = json.loads(call(f"plan {CARTPOLE} --quota 1000s --json", tmp_path).out)
    item = next(w for w in made["what_ifs"] if w["changes"] == ["evaluation.eval_freq=50000"])
    words = shlex.split(item["command"])
    assert words[:3] == ["arzbench", "run", "--auto-budget"]
    again = json.loads(call(["plan", *words[3:], "--json"], tmp_path).out)
    assert again["rows"][-1]["estimate"]["p50_s"] == pytest.approx(item["estimate"]["p50_s"])
    assert again["study"]["trainings"][0]["evaluation"]["eval_freq"] == 50_000
    # of the calibration's own study, too, when none is named
    own = json.loads(call("plan --quota 1000s --set evaluation.eval_freq=50000 --json", tmp_path).out)
    assert own["rows"] == again["rows"]
