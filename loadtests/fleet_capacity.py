"""The rate up to which a fleet attains its SLOs: predicted by simulation, and read off measured rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from loadtests.balanced import simulate_fleet
from loadtests.fleet_load import poisson
from loadtests.machine import Machine
from loadtests.samples import Samples
from loadtests.scoring import score
from router.family import Family
from router.limits import Limits
from router.policies import policy_named

LIMITS = Limits(reply_margin_s=0.002, ahead=0.7)
"""As the gateway's settings have them by default."""
_HALVINGS = 10


@dataclass(frozen=True, slots=True)
class Predictor:
    """What `pareto simulate` knows of a fleet; every prediction is the mean over `seeds` loads of `duration_s`."""

    family: Family
    samples: Samples
    policy: str
    machine: Machine
    slo_s: float
    duration_s: float
    seeds: int

    def attainment(self, replicas: int, rate: float) -> float:
        """The share answered in time."""
        return fmean(self._attainment(replicas, rate, seed) for seed in range(self.seeds))

    def capacity(self, replicas: int, attainment: float, at_most: float) -> float:
        """The highest rate that is attained so, by bisection to a 1024th of `at_most`, which is taken for too much.

        Raises `ValueError` where there is none.
        """
        low, high = 0.0, at_most
        for _ in range(_HALVINGS):
            middle = (low + high) / 2.0
            low, high = (middle, high) if self.attainment(replicas, middle) >= attainment else (low, middle)
        if low == 0.0:
            raise ValueError(
                f"not even {high:.0f} requests a second would be in time: the SLO is too short for this machine"
            )
        return low

    def _attainment(self, replicas: int, rate: float, seed: int) -> float:
        workload = poisson(rate, self.duration_s, self.slo_s, self.samples, seed)
        policies = [policy_named(self.policy) for _ in range(replicas)]
        rngs = [np.random.default_rng([seed, number]) for number in range(replicas)]
        results = simulate_fleet(workload, self.family, self.samples, policies, self.machine, rngs, LIMITS)
        return score(workload, self.samples.label, results).attainment


def crossing(rates: Sequence[float], attained: Sequence[float], target: float) -> float:
    """Where the share attained at these ascending rates falls below the target, by a line between two of them.

    Where it never does, the last rate; where it does from the first on, the first. Raises `ValueError` without rates.
    """
    if not rates:
        raise ValueError("crossing: expected at least one rate")
    for index, share in enumerate(attained):
        if share < target:
            if index == 0:
                return rates[0]
            part = (attained[index - 1] - target) / (attained[index - 1] - share)
            return rates[index - 1] + part * (rates[index] - rates[index - 1])
    return rates[-1]


def deviation(predicted: float, rates: Sequence[float], attained: Sequence[float], target: float) -> str:
    """By how much a predicted capacity is off the one that was measured; where all rates are on one side of that, by
    more or less than what is known. Raises `ValueError` without rates.
    """
    off = f"{predicted / crossing(rates, attained, target) - 1.0:+.1%}"
    if attained[0] < target:
        return f"more than {off}"
    return off if min(attained) < target else f"less than {off}"
