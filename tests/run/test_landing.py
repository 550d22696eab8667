"""The end of a run lies within its quota: the final evaluation, the exported model."""

from pathlib import Path
from typing import Any

import pytest

from arzbench.clock import VirtualClock
from arzbench.facts import StopReason
from arzbench.run import ledger
from arzbench.run.simulated import SyntheticWorkload
from arzbench.study import Evaluation
from arzbench.workload import AbstractTraining
from tests.run.jobs import COSTS, dqn, fingerprints, plan, run, study

SAVE_S, EXPORT_S, LEAVE_S = 0.25, 0.2, 0.3


class Exporting(SyntheticWorkload):
    """Writing the model takes time, too."""

    def create(self, *args: Any, **kwargs: Any) -> AbstractTraining:
        training = super().create(*args, **kwargs)
        inner = training.export

        def export(path: str) -> None:
            self.spend(EXPORT_S)
            inner(path)

        training.export = export  # type: ignore[method-assign]
        return training


def session(folder: Path, quota_s: float | None, *, known: bool) -> Any:
    job = study(dqn(total_timesteps=300, evaluation=Evaluation(final_episodes=6)))
    clock = VirtualClock()
    workload = Exporting(clock, COSTS, episode_steps=20, save_s=SAVE_S)
    prices = plan(job, save_s=SAVE_S) if known else None
    return run(folder, job, clock, workload, quota_s=quota_s, plan=prices, leave_s=LEAVE_S)


@pytest.mark.parametrize("known", [True, False])
def test_whatever_the_quota_cuts_off_it_ends_before_it(tmp_path: Path, known: bool) -> None:
    """Quotas that end in the collection, in the final evaluation, in the save and in the export."""
    whole = session(tmp_path / "whole", None, known=known)
    assert whole.reason is StopReason.FINISHED
    cut, finals = 0, set()
    for tenths in range(-250, 60, 5):
        folder = tmp_path / str(tenths)
        outcome = session(folder, whole.session_s + tenths / 10, known=known)
        assert outcome.slack_s >= LEAVE_S, tenths
        cut += outcome.reason is StopReason.DEADLINE
        done = ledger.read(folder / "reports" / "r1" / "ledger.jsonl").of_kind("evaluation")
        finals.add((outcome.reason, any(e.data["evaluation"] == "final" for e in done)))
        # a model is there when all that belongs to it is
        assert bool(fingerprints(folder)) == (outcome.reason is StopReason.FINISHED)
    assert cut > 30
    assert (StopReason.FINISHED, True) in finals
    assert (StopReason.DEADLINE, False) in finals
    assert (StopReason.FINISHED, False) not in finals


def test_what_did_not_fit_any_more_is_done_in_the_next_session(tmp_path: Path) -> None:
    whole = session(tmp_path / "whole", None, known=True)
    first = session(tmp_path / "cut", whole.session_s - 8.0, known=True)
    assert first.reason is StopReason.DEADLINE
    assert first.num_timesteps == (300,)  # all is trained, the final evaluation is not over
    second = session(tmp_path / "cut", 60.0, known=True)
    assert second.reason is StopReason.FINISHED
    assert fingerprints(tmp_path / "cut") == fingerprints(tmp_path / "whole")
