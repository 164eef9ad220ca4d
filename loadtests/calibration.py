"""What the simulator must be told of a machine: measured once, on a workload that is not compared afterwards."""

from __future__ import annotations

import math
import statistics

import numpy as np

from loadtests.samples import Samples
from loadtests.scoring import Score, score
from loadtests.simulator import Machine, simulate
from loadtests.workload import Workload
from router.contract import Family
from router.policies.fixed import Fixed

_TAIL_SCORE = 1.645
"""Standard deviations between median and 95th percentile of a normal distribution."""


def capacity_per_s(family: Family, samples: Samples, variant: str) -> float:
    """Requests per second that one slot answers one by one with that variant, over the samples' size classes."""
    index = family.index(variant)
    if index is None:
        raise KeyError(variant)
    batch_of_one_s = np.array([row[0] for row in family.variants[index].latency.median_s])
    return 1.0 / float(batch_of_one_s[samples.size_class].mean())


def profiled_noise(family: Family) -> float:
    """Standard deviation of the logarithm of a batch's seconds, from the profile's medians and 95th percentiles."""
    ratios = [
        tail_s / median_s
        for variant in family.variants
        for medians, tails in zip(variant.latency.median_s, variant.latency.tail_s, strict=True)
        for median_s, tail_s in zip(medians, tails, strict=True)
    ]
    return math.log(max(1.0, statistics.median(ratios))) / _TAIL_SCORE


def calibrate(live: Score, workload: Workload, family: Family, samples: Samples, variant: str, slots: int) -> Machine:
    """The machine on which a live run, pinned to one variant, gave this score.

    HTTP's share is the median of what requests took beyond the server's own account of them, half of it each way.
    Slowdown is the median compute time over the simulated one: serving shares its cores with HTTP, profiling did not.
    """
    ideal = Machine(slots=slots, noise=profiled_noise(family))
    simulation = simulate(workload, family, samples, Fixed(variant), ideal, np.random.default_rng(0))
    simulated = score(workload, samples.label, simulation.results)
    one_way_s = live.overhead_p50_s / 2.0
    return Machine(
        slots=slots,
        noise=ideal.noise,
        slowdown=live.compute_p50_s / simulated.compute_p50_s,
        inbound_s=one_way_s,
        outbound_s=one_way_s,
    )
