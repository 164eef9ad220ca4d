"""Three replicas behind HAProxy: as good as one with a third of the load? And do they bear what is predicted?

`make bench-fleet`: real gateways in network namespaces, the shipped configuration of HAProxy, an open-loop generator.
So that replicas, HAProxy and generator do not compete for the processors of one machine, each replica has a quota, as a
container has, and the rest is left to the others.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import orjson

from loadtests.calibration import capacity_per_s
from loadtests.compare import profiled_family
from loadtests.cpu_quotas import QuotaError
from loadtests.fleet import fleet
from loadtests.fleet_capacity import Predictor, crossing, deviation
from loadtests.fleet_ends import ended, told
from loadtests.fleet_load import Generator
from loadtests.fleet_trial import Trial, Turn
from loadtests.paired import mean_difference
from loadtests.report import write_json
from loadtests.revision import commit_of
from loadtests.samples import read_samples
from loadtests.servers import ServerError
from loadtests.traces import TraceError
from router.family import Family
from variants.fingerprint import machine_fingerprint
from variants.repository import Repository, RepositoryError

REPLICAS = 3
MEASURED = ("slowdown", "batch_s", "request_s", "inbound_s", "interference")
PARTS = ("balance", "capacity", "ends")
SLOW_S = 0.002
"""Variants whose row takes so long are loaded by default: slots are to be the limit, not event loops or HAProxy."""
SHARE = 0.7
"""Of this machine's processors for all replicas together, by default."""
SLO = 10.0
"""Rows of the best variant on a replica, one after the other, by default."""
LOADS = (0.4, 0.7, 0.9)
"""Of the predicted capacity."""
STEADY = 0.1
"""By so much, as a share, batches may take more or less after a measurement than before it."""
STEPS = (0.8, 0.9, 1.0, 1.1, 1.2)
"""Rates that are measured, over the predicted capacity."""


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _variants(options: argparse.Namespace, repository: Repository) -> list[str]:
    if options.variants:
        return list(options.variants)
    folder = repository.open(options.family)
    family = profiled_family(folder, [variant.name for variant in folder.manifest.variants], ())
    slow = [variant.name for variant in family.variants if variant.latency.median_s[0][0] >= SLOW_S]
    return slow or [family.variants[family.ladder[-1]].name]


def _run(options: argparse.Namespace) -> None:
    repository = Repository(options.models)
    folder = repository.open(options.family)
    names = _variants(options, repository)
    family, samples = profiled_family(folder, names, ()), read_samples(folder)
    share = options.share or min(1.0, round(SHARE * len(os.sched_getaffinity(0)) / REPLICAS, 2))
    best_s = 1.0 / capacity_per_s(family, samples, family.variants[family.ladder[-1]].name) / share
    environment: Mapping[str, str] = {
        "PARETO_CONFIG": "",
        "PARETO_LAME_DUCK_S": "2",
        "PARETO_POLICY": options.policy,
        "PARETO_SLOTS": "1",
        "PARETO_FAMILIES": orjson.dumps({options.family: {"load": names}}).decode(),
    }
    context: dict[str, Any] = {
        "machine": machine_fingerprint().description,
        "commit": commit_of(),
        "family": options.family,
        "variants": names,
        "policy": options.policy,
        "share_each": share,
        "attainment": options.attainment,
        "slo_s": options.slo_ms / 1e3 if options.slo_ms else SLO * best_s,
        "seconds": options.seconds,
    }
    with Generator(samples) as generator, fleet(options.models, REPLICAS, environment, share=share) as running:
        trial = Trial(running, generator, family, samples, share=share, seconds=options.seconds, slo_s=context["slo_s"])
        _say(f"SLO {trial.slo_s * 1e3:.0f} ms")
        if "balance" in options.parts:
            rates = options.rates
            if not rates:
                whole = _capacity(_predictor(trial, family, options), family, REPLICAS, options)
                rates = [share_of * whole for share_of in LOADS]
            turns = _turns(trial, rates, options.rounds)
            context["turns"] = [asdict(turn) for turn in turns]
            _say(_balance(turns))
        if "capacity" in options.parts:
            context["capacities"] = _capacities(trial, family, options)
        if "ends" in options.parts:
            context["ends"] = ended(running, samples, family.variants[family.ladder[0]].name)
            _say(told(context["ends"]))
        context["faults"] = trial.faults
    for fault in dict.fromkeys(context["faults"]):
        _say(f"NOT A MEASUREMENT: {fault}")
    write_json(options.out / "fleet.json", context)


def _predictor(trial: Trial, family: Family, options: argparse.Namespace) -> Predictor:
    """What is predicted of the machine as it is now: what a shared one has to give changes within minutes."""
    machine = trial.calibrate()
    measured = ", ".join(f"{name} {getattr(machine, name):.3g}" for name in MEASURED)
    _say(f"a replica: {measured}")
    samples = trial.samples
    return Predictor(family, samples, options.policy, machine, trial.slo_s, options.seconds, options.seeds)


