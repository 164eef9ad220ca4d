"""Which policy gets most correct answers in time: `make bench-routing`.

Simulated, the whole suite takes seconds a policy; `--live` sends the shorter one through real gateways, and simulates
it on a machine calibrated to the real one. All policies get the same arrivals.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtests.routing_goals import goals
from loadtests.routing_plots import draw_burst, draw_differences, draw_scatter
from loadtests.routing_report import markdown, print_report
from loadtests.routing_runs import Book, BookError
from loadtests.routing_setup import (
    SUBJECT,
    machine_for,
    open_stage,
    policies_asked_for,
    statics_of,
    traces_asked_for,
)
from loadtests.routing_simulated import Bench, Task, run_all
from loadtests.routing_table import RunTable
from loadtests.suite import SUITE, Trace, measure
from loadtests.traces import TraceError
from variants.repository import RepositoryError

BURST = "on/off 1 s"
"""The trace that is drawn in time."""
WIDTH = 180
"""Columns where the output is no terminal."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write. Ends with one line where that cannot be done."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        simulated(options, console)
    except (BookError, RepositoryError, TraceError, OSError, ValueError) as error:
        console.print(f"[red]bench-routing:[/] {escape(str(error))}")
        sys.exit(1)


def progress(console: Console) -> Progress:
    """A bar with the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console)


def simulated(options: argparse.Namespace, console: Console) -> None:
    """The suite in virtual time. Raises what `main` tells in one line."""
    stage = open_stage(options)
    calibrated, source = machine_for(stage, options)
    traces = traces_asked_for(options, "quick" if options.quick else "all")
    policies = policies_asked_for(options.policies, stage.family)
    yardsticks = measure(stage.family, stage.samples, calibrated.machine)
    duration_s = options.duration or (2.0 if options.quick else 10.0)
    bench = Bench(
        stage.family,
        stage.samples,
        calibrated.machine,
        yardsticks,
        duration_s,
        options.margin,
        decision_s=calibrated.decision_s,
    )
    seeds = range(1, (options.seeds or (1 if options.quick else 3)) + 1)
    asked = tuple(dict.fromkeys((*policies, *statics_of(stage.family))))
    tasks: list[Task] = [(policy, trace, seed) for trace in traces for seed in seeds for policy in asked]
    _say(console, stage.context, bench, source)
    with progress(console) as bar:
        task = bar.add_task("simulated runs", total=len(tasks))
        runs = run_all(bench, tasks, options.workers, lambda: bar.advance(task))
    book = Book(options.out / "routing_simulated.json", bench_context(stage.context, bench, source), anew=True)
    subject = options.subject if options.subject in policies else policies[0]
    table = RunTable.of(runs)
    found = goals(table, subject, yardsticks.per_s["fastest"], traces)
    book.extra["goals"] = [goal._asdict() for goal in found]
    book.add(runs)
    title = f"Simulated: {stage.family.name}, means over {len(table.suite)} traces"
    print_report(console, table, subject, found, title)
    (options.out / "routing_simulated.md").write_text(markdown(table, subject, found), encoding="utf-8")
    draw_differences(table, subject, options.out / "routing_simulated.png")
    draw_scatter(table, subject, options.out / "routing_simulated_scatter.png")
    _draw_burst(bench, subject, traces, options.out / "routing_simulated_burst.png")
    console.print(f"written: {book.path} and, beside it, .md and .png")


def bench_context(context: dict[str, Any], bench: Bench, source: str) -> dict[str, Any]:
    """What runs of this bench can be compared with."""
    return {
        **context,
        "duration_s": bench.duration_s,
        "simulated_machine": source,
        "capacity_per_s": dict(bench.yardsticks.per_s),
        "slow_row_s": bench.yardsticks.slo_s,
    }


def _draw_burst(bench: Bench, subject: str, traces: Sequence[Trace], path: Path) -> None:
    trace = next((trace for trace in (*traces, *SUITE) if trace.name == BURST), traces[0])
    workload = bench.workload(trace, 1)
    results, _ = bench.results(subject, workload, 1)
    names = tuple(variant.name for variant in bench.family.variants)
    draw_burst(workload, results, names, f"{subject}, simulated: {workload.description}", path)


def _say(console: Console, context: dict[str, Any], bench: Bench, source: str) -> None:
    rates = ", ".join(f"{name} {per_s:.0f}/s" for name, per_s in bench.yardsticks.per_s.items())
    console.print(
        f"{context['family']} {context['revision']}, stages {context['stages']}; capacity: {rates}; "
        f"slowest row {bench.yardsticks.slo_s * 1e3:.2f} ms; machine: {source}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench-routing", description=__doc__)
    add = parser.add_argument
    add("--policies", nargs="+", default=[], metavar="NAME", help="default: all; names as in the settings")
    add("--subject", default=SUBJECT, help="the policy that the others are compared with (default casc)")
    add("--traces", nargs="+", default=[], metavar="NAME", help="all, live, quick, or names of traces")
    add("--trace", type=Path, action="append", metavar="FILE.csv", help="also a recording of arrivals")
    add("--trace-load", type=float, default=0.6, help="mean load of recordings, of the fastest variant's capacity")
    add("--seeds", type=int, help="workloads of each trace (default 3)")
    add("--duration", type=float, help="seconds of each workload (default 10)")
    add("--quick", action="store_true", help="a few traces of two seconds, one seed: to see that it works")
    add("--family", help="default: sentiment-deep where it is built, else sentiment; `synthetic` needs no build")
    add("--models", type=Path, default=Path("models"))
    add("--stages", choices=("on", "off"), default="off", help="serve exits of one network as stages (default off)")
    add("--machine", type=Path, metavar="FILE", help="the calibrated machine to simulate")
    add("--margin", type=float, default=1.12)
    add("--slots", type=int, default=1, help="batches at a time (default 1)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="simulations at a time (default: cores)")
    add("--server-cores", type=int, nargs="*", default=[0], help="none: not pinned (default 0)")
    add("--generator-cores", type=int, nargs="*", default=[1], help="none: not pinned (default 1)")
    add("--out", type=Path, default=Path("loadtests/results"))
    return parser


if __name__ == "__main__":
    main()
