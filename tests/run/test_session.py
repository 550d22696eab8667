"""Sessions on a virtual clock: what is resumed, recorded, and told."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from arzbench.clock import VirtualClock
from arzbench.errors import ExitCode, StateError, UsageError
from arzbench.facts import EnvFacts, Phase, StopReason
from arzbench.predict.remaining import RunState
from arzbench.predict.schedule import count_training
from arzbench.records import Coefficient
from arzbench.run import ledger
from arzbench.run.job import run_job
from arzbench.run.simulated import SyntheticWorkload
from arzbench.study import Baseline, Checkpoints
from tests.run.jobs import COSTS, Recorded, dqn, fingerprints, plan, ppo, request, run, study, until_done


def read_ledger(folder: Path) -> ledger.Summary:
    return ledger.read(folder / "reports" / "r1" / "ledger.jsonl")


def facts_of(config: Any) -> EnvFacts:
    return EnvFacts(n_envs=config.n_envs, max_episode_steps=20, episode_steps=(20,), eval_episode_steps=(20,))


def test_a_job_runs_to_its_end_and_the_ledger_holds_every_event(tmp_path: Path) -> None:
    job = study()
    outcome = run(tmp_path, job)
    assert (outcome.reason, outcome.exit_code, outcome.num_timesteps) == (StopReason.FINISHED, 0, (600, 512))
    told = read_ledger(tmp_path)
    for index, config in enumerate(job.trainings):
        counted = count_training(config, facts_of(config))
        seen = told.training_phases(index)
        assert len(told.of_kind("checkpoint", index)) == counted.checkpoints
        for phase in (Phase.ENV_STEP, Phase.UPDATE, Phase.ROLLOUT, Phase.EVAL_STEP, Phase.CHECKPOINT):
            assert seen[phase][1] == counted.get(phase).count, phase
    episodes = [length for e in told.of_kind("episodes", 0) for length in e.data["lengths"]]
    assert episodes == [20] * 30
    evaluations = told.of_kind("evaluation", 0)
    assert [e.data["evaluation"] for e in evaluations] == ["baseline", *["evaluation"] * 4, "final"]


def test_all_of_the_time_is_in_the_ledger(tmp_path: Path) -> None:
    clock = VirtualClock()
    outcome = run(tmp_path, study(), clock)
    assert sum(p.seconds for p in read_ledger(tmp_path).phases.values()) == pytest.approx(clock.now())
    assert outcome.elapsed_s == outcome.session_s == pytest.approx(clock.now())


@pytest.mark.parametrize("quota_s", [10.0, 11.0, 17.0, 31.0])
def test_sessions_end_where_one_alone_would(tmp_path: Path, quota_s: float) -> None:
    whole = run(tmp_path / "whole", study())
    outcomes = until_done(tmp_path / "split", study(), quota_s)
    assert len(outcomes) > 3
    assert [o.exit_code for o in outcomes] == [ExitCode.MORE_TO_DO] * (len(outcomes) - 1) + [ExitCode.OK]
    assert outcomes[-1].num_timesteps == whole.num_timesteps
    assert outcomes[-1].session == len(outcomes)
    assert fingerprints(tmp_path / "split") == fingerprints(tmp_path / "whole")
    assert outcomes[-1].elapsed_s == pytest.approx(sum(o.session_s for o in outcomes))


def progress(folder: Path) -> dict[tuple[int, Phase], int]:
    """Kept units of what a training does, whatever it was split into."""
    told = read_ledger(folder)
    phases = (Phase.ENV_STEP, Phase.UPDATE, Phase.ROLLOUT, Phase.POLICY, Phase.EVAL_STEP, Phase.BASELINE)
    return {(i, p): told.training_phases(i).get(p, (0, 0))[1] for i in (0, 1) for p in phases}


def test_an_episode_cut_off_counts_as_time_and_not_as_progress(tmp_path: Path) -> None:
    run(tmp_path / "whole", study())
    # too short for an evaluation: its episodes are played in several sessions
    outcomes = until_done(tmp_path / "split", study(), 9.0)
    assert progress(tmp_path / "split") == progress(tmp_path / "whole")
    spent = sum(p.seconds for p in read_ledger(tmp_path / "split").phases.values())
    assert spent < outcomes[-1].elapsed_s


def test_a_killed_session_is_rewound(tmp_path: Path) -> None:
    """A kill leaves entries beyond the last checkpoint: simulated by an env that never comes back."""

    class Killed(BaseException):
        pass

    def kill(step: int) -> None:
        if step == 250:
            raise Killed

    clock = VirtualClock()
    workload = SyntheticWorkload(clock, COSTS, episode_steps=20, save_s=0.25, calls=kill)
    with pytest.raises(Killed):
        run(tmp_path / "killed", study(), clock, workload)
    lost_after = clock.now()
    states: list[RunState] = []
    outcome = run(tmp_path / "killed", study(), clock, predict=states.append)
    # what is predicted from does not count the steps that are done again
    assert states[0].observed[0][Phase.ENV_STEP][1] == states[0].num_timesteps[0] <= 201
    run(tmp_path / "whole", study())
    assert fingerprints(tmp_path / "killed") == fingerprints(tmp_path / "whole")
    assert progress(tmp_path / "killed") == progress(tmp_path / "whole")
    told = read_ledger(tmp_path / "killed")
    assert told.sessions[1].data["resumed_from"] == "step-000000000200-0002"
    assert told.sessions[1].elapsed_s >= told.sessions[1].data["rewound_to"] > 0
    # entries of the last seconds before the kill are lost with it; at most a flush interval
    assert 0 <= clock.now() - outcome.elapsed_s < 6
    assert told.lost_s > 0
    assert outcome.session_s == pytest.approx(clock.now() - lost_after)


def test_a_finished_job_is_not_touched_again(tmp_path: Path) -> None:
    run(tmp_path, study())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("step-*/*")}
    outcome = run(tmp_path, study())
    assert outcome.reason is StopReason.FINISHED
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "checkpoints").rglob("step-*/*")} == before


def test_a_smaller_budget_ends_early_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    clock = VirtualClock()
    first = run(tmp_path, study(), clock, budgets=(200, 128))
    assert (first.reason, first.exit_code) == (StopReason.BUDGET, ExitCode.OK)
    assert first.num_timesteps == (200, 128)
    second = run(tmp_path, study(), clock)
    assert (second.reason, second.num_timesteps) == (StopReason.FINISHED, (600, 512))
    assert {p.name for p in (tmp_path / "checkpoints" / "r1").glob("*.zip")} == {"dqn.zip", "ppo.zip"}


def test_models_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    job = study(ppo(name="a/b"), ppo(name="a/b", seed=1))
    run(tmp_path, job)
    assert {p.name for p in (tmp_path / "checkpoints" / "r1").glob("*.zip")} == {"a-b-1.zip", "a-b-2.zip"}


def test_a_deadline_already_past_does_nothing_and_says_so(tmp_path: Path) -> None:
    clock = VirtualClock(100.0)
    outcome = run(tmp_path, study(), clock, session_start=0.0, quota_s=50.0)
    assert outcome.reason is StopReason.DEADLINE
    assert outcome.detail.startswith("nothing was done in this session")
    assert outcome.checkpoint is None
    assert read_ledger(tmp_path).stop is not None


def test_an_evaluation_that_cannot_end_in_time_is_not_begun(tmp_path: Path) -> None:
    """Episodes are dropped when cut: with prices known, the time is left rather than wasted."""
    job = study(dqn())
    clock = VirtualClock()
    outcome = run(tmp_path, job, clock, quota_s=2 + 0.75 + 2.5 + 29, plan=plan(job))
    assert outcome.reason is StopReason.DEADLINE
    assert Phase.EVAL_STEP not in read_ledger(tmp_path).phases
    assert "the next evaluation episode may take" in outcome.detail
    assert outcome.num_timesteps == (150,)


def test_a_save_that_grows_with_the_buffer_still_fits(tmp_path: Path) -> None:
    """10 ms a row: nothing at first, seconds at the deadline, and never measured before it."""
    job = study(dqn(total_timesteps=4000, buffer_size=4000, checkpoint=Checkpoints(), baseline=Baseline()))
    known = plan(job)
    growing = Coefficient(
        phase=Phase.CHECKPOINT, fixed_s=0.0, per_size_s=0.01, relative_error=0.0, n=2, p95_s=1
    )
    prices = [growing if c.phase is Phase.CHECKPOINT else c for c in known.models[0].coefficients]
    model = structs.replace(known.models[0], state_bytes=(0, 1), coefficients=tuple(prices))
    clock = VirtualClock()

    def grow(step: int) -> None:
        workload.save_s = 0.01 * step

    workload = SyntheticWorkload(clock, COSTS, episode_steps=20, calls=grow)
    outcome = run(tmp_path, job, clock, workload, quota_s=80.0, plan=structs.replace(known, models=(model,)))
    assert outcome.reason is StopReason.DEADLINE
    assert workload.save_s > 2
    assert outcome.slack_s is not None
    assert outcome.slack_s >= 0.3


def test_a_model_that_could_not_be_exported_in_time_is_exported_next(tmp_path: Path) -> None:
    job = study(ppo())
    clock = VirtualClock()

    def slow_at_the_end(step: int) -> None:
        workload.save_s = 20.0 if step == 510 else 0.25

    workload = SyntheticWorkload(clock, COSTS, episode_steps=20, calls=slow_at_the_end)
    first = run(tmp_path, job, clock, workload, quota_s=155.0)
    assert (first.reason, first.num_timesteps) == (StopReason.DEADLINE, (512,))
    assert "exporting ppo would come too late" in first.detail
    assert fingerprints(tmp_path) == {}
    second = run(tmp_path, job, clock, quota_s=155.0)
    assert second.reason is StopReason.FINISHED
    assert second.checkpoint == first.checkpoint
    run(tmp_path / "whole", job)
    assert fingerprints(tmp_path) == fingerprints(tmp_path / "whole")


def test_a_quota_too_short_for_any_progress_does_not_ask_for_more_for_ever(tmp_path: Path) -> None:
    outcomes = until_done(tmp_path, study(), 5.0)
    assert [o.reason for o in outcomes] == [StopReason.DEADLINE, StopReason.FAILED]
    assert "give it a longer one (--quota)" in outcomes[-1].detail
    assert until_done(tmp_path, study(), 15.0)[-1].reason is StopReason.FINISHED


def test_a_training_without_a_budget_is_left_out(tmp_path: Path) -> None:
    outcome = run(tmp_path, study(), budgets=(0, 64))
    assert (outcome.reason, outcome.num_timesteps) == (StopReason.BUDGET, (0, 64))
    assert list(fingerprints(tmp_path)) == ["ppo"]
    assert {e.training for e in read_ledger(tmp_path).entries if e.kind == "phases"} == {1}


def test_a_failing_env_keeps_the_last_sound_state_and_the_reason(tmp_path: Path) -> None:
    def fail(step: int) -> None:
        if step == 333:
            raise ValueError("density is not a number")

    clock = VirtualClock()
    workload = SyntheticWorkload(clock, COSTS, episode_steps=20, calls=fail)
    outcome = run(tmp_path, study(), clock, workload)
    assert (outcome.reason, outcome.exit_code) == (StopReason.FAILED, ExitCode.FAILURE)
    assert outcome.detail == "ValueError: density is not a number"
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.name == "step-000000000300-0003"
    assert outcome.num_timesteps == (300, 0)
    said = (tmp_path / "reports" / "r1" / "error.txt").read_text()
    assert said.startswith("session 1, step 333\n\nTraceback")
    stop = read_ledger(tmp_path).stop
    assert stop is not None
    assert stop.data["reason"] == "failed"
    # mended, it goes on
    assert run(tmp_path, study(), clock).reason is StopReason.FINISHED


def test_an_env_that_leaves_the_interpreter_is_a_failure_too(tmp_path: Path) -> None:
    def leave(step: int) -> None:
        raise SystemExit(0)

    clock = VirtualClock()
    outcome = run(tmp_path, study(), clock, SyntheticWorkload(clock, COSTS, calls=leave))
    assert outcome.exit_code is ExitCode.FAILURE


def test_a_save_that_fails_stops_the_run_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    class Full:
        free = 10

    monkeypatch.setattr(shutil, "disk_usage", lambda path: Full)
    outcome = run(tmp_path, study())
    assert outcome.reason is StopReason.FAILED
    assert "too little space" in outcome.detail
    assert "10 B free" in outcome.detail


def test_another_study_is_refused_and_left_alone(tmp_path: Path) -> None:
    run(tmp_path, study())
    before = sorted((tmp_path / "checkpoints").rglob("*"))
    with pytest.raises(StateError, match="another study") as caught:
        run(tmp_path, study(dqn()))
    assert "--fresh" in caught.value.hint
    assert sorted((tmp_path / "checkpoints").rglob("*")) == before


def test_a_file_in_place_of_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write in"):
        run(tmp_path, study())


def test_a_damaged_newest_state_is_skipped_and_told(tmp_path: Path) -> None:
    clock = VirtualClock()
    until = run(tmp_path, study(), clock, quota_s=30.0)
    assert until.checkpoint is not None
    (until.checkpoint / "arrays.safetensors").write_bytes(b"gone")
    outcome = run(tmp_path, study(), clock)
    assert outcome.reason is StopReason.FINISHED
    assert outcome.notes[0].startswith(f"skipped {until.checkpoint.name}: arrays.safetensors: 4 bytes")
    run(tmp_path / "whole", study())
    assert fingerprints(tmp_path) == fingerprints(tmp_path / "whole")
    assert progress(tmp_path) == progress(tmp_path / "whole")
    assert not until.checkpoint.exists()


def test_only_damaged_states_never_mean_a_silent_new_start(tmp_path: Path) -> None:
    run(tmp_path, study(), quota_s=30.0)
    for manifest in (tmp_path / "checkpoints").rglob("manifest.json"):
        manifest.write_text("{}")
    with pytest.raises(StateError, match="no sound checkpoint") as caught:
        run(tmp_path, study())
    assert "--fresh" in caught.value.hint


def test_the_plan_is_written_once(tmp_path: Path) -> None:
    job = study()
    run(tmp_path, job, plan=plan(job), budgets=(100, 64))
    file = tmp_path / "reports" / "r1" / "plan.json"
    assert json.loads(file.read_text())["schema"] == "arzbench/plan"
    first = file.read_bytes()
    run(tmp_path, job, plan=plan(job, save_s=1.0))
    assert file.read_bytes() == first


def test_other_versions_are_said(tmp_path: Path) -> None:
    clock = VirtualClock()
    run(tmp_path, study(), clock, budgets=(100, 64))

    class Newer(SyntheticWorkload):
        def load(self) -> dict[str, str]:
            return {**super().load(), "synthetic": "2"}

    outcome = run(tmp_path, study(), clock, Newer(clock, COSTS, episode_steps=20))
    assert "resumed with other synthetic: not bitwise the same" in outcome.notes


def test_the_display_is_fed_seldom_and_closed(tmp_path: Path) -> None:
    clock = VirtualClock()
    job = study(dqn(total_timesteps=4000, evaluation=dqn().evaluation))
    fast = {phase: seconds / 64 for phase, seconds in COSTS.items()}
    display, asked = Recorded(), []

    def predict(state: RunState) -> None:
        asked.append(state.observed[0].get(Phase.ENV_STEP, (0, 0))[1])

    workload = SyntheticWorkload(clock, fast, episode_steps=20)
    run_job(request(tmp_path, job, clock, quota_s=500.0, predict=predict), workload, clock, display)
    assert display.closed
    assert 10 < len(display.shown) <= 5 * clock.now() + 2
    assert 3 < len(asked) <= clock.now() + 2
    assert asked == sorted(asked)
    last = display.shown[-1]
    assert last.left_s == pytest.approx(500 - last.session_s)
    assert last.steps_per_s is not None
    assert last.steps_per_s > 0


def test_the_display_is_closed_after_an_error(tmp_path: Path) -> None:
    clock, display = VirtualClock(), Recorded()
    with pytest.raises(UsageError, match="1 budgets for 2 trainings"):
        run_job(
            request(tmp_path, study(), clock, budgets=(1,)), SyntheticWorkload(clock, COSTS), clock, display
        )
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        run_job(request(tmp_path, study(), clock), SyntheticWorkload(clock, COSTS), clock, display)
    assert display.closed
