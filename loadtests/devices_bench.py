"""A wide and a narrow device against slots that are alike: `make bench-devices`, with `--live` against real gateways.

Simulated is the synthetic family, on which two threads are `--speedup` times as fast as one, under bursty arrivals at
several shares of what three single threads could do with the cheapest variant. Three systems serve the same loads:

- devices: a slot of two threads and one of one, told apart;
- first free: the same two slots, of which the scheduler knows nothing but that there are two. It believes the profile
  of the wide one, takes the first that is free, and learns how slow batches are on average;
- alike: three slots of one thread, as many threads in all.

Live, `devices` and `alike` are real gateways with the family's own profiles, one after the other in each round.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests import servers
from loadtests.live import run_live
from loadtests.machine import Machine
from loadtests.paired import mean_difference
from loadtests.report import write_json
from loadtests.samples import Samples, read_samples
from loadtests.scoring import Score, score
from loadtests.simulator import simulate
from loadtests.synthetic import synthetic
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router.contract import Slot
from router.family import Family, LatencyTable
from router.limits import SERVING
from router.policies import policy_named
from router.scheduler import Scheduler
from variants.fingerprint import machine_fingerprint
from variants.repository import Repository

DEVICES, FIRST_FREE, ALIKE = "devices", "first free", "alike"
WIDE, NARROW = ("wide", 2), ("narrow", 1)
MIXES = ("15", "50", "15:0.3,50:0.4,200:0.3")
LOADS = (0.1, 0.3, 0.6, 0.9)
HTTP = Machine(noise=0.15, inbound_s=1e-4, outbound_s=1e-4, batch_s=3e-4, request_s=1e-4)


class System(NamedTuple):
    """Who serves: the family as the scheduler knows it, the machine, and what makes the scheduler."""

    family: Family
    machine: Machine
    make: Callable[..., Scheduler]


def quicker(table: LatencyTable, factor: float) -> LatencyTable:
    """The same table, that many times as fast."""

    def rows(cells: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(seconds / factor for seconds in row) for row in cells)

    return LatencyTable(table.batches, rows(table.median_s), rows(table.tail_s))


def unaware(families: Sequence[Family], slots: Sequence[Slot], *rest: Any) -> Scheduler:
    """A scheduler that is not told which slot is of which device."""
    return Scheduler(families, [Slot(slot.index) for slot in slots], *rest)


def systems(family: Family, speedup: float, contention: float) -> dict[str, System]:
    """The three that serve the same loads."""
    variants = tuple(
        replace(one, latency=quicker(one.latency, speedup), elsewhere=((NARROW[0], one.latency),))
        for one in family.variants
    )
    both = replace(family, variants=variants)
    machine = replace(HTTP, slots=2, devices=(WIDE, NARROW), contention=contention)
    return {
        DEVICES: System(both, machine, Scheduler),
        FIRST_FREE: System(both, machine, unaware),
        ALIKE: System(family, replace(HTTP, slots=3, contention=contention), Scheduler),
    }


def draw(samples: Samples, mix: str, per_s: float, duration_s: float, seed: int) -> Workload:
    """Bursty arrivals with SLOs of that mix, milliseconds."""
    rng = np.random.default_rng(seed)
    return Workload.draw(arrivals("gamma", per_s, duration_s, Shape(), rng), SloMix.parse(mix), len(samples), rng)


def simulated(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every system on every load: percent answered correctly in time, and answered in time, by seed."""
    family, samples = synthetic()
    full = family.variants[0].latency.median_s[0][-1] / family.variants[0].latency.batches[-1]
    rows = []
    for mix in MIXES:
        for load in LOADS:
            found: dict[str, list[Score]] = {name: [] for name in (DEVICES, FIRST_FREE, ALIKE)}
            for seed in range(options.seeds):
                workload = draw(samples, mix, load * 3.0 / full, options.duration, seed)
                for name, system in systems(family, options.speedup, options.contention).items():
                    rng, rule = np.random.default_rng(seed), policy_named(options.policy)
                    ran = simulate(
                        workload, system.family, samples, rule, system.machine, rng, SERVING, make=system.make
                    )
                    found[name].append(score(workload, samples.label, ran.results))
            rows.append(_row(f"{mix} ms", load, found))
    return rows


