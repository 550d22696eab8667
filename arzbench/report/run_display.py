"""What is shown while something runs: a line that moves on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

from rich import progress as bars
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from arzbench.predict.remaining import probability_within
from arzbench.report.console import say
from arzbench.run.progress import Progress
from arzbench.units import format_duration


@contextlib.contextmanager
def calibration_progress(console: Console) -> Iterator[Callable[[str, float], None]]:
    """A progress bar; the block calls what it gets: what is being measured, and the share that is done."""
    bar = bars.Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("starting", total=1.0)
    seen: set[str] = set()

    def show(what: str, fraction: float) -> None:
        bar.update(task, description=what, completed=fraction)
        process = what.partition(":")[0]
        if bar.disable and process not in seen:
            seen.add(process)
            say(console, f"  {process}")

    with bar:
        yield show


class RunDisplay:
    """Steps, speed, elapsed, deadline and predicted end."""

    #: seconds between lines where the output is no terminal
    QUIET_S = 10.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )
        self._shown_at = -math.inf
        if self._live is not None:
            self._live.start()

    def show(self, progress: Progress) -> None:
        """Draw `progress`."""
        if self._live is not None:
            self._live.update(_panel(progress))
        elif progress.session_s - self._shown_at >= self.QUIET_S:
            self._shown_at = progress.session_s
            say(self._console, _line(progress))

    def say(self, line: str) -> None:
        """Print `line` above it."""
        say(self._console, line)

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()


def _end(progress: Progress) -> str:
    end = progress.predicted_end
    if end is None:
        return "not known yet"
    when = f"in {format_duration(end.p50_s)} (P90 {format_duration(end.p90_s)})"
    if progress.left_s is None:
        return when
    return f"{when}, P(fits) {probability_within(end, progress.left_s - progress.kept_free_s):.0%}"


def _deadline(progress: Progress) -> str:
    return "none" if progress.left_s is None else f"in {format_duration(progress.left_s)}"


def _speed(progress: Progress) -> str:
    return "" if progress.steps_per_s is None else f"{progress.steps_per_s:,.0f} steps/s"


def _share(progress: Progress) -> float:
    return min(1.0, progress.num_timesteps / progress.budget) if progress.budget else 1.0


def _line(progress: Progress) -> str:
    parts = [
        f"{progress.num_timesteps:,}/{progress.budget:,} steps ({_share(progress):.0%})",
        _speed(progress),
        f"elapsed {format_duration(progress.elapsed_s)}",
        f"deadline {_deadline(progress)}",
        f"predicted end {_end(progress)}",
    ]
    if progress.mean_return is not None:
        parts.append(f"last return {progress.mean_return:.4g}")
    return f"  {progress.training} {progress.stage}: " + ", ".join(p for p in parts if p)


def _panel(progress: Progress) -> Table:
    filled = int(30 * _share(progress))
    bar = f"[cyan]{'━' * filled}[/][dim]{'━' * (30 - filled)}[/] {_share(progress):.0%}"
    grid = Table.grid(padding=(0, 2))
    name = f"{progress.training} ({progress.index + 1}/{progress.trainings})"
    grid.add_row(f"[bold]{escape(name)}[/] {progress.stage}", bar)
    grid.add_row("steps", f"{progress.num_timesteps:,} / {progress.budget:,}   {_speed(progress)}")
    grid.add_row("elapsed", format_duration(progress.elapsed_s))
    grid.add_row("deadline", _deadline(progress))
    grid.add_row("predicted end", _end(progress))
    if progress.mean_return is not None:
        grid.add_row("last evaluation", f"{progress.mean_return:.4g}")
    if progress.checkpoint_age_s is not None:
        grid.add_row("last checkpoint", f"{format_duration(progress.checkpoint_age_s)} ago")
    return grid
