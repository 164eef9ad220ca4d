"""What it is worth to believe that a variant has drifted, in virtual time (`make bench-drift`).

One variant of a synthetic family is wrong on a fifth of all rows that it used to have right, whatever its confidence,
and the scheduler believes either what was measured when it was built, or what audits find (`correct_quality`), which is
the agreement with the best variant that it lost. Loads and noise are the same for both.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.machine import Machine
from loadtests.report import percent
from loadtests.samples import Samples
from loadtests.scoring import score
from loadtests.simulator import simulate
from loadtests.synthetic import synthetic
from loadtests.traces import Shape, arrivals
from loadtests.workload import SloMix, Workload
from router.agreement import corrected
from router.family import Family
from router.policies import policy_named

LOST = 0.2
MIX = "40:0.5,120:0.5"
MACHINE = Machine(slots=2)
RATES = (60.0, 200.0, 500.0)
"""Requests per second: the two slots answer 200 one by one with the best variant, and 2000 with the cheapest."""


class Compared(NamedTuple):
    """Effective accuracy: before the drift, with it believed as measured, and with what audits find believed."""

    sound: float
    ignored: float
    believed: float


def drifted(samples: Samples, variant: str, lost: float, rng: np.random.Generator) -> Samples:
    """The samples with this variant wrong on that share of all rows, drawn from those that it has right."""
    predicted = samples.predicted[variant].copy()
    right = np.flatnonzero(predicted == samples.label)
    wrong = rng.choice(right, round(lost * len(samples)), replace=False)
    predicted[wrong] = 1 - predicted[wrong]
    return replace(samples, predicted={**samples.predicted, variant: predicted})


def found(before: Samples, after: Samples, variant: str, best: str) -> float:
    """What audits of all rows find: by how much less often the variant gives the answer of the best one."""
    shares = [float((part.predicted[variant] == part.predicted[best]).mean()) for part in (before, after)]
    return max(0.0, shares[0] - shares[1])


def compare(variant: str, rate: float, policy: str, seed: int, duration_s: float) -> Compared:
    """One load, three times. Raises `KeyError` for a variant that the synthetic family does not have."""
    family, sound = synthetic(seed)
    worse = drifted(sound, variant, LOST, np.random.default_rng(seed))
    best = family.variants[family.ladder[-1]].name
    believed = corrected(family, {variant: found(sound, worse, variant, best)})
    rng = np.random.default_rng(seed)
    load = Workload.draw(arrivals("poisson", rate, duration_s, Shape(), rng), SloMix.parse(MIX), len(sound), rng)

    def effective(samples: Samples, what: Family) -> float:
        done = simulate(load, what, samples, policy_named(policy), MACHINE, np.random.default_rng(seed), truth=family)
        return score(load, samples.label, done.results).effective_accuracy

    return Compared(effective(sound, family), effective(worse, family), effective(worse, believed))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare variants and loads, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="casc")
    parser.add_argument("--variants", nargs="+", default=["v0", "v2", "v3"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=15.0, help="seconds of load")
    options = parser.parse_args(arguments)
    table = Table("drifts", "requests/s", "before", "ignored", "believed", "given back", title="effective accuracy")
    for variant in options.variants:
        for rate in RATES:
            runs = [compare(variant, rate, options.policy, seed, options.duration) for seed in range(options.seeds)]
            means = [fmean(column) for column in zip(*runs, strict=True)]
            gains = [100.0 * (run.believed - run.ignored) for run in runs]
            spread = f"{fmean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})"
            table.add_row(variant, f"{rate:g}", *map(percent, means), spread)
    Console().print(table)


if __name__ == "__main__":
    main()