def live(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Two gateways on the family's own models, in turns; runs that were not valid are left out."""
    samples = read_samples(Repository(options.models).open(options.family))
    settings = {
        DEVICES: {"PARETO_DEVICES": json.dumps({"wide": {"threads": 2}, "narrow": {"threads": 1}})},
        ALIKE: {"PARETO_SLOTS": "3"},
    }
    found: dict[float, dict[str, list[Score]]] = {per_s: {name: [] for name in settings} for per_s in options.rates}
    for seed in range(options.seeds):
        for name, own in settings.items():
            with ExitStack() as stack:
                common = {"PARETO_CONFIG": "", "PARETO_POLICY": options.policy}
                server = stack.enter_context(servers.running(servers.gateway(options.models, {**common, **own})))
                for per_s in options.rates:
                    workload = draw(samples, options.mix, per_s, options.duration, seed)
                    found[per_s][name].append(run_live(server.url, options.models, options.family, workload))
    rows = []
    for per_s, by_name in found.items():
        pairs = [pair for pair in zip(*by_name.values(), strict=True) if all(one.valid for one in pair)]
        if pairs:
            names = list(by_name)
            valid = {name: [pair[number] for pair in pairs] for number, name in enumerate(names)}
            rows.append(_row(f"{options.mix} ms", per_s, valid))
    return rows


def _row(mix: str, load: float, found: dict[str, list[Score]]) -> dict[str, Any]:
    right = {name: [100.0 * one.effective_accuracy for one in some] for name, some in found.items()}
    in_time = {name: [100.0 * one.attainment for one in some] for name, some in found.items()}
    return {"mix": mix, "load": load, "effective_accuracy": right, "attainment": in_time}


def print_rows(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """A line for each load, and what `devices` gains on the others over all of them."""
    table = Table(title=title, title_justify="left")
    names = list(rows[0]["effective_accuracy"]) if rows else []
    for column in ("SLO", "load", *names):
        table.add_column(column, justify="left" if column == "SLO" else "right")
    for row in rows:
        cells = [
            f"{statistics.fmean(right):.2f} ({min(right):.1f}-{max(right):.1f}) / {statistics.fmean(in_time):.1f}"
            for right, in_time in zip(row["effective_accuracy"].values(), row["attainment"].values(), strict=True)
        ]
        table.add_row(row["mix"], f"{row['load']:g}", *cells)
    console.print(table)
    for name in names[1:]:
        strata = [
            [mine - theirs for mine, theirs in zip(right[DEVICES], right[name], strict=True)]
            for right in (row["effective_accuracy"] for row in rows)
        ]
        gain = mean_difference(strata)
        console.print(
            f"devices minus {name}: {gain.mean:+.2f} points ({gain.low:+.2f} to {gain.high:+.2f}, {gain.pairs} pairs)"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write `devices.json`."""
    parser = argparse.ArgumentParser(prog="bench-devices", description="slots of several kinds against slots alike")
    parser.add_argument("--policy", default="casc")
    parser.add_argument("--seeds", type=int, default=5, help="loads of each kind; rounds with --live (default 5)")
    parser.add_argument("--duration", type=float, default=3.0, help="seconds of each load (default 3)")
    parser.add_argument("--speedup", type=float, default=1.7, help="of two threads over one (default 1.7)")
    parser.add_argument("--contention", type=float, default=0.0, help="what busy neighbours cost (default 0)")
    parser.add_argument("--live", action="store_true", help="real gateways")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="sentiment")
    parser.add_argument("--rates", type=float, nargs="+", default=[60.0, 200.0], help="requests a second, live")
    parser.add_argument("--mix", default="20:0.5,100:0.5", help="SLOs in milliseconds, live")
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    options = parser.parse_args(arguments)
    console = Console(width=160)
    rows = live(options) if options.live else simulated(options)
    title = "Correct in time % (least-most over seeds) / in time %" + (", live" if options.live else ", simulated")
    print_rows(console, title, rows)
    write_json(
        options.out / ("devices_live.json" if options.live else "devices.json"),
        {"machine": machine_fingerprint().description, "options": vars(options) | _paths(options), "rows": rows},
    )


def _paths(options: argparse.Namespace) -> dict[str, str]:
    return {"models": str(options.models), "out": str(options.out)}


if __name__ == "__main__":
    main()
