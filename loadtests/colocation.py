"""Many families on one machine (`make bench-colocation`): what sharing it costs whom, and what it gains.

Simulated, families are synthetic and differ in speed, accuracy and SLO. With `--live`, copies of built families are
served by real gateways: see `loadtests.colocation_live`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests.colocation_live import live
from loadtests.colocation_report import COLUMNS, LEGEND, cells, draw, goals, markdown, rows_of
from loadtests.colocation_runs import BURSTY, CONTENDERS, MACHINE, NOISY, OVERLOAD, ZIPF, Outcome, Task, run_all
from loadtests.live import LiveRunError
from loadtests.report import write_json
from loadtests.revision import commit_of
from loadtests.routing_output import progress
from loadtests.servers import ServerError, add_cores
from variants.repository import RepositoryError

MIXES = (ZIPF, BURSTY, NOISY, OVERLOAD)
RESULTS, PARTS = Path("loadtests/results"), Path("build/results")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write. Ends with one line where that cannot be done."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.request_ms <= 0.0:
        parser.error(f"--request-ms {options.request_ms:g}: expected more than 0")
    folder = folder_of(options, parser)
    console = Console(width=None if sys.stdout.isatty() else 180)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if options.live:
            publish(console, live(options, options.mixes, console), folder / "colocation_live.json", "Live")
            return
        tasks = [
            Task(count, mix, contender, seed, options.duration)
            for count in options.families
            for mix in options.mixes
            for seed in range(1, options.seeds + 1)
            for contender in CONTENDERS
        ]
        with progress(console) as bar:
            shown = bar.add_task("simulated runs", total=len(tasks))
            machine = replace(MACHINE, setup=options.setup)
            outcomes = run_all(tasks, options.workers, lambda: bar.advance(shown), machine)
        publish(console, outcomes, folder / "colocation.json", "Simulated")
    except (LiveRunError, RepositoryError, ServerError, OSError, ValueError) as error:
        console.print(f"[red]bench-colocation:[/] {escape(str(error))}")
        sys.exit(1)


def publish(console: Console, outcomes: Sequence[Outcome], path: Path, title: str) -> None:
    """Print the table and the goals, and write both, the runs and a picture."""
    rows = rows_of(outcomes)
    if not rows:
        raise LiveRunError("no valid run: is something else using these cores?")
    found = goals(rows)
    table = Table(title=f"{title}: means over seeds", title_justify="left")
    for column in COLUMNS:
        table.add_column(column)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    console.print("\n".join(LEGEND), style="dim", highlight=False)
    for goal in found:
        console.print(f"{'[green]met[/]    ' if goal.met else '[red]not met[/]'} {escape(goal.what)}: {goal.found}")
    runs = [
        {
            "task": outcome.task._asdict(),
            "requests": outcome.requests,
            "valid": outcome.valid,
            **outcome.measured._asdict(),
        }
        for outcome in outcomes
    ]
    valid = sum(outcome.valid for outcome in outcomes)
    told = (
        f"{title}; {max(row.seeds for row in rows)} seeds; {valid} of {len(outcomes)} runs valid; commit {commit_of()}."
    )
    write_json(path, {"told": told, "goals": [goal._asdict() for goal in found], "runs": runs})
    path.with_suffix(".md").write_text(markdown(rows, found, told), encoding="utf-8")
    draw(rows, path.with_suffix(".png"))
    console.print(f"written: {path} and, beside it, .md and .png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench-colocation", description="many families on one machine")
    add = parser.add_argument
    add("--families", type=int, nargs="+", default=[4, 16, 64], metavar="N", help="how many (default 4 16 64)")
    add(
        "--mixes",
        nargs="+",
        choices=MIXES,
        default=list(MIXES),
        metavar="MIX",
        help=f"of {', '.join(MIXES)} (default all)",
    )
    add("--seeds", type=int, default=2, help="workloads of each mix (default 2)")
    add("--duration", type=float, default=4.0, help="seconds of each workload (default 4)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="simulations at a time (default: cores)")
    add(
        "--setup",
        type=float,
        default=0.0,
        metavar="ROWS",
        help="simulated: a change of models takes so many rows' time",
    )
    add("--live", action="store_true", help="serve copies of built families by real gateways instead")
    add("--models", type=Path, default=Path("models"))
    add(
        "--sources", nargs="+", default=["sentiment"], metavar="FAMILY", help="live: copied in turn (default sentiment)"
    )
    add(
        "--request-ms",
        type=float,
        default=1.3,
        metavar="MS",
        help="live: what gateway and sender take for a request beside the model (default 1.3)",
    )
    add("--load", type=float, default=1.0, help="live: all loads times this (default 1)")
    add_cores(parser)
    add("--out", type=Path, metavar="DIR", help=f"default: {RESULTS} for the whole benchmark, {PARTS} for a part of it")
    return parser


def folder_of(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Path:
    """Where results are written: those of a part are not to take the place of the whole benchmark's."""
    if options.out is not None:
        return Path(options.out)
    whole = ("families", "mixes", "seeds", "duration", "setup", "load")
    return RESULTS if all(getattr(options, name) == parser.get_default(name) for name in whole) else PARTS


if __name__ == "__main__":
    main()
