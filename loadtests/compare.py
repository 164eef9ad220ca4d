"""Is the simulator right? The same workloads live and simulated, side by side (`make bench-sim`).

Starts the gateway, calibrates the simulated machine on one workload of its own, then sends further ones and simulates
them with the same scheduler, profile and settings.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from loadtests import servers
from loadtests.calibration import calibrate, capacity_per_s
from loadtests.fetch import fetch
from loadtests.live import ATTEMPTS, LiveRunError, run_live, run_pinned
from loadtests.machine import Machine
from loadtests.report import score_json, write_json
from loadtests.samples import Samples, read_samples
from loadtests.scoring import Score, score
from loadtests.sim_plot import draw_side_by_side
from loadtests.simulator import simulate
from loadtests.traces import Shape, TraceError, arrivals
from loadtests.workload import SloMix, Workload
from router.family import Family
from router.policies import policy_named
from variants.evidence import read_evidence
from variants.fingerprint import machine_fingerprint
from variants.profiling import load_profile, profile_family, save_profile, to_router_family
from variants.repository import Repository, RepositoryError, RevisionFolder

CALIBRATION_LOAD = 0.5
CALIBRATION_SEED = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of load. `load` is the mean rate over what one slot answers with the most accurate variant, batch 1."""

    name: str
    process: str
    load: float
    slo_mix: str