def _capacity(predictor: Predictor, family: Family, replicas: int, options: argparse.Namespace) -> float:
    fastest = max(capacity_per_s(family, predictor.samples, variant.name) for variant in family.variants)
    return predictor.capacity(replicas, options.attainment, 4.0 * replicas * fastest)


def _turns(trial: Trial, rates: Sequence[float], rounds: int) -> list[Turn]:
    """Each rate in turns."""
    found = []
    for number in range(rounds):
        for rate in rates:
            found.append(trial.turn(rate, number))
            _say(
                f"round {number + 1}, {rate:.0f}/s: in time {found[-1].balanced.attainment:.2%} of all behind HAProxy, "
                f"{found[-1].alone.attainment:.2%} of a third on one"
            )
    return found


def _capacities(trial: Trial, family: Family, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What was predicted of a calibration just before, and what was measured around it, in turns."""
    found: list[dict[str, Any]] = []
    predictor = _predictor(trial, family, options)
    for number, replicas in product(range(options.rounds), range(1, REPLICAS + 1)):
        capacity = _capacity(predictor, family, replicas, options)
        rates = [step * capacity for step in STEPS]
        live = trial.attained(replicas, rates, 200 + number)
        simulated = [predictor.attainment(replicas, rate) for rate in rates]
        holds, off = crossing(rates, live, options.attainment), deviation(capacity, rates, live, options.attainment)
        slowdown = predictor.machine.slowdown
        predictor = _predictor(trial, family, options)
        change = predictor.machine.slowdown / slowdown - 1.0
        found.append(
            {
                "replicas": replicas,
                "predicted": capacity,
                "holds": holds,
                "off": off,
                "rates": rates,
                "live": live,
                "simulated": simulated,
                "change": change,
            }
        )
        _say(
            f"round {number + 1}, {replicas} replicas: {options.attainment:.0%} in time up to {holds:.0f}/s, predicted "
            f"{capacity:.0f}/s, {off}; live {_percent(live)}, simulated {_percent(simulated)} "
            f"at {_percent(STEPS)}"
            + ("" if abs(change) <= STEADY else f"; NOT A MEASUREMENT: batches took {change:+.0%}")
        )
    for replicas in range(1, REPLICAS + 1):
        offs = [one["off"] for one in found if one["replicas"] == replicas and abs(one["change"]) <= STEADY]
        _say(f"{replicas} replicas: predicted is off by {', '.join(offs) or 'nobody knows'}")
    return found


def _balance(turns: Sequence[Turn]) -> str:
    lines = []
    for rate in dict.fromkeys(turn.rate for turn in turns):
        own = [turn for turn in turns if turn.rate == rate]
        differences = [(turn.balanced.attainment - turn.alone.attainment) * 100.0 for turn in own]
        right = [(turn.balanced.effective_accuracy - turn.alone.effective_accuracy) * 100.0 for turn in own]
        in_time, correct = mean_difference([differences]), mean_difference([right])
        lines.append(
            f"{rate:.0f}/s: in time {fmean(turn.balanced.attainment for turn in own):.2%} behind HAProxy, "
            f"{fmean(turn.alone.attainment for turn in own):.2%} of a third on one: {in_time.mean:+.2f} points "
            f"[{in_time.low:+.2f}, {in_time.high:+.2f}]; correct in time {correct.mean:+.2f} "
            f"[{correct.low:+.2f}, {correct.high:+.2f}]; p99 {fmean(turn.balanced.p99_s for turn in own) * 1e3:.1f} "
            f"and {fmean(turn.alone.p99_s for turn in own) * 1e3:.1f} ms"
        )
    return "\n".join(lines)


def _percent(shares: Sequence[float]) -> str:
    return " ".join(f"{share * 100.0:.1f}" for share in shares) + " %"


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write `fleet.json`. Ends with one line where that cannot be done."""
    parser = argparse.ArgumentParser(prog="bench-fleet", description="three replicas behind HAProxy")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="sentiment")
    parser.add_argument("--variants", nargs="*", help="loaded; by default those that take two milliseconds or more")
    parser.add_argument("--policy", default="casc")
    parser.add_argument(
        "--share", type=float, help=f"of a processor, for each replica; default: {SHARE:g} of all for all together"
    )
    parser.add_argument("--slo-ms", type=float, help=f"default: {SLO:g} times a row of the best variant on a replica")
    parser.add_argument("--rates", type=float, nargs="+", help="of the whole fleet, requests a second, for `balance`")
    parser.add_argument("--attainment", type=float, default=0.95, help="that defines capacity (default 0.95)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each load (default 12)")
    parser.add_argument("--seeds", type=int, default=5, help="simulated loads of each rate (default 5)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("loadtests/results"))
    options = parser.parse_args(arguments)
    # Whoever ends this, replicas and their namespaces end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        _run(options)
    except (RepositoryError, ServerError, QuotaError, TraceError, OSError, KeyError, ValueError) as error:
        sys.stdout.write(f"bench-fleet: {error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
