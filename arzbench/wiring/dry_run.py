"""`arzbench run --dry-run`: a run on a virtual clock at the plan's prices; nothing is trained or written."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from arzbench.clock import Clock, VirtualClock
from arzbench.errors import ExitCode, UsageError
from arzbench.facts import Phase
from arzbench.predict.costmodel import startup_price
from arzbench.records import CostModel, LedgerEntry, Plan
from arzbench.report.console import make_console, say, show
from arzbench.report.run_display import RunDisplay
from arzbench.report.sheets import Sheet, study_line
from arzbench.run import ledger
from arzbench.run.job import RunRequest, run_job
from arzbench.run.simulated import SyntheticWorkload
from arzbench.study import TrainConfig
from arzbench.units import format_duration
from arzbench.wiring.run_spec import RunSpec
from arzbench.workload import AbstractTraining, AbstractWorkload, Recorder

#: sessions that are simulated at most
MOST_SESSIONS = 50
LABEL = "simulated at the plan's P50 prices: nothing was trained or written"


class _Priced(AbstractWorkload):
    """Trainings that cost what a plan says, each at the prices of its own workload."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._workloads: dict[str, SyntheticWorkload] = {}
        for config, schedule in zip(plan.study.trainings, plan.schedules, strict=True):
            model = next(m for m in plan.models if m.workload == config.workload_digest())
            size = schedule.get(Phase.CHECKPOINT).size
            costs = _costs(plan, model, size)
            self._workloads[model.workload] = SyntheticWorkload(
                clock,
                costs,
                save_s=costs.pop(Phase.CHECKPOINT, 0.0),
                episode_steps=_middle(model.facts.train_length()),
                eval_episode_steps=_middle(model.facts.eval_length()),
                beside=model.beside,
            )

    def load(self) -> dict[str, str]:
        return next(iter(self._workloads.values())).load()

    def check(self, config: TrainConfig) -> None:
        return

    def create(self, config: TrainConfig, recorder: Recorder, **how: Any) -> AbstractTraining:
        return self._workloads[config.workload_digest()].create(config, recorder, **how)

    def first_step(self, config: TrainConfig) -> None:
        self._workloads[config.workload_digest()].first_step(config)


def _costs(plan: Plan, model: CostModel, state_bytes: float) -> dict[Phase, float]:
    """Seconds per unit of each phase, as this host's finished runs correct them."""
    factor = math.exp(plan.spread.log_centre)
    costs = {c.phase: factor * c.mean_s(state_bytes) for c in model.coefficients}
    compiling = startup_price(model, Phase.JIT, cold=plan.platform.fresh_machine)
    once = 0.0 if compiling is None else factor * compiling.fixed_s
    costs[Phase.JIT] = once + costs.get(Phase.FIRST, 0.0)  # both once a session, before it trains
    return costs


def _middle(length: tuple[float, float]) -> int:
    """Between the calibrated length of an episode and its bound, as in a plan's P50."""
    return max(1, round(sum(length) / 2))


def dry_run(spec: RunSpec, *, as_json: bool) -> None:
    """Carry out `spec` from its beginning, session after session, and show what happens when.

    Raises:
        UsageError: there are no prices.
    """
    if spec.plan is None:
        raise UsageError(
            f"--dry-run needs prices: {spec.unpriced}", "--plan FILE, or --auto-budget with a calibration"
        )
    sessions = simulate(spec, spec.plan)
    if as_json:
        head = {"note": LABEL, "study": spec.study.name, "budgets": spec.budgets, "quota_s": spec.quota_s}
        print(json.dumps({**head, "sessions": sessions}, indent=1))
        return
    console, last = make_console(), sessions[-1]
    quota = "no quota" if spec.quota_s is None else f"quota {format_duration(spec.quota_s)}"
    say(console, LABEL)
    say(console, study_line(spec.study))
    say(console, f"budget: {sum(spec.budgets):,} steps ({spec.why}), {quota}")
    show(console, [_sheet(sessions)])
    for name in ("evaluations", "saves"):
        times = [time for session in sessions for time in session[name]]
        if times:
            first, end = format_duration(times[0]), format_duration(times[-1])
            say(console, f"{name}: {len(times)}, the first after {first}, the last after {end}")
    more = ", with more to do" if last["reason"] == "deadline" else ""
    say(console, f"{len(sessions)} session(s), {format_duration(last['elapsed_s'])} in all{more}")


def simulate(spec: RunSpec, plan: Plan) -> list[dict[str, Any]]:
    """What each session comes to, until the budget is trained (at most `MOST_SESSIONS`). Times in seconds."""
    clock, outcomes = VirtualClock(), []
    workload = _Priced(plan, clock)
    with tempfile.TemporaryDirectory(prefix="arzbench-") as name:
        folder = Path(name)
        for _ in range(spec.request.max_sessions or MOST_SESSIONS):
            request = RunRequest(
                study=spec.study,
                budgets=spec.budgets,
                quota_s=spec.quota_s,
                plan=plan,
                run_id="dry-run",
                run_folder=folder / "reports",
                checkpoint_folder=folder / "checkpoints",
                session_start=clock.now(),
                save_beside=False,  # a virtual clock stands still beside a thread
            )
            outcomes.append(run_job(request, workload, clock, RunDisplay(Console(quiet=True))))
            if outcomes[-1].exit_code is not ExitCode.MORE_TO_DO:
                break
        entries = ledger.read(folder / "reports" / ledger.FILE).entries
    return [
        {
            "session": o.session,
            "reason": o.reason.name.lower(),
            "ended": o.reason.value,
            "detail": o.detail,
            "num_timesteps": o.num_timesteps,
            "session_s": o.session_s,
            "elapsed_s": o.elapsed_s,
            "slack_s": o.slack_s,
            "evaluations": _times(entries, o.session, "evaluation"),
            "saves": _times(entries, o.session, "checkpoint"),
        }
        for o in outcomes
    ]


def _times(entries: list[LedgerEntry], session: int, kind: str) -> list[float]:
    return [e.elapsed_s for e in entries if (e.session, e.kind) == (session, kind)]


def _sheet(sessions: list[dict[str, Any]]) -> Sheet:
    rows = [
        (
            str(s["session"]),
            f"{sum(s['num_timesteps']):,}",
            str(len(s["evaluations"])),
            str(len(s["saves"])),
            format_duration(s["session_s"]),
            "-" if s["slack_s"] is None else format_duration(s["slack_s"]),
            s["ended"],
        )
        for s in sessions
    ]
    return Sheet(
        title="sessions",
        columns=("", "steps reached", "evaluations", "saves", "took", "left of its quota", "ended"),
        align="lrrrrrl",
        rows=tuple(rows),
    )
