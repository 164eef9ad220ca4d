"""What the outer loop does to attainment and effective accuracy: on calm and disturbed days, under a lying Prometheus.

`python -m loadtests.outer_loop` simulates a compressed day, seed by seed the same for every arm, and prints
differences to a gateway without an outer loop. `--live` runs a real gateway under a real Prometheus
(`loadtests.outer_loop_live`). `--margins` prints instead what constant factors on the learnt margin do: whether there
is anything to be had at all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loadtests.calibration import TYPICAL
from loadtests.compare import profiled_family
from loadtests.live import LiveRunError
from loadtests.machine import Machine
from loadtests.outer_loop_live import add_live_options, run_live_loop
from loadtests.outer_loop_played import AdvisedScheduler, Cadence, PlayedPrometheus, Truth
from loadtests.samples import Samples, read_samples
from loadtests.scoring import score
from loadtests.servers import ServerError
from loadtests.simulator import simulate
from loadtests.suite import Trace, Yardsticks, draw, measure
from loadtests.synthetic import NAME as SYNTHETIC
from loadtests.synthetic import synthetic
from loadtests.traces import Shape, TraceError
from router.family import Family
from router.limits import SERVING
from router.policies import policy_named
from router.scheduler import Scheduler
from variants.repository import Repository, RepositoryError

COMPRESSED = 60.0
"""Seconds of the windows, scrapes and readings of a day are divided by this, so that minutes of virtual time do."""
CADENCE = Cadence(15.0 / COMPRESSED, 15.0 / COMPRESSED, 300.0 / COMPRESSED, 3600.0 / COMPRESSED, 60.0 / COMPRESSED)
TARGET = 0.995
CONSTANTS = (0.8, 0.9, 1.2, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Day:
    """A load and what disturbs the machine. Rates and SLOs are relative to the family, as in the suite of traces."""

    name: str
    trace: Trace
    stragglers: float = 0.0
    share: float = 1.0
    """Of the duration that is asked for: loads of many requests a second are shorter."""


_TIGHT = ((2.0, 1.0),)
_BURSTS = Shape(peak_ratio=4.0)
DAYS = (
    Day("calm", Trace("calm", "diurnal", 0.6, "middle", _BURSTS)),
    Day("calm, tight SLO", Trace("calm tight", "diurnal", 0.5, "middle", _BURSTS, _TIGHT)),
    Day("stragglers", Trace("stragglers", "diurnal", 0.6, "middle", _BURSTS), 0.02),
    Day("stragglers, busy", Trace("stragglers busy", "diurnal", 1.0, "middle", _BURSTS), 0.02),
    Day("overload", Trace("overload", "poisson", 1.5), 0.0, 0.1),
    Day("overload, stragglers", Trace("overload stragglers", "poisson", 1.5), 0.02, 0.1),
)


class Arm(NamedTuple):
    """What is compared: what Prometheus says, or a constant caution, or nothing (no outer loop)."""

    name: str
    truth: Truth | None = None
    constant: float | None = None


OFF = Arm("none")
ARMS = (OFF, *(Arm(truth, truth) for truth in Truth))
MARGINS = (OFF, *(Arm(f"margin x {factor:g}", None, factor) for factor in CONSTANTS))


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs have in common."""

    family: Family
    samples: Samples
    machine: Machine
    yardsticks: Yardsticks
    duration_s: float
    target: float = TARGET


class Run(NamedTuple):
    """One simulation, judged; `caution` is the mean over its readings, 1 where there are none."""

    day: str
    arm: str
    seed: int
    attainment: float
    effective_accuracy: float
    caution: float


def simulated(bench: Bench, day: Day, arm: Arm, seed: int) -> Run:
    """One day of one arm. All arms get the same requests, and batches the same noise one after the other."""
    machine = replace(bench.machine, stragglers=day.stragglers)
    duration_s = bench.duration_s * day.share
    workload = draw(day.trace, bench.yardsticks, duration_s, seed, len(bench.samples))
    qualities = [variant.quality for variant in bench.family.variants]
    made: list[AdvisedScheduler] = []

    def make(*arguments: object) -> Scheduler:
        prometheus = None
        if arm.truth is not None:
            prometheus = PlayedPrometheus(CADENCE, (min(qualities), max(qualities)), arm.truth, duration_s / 2.0)
        advised = partial(AdvisedScheduler, prometheus=prometheus, cadence=CADENCE, target=bench.target)
        made.append(advised(*arguments, constant=arm.constant))
        return made[0]

    rng = np.random.default_rng(seed)
    policy = policy_named("casc")
    results = simulate(workload, bench.family, bench.samples, policy, machine, rng, SERVING, make=make).results
    judged = score(workload, bench.samples.label, results)
    caution = fmean(made[0].cautions) if made[0].cautions else arm.constant or 1.0
    return Run(day.name, arm.name, seed, judged.attainment, judged.effective_accuracy, caution)


