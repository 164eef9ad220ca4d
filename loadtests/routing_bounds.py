"""How near policies come to what no policy could pass: the linear-programming bound of every workload.

The bound knows all arrivals in advance and rows are a fluid to it; cascades may pass it, since it knows of no answer
given twice. It is computed from the profile times what batches take longer on the machine, HTTP not counted.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from loadtests.bounds import lp_bound
from loadtests.machine import Machine
from loadtests.paired import mean_difference
from loadtests.routing_goals import Goal
from loadtests.routing_output import progress
from loadtests.routing_simulated import Bench
from loadtests.routing_table import RunTable
from loadtests.suite import Trace

NEAR = 0.97

Bounds = dict[tuple[str, int], float]
"""By trace and seed: the greatest effective accuracy, a fraction of all arrivals."""


def mean_over_median(machine: Machine) -> float:
    """What batches take on average over their profiled median."""
    mean = machine.slowdown * math.exp(machine.noise**2 / 2.0)
    return mean * (1.0 + machine.stragglers * (machine.straggler_factor - 1.0))


def upper_bounds(bench: Bench, traces: Sequence[Trace], seeds: Sequence[int], workers: int, console: Console) -> Bounds:
    """The bound of every workload; seconds each."""
    tasks = [(trace, seed) for trace in traces for seed in seeds]
    lean = replace(bench, samples=replace(bench.samples, inputs={}, datatypes={}))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, workers), context) as pool, progress(console) as bar:
        found = bar.track(pool.map(_bound, [(lean, *task) for task in tasks]), len(tasks), description="upper bounds")
        return {(trace.name, seed): value for (trace, seed), value in zip(tasks, found, strict=True)}


def _bound(task: tuple[Bench, Trace, int]) -> float:
    bench, trace, seed = task
    machine = bench.machine
    workload = bench.workload(trace, seed)
    return lp_bound(workload, bench.family, bench.samples, machine.slots, mean_over_median(machine))


def judge_by_bounds(
    console: Console, bench: Bench, table: RunTable, traces: Sequence[Trace], workers: int, subject: str
) -> tuple[Goal, dict[str, float]]:
    """Print how near every policy comes; the goal, and the bounds as `trace, seed` for a file."""
    seeds = sorted({seed for runs in table.runs.values() for by_seed in runs.values() for seed in by_seed})
    bounds = upper_bounds(bench, traces, seeds, workers, console)
    console.print(bounds_table(table, bounds))
    return bound_goal(table, bounds, subject), {f"{trace}, {seed}": bounds[trace, seed] for trace, seed in bounds}


def fractions(table: RunTable, bounds: Bounds, policy: str) -> dict[str, list[float]]:
    """Effective accuracy over the bound, by trace of the suite, one for each seed that was run."""
    runs = table.runs.get(policy, {})
    return {
        trace: [run.effective_accuracy / bounds[trace, seed] for seed, run in runs[trace].items()]
        for trace in table.suite
        if trace in runs and all((trace, seed) in bounds for seed in runs[trace])
    }


def bounds_table(table: RunTable, bounds: Bounds) -> Table:
    """Means over the suite, best first, with the worst trace of each policy."""
    result = Table(title="Fraction of the linear-programming bound (cascades may pass it)", title_justify="left")
    for column in ("policy", "mean of the suite", "worst trace"):
        result.add_column(column, justify="left" if column == "policy" else "right")
    means: list[tuple[float, str, str]] = []
    for policy in table.policies:
        by_trace = {trace: statistics.fmean(found) for trace, found in fractions(table, bounds, policy).items()}
        if len(by_trace) == len(table.suite):
            worst = min(by_trace, key=lambda trace: by_trace[trace])
            means.append((statistics.fmean(by_trace.values()), policy, f"{by_trace[worst]:.3f} ({worst})"))
    for mean, policy, worst in sorted(means, reverse=True):
        result.add_row(policy, f"{mean:.3f}", worst)
    return result


def bound_goal(table: RunTable, bounds: Bounds, policy: str) -> Goal:
    """Whether the policy comes near enough to the bound on average."""
    found = fractions(table, bounds, policy)
    text = f"at least {NEAR:g} of the linear-programming bound"
    if len(found) < len(table.suite) or not found:
        return Goal(text, "not run", None)
    mean = mean_difference(list(found.values()))
    return Goal(text, f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]", mean.mean >= NEAR)
