"""The live half of the routing benchmark: real gateways, real models, an open-loop generator on another core."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape

from loadtests.calibration import calibrate
from loadtests.live import ATTEMPTS, LiveRunError, run_live_results, run_pinned
from loadtests.outcomes import Results
from loadtests.routing_bounds import judge_by_bounds
from loadtests.routing_fleet import PINS, Fleet
from loadtests.routing_goals import goals
from loadtests.routing_output import BURST, beside, draw_in_time, progress, publish, say
from loadtests.routing_runs import Book, Key, Run
from loadtests.routing_setup import (
    MACHINE_FILE,
    Calibrated,
    Stage,
    bench_for,
    decision_costs,
    machine_for,
    open_stage,
    policies_asked_for,
    statics_of,
    traces_asked_for,
    write_machine,
)
from loadtests.routing_simulated import Bench, Task, run_all
from loadtests.routing_table import STATIC, RunTable
from loadtests.scoring import Score
from loadtests.suite import Trace
from loadtests.traces import Shape, TraceError, poisson
from loadtests.workload import SloMix, Workload
from router.family import Family

STATICS = 2
"""Static policies that are run live on a trace: the best ones of its simulation."""
CALIBRATION_S = 8.0
_OVERRUN_S = 3.0
_CALIBRATION_LOAD = 0.3
_OVERRUN = 3.0
"""Times the cheapest variant's capacity at which is measured what a refusal costs."""
_OVERRUN_SLO = 5.0
"""Times the slowest row, as in most traces."""
_CALIBRATION_SEED = 0
_TOO_SLOW = 2.5
"""Times the profile beyond which somebody else has the cores, or had them when the profile was taken."""
_CALIBRATION_SLO = SloMix((5.0,), (1.0,))
_CHEAP_LOAD = 0.6
_CHEAP_PER_S = 1000.0
"""Rate of the cheapest variant's calibration, at most: what HTTP costs where it counts, at many requests a second. One
by one they cost half as much again: each wakes a processor that sleeps."""


def live(options: argparse.Namespace, console: Console) -> None:
    """Calibrate, run what is missing, simulate the same, report. Raises what the command tells in one line."""
    stage = open_stage(options)
    if stage.folder is None:
        raise ValueError("--live needs a family that is built")
    policies = policies_asked_for(options.policies, stage.family)
    traces = traces_asked_for(options, "live")
    names = [variant.name for variant in stage.family.variants]
    with Fleet(options.models, settings_for(options, stage.family), options.server_cores) as fleet:
        fleet.start_all(policies, stage.family.name, names, console)
        calibrated, source = calibrated_machine(options, stage, fleet)
        bench = bench_for(stage, options, calibrated, options.duration or 10.0)
        say(console, stage, bench, source)
        traces = _sendable(bench, traces, options.max_rate, console)
        book, twins = _books(options, stage, bench)
        seeds = tuple(range(1, (options.seeds or 3) + 1))
        asked = tuple(dict.fromkeys((*policies, *statics_of(stage.family))))
        _simulate(bench, twins, [(p, t, s) for t in traces for s in seeds for p in asked], options.workers, console)
        tasks = _plan(policies, traces, seeds, RunTable.of(twins.runs))
        _run(tasks, Sender(options, fleet, stage.family.name), bench, book, console, options.subject)
    _report(console, options, bench, traces, policies, book, twins)


class Sender:
    """Sends workloads to a fleet."""

    def __init__(self, options: argparse.Namespace, fleet: Fleet, family: str) -> None:
        self._options = options
        self._fleet = fleet
        self._family = family

    def send(self, policy: str, workload: Workload) -> tuple[Score, Results]:
        """The first valid run of `ATTEMPTS`, else the last."""
        pin = policy.removeprefix(STATIC) if policy.startswith(STATIC) else None
        models, cores = self._options.models, self._options.generator_cores
        with self._fleet.awake(PINS if pin else policy) as server:
            for _ in range(ATTEMPTS):
                server.check()
                judged, results = run_live_results(server.url, models, self._family, workload, cores, pin)
                if judged.valid:
                    break
        return judged, results


def _run(tasks: Sequence[Task], sender: Sender, bench: Bench, book: Book, console: Console, subject: str) -> None:
    """Run all that the book does not have yet; each run is in it as soon as it is made."""
    missing = [task for task in tasks if Key(task[0], task[1].name, task[2]) not in book]
    if len(missing) < len(tasks):
        console.print(f"{len(tasks) - len(missing)} runs are in {book.path} already")
    with progress(console) as bar:
        for policy, trace, seed in bar.track(missing, description="live runs"):
            workload = bench.workload(trace, seed)
            judged, results = sender.send(policy, workload)
            run = Run.judged(Key(policy, trace.name, seed), judged, bench.duration_s)
            book.add([run])
            if run.faults:
                what = escape(f"{policy}, {workload.description}: {run.faults[0]}")
                bar.console.print(f"[bold white on red] INVALID RUN [/] {what}")
            if (policy, trace.name, seed) == (subject, BURST, 1):
                draw_in_time(bench, workload, results, f"{policy}, live", beside(book.path, "burst"))


def settings_for(options: argparse.Namespace, family: Family) -> dict[str, str]:
    """The settings of every gateway but for its policy."""
    load = {family.name: {"load": [variant.name for variant in family.variants]}}
    return {
        "PARETO_CONFIG": "",
        **({} if options.margin is None else {"PARETO_MARGIN": str(options.margin)}),
        "PARETO_SLOTS": str(options.slots),
        "PARETO_SLOT_CORES": ",".join(map(str, options.slot_cores)),
        "PARETO_STAGES": options.stages,
        "PARETO_FAMILIES": json.dumps(load),
        "PARETO_LOG_LEVEL": "error",
    }


