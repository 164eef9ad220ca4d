"""What the routing benchmark leaves behind: tables on the terminal, Markdown and pictures beside the runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests.outcomes import Results
from loadtests.routing_goals import Goal
from loadtests.routing_plots import draw_burst, draw_differences, draw_scatter
from loadtests.routing_report import markdown, print_report
from loadtests.routing_runs import Book
from loadtests.routing_setup import Stage
from loadtests.routing_simulated import Bench
from loadtests.routing_table import RunTable
from loadtests.suite import SUITE, Trace
from loadtests.workload import Workload

BURST = "on/off 1 s"
"""The trace that is drawn in time."""


def progress(console: Console) -> Progress:
    """A bar with the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console)


def say(console: Console, stage: Stage, bench: Bench, source: str) -> None:
    """What is about to be measured, in one line."""
    rates = ", ".join(f"{name} {per_s:.0f}/s" for name, per_s in bench.yardsticks.per_s.items())
    console.print(
        f"{stage.family.name} {stage.family.revision}, stages {stage.context['stages']}; capacity: {rates}; "
        f"slowest row {bench.yardsticks.slo_s * 1e3:.2f} ms; machine: {escape(source)}"
    )


def publish(console: Console, book: Book, table: RunTable, subject: str, found: Sequence[Goal], title: str) -> None:
    """Print the report, and write it beside the book's file, which is written anew with the goals."""
    book.extra["goals"] = [goal._asdict() for goal in found]
    book.write()
    print_report(console, table, subject, found, title)
    book.path.with_suffix(".md").write_text(markdown(table, subject, found, book.commits), encoding="utf-8")
    draw_differences(table, subject, book.path.with_suffix(".png"))
    draw_scatter(table, subject, beside(book.path, "scatter"))
    console.print(f"written: {book.path} and, beside it, .md and .png")


def burst_trace(traces: Sequence[Trace]) -> Trace:
    """The trace to draw in time."""
    return next(trace for trace in (*traces, *SUITE) if trace.name == BURST)


def draw_in_time(bench: Bench, workload: Workload, results: Results, title: str, path: Path) -> None:
    """The mix of variants over one run."""
    names = tuple(variant.name for variant in bench.family.variants)
    draw_burst(workload, results, names, f"{title}: {workload.description}", path)


def beside(path: Path, what: str) -> Path:
    """The path of another picture of the same runs."""
    return path.with_name(f"{path.stem}_{what}.png")
