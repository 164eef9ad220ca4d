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

from rich.console import Console
from rich.markup import escape

from loadtests.live import LiveRunError
from loadtests.report import write_json
from loadtests.routing_bounds import judge_by_bounds
from loadtests.routing_goals import goals
from loadtests.routing_live import live
from loadtests.routing_live_robustness import live_robustness
from loadtests.routing_output import beside, burst_trace, draw_in_time, progress, publish, say
from loadtests.routing_robustness import (
    DISTURBANCES,
    ROBUST,
    ROBUSTNESS_S,
    UNDISTURBED,
    check_duration,
    loss_table,
    losses,
    simulate_all,
    traces_of,
)
from loadtests.routing_runs import Book, BookError, Run
from loadtests.routing_setup import (
    SUBJECT,
    bench_for,
    machine_for,
    open_stage,
    policies_asked_for,
    statics_of,
    traces_asked_for,
)
from loadtests.routing_simulated import Bench, Task, run_all
from loadtests.routing_table import RunTable
from loadtests.servers import ServerError, add_cores
from loadtests.traces import TraceError
from variants.repository import RepositoryError

WIDTH = 180
"""Columns where the output is no terminal."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write. Ends with one line where that cannot be done."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        if options.live and options.robustness:
            live_robustness(options, console)
        elif options.live:
            live(options, console)
        elif options.robustness:
            simulated_robustness(options, console)
        else:
            simulated(options, console)
    except (BookError, LiveRunError, RepositoryError, ServerError, TraceError, OSError, ValueError) as error:
        console.print(f"[red]bench-routing:[/] {escape(str(error))}")
        sys.exit(1)


def simulated(options: argparse.Namespace, console: Console) -> None:
    """The suite in virtual time. Raises what `main` tells in one line."""
    stage = open_stage(options)
    calibrated, source = machine_for(stage, options)
    traces = traces_asked_for(options, "quick" if options.quick else "all")
    policies = policies_asked_for(options.policies, stage.family)
    bench = bench_for(stage, options, calibrated, options.duration or (2.0 if options.quick else 10.0))
    seeds = range(1, (options.seeds or (1 if options.quick else 3)) + 1)
    asked = tuple(dict.fromkeys((*policies, *statics_of(stage.family))))
    tasks: list[Task] = [(policy, trace, seed) for trace in traces for seed in seeds for policy in asked]
    say(console, stage, bench, source)
    with progress(console) as bar:
        task = bar.add_task("simulated runs", total=len(tasks))
        runs = run_all(bench, tasks, options.workers, lambda: bar.advance(task))
    context = {**stage.context, **bench.context()}
    book = Book(options.out / "routing_simulated.json", context, anew=True, commit=stage.commit)
    book.add(runs)
    subject = options.subject if options.subject in policies else policies[0]
    table = RunTable.of(runs)
    found = goals(table, subject, bench.yardsticks.per_s["fastest"], traces)
    title = f"Simulated: {stage.family.name}, means over {len(table.suite)} traces"
    if options.bounds:
        goal, book.extra["bounds"] = judge_by_bounds(console, bench, table, traces, options.workers, subject)
        found.append(goal)
    publish(console, book, table, subject, found, title)
    workload = bench.workload(burst_trace(traces), 1)
    results, _ = bench.results(subject, workload, 1)
    draw_in_time(bench, workload, results, f"{subject}, simulated", beside(book.path, "burst"))


def simulated_robustness(options: argparse.Namespace, console: Console) -> None:
    """What disturbances cost, in virtual time. Raises what `main` tells in one line."""
    stage = open_stage(options)
    calibrated, source = machine_for(stage, options)
    policies = policies_asked_for(options.policies or ROBUST, stage.family)
    bench = bench_for(stage, options, calibrated, options.duration or ROBUSTNESS_S)
    check_duration(bench.duration_s)
    seeds = range(1, (options.seeds or 3) + 1)
    say(console, stage, bench, source)
    total = len(policies) * len(seeds) * sum(len(traces_of(name)) for name in (UNDISTURBED, *DISTURBANCES))
    with progress(console) as bar:
        task = bar.add_task("simulated runs", total=total)

        def run_tasks(of: Bench, tasks: Sequence[Task]) -> list[Run]:
            return run_all(of, tasks, options.workers, lambda: bar.advance(task))

        found = losses(simulate_all(bench, policies, seeds, run_tasks))
    console.print(loss_table(f"Simulated: {stage.family.name}", found))
    path = options.out / "routing_robustness_simulated.json"
    context = {**stage.context, **bench.context(), "commit": stage.commit}
    write_json(path, {"context": context, "losses": [loss.json() for loss in found]})
    console.print(f"written: {path}")


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
    add(
        "--live", action="store_true", help="send the workloads through real gateways; goes on where it was interrupted"
    )
    add("--bounds", action="store_true", help="also the upper bound of every workload; seconds each")
    add("--robustness", action="store_true", help="what disturbances cost instead (20 s a run by default)")
    add("--anew", action="store_true", help="calibrate again and forget the live runs made so far")
    add("--max-rate", type=float, default=2000.0, help="requests/s that the generator manages (default 2000)")
    add("--variants", nargs="+", metavar="NAME", help="load these instead of the family's default ones")
    add("--family", help="default: sentiment-deep where it is built, else sentiment; `synthetic` needs no build")
    add("--models", type=Path, default=Path("models"))
    add("--stages", choices=("on", "off"), default="off", help="serve exits of one network as stages (default off)")
    add("--machine", type=Path, metavar="FILE", help="the calibrated machine to simulate")
    add("--margin", type=float, help="planning margin (default: learnt, as the gateway does)")
    add("--slots", type=int, default=1, help="batches at a time (default 1)")
    add("--workers", type=int, default=os.cpu_count() or 1, help="simulations at a time (default: cores)")
    add_cores(parser)
    add("--out", type=Path, default=Path("loadtests/results"))
    return parser


if __name__ == "__main__":
    main()
