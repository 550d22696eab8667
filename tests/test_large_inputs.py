"""Large inputs take time in proportion: four times as much of them less than eight times as long."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from arzbench.facts import Phase
from arzbench.logs.analyze import Analysis
from arzbench.logs.findings import LogContext
from arzbench.predict import costmodel
from arzbench.predict.costmodel import DRAWS, Job
from arzbench.records import LedgerEntry, RunRecord, Spread
from arzbench.report.summary import run_sheets
from arzbench.run import ledger
from arzbench.study import Study
from tests import worlds

Prepared = Callable[[], object]


def entry(kind: str, session: int, line: int, training: int, **data: Any) -> LedgerEntry:
    phases = {"env step": (0.5, 100), "update": (0.25, 25)} if kind == "phases" else {}
    return LedgerEntry(
        kind=kind,
        at="",
        session=session,
        elapsed_s=line,
        training=training,
        step=line,
        phases=phases,
        data=data,
    )


def entries(count: int, rewound_to: int | None) -> list[LedgerEntry]:
    """Of a training in each session; all sessions went on from line `rewound_to`."""
    kinds = ["session" if line % 8 == 0 else "phases" for line in range(count)]
    return [entry(k, 1 + n // 8, n, n // 8, rewound_to=rewound_to) for n, k in enumerate(kinds)]


def report(count: int) -> Prepared:
    """Of a run that was killed again and again before its first checkpoint."""
    given = entries(count, 0)
    record = RunRecord(
        id="run", created="2026-01-01", study=worlds.PAIR, study_digest="", budgets=(24_000, 10_000), why="",
        quota_s=None, predicted=None, host=worlds.HOST,
    )  # fmt: skip
    return lambda: run_sheets(record, ledger.summarise(given), None)


def resumed(count: int) -> Prepared:
    """What a session looks up of each training before it."""
    given = entries(count, None)

    def observe() -> None:
        summary = ledger.summarise(given)
        assert all(summary.training_phases(index) for index in range(count // 8))

    return observe


def study(count: int) -> Study:
    return worlds.study(*(worlds.config(**worlds.EVERYTHING, name=f"t{i}", seed=i) for i in range(count)))


def plan(count: int) -> Prepared:
    job = study(count)
    record = worlds.calibration(job, spread=0.03)
    return lambda: worlds.plan(job, 100.0 * count, calibration=record)


def logs(count: int) -> Prepared:
    rng = random.Random(count)
    lines = [f"{i / 100:.2f}s {i} [TAG] value {rng.random()}\n" for i in range(count)]
    lines += [f"{i / 100:.2f}s {i} Traceback of {rng.random()}: step {i}\n" for i in range(0, count, 10)]
    text = "".join(lines).encode()
    blocks = [text[at : at + 100_000] for at in range(0, len(text), 100_000)]

    def read() -> None:
        analysis = Analysis(LogContext())
        for block in blocks:
            analysis.feed(block)
        analysis.report("log", len(text), [])

    return read


@pytest.mark.parametrize(
    ("prepare", "count"),
    [(report, 2000), (resumed, 2000), (plan, 8), (logs, 8000)],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_four_times_as_much_takes_less_than_eight_times_as_long(
    prepare: Callable[[int], Prepared], count: int
) -> None:
    works = [prepare(count), prepare(4 * count)]
    for work in works:
        work()  # loads what is loaded once
    rounds = [[seconds(work) for work in works] for _ in range(3)]
    few, many = (statistics.median(column) for column in zip(*rounds, strict=True))
    assert many < 8 * few


def seconds(work: Prepared) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_a_job_of_many_trainings_is_what_its_formula_says_to_the_last_digit() -> None:
    """Factors are kept from one training to the next, and numbers known exactly are no draws."""
    job = worlds.study(
        worlds.FULL, worlds.config(**worlds.EVERYTHING, name="u", seed=2), worlds.config(n_envs=4, name="v")
    )
    spread = Spread(source="test", log_sigma=0.1, log_centre=0.02, price_share=0.7)
    models = [worlds.model_of(t, spread=0.05) for t in job.trainings]
    schedules = [worlds.schedule_of(t, worlds.facts(100, 240, t.n_envs)) for t in job.trainings]
    parts = list(zip(models, schedules, strict=True))
    assert any(item.high != item.count for schedule in schedules for item in schedule.counts)
    made = Job(parts, spread, sessions=3)
    assert made.seconds.tolist() == by_formula(parts, spread, 3).tolist()


def by_formula(parts: Sequence[tuple[Any, Any]], spread: Spread, sessions: int) -> Any:
    total = np.zeros(DRAWS)

    def add(model: Any, price: Any, count: Any, size: float = 0.0) -> None:
        if price is not None:
            draws = costmodel._normal(f"{model.workload} {price.phase}")
            error = np.exp(spread.price_share * price.relative_error * draws)
            np.add(total, count * price.mean_s(size) * error, out=total)

    for model, schedule in parts:
        for item in schedule.counts:
            count = item.count + (item.high - item.count) * costmodel._uniform()
            add(model, model.get(item.phase), count, item.size)
    model, first = parts[0]
    for phase in costmodel.STARTUP:
        add(model, costmodel.startup_price(model, phase, cold=False), sessions)
    for phase in costmodel.SIZED:
        add(model, model.get(phase), sessions - 1, first.get(Phase.CHECKPOINT).size)
    return total * np.exp(spread.log_centre + spread.log_sigma * costmodel._normal("run"))