def calibrated_machine(options: argparse.Namespace, stage: Stage, fleet: Fleet) -> tuple[Calibrated, str]:
    """The machine that is named, else a new calibration, which is stored; a resumed suite keeps the one it has."""
    path = options.out / MACHINE_FILE
    if options.machine is not None or (path.exists() and not options.anew):
        calibrated, source = machine_for(stage, options)
        if source.startswith("calibrated"):
            return calibrated, source
    family, samples = stage.family, stage.samples
    provisional = bench_for(stage, options, machine_for(stage, options)[0], CALIBRATION_S)
    per_s, ladder = provisional.yardsticks.per_s, family.ladder
    slowly, quickly = _CALIBRATION_LOAD * per_s["best"], min(_CHEAP_LOAD * per_s["fastest"], _CHEAP_PER_S)
    rates = {ladder[-1]: slowly, ladder[len(ladder) // 2]: slowly, ladder[0]: quickly}
    runs = []
    with fleet.awake(PINS) as server:
        for rung, rate in rates.items():
            rng = np.random.default_rng(_CALIBRATION_SEED)
            arrival_s = poisson(rate, CALIBRATION_S, Shape(), rng)
            # Nobody is refused: a calibration measures how long answers take.
            workload = Workload.draw(arrival_s, _CALIBRATION_SLO, len(samples), rng, "calibration")
            variant = family.variants[rung].name
            runs.append(run_pinned(server, options.models, family.name, workload, options.generator_cores, variant))
        rng = np.random.default_rng(_CALIBRATION_SEED)
        arrival_s = poisson(min(_OVERRUN * per_s["fastest"], options.max_rate), _OVERRUN_S, Shape(), rng)
        tight = SloMix((_OVERRUN_SLO * provisional.yardsticks.slo_s,), (1.0,))
        workload = Workload.draw(arrival_s, tight, len(samples), rng, "overrun")
        cheapest = family.variants[ladder[0]].name
        cores = options.generator_cores
        overrun = run_pinned(server, options.models, family.name, workload, cores, cheapest, routed=True)
    machine = calibrate(runs, family, samples, options.slots, overrun)
    if machine.slowdown > _TOO_SLOW:
        raise LiveRunError(
            f"this machine is too busy to calibrate on: batches take {machine.slowdown:.1f} x the profile"
        )
    calibrated = Calibrated(machine, decision_costs(stage, options, machine))
    write_machine(path, calibrated, stage.context)
    return calibrated, f"calibrated: {path}"


def _sendable(bench: Bench, traces: Sequence[Trace], max_rate: float, console: Console) -> tuple[Trace, ...]:
    """The traces whose mean rate the generator manages; the others are named."""
    chosen = []
    for trace in traces:
        rate = trace.load * bench.yardsticks.per_s[trace.of]
        if rate <= max_rate:
            chosen.append(trace)
        else:
            console.print(f"not run live: {trace.name} asks for {rate:.0f}/s, more than {max_rate:.0f}/s (--max-rate)")
    if not chosen:
        raise TraceError(f"no trace stays within {max_rate:.0f}/s (--max-rate)")
    return tuple(chosen)


def _books(options: argparse.Namespace, stage: Stage, bench: Bench) -> tuple[Book, Book]:
    context = {**stage.context, **bench.context()}
    names = ("routing_live.json", "routing_live_simulated.json")
    book, twins = [Book(options.out / name, context, anew=options.anew, commit=stage.commit) for name in names]
    return book, twins


def _simulate(bench: Bench, twins: Book, tasks: Sequence[Task], workers: int, console: Console) -> None:
    """The same workloads on the calibrated machine."""
    missing = [task for task in dict.fromkeys(tasks) if Key(task[0], task[1].name, task[2]) not in twins]
    with progress(console) as bar:
        task = bar.add_task("the same, simulated", total=len(missing))
        twins.add(run_all(bench, missing, workers, lambda: bar.advance(task)))


def _plan(policies: Sequence[str], traces: Sequence[Trace], seeds: Sequence[int], simulated: RunTable) -> list[Task]:
    """All runs: policies take turns on every workload, beginning with another one each time."""
    tasks: list[Task] = []
    for seed in seeds:
        for turn, trace in enumerate(traces):
            statics = [policy for policy in simulated.runs if policy.startswith(STATIC)]
            statics.sort(key=lambda policy: -(simulated.mean(policy, trace.name) or 0.0))
            chosen = tuple(dict.fromkeys((*policies, *statics[:STATICS])))
            first = (seed + turn) % len(chosen)
            tasks += [(policy, trace, seed) for policy in (*chosen[first:], *chosen[:first])]
    return tasks


def _report(
    console: Console,
    options: argparse.Namespace,
    bench: Bench,
    traces: Sequence[Trace],
    policies: Sequence[str],
    book: Book,
    twins: Book,
) -> None:
    table, twin = RunTable.of(book.runs), RunTable.of(twins.runs)
    subject = options.subject if options.subject in policies else policies[0]
    found = goals(table, subject, bench.yardsticks.per_s["fastest"], traces, twin)
    title = f"Live: {bench.family.name}, means over {len(table.suite)} traces"
    if options.bounds:
        goal, book.extra["bounds"] = judge_by_bounds(console, bench, table, traces, options.workers, subject)
        found.append(goal)
    publish(console, book, table, subject, found, title)
