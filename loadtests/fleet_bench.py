"""Three replicas behind HAProxy: as good as one with a third of the load? And do they bear what is predicted?

`make bench-fleet`: real gateways in network namespaces, the shipped configuration of HAProxy, an open-loop generator.
On a machine of few cores replicas, HAProxy and generator compete, so like is compared with like. Three replicas behind
HAProxy are compared with the same three, each of which is sent a third of the load directly: only the balancing
differs. Capacity is that of replicas whose slots have a core each, as many as there are cores; those that are not
behind HAProxy are sent as much directly.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtests.calibration import Pinned, calibrate, capacity_per_s
from loadtests.compare import profiled_family
from loadtests.fleet import Fleet, fleet
from loadtests.fleet_capacity import Predictor, crossing
from loadtests.fleet_ends import ended, told
from loadtests.fleet_load import Generator, poisson
from loadtests.machine import Machine
from loadtests.paired import mean_difference
from loadtests.report import write_json
from loadtests.revision import commit_of
from loadtests.samples import Samples, read_samples
from loadtests.scoring import Score, generator_faults, score
from loadtests.sender import Place
from loadtests.servers import ServerError
from loadtests.traces import TraceError
from loadtests.workload import Workload
from router.contract import Family
from variants.fingerprint import machine_fingerprint
from variants.repository import Repository, RepositoryError

REPLICAS = 3
MEASURED = ("slowdown", "batch_s", "request_s", "inbound_s", "interference")
PARTS = ("balance", "capacity", "ends")
SLOW_S = 0.001
"""Variants whose row takes so long are loaded by default: slots are to be the limit, not event loops or HAProxy."""
CALIBRATION_LOAD = 0.6
"""Of what a slot answers one by one."""
LOADS = (0.4, 0.6, 0.8)
"""Of what the cores bear with the cheapest variant, one row at a time."""
STEPS = (0.7, 0.85, 1.0, 1.15, 1.3)
"""Rates that are measured, over the predicted capacity."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of one load behind HAProxy, and of the same requests sent directly to replicas at random."""

    rate: float
    balanced: Score
    direct: Score


