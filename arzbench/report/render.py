"""Sheets on a terminal (rich) and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from arzbench.report.sheets import Sheet

_COLORS = {"fits": "green", "at risk": "yellow", "times out": "red"}


def to_table(sheet: Sheet) -> Table:
    """`sheet` as a rich table."""
    table = Table(title=escape(sheet.title), title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    last = len(sheet.columns) - 1
    for index, (name, side) in enumerate(zip(sheet.columns, sheet.align, strict=True)):
        table.add_column(
            name, justify="right" if side == "r" else "left", no_wrap=index in (0, last) or side == "r"
        )
    for row in sheet.rows:
        table.add_row(*(_colored(cell) for cell in row))
    return table


def _colored(cell: str) -> str:
    color = _COLORS.get(cell)
    return f"[{color}]{cell}[/]" if color else escape(cell)


def show(console: Console, sheets: Iterable[Sheet]) -> None:
    """Print sheets one below the other, their notes under them."""
    for sheet in sheets:
        console.print(to_table(sheet))
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
