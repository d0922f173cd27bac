"""Tables for people to read, on a terminal or in a file. Local."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 10_000
"""Width of output that is not a terminal, so that no line is broken there."""


def show(table: Table) -> None:
    """Print a table. Its lines are broken to fit a terminal, but not a file or a pipe."""
    width = None if sys.stdout.isatty() else WIDE
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """A table of labels and texts, without lines."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for label, text in rows:
        table.add_row(Text(label, "bold" if not label.startswith(" ") else ""), Text(text))
    return table


def columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table with a title for each column. The first column is text, the others are numbers."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for k, title in enumerate(titles):
        table.add_column(Text(title, "bold"), justify="right" if k else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def number(value: Any, digits: int = 3) -> str:
    """A number in few digits; "-" if it is not known."""
    return "-" if value is None else f"{value:.{digits}g}"


def duration(seconds: float | None) -> str:
    """A time in the unit that suits it; "-" if it is not known."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds is not None and seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return "-" if seconds is None else f"{seconds:.3g} s"