def table(runs: Sequence[Run], arms: Sequence[Arm]) -> Table:
    """Each arm's mean by day, and the points by which it differs from no outer loop."""
    by_key = {(run.day, run.arm, run.seed): run for run in runs}
    result = Table(title="against no outer loop, seed by seed: mean (least, most)")
    result.add_column("day")
    result.add_column("Prometheus" if arms is ARMS else "factor")
    for column in ("caution", "in time", "points", "effective", "points"):
        result.add_column(column, justify="right", no_wrap=True)
    for day in dict.fromkeys(run.day for run in runs):
        for arm in arms:
            own = [run for run in runs if (run.day, run.arm) == (day, arm.name)]
            cells = [day, arm.name, f"{fmean(run.caution for run in own):.2f}"]
            for measure_name in ("attainment", "effective_accuracy"):
                values = [getattr(run, measure_name) for run in own]
                off = [
                    100.0 * (value - getattr(by_key[day, OFF.name, run.seed], measure_name))
                    for run, value in zip(own, values, strict=True)
                ]
                cells += [f"{100.0 * fmean(values):.2f}", f"{fmean(off):+.2f} ({min(off):+.2f} {max(off):+.2f})"]
            result.add_row(*cells, end_section=arm is arms[-1])
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, or with `--live` run, and print. Ends with one line where that cannot be done."""
    options = _parser().parse_args(arguments)
    console = Console(width=110)
    try:
        if options.live:
            run_live_loop(options, console)
        else:
            _simulate(options, console)
    except (LiveRunError, RepositoryError, ServerError, TraceError, OSError, ValueError) as error:
        console.print(f"[red]outer loop:[/] {escape(str(error))}")
        sys.exit(1)


def _simulate(options: argparse.Namespace, console: Console) -> None:
    if options.family == SYNTHETIC:
        family, samples = synthetic()
    else:
        folder = Repository(options.models).open(options.family)
        names = [variant.name for variant in folder.manifest.variants if variant.load_by_default]
        family, samples = profiled_family(folder, names, (), staged=True), read_samples(folder)
    machine = replace(TYPICAL, noise=options.noise)
    bench = Bench(family, samples, machine, measure(family, samples, machine), options.duration)
    arms = MARGINS if options.margins else ARMS
    days = [day for day in DAYS if not options.days or day.name in options.days]
    if not days:
        raise ValueError(f"--days: expected some of {', '.join(day.name for day in DAYS)}")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        by_day = [
            pool.map(partial(_run, bench), [(day, arm, seed) for arm in arms for seed in range(options.seeds)])
            for day in days
        ]
        for runs in by_day:
            console.print(table(list(runs), arms))
    console.print(
        f"{family.name}, {options.seeds} seeds of {options.duration:g} s at most; target {bench.target:.1%}; windows "
        f"of {CADENCE.short_s:g} and {CADENCE.long_s:g} s, read every {CADENCE.every_s:g} s: {COMPRESSED:g} times as "
        "fast as by default"
    )


def _run(bench: Bench, case: tuple[Day, Arm, int]) -> Run:
    return simulated(bench, *case)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.outer_loop", description=__doc__)
    add = parser.add_argument
    add("--models", type=Path, default=Path("models"))
    add("--family", default="sentiment-deep", help=f"a family of the repository, or {SYNTHETIC}")
    add("--seeds", type=int, default=3)
    add("--duration", type=float, default=60.0, help="seconds of a compressed day (default 60)")
    add(
        "--noise",
        type=float,
        default=0.1,
        help="standard deviation of log seconds of batches (default 0.1)",
    )
    add("--days", nargs="*", default=(), help=f"some of: {', '.join(day.name for day in DAYS)} (default: all)")
    add("--jobs", type=int, default=2, help="processes (default 2)")
    add("--margins", action="store_true", help="constant factors on the learnt margin instead")
    add("--live", action="store_true", help="a real gateway and a real Prometheus instead")
    add_live_options(parser)
    return parser


if __name__ == "__main__":
    main()
