"""Sheets on a terminal (rich) and as Markdown."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from arzbench.report.sheets import Sheet

_COLORS = {"fits": "green", "at risk": "yellow", "times out": "red"}


#: columns in a file or a pipe
UNSEEN_WIDTH = 200


class LastingConsole(Console):
    """Falls silent where the reader of a pipe is gone: the run itself must go on."""

    def on_broken_pipe(self) -> None:
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()


def make_console(*, stderr: bool = False, lasting: bool = False) -> Console:
    """A console as wide as the terminal; in a file or a pipe no table is ever squeezed."""
    console = (LastingConsole if lasting else Console)(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNSEEN_WIDTH
    return console


def say(console: Console, line: str) -> None:
    """Print `line` as it is, never wrapped, so that it can be searched and copied."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def to_table(sheet: Sheet, console: Console) -> Table:
    """`sheet` as a rich table; where it is too wide, text wraps before numbers do, and nothing is cut."""
    boundless = console.options.update(max_width=10_000)
    loose = _table(sheet, gap=2, wrap="")
    if console.measure(loose, options=boundless).maximum <= console.width:
        return loose
    tight = _table(sheet, gap=0, wrap="l")
    if console.measure(tight, options=boundless).minimum <= console.width:
        return tight
    return _table(sheet, gap=0, wrap="lr")


def _table(sheet: Sheet, *, gap: int, wrap: str) -> Table:
    """`gap` spaces beside the one between columns; columns aligned as in `wrap` may wrap."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False)
    for name, side in zip(sheet.columns, sheet.align, strict=True):
        justify = "right" if side == "r" else "left"
        table.add_column(name, justify=justify, no_wrap=side not in wrap, overflow="fold")  # type: ignore[arg-type]
    for row in sheet.rows:
        table.add_row(*(_colored(cell) for cell in row))
    return table


def _colored(cell: str) -> str:
    color = _COLORS.get(cell)
    return f"[{color}]{cell}[/]" if color else escape(cell)


def show(console: Console, sheets: Iterable[Sheet]) -> None:
    """Print sheets one below the other, their notes under them."""
    for sheet in sheets:
        console.print(sheet.title, style="bold", markup=False, soft_wrap=True)
        console.print(to_table(sheet, console))
        for note in sheet.notes:
            console.print(f"  {escape(note)}", style="dim", soft_wrap=True)


def to_markdown(sheet: Sheet) -> str:
    """`sheet` as a Markdown table with its notes below."""
    rule = ["---:" if side == "r" else "---" for side in sheet.align]
    lines = [f"### {sheet.title}", "", _pipe(sheet.columns), _pipe(rule)]
    lines += [_pipe(row) for row in sheet.rows]
    lines += ["", *(f"- {note}" for note in sheet.notes)] if sheet.notes else []
    return "\n".join(lines) + "\n"


def _pipe(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
