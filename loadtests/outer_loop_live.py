"""The outer loop live: a real gateway under a real Prometheus, beside a neighbour that takes its core now and then.

Gateways with and without `prometheus_url` take turns on the same workload (A B, B A, ...), so that a machine that
drifts favours neither. Each run has a gateway and a Prometheus of its own, which scrapes both arms' gateways alike.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import NamedTuple

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from loadtests.calibration import TYPICAL
from loadtests.compare import profiled_family
from loadtests.live import run_live
from loadtests.prometheus_server import prometheus
from loadtests.samples import read_samples
from loadtests.scoring import Score
from loadtests.servers import add_cores, gateway, pinned, running
from loadtests.suite import Trace, draw, measure
from variants.repository import Repository

SETTINGS = {"PARETO_PROMETHEUS_EVERY_S": "1", "PARETO_PROMETHEUS_SHORT_S": "10", "PARETO_PROMETHEUS_LONG_S": "30"}
"""Windows and cadence for runs of minutes."""
TARGET = 0.999
"""A share in time that a disturbed machine misses: otherwise no budget burns, and there is nothing to be seen."""
TRACE = Trace("live", "poisson", 0.6, "middle")
BUSY_S, QUIET_S = 0.08, 2.0
"""How long the neighbour runs, and how long it rests on average."""


class Run(NamedTuple):
    """One live run; `caution` is the last that Prometheus knows of."""

    read: bool
    score: Score
    caution: float | None


def add_live_options(parser: argparse.ArgumentParser) -> None:
    """What only `--live` looks at."""
    parser.add_argument("--repeats", type=int, default=3, help="live: pairs of runs (default 3)")
    parser.add_argument("--live-duration", type=float, default=60.0, help="live: seconds of each run (default 60)")
    parser.add_argument(
        "--target", type=float, default=TARGET, help=f"live: share to be in time, the rest is the budget ({TARGET:g})"
    )
    parser.add_argument("--quiet", action="store_true", help="live: without the neighbour")
    add_cores(parser)


def run_live_loop(options: argparse.Namespace, console: Console) -> None:
    """Run and print. Raises `ServerError`, `LiveRunError`, `RepositoryError`."""
    runs: list[Run] = []
    for repeat in range(options.repeats):
        for read in (False, True) if repeat % 2 == 0 else (True, False):
            runs.append(_run(options, repeat, read=read))
            one = runs[-1]
            said = "no reading" if one.caution is None else f"caution {one.caution:.2f}"
            faults = f", not valid: {'; '.join(one.score.faults)}" if one.score.faults else ""
            console.print(
                f"{repeat + 1}: {'with' if read else 'without'} outer loop: in time {one.score.attainment:.2%}, "
                f"effective accuracy {one.score.effective_accuracy:.2%}, {said}{faults}"
            )
    console.print(_table(runs))


def _run(options: argparse.Namespace, seed: int, *, read: bool) -> Run:
    folder = Repository(options.models).open(options.family)
    names = [variant.name for variant in folder.manifest.variants if variant.load_by_default]
    family, samples = profiled_family(folder, names, options.server_cores, staged=True), read_samples(folder)
    workload = draw(TRACE, measure(family, samples, TYPICAL), options.live_duration, seed, len(samples))
    with prometheus() as scraper:
        environment = {
            "PARETO_CONFIG": "",
            "PARETO_FAMILIES": f'{{"{options.family}": {{"slo_target": {options.target}}}}}',
            **({"PARETO_SLOT_CORES": ",".join(map(str, options.slot_cores))} if options.slot_cores else {}),
            **({"PARETO_PROMETHEUS_URL": scraper.server.url, **SETTINGS} if read else {}),
        }
        with running(gateway(options.models, environment), options.server_cores) as server:
            scraper.scrape(f"127.0.0.1:{server.port}")
            with _neighbour(options.slot_cores, seed, quiet=options.quiet):
                score = run_live(server.url, options.models, options.family, workload, options.generator_cores)
            caution = scraper.value(f'pareto_outer_loop_caution_ratio{{model="{options.family}"}}')
    return Run(read, score, caution)


@contextmanager
def _neighbour(cores: Sequence[int], seed: int, *, quiet: bool) -> Iterator[None]:
    """A process on the batches' cores that runs for `BUSY_S` now and then; the same moments for the same seed."""
    if quiet:
        yield
        return
    with pinned(cores):
        process = subprocess.Popen((sys.executable, "-c", "while True: pass"))
    over = threading.Event()
    turns = threading.Thread(target=_take_turns, args=(psutil.Process(process.pid), over, seed), name="neighbour")
    turns.start()
    try:
        yield
    finally:
        over.set()
        turns.join()
        process.kill()
        process.wait()


def _take_turns(process: psutil.Process, over: threading.Event, seed: int) -> None:
    rng = np.random.default_rng(seed)
    process.suspend()
    while not over.wait(rng.exponential(QUIET_S)):
        process.resume()
        over.wait(BUSY_S)
        process.suspend()


def _table(runs: Sequence[Run]) -> Table:
    result = Table(title="live, means of all runs")
    for column in ("outer loop", "in time", "effective accuracy", "valid"):
        result.add_column(column)
    for read in (False, True):
        own = [run.score for run in runs if run.read is read]
        valid = sum(score.valid for score in own)
        means = [fmean(getattr(score, name) for score in own) for name in ("attainment", "effective_accuracy")]
        result.add_row("with" if read else "without", *(f"{mean:.2%}" for mean in means), f"{valid} of {len(own)}")
    return result
