"""Tables that fit a narrow terminal: columns go, rather than that every cell breaks after a letter or two."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_WIDEST = 10_000
"""Characters: tables are measured as if there were so many."""


def is_too_wide(console: Console, table: Table) -> bool:
    """Whether a terminal is too narrow for a table; what is no terminal never is."""
    return console.is_terminal and _width(console, table) > console.width


def print_fitted(console: Console, table: Table, expendable: Sequence[str]) -> None:
    """Print a table; where a terminal is too narrow, without the first of the `expendable` columns, and say so.

    What is no terminal gets them all: cells that are too long for it go on in a line below.
    """
    dropped = []
    for header in expendable:
        if not is_too_wide(console, table):
            break
        at = next((at for at, column in enumerate(table.columns) if column.header == header), None)
        if at is not None:
            table = _without(table, at)
            dropped.append(header)
    console.print(table)
    if dropped:
        console.print(f"too narrow for {', '.join(dropped)}: a wider terminal or a pipe shows all", highlight=False)


def _width(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update_width(_WIDEST)).maximum


def _without(table: Table, dropped: int) -> Table:
    """The table without one of its columns."""
    smaller = Table(title=table.title, title_justify=table.title_justify)
    kept = [column for at, column in enumerate(table.columns) if at != dropped]
    for column in kept:
        smaller.add_column(column.header, justify=column.justify)
    cells = [list(column.cells) for column in kept]
    for number, row in enumerate(table.rows):
        smaller.add_row(*(column[number] for column in cells), style=row.style)
    return smaller
