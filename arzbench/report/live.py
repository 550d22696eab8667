"""What is shown while something runs: a line that moves on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from arzbench.records import Estimate
from arzbench.units import format_duration


class RunState(Protocol):
    """What the live display needs of a run's progress."""

    training: str
    stage: str
    num_timesteps: int
    budget: int
    steps_per_s: float
    elapsed_s: float
    left_s: float | None
    predicted: Estimate | None
    last_evaluation: float | None


class CalibrationProgress:
    """A progress bar with what is being measured."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=1.0)
        self._last = ""

    def __enter__(self) -> CalibrationProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, what: str, fraction: float) -> None:
        """`fraction` of all is done; `what` is being measured now."""
        if self._console.is_terminal:
            self._bar.update(self._task, description=what, completed=fraction)
            return
        process = what.partition(":")[0]
        if process != self._last:
            self._last = process
            self._console.print(f"  {process}", highlight=False)


class RunDisplay:
    """Steps, speed, elapsed, deadline and predicted end."""

    #: seconds between lines where the output is no terminal
    QUIET_S = 10.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )
        self._said_at = -math.inf
        if self._live is not None:
            self._live.start()

    def show(self, state: RunState) -> None:
        """Draw `state`."""
        if self._live is not None:
            self._live.update(_panel(state))
        elif state.elapsed_s - self._said_at >= self.QUIET_S:
            self._said_at = state.elapsed_s
            self._console.print(_line(state), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()


def _end(state: RunState) -> str:
    if state.predicted is None:
        return "not known yet"
    return f"in {format_duration(state.predicted.p50_s)} (P90 {format_duration(state.predicted.p90_s)})"


def _deadline(state: RunState) -> str:
    return "none" if state.left_s is None else f"in {format_duration(state.left_s)}"


def _line(state: RunState) -> str:
    done = state.num_timesteps / state.budget if state.budget else 1.0
    score = "" if state.last_evaluation is None else f", last evaluation {state.last_evaluation:.4g}"
    return (
        f"  {state.training} {state.stage}: {state.num_timesteps:,}/{state.budget:,} steps ({done:.0%}), "
        f"{state.steps_per_s:,.0f} steps/s, elapsed {format_duration(state.elapsed_s)}, "
        f"predicted end {_end(state)}, deadline {_deadline(state)}{score}"
    )


def _panel(state: RunState) -> Table:
    done = state.num_timesteps / state.budget if state.budget else 1.0
    filled = int(30 * min(1.0, done))
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        f"[bold]{state.training}[/] {state.stage}",
        f"[cyan]{'━' * filled}[/][dim]{'━' * (30 - filled)}[/] {done:.0%}",
    )
    grid.add_row("steps", f"{state.num_timesteps:,} / {state.budget:,}   {state.steps_per_s:,.0f} steps/s")
    grid.add_row("elapsed", format_duration(state.elapsed_s))
    grid.add_row("deadline", _deadline(state))
    grid.add_row("predicted end", _end(state))
    if state.last_evaluation is not None:
        grid.add_row("last evaluation", f"{state.last_evaluation:.4g}")
    return grid