class Bench:
    """A fleet with one family, and a generator."""

    def __init__(
        self, options: argparse.Namespace, running: Fleet, generator: Generator, family: Family, samples: Samples
    ) -> None:
        self._options = options
        self._fleet = running
        self._generator = generator
        self.family = family
        self.samples = samples
        self.faults: list[str] = []
        best_s = 1.0 / capacity_per_s(family, samples, family.variants[family.ladder[-1]].name)
        self.slo_s = options.slo_ms / 1e3 if options.slo_ms else 10.0 * best_s
        front = running.front.server
        self.count = len(running.replicas)
        self._places: list[Place] = [
            (front.address, front.port),
            *((replica.server.address, replica.server.port) for replica in running.replicas),
        ]

    def calibrate(self) -> Machine:
        """The machine that one replica is while the others are as busy, from direct load pinned to variants."""
        runs = []
        ladder = self.family.ladder
        for rung in dict.fromkeys((ladder[-1], ladder[len(ladder) // 2], ladder[0])):
            variant = self.family.variants[rung].name
            rate = self.count * CALIBRATION_LOAD * capacity_per_s(self.family, self.samples, variant)
            workload = poisson(rate, self._options.seconds, 1.0, self.samples, 0)
            to = self._at_random(len(workload), 0)
            first = self._fleet.replicas[0].server
            loop_s = first.loop_s()
            results, sending = self._generator.send(workload, self._places, to, variant)
            loop_s = first.loop_s() - loop_s
            self.faults += generator_faults(results, sending)
            own = to == 1
            part, of_part = workload.of(own), results.of(own)
            ways_s = of_part.latency_s - of_part.total_s
            live = score(part, self.samples.label, of_part)
            runs.append(Pinned(variant, part, live, loop_s, ways_s[np.isfinite(ways_s)]))
        return calibrate(runs, self.family, self.samples, slots=1)

    def turns(self, rates: Sequence[float]) -> list[Turn]:
        """Each rate in turns, behind HAProxy first or second."""
        found = []
        for number in range(self._options.rounds):
            for rate in rates:
                workload = self._draw(rate, 100 + number)
                both = {
                    "balanced": np.zeros(len(workload), dtype=np.int64),
                    "direct": self._at_random(len(workload), number),
                }
                order = list(both) if number % 2 == 0 else list(both)[::-1]
                scores = {name: self._score(workload, both[name]) for name in order}
                found.append(Turn(rate, scores["balanced"], scores["direct"]))
                _say(
                    f"round {number + 1}, {rate:.0f}/s: in time {scores['balanced'].attainment:.2%} "
                    f"balanced, {scores['direct'].attainment:.2%} one by one"
                )
        return found

    def attained(self, replicas: int, rates: Sequence[float], seed: int) -> list[float]:
        """The share in time at each rate of so many replicas behind HAProxy, while the others have as much directly."""
        out = {replica.name for replica in self._fleet.replicas[replicas:]}
        self._fleet.front.take_out(out)
        try:
            found = []
            for rate in rates:
                whole = self._draw(rate * self.count / replicas, seed)
                to = self._at_random(len(whole), seed)
                to[to <= replicas] = 0
                results, sending = self._generator.send(whole, self._places, to)
                self.faults += generator_faults(results, sending)
                behind = to == 0
                found.append(score(whole.of(behind), self.samples.label, results.of(behind)).attainment)
        finally:
            self._fleet.front.take_out(set())
        return found

    def _draw(self, rate: float, seed: int) -> Workload:
        return poisson(rate, self._options.seconds, self.slo_s, self.samples, seed)

    def _at_random(self, count: int, seed: int) -> NDArray[np.int64]:
        """A replica for each request, 1 and up, int64 [n]: of a Poisson process, each gets a Poisson process."""
        return np.random.default_rng([seed, 1]).integers(1, self.count + 1, count)

    def _score(self, workload: Workload, to: NDArray[np.int64]) -> Score:
        results, sending = self._generator.send(workload, self._places, to)
        found = score(workload, self.samples.label, results, sending)
        self.faults += found.faults
        return found


def _cores() -> list[int]:
    """The cores that this process may run on, three at most."""
    return sorted(os.sched_getaffinity(0))[:REPLICAS]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _variants(options: argparse.Namespace, repository: Repository) -> list[str]:
    folder = repository.open(options.family)
    if options.variants:
        return list(options.variants)
    names = [variant.name for variant in folder.manifest.variants if variant.load_by_default]
    family = profiled_family(folder, names, ())
    slow = [variant.name for variant in family.variants if variant.latency.median_s[0][0] >= SLOW_S]
    return slow or [family.variants[family.ladder[-1]].name]


def _run(options: argparse.Namespace) -> None:
    repository = Repository(options.models)
    folder = repository.open(options.family)
    names = _variants(options, repository)
    family, samples = profiled_family(folder, names, ()), read_samples(folder)
    environment: Mapping[str, str] = {
        "PARETO_CONFIG": "",
        "PARETO_LAME_DUCK_S": "2",
        "PARETO_POLICY": options.policy,
        "PARETO_FAMILIES": orjson.dumps({options.family: {"load": names}}).decode(),
    }
    context: dict[str, Any] = {
        "machine": machine_fingerprint().description,
        "commit": commit_of(),
        "family": options.family,
        "variants": names,
        "policy": options.policy,
        "seconds": options.seconds,
    }
    with Generator(samples) as generator:
        if "capacity" in options.parts:
            cores = _cores()
            own = [{"PARETO_SLOT_CORES": str(core)} for core in cores]
            with fleet(options.models, len(cores), environment, own=own) as running:
                bench = Bench(options, running, generator, family, samples)
                context["capacity"] = _capacities(bench, options, _predictor(bench, options))
                context["faults"] = bench.faults
        if {"balance", "ends"} & set(options.parts):
            with fleet(options.models, REPLICAS, {**environment, "PARETO_SLOTS": "1"}) as running:
                bench = Bench(options, running, generator, family, samples)
                cheapest = family.variants[family.ladder[0]].name
                # Of cores and replicas, the fewer are the limit.
                full = min(REPLICAS, len(_cores())) * capacity_per_s(family, samples, cheapest)
                if "balance" in options.parts:
                    turns = bench.turns(options.rates or [share * full for share in LOADS])
                    context["turns"] = [asdict(turn) for turn in turns]
                    _say(_balance(turns))
                if "ends" in options.parts:
                    context["ends"] = ended(running, samples, cheapest)
                    _say(told(context["ends"]))
                context["faults"] = [*context.get("faults", ()), *bench.faults]
    for fault in dict.fromkeys(context["faults"]):
        _say(f"NOT A MEASUREMENT: {fault}")
    write_json(options.out / "fleet.json", context)


def _predictor(bench: Bench, options: argparse.Namespace) -> Predictor:
    machine = bench.calibrate()
    measured = ", ".join(f"{name} {getattr(machine, name):.3g}" for name in MEASURED)
    _say(f"SLO {bench.slo_s * 1e3:.0f} ms; a replica while the others are as busy: {measured}")
    return Predictor(bench.family, bench.samples, options.policy, machine, bench.slo_s, options.seconds, options.seeds)


def _capacities(bench: Bench, options: argparse.Namespace, predictor: Predictor) -> dict[str, Any]:
    """What was predicted, and measured around each prediction, in turns."""
    family, samples = bench.family, bench.samples
    fastest = max(capacity_per_s(family, samples, variant.name) for variant in family.variants)
    counts = range(1, bench.count + 1)
    predicted = {count: predictor.capacity(count, options.attainment, 4.0 * count * fastest) for count in counts}
    found: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for count, capacity in predicted.items():
            rates = [step * capacity for step in STEPS]
            live = bench.attained(count, rates, 200 + number)
            simulated = [predictor.attainment(count, rate) for rate in rates] if number == 0 else []
            measured = crossing(rates, live, options.attainment)
            found.append({"replicas": count, "rates": rates, "live": live, "simulated": simulated, "holds": measured})
            _say(
                f"round {number + 1}, {count} replicas: holds to {measured:.0f}/s, predicted {capacity:.0f}/s, "
                f"{capacity / measured - 1.0:+.0%}; live {_percent(live)} at {_percent(STEPS)}"
                + (f"; simulated {_percent(simulated)}" if simulated else "")
            )
    for count, capacity in predicted.items():
        own = [one["holds"] for one in found if one["replicas"] == count]
        # Where not even the lowest rate was attained, capacity lies somewhere below it.
        up_to = "up to" if min(own) > STEPS[0] * capacity else "not even at, or just up to,"
        _say(
            f"{count} replicas: {options.attainment:.0%} in time {up_to} {fmean(own):.0f}/s "
            f"({min(own):.0f}-{max(own):.0f}), predicted {capacity:.0f}/s: {capacity / fmean(own) - 1.0:+.1%}"
        )
    machine = asdict(predictor.machine)
    return {
        "slo_s": bench.slo_s,
        "simulated_machine": machine,
        "predicted": {str(count): rate for count, rate in predicted.items()},
        "measured": found,
    }


def _balance(turns: Sequence[Turn]) -> str:
    lines = []
    for rate in dict.fromkeys(turn.rate for turn in turns):
        own = [turn for turn in turns if turn.rate == rate]
        differences = [(turn.balanced.attainment - turn.direct.attainment) * 100.0 for turn in own]
        right = [(turn.balanced.effective_accuracy - turn.direct.effective_accuracy) * 100.0 for turn in own]
        in_time, correct = mean_difference([differences]), mean_difference([right])
        lines.append(
            f"{rate:.0f}/s: in time {fmean(turn.balanced.attainment for turn in own):.2%} behind HAProxy, "
            f"{fmean(turn.direct.attainment for turn in own):.2%} one by one: {in_time.mean:+.2f} points "
            f"[{in_time.low:+.2f}, {in_time.high:+.2f}]; correct in time {correct.mean:+.2f} "
            f"[{correct.low:+.2f}, {correct.high:+.2f}]; p99 {fmean(turn.balanced.p99_s for turn in own) * 1e3:.1f} "
            f"and {fmean(turn.direct.p99_s for turn in own) * 1e3:.1f} ms"
        )
    return "\n".join(lines)


def _percent(shares: Sequence[float]) -> str:
    return " ".join(f"{share * 100.0:.1f}" for share in shares) + " %"


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write `fleet.json`. Ends with one line where that cannot be done."""
    parser = argparse.ArgumentParser(prog="bench-fleet", description="three replicas behind HAProxy")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="sentiment")
    parser.add_argument("--variants", nargs="*", help="loaded; by default those that take a millisecond or more")
    parser.add_argument("--policy", default="casc")
    parser.add_argument("--slo-ms", type=float, help="default: ten times a row of the best variant")
    parser.add_argument("--rates", type=float, nargs="+", help="of the whole fleet, requests a second")
    parser.add_argument("--attainment", type=float, default=0.95, help="that defines capacity (default 0.95)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load (default 4)")
    parser.add_argument("--seeds", type=int, default=5, help="simulated loads of each rate (default 5)")
    parser.add_argument(
        "--parts", nargs="+", choices=("balance", "capacity", "ends"), default=["balance", "capacity", "ends"]
    )
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except (RepositoryError, ServerError, TraceError, OSError, KeyError, ValueError) as error:
        sys.stdout.write(f"bench-fleet: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
