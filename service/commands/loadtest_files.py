"""What `pareto loadtest` writes: results as JSON, and the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from service.commands.failure import CommandError
from service.commands.loads import USAGE
from service.commands.outputs import check_file, make_folder


def check_out(out: Path) -> None:
    """See that NAME.json and NAME.html could be written. Raises `CommandError`."""
    if _name(out) in ("", ".", ".."):
        raise CommandError(f"--out: expected a name for NAME.json and NAME.html, got {str(out)!r}", USAGE)
    for place in (_beside(out, ".json"), _beside(out, ".html")):
        check_file(place)


def write_results(values: Mapping[str, Any], out: Path) -> None:
    """Write NAME.json and NAME.html and say where they are. Raises `CommandError` where that cannot be done."""
    from loadtests.harness.page.page import render
    from loadtests.harness.record import read_record, write_record

    data, page = (_beside(out, suffix) for suffix in (".json", ".html"))
    try:
        make_folder(out.parent)
        write_record(data, values)
        page.write_text(render(read_record(data)), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{error.filename}: cannot be written: {error.strerror}; see --out") from error
    typer.echo(f"results: {data}, report: {page}", err=True)


def write_comparison(paths: tuple[Path, Path], out: Path) -> None:
    """Hold two results against each other: a table, and NAME.html. Raises `CommandError`."""
    from loadtests.harness.page.compared import render_comparison, said
    from loadtests.harness.record import RecordError, read_record

    try:
        records = (read_record(paths[0]), read_record(paths[1]))
    except RecordError as error:
        raise CommandError(str(error)) from error
    try:
        page, found = render_comparison(records, (paths[0].name, paths[1].name))
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError(f"{paths[0]}, {paths[1]}: one of them is damaged: {error!r}") from error
    _print_comparison([said(row) for row in found.rows], paths)
    for path, record in zip(paths, records, strict=True):
        if record["verdict"]["outcome"] == "invalid":
            typer.echo(f"{path} is INVALID: {'; '.join(record['verdict']['faults'])}", err=True)
    target = _beside(out, ".html")
    try:
        make_folder(out.parent)
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{error.filename}: cannot be written: {error.strerror}; see --out") from error
    typer.echo(f"comparison: {target}", err=True)


def _print_comparison(rows: Sequence[Mapping[str, str]], paths: tuple[Path, Path]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from service.commands.tables import output

    table = Table(title=escape(f"A: {paths[0]}, B: {paths[1]}"), title_justify="left")
    table.add_column("measure")
    for column in ("A", "B", "B minus A", "95 % interval"):
        table.add_column(column, justify="right")
    table.add_column("B is")
    for row in rows:
        verdict = "" if row["verdict"] == "same" else row["verdict"]
        table.add_row(row["name"], row["first"], row["second"], row["more"], row["interval"], verdict)
    output().print(table)


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(_name(out) + suffix)


def _name(out: Path) -> str:
    return out.name.removesuffix(".json").removesuffix(".html")
