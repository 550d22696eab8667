"""Thirty tuned configurations in RL Zoo's format: each is imported, and calibrated from end to end.

Three by the command as it is; the others by the same command, whose two measuring processes are calls in
this process.
"""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from arzbench import worker
from arzbench.clock import Clock
from arzbench.facts import Phase
from arzbench.measure import calibrate
from arzbench.measure.burst import BurstJob, BurstResult
from arzbench.predict.costmodel import fit, missing_phases
from arzbench.predict.schedule import count_training
from arzbench.profiles import calibrations
from arzbench.records import PhaseSamples, WorkloadSamples
from arzbench.rl_zoo import as_toml, import_zoo, read_zoo
from tests.calls import call

pytestmark = pytest.mark.slow

ZOO = Path(__file__).parent / "zoo"
FILES = sorted(ZOO.glob("*.yml"))
SAMPLE = [(path.stem, env) for path in FILES for env in read_zoo(path)]
BY_COMMAND = [("ppo", "CartPole-v1"), ("dqn", "CliffWalking-v1"), ("ars", "Pendulum-v1")]
#: what every training pays for
ALWAYS = {
    Phase.IMPORT, Phase.BUILD, Phase.JIT, Phase.RESET, Phase.ENV_STEP, Phase.POLICY, Phase.UPDATE,
    Phase.ROLLOUT, Phase.EVAL_STEP, Phase.CHECKPOINT, Phase.RESTORE, Phase.TEARDOWN,
}  # fmt: skip


def in_this_process(
    job: BurstJob, command: Sequence[str], folder: Path, clock: Clock, report: calibrate.Progress
) -> BurstResult:
    task, answer = folder / f"job-{job.repetition}.json", folder / f"result-{job.repetition}.json"
    task.write_bytes(msgspec.json.encode(job))
    with contextlib.redirect_stdout(io.StringIO()):
        code = worker.run_worker(task, answer)
    assert code == 0, answer.with_suffix(".error").read_text()
    result = msgspec.json.decode(answer.read_bytes(), type=BurstResult)
    took = (clock.now() - result.done,)
    end = PhaseSamples(phase=Phase.TEARDOWN, repetition=job.repetition, seconds=took, units=(1,))
    return msgspec.structs.replace(result, phases=(*result.phases, end))


def measured(algo: str, env: str, folder: Path) -> WorkloadSamples:
    """Import an entry and calibrate it by the command."""
    imported = import_zoo(ZOO / f"{algo}.yml", env)
    (folder / "study.toml").write_text(as_toml(imported, "sample"))
    done = call("calibrate --study study.toml --steps 100 --repetitions 2 --max-time 3s", folder)
    assert done.code == 0, done.err
    (found,) = calibrations(folder)
    (workload,) = found.workloads
    assert workload.workload == imported.config.workload_digest()
    return workload


def check(found: WorkloadSamples) -> None:
    """Two repetitions of the steps asked for, and a price of each phase that occurs."""
    steps = [p for p in found.phases if p.phase is Phase.ENV_STEP]
    assert {p.repetition for p in steps} == {0, 1}
    assert sum(p.count for p in steps) >= 100
    model = fit(found)
    assert not [phase for phase in ALWAYS if model.get(phase) is None]
    schedule = count_training(found.config, found.facts, state_bytes=found.state_bytes)
    assert schedule.total_timesteps >= found.config.total_timesteps
    assert missing_phases(model, schedule) == []


def test_the_sample_is_of_thirty_and_of_every_algorithm() -> None:
    assert len(SAMPLE) == 30
    assert len(FILES) == 12
    assert set(BY_COMMAND) < set(SAMPLE)


@pytest.mark.parametrize(("algo", "env"), [one for one in SAMPLE if one not in BY_COMMAND])
def test_it_calibrates(algo: str, env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "run_worker", in_this_process)
    check(measured(algo, env, tmp_path))


@pytest.mark.parametrize(("algo", "env"), BY_COMMAND)
def test_it_calibrates_in_processes_of_its_own(algo: str, env: str, tmp_path: Path) -> None:
    check(measured(algo, env, tmp_path))
