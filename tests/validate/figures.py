"""Validations with declared figures."""

from typing import Any

from arzbench.validate.design import PAIRS, make_design
from arzbench.validate.result import Cell, Mark, Outcome, Pair, Validation
from arzbench.validate.scores import QUANTILES
from tests import worlds


def outcome(pair: Pair | str = PAIRS[0], wall_s: float = 30.0, **changes: Any) -> Outcome:
    """A run predicted to take 30 s, a tenth more or less at the ends of its 95 % interval."""
    given: dict[str, Any] = {
        "pair": pair if isinstance(pair, str) else pair.name,
        "beside": False,
        "repetition": 0,
        "at": "2026-01-01T00:00:00+00:00",
        "quantiles": {q: 30.0 * (1 + 0.2 * (float(q) - 0.5) / 0.95) for q in QUANTILES},
        "spread": "prior",
        "log_sigma": 0.1,
        "quota_s": None,
        "wall_s": wall_s,
        "exit_code": 0,
        "finished": True,
        "timesteps": 4000,
        "marks": (),
        "predicted_phases": {"update": 20.0, "import": 3.0},
        "actual_phases": {"update": 21.0, "import": 3.0},
    }
    return Outcome(**{**given, **changes})


def mark(share: float, left_s: float, elapsed_s: float) -> Mark:
    return Mark(
        share=share,
        done=share,
        elapsed_s=elapsed_s,
        learning_s=elapsed_s - 2,
        left_p50_s=left_s,
        left_p90_s=left_s * 1.1,
        left_p99_s=left_s * 1.2,
    )


def cell(pair: Pair | str = PAIRS[0], **changes: Any) -> Cell:
    given: dict[str, Any] = {
        "pair": pair if isinstance(pair, str) else pair.name,
        "beside": False,
        "at": "2026-01-01T00:00:00+00:00",
        "calibration_id": "c",
        "calibration_s": 40.0,
        "drift": 0.03,
        "timesteps": 4000,
        "evaluations": 6,
        "checkpoints": 3,
        "first_100_s": 0.1,
        "own_fps": 200.0,
        "trial_steps": 1000,
    }
    return Cell(**{**given, **changes})


def validation(*runs: Outcome, cells: tuple[Cell, ...] | None = None, **changes: Any) -> Validation:
    """Of `runs`, each pair and condition calibrated."""
    seen = {(r.pair, r.beside): cell(r.pair, beside=r.beside) for r in runs}
    pairs = tuple(p for p in PAIRS if p.name in {r.pair for r in runs})
    given: dict[str, Any] = {
        "id": "validate-lab-1-2026-01-01",
        "created": "2026-01-01T00:00:00+00:00",
        "host": worlds.HOST,
        "versions": {},
        "load": 0.1,
        "took_s": 2400.0,
        "design": make_design(pairs, busy_share=0.5, seed=0, quick=False, planned_s=None),
        "cells": tuple(seen.values()) if cells is None else cells,
        "runs": runs,
    }
    return Validation(**{**given, **changes})
