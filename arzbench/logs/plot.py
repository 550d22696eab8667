"""Plots logs side by side: lines per second and steps over time, phases shaded."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arzbench.errors import StateError, UsageError
from arzbench.logs.findings import LogReport

_SHADES = {"set-up": "0.92", "training": "#cfe3f7", "evaluation": "#fbe3c8", "steps": "#e2f0d9"}


def require_matplotlib() -> None:
    """Raise a `UsageError` unless plots can be drawn; nothing is imported."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs the package matplotlib", 'pip install "arzbench[plot]"')


def plot(reports: Sequence[LogReport], path: Path) -> None:
    """Draw `reports` side by side into `path`; its ending says the format (.png, .svg, .pdf)."""
    require_matplotlib()
    figure = make_figure(7 * len(reports), 6)
    panels = figure.subplots(2, len(reports), sharex="col", squeeze=False)
    for column, report in enumerate(reports):
        _draw(panels[0][column], panels[1][column], report)
    save_figure(figure, path)


def make_figure(width: float, height: float) -> Any:
    """An empty figure of matplotlib; its size in inches."""
    figure_class: Any = importlib.import_module("matplotlib.figure").Figure
    return figure_class(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write `figure` into `path`.

    Raises:
        UsageError: matplotlib cannot write such a file.
        StateError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise UsageError(f"--plot {path}: {error}", "name it .png, .svg or .pdf") from error
    except OSError as error:
        raise StateError(f"cannot write {path}: {error.strerror}") from error


def _draw(upper: Any, lower: Any, report: LogReport) -> None:
    upper.set_title(Path(report.file).name, fontsize=9)
    for phase in report.phases:
        for panel in (upper, lower):
            panel.axvspan(phase.begin_s, phase.end_s, color=_SHADES.get(phase.kind, "0.95"), lw=0)
        upper.annotate(
            phase.kind, (phase.begin_s, 1.0), xycoords=("data", "axes fraction"), fontsize=7, va="top"
        )
    if report.rates:
        edges = [r.begin_s for r in report.rates] + [report.rates[-1].end_s]
        upper.stairs([r.lines_per_s for r in report.rates], edges)
    upper.set_ylabel("lines/s")
    rows = report.steps.rows if report.steps is not None else ()
    lower.plot([r.wall_s for r in rows], [r.step for r in rows], ".-")
    lower.set_ylabel("step")
    lower.set_xlabel("wall time [s]")