SCENARIOS = (
    Scenario("half load", "poisson", 0.5, "40:0.5,120:0.5"),
    Scenario("full load", "poisson", 1.0, "40:0.5,120:0.5"),
    Scenario("overload", "poisson", 1.5, "40:0.5,120:0.5"),
    Scenario("bursts, tight", "gamma", 0.8, "10:0.5,40:0.5"),
    Scenario("on/off, tight", "onoff", 0.8, "15"),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One workload, live and simulated."""

    scenario: Scenario
    seed: int
    live: Score
    simulated: Score


class Comparison:
    """A gateway with one family, and the simulator's idea of it."""

    def __init__(self, options: argparse.Namespace, server: servers.Server, family: Family, samples: Samples) -> None:
        self._options = options
        self._server = server
        self._family = family
        self._samples = samples
        self._best = family.variants[family.ladder[-1]].name
        self.capacity_per_s = capacity_per_s(family, samples, self._best)

    def draw(self, scenario: Scenario, seed: int) -> Workload:
        """The workload of a scenario and seed."""
        rng = np.random.default_rng(seed)
        rate = scenario.load * self.capacity_per_s
        arrival_s = arrivals(scenario.process, rate, self._options.duration, Shape(), rng)
        description = f"{scenario.name}: {scenario.process} {rate:.0f}/s, SLO {scenario.slo_mix} ms, seed {seed}"
        return Workload.draw(arrival_s, SloMix.parse(scenario.slo_mix), len(self._samples), rng, description)

    def calibrate(self) -> Machine:
        """The machine, from live runs of the best, the middle and the cheapest variant at one rate."""
        ladder = self._family.ladder
        workload = self.draw(Scenario("calibration", "poisson", CALIBRATION_LOAD, "1000"), CALIBRATION_SEED)
        options, family = self._options, self._family
        rungs = dict.fromkeys((ladder[-1], ladder[len(ladder) // 2], ladder[0]))
        runs = [
            run_pinned(
                self._server, options.models, family.name, workload, options.generator_cores, family.variants[rung].name
            )
            for rung in rungs
        ]
        return calibrate(runs, family, self._samples, options.slots)

    def run(self, scenario: Scenario, seed: int, machine: Machine) -> Pair:
        """One workload, live and simulated."""
        workload, options = self.draw(scenario, seed), self._options
        live = self._live(workload)
        policy, rng = policy_named(options.policy), np.random.default_rng(seed)
        simulation = simulate(workload, self._family, self._samples, policy, machine, rng, margin=options.margin)
        return Pair(scenario, seed, live, score(workload, self._samples.label, simulation.results))

    def _live(self, workload: Workload) -> Score:
        """The first valid run of `ATTEMPTS`, else the last."""
        options, family = self._options, self._samples.family
        for _ in range(ATTEMPTS):
            self._server.check()
            live = run_live(self._server.url, options.models, family, workload, options.generator_cores)
            if live.valid:
                break
        return live


def table(pairs: Sequence[Pair]) -> Table:
    """Means over seeds, live beside simulated; the difference in points with its extremes."""
    result = Table(title="Live and simulated, percent of all arrivals", title_justify="left")
    for column in ("scenario", "rate/s", "attainment", "simulated", "points (min-max)"):
        result.add_column(column, justify="left" if column == "scenario" else "right")
    for column in ("effective accuracy", "simulated", "points (min-max)", "valid"):
        result.add_column(column, justify="right")
    for scenario in dict.fromkeys(pair.scenario for pair in pairs):
        own = [pair for pair in pairs if pair.scenario == scenario]
        valid = sum(pair.live.valid for pair in own)
        cells = [scenario.name, f"{statistics.mean(pair.live.rate for pair in own):.0f}"]
        for name in ("attainment", "effective_accuracy"):
            live = [getattr(pair.live, name) * 100.0 for pair in own]
            simulated = [getattr(pair.simulated, name) * 100.0 for pair in own]
            off = [there - here for here, there in zip(live, simulated, strict=True)]
            cells += [f"{statistics.mean(live):.1f}", f"{statistics.mean(simulated):.1f}"]
            cells += [f"{statistics.mean(off):+.1f} ({min(off):+.1f} to {max(off):+.1f})"]
        result.add_row(*cells, f"{valid} of {len(own)}")
    return result


def profiled_family(
    folder: RevisionFolder, names: Sequence[str], cores: Sequence[int], *, staged: bool = False
) -> Family:
    """The router's view of the loaded variants, from the profile of these cores; taken and stored where missing."""
    wanted = {stage for name in names for stage in folder.manifest.variant(name).stages} if staged else set()
    with servers.pinned(cores):
        profile = load_profile(folder)
        if profile is None or not (set(names) <= set(profile.variants) and wanted <= set(profile.stages)):
            profile = profile_family(folder, names, mode="full")
            save_profile(folder, profile)
    evidence = partial(read_evidence, folder)
    return to_router_family(folder.manifest, profile, names, staged=staged, evidence=evidence)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write `sim_vs_live.json` and `.png`. Ends with one line where that cannot be done."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        _run(options, console)
    except (LiveRunError, RepositoryError, TraceError, servers.ServerError, OSError, ValueError) as error:
        console.print(f"[red]bench-sim:[/] {escape(str(error))}")
        sys.exit(1)


def _run(options: argparse.Namespace, console: Console) -> None:
    folder = Repository(options.models).open(options.family)
    samples = read_samples(folder)
    names = [variant.name for variant in folder.manifest.variants if variant.load_by_default]
    family = profiled_family(folder, names, options.server_cores)
    settings = {
        "PARETO_CONFIG": "",
        "PARETO_POLICY": options.policy,
        "PARETO_MARGIN": str(options.margin),
        "PARETO_SLOTS": str(options.slots),
    }
    with servers.running(servers.gateway(options.models, settings), options.server_cores) as server:
        _check_loaded(server, options.family, names)
        comparison = Comparison(options, server, family, samples)
        machine = comparison.calibrate()
        console.print(
            f"{options.family}: {comparison.capacity_per_s:.0f}/s is full load; "
            f"server on cores {options.server_cores}, generator on {options.generator_cores}; "
            f"HTTP {machine.inbound_s * 2e3:.2f} ms, slowdown {machine.slowdown:.2f}, noise {machine.noise:.2f}"
        )
        runs = [(scenario, seed) for scenario in SCENARIOS for seed in range(1, options.seeds + 1)]
        pairs = [
            comparison.run(scenario, seed, machine) for scenario, seed in track(runs, "live runs", console=console)
        ]
    console.print(table(pairs))
    for fault in dict.fromkeys(f"{pair.live.description}: {fault}" for pair in pairs for fault in pair.live.faults):
        console.print(f"[bold white on red] INVALID RUN [/] {escape(fault)}")
    context: dict[str, Any] = {
        "machine": machine_fingerprint().description,
        "family": options.family,
        "revision": folder.manifest.revision,
        "policy": options.policy,
        "margin": options.margin,
        "duration_s": options.duration,
        "server_cores": options.server_cores,
        "generator_cores": options.generator_cores,
        "simulated_machine": asdict(machine),
        "runs": [
            {
                "scenario": asdict(pair.scenario),
                "seed": pair.seed,
                "live": score_json(pair.live),
                "simulated": score_json(pair.simulated),
            }
            for pair in pairs
        ],
    }
    write_json(options.out / "sim_vs_live.json", context)
    draw_side_by_side([(p.scenario.name, p.live, p.simulated) for p in pairs], options.out / "sim_vs_live.png")
    console.print(f"written: {options.out / 'sim_vs_live.json'}, {options.out / 'sim_vs_live.png'}")


def _check_loaded(server: servers.Server, family: str, names: Sequence[str]) -> None:
    for name in names:
        if fetch(f"{server.url}/v2/models/{family}/versions/{name}").status != 200:
            raise servers.ServerError(f"the gateway does not serve {family}/{name}; its log says why")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench-sim", description="one workload live and simulated, side by side")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="sentiment")
    parser.add_argument("--policy", default="slack-fraction")
    parser.add_argument("--margin", type=float, default=1.12)
    parser.add_argument("--slots", type=int, default=1, help="batches that the gateway runs at a time (default 1)")
    parser.add_argument("--seeds", type=int, default=3, help="workloads of each scenario (default 3)")
    parser.add_argument("--duration", type=float, default=15.0, help="seconds of each workload (default 15)")
    parser.add_argument("--server-cores", type=int, nargs="*", default=[0], help="none: not pinned (default 0)")
    parser.add_argument("--generator-cores", type=int, nargs="*", default=[1], help="none: not pinned (default 1)")
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    return parser


if __name__ == "__main__":
    main()
