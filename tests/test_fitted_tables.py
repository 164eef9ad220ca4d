from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from service.commands.fitted import print_fitted


@pytest.mark.parametrize(
    ("width", "there", "gone"),
    [
        (80, ("variant", "first to go", "second to go"), ()),
        (40, ("variant", "second to go"), ("first to go",)),
        (20, ("variant",), ("first to go", "second to go")),
    ],
)
def test_a_narrow_terminal_goes_without_columns(width: int, there: tuple[str, ...], gone: tuple[str, ...]) -> None:
    """As many as it takes, in their order; no cell that stays is broken, and those that went are named."""
    table = Table(title="what")
    for header in ("variant", "first to go", "second to go"):
        table.add_column(header)
    table.add_row("L4-int8", "a long text of it", "another one")
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    print_fitted(console, table, ("first to go", "unknown", "second to go"))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    drawn, _, said = printed.partition("too narrow for ")
    assert "L4-int8" in drawn
    assert all(header in drawn for header in there)
    assert not any(header in drawn for header in gone)
    assert bool(gone) == bool(said)
    assert all(header in " ".join(said.split()) for header in gone)


def test_a_file_has_every_column() -> None:
    """However long a cell is: it goes on below, whole words of it."""
    names = [f"efficientnet-lite{rung}-{side}-int8" for rung in range(3) for side in (160, 192, 224)]
    table = Table(title="what")
    for header in ("variant", "tied with", "loaded"):
        table.add_column(header)
    table.add_row("L4-int8", ", ".join(names), "where named")
    console = Console(width=180, file=io.StringIO())
    print_fitted(console, table, ("tied with", "loaded"))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert all(text in printed for text in ("variant", "tied with", "loaded", "where named", *names))
    assert "too narrow" not in printed
