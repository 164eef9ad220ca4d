"""What the simulator must be told of a machine: measured once, on a workload that is not compared afterwards."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loadtests.machine import Machine
from loadtests.outcomes import Fate
from loadtests.samples import Samples
from loadtests.scoring import Score, score
from loadtests.simulator import Simulation, simulate
from loadtests.traces import Seconds
from loadtests.workload import Workload
from router.family import Family
from router.policies.fixed import Fixed

_TAIL_SCORE = 1.645
"""Standard deviations between median and 95th percentile of a normal distribution."""
_ROUNDS = 4
"""Of fitting slowdown and overhead, each of which changes what the other explains; the last change little any more."""
_HALVINGS = 12
_SLOWDOWNS = (0.5, 4.0)
_MOST_BATCH_S = 0.002
_LEAST_REFUSED = 0.2
_WAYS = 200
"""Quantiles kept of the ways to and fro."""
TYPICAL = Machine(slowdown=1.1, inbound_s=0.0004, outbound_s=0.0004, batch_s=0.0001, request_s=0.00025)
"""A gateway that shares one core with its event loop, where nothing was measured: rounded from calibrations of two-core
virtual machines."""


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


@dataclass(frozen=True, slots=True)
class Pinned:
    """A live run pinned to one variant: its score, and processor seconds of the server's event loop meanwhile.

    `ways_s` float64 [n] has what each answered request took beyond the server's own account of it.
    """

    variant: str
    workload: Workload
    live: Score
    loop_s: float
    ways_s: Seconds


def calibrate(
    runs: Sequence[Pinned], family: Family, samples: Samples, slots: int, overrun: Pinned | None = None
) -> Machine:
    """The machine on which these live runs, of variants that differ in cost, gave these scores.

    Way to and fro: what requests took beyond the server's own account, half of the median each way. Processor time of a
    request: what the event loop took for one of the cheapest variant, where there are most of them. Slowdown and
    seconds beside the model: such that the simulated median compute times of the dearest and of the next cheaper
    variant are the live ones; with one run, batches cost nothing beside the model. Interference of the event loop: the
    same, of the cheapest variant; 1 with fewer than three runs. A refusal takes what `overrun`, a run of which a good
    part was refused, leaves of the loop's time when its answers have had theirs. Raises `ValueError` without runs.
    """
    if not runs:
        raise ValueError("calibrate: expected at least one run")
    ideal = Machine(slots=slots, noise=profiled_noise(family))
    by_work = sorted(runs, key=lambda run: -_row_s(family, run.variant))
    request_s = by_work[-1].loop_s / len(by_work[-1].workload)
    ways_s = np.concatenate([run.ways_s for run in by_work[:2]])
    one_way_s = float(np.median(ways_s)) / 2.0
    ways_s = np.quantile(ways_s, (np.arange(_WAYS) + 0.5) / _WAYS)
    machine = replace(
        ideal, request_s=request_s, inbound_s=one_way_s, outbound_s=one_way_s, ways_s=tuple(ways_s.tolist())
    )
    if overrun is not None:
        machine = replace(machine, refused_s=_refused_s(overrun, request_s))
    dear, *others = by_work[:2]
    cheap = by_work[-1] if len(by_work) > 2 else None
    for _ in range(_ROUNDS):

        def slower(slowdown: float, of: Machine = machine) -> float:
            return _compute_s(dear, family, samples, replace(of, slowdown=slowdown)) - dear.live.compute_p50_s

        machine = replace(machine, slowdown=_root(slower, *_SLOWDOWNS))
        if others:

            def longer(batch_s: float, of: Machine = machine) -> float:
                return (
                    _compute_s(others[0], family, samples, replace(of, batch_s=batch_s)) - others[0].live.compute_p50_s
                )

            machine = replace(machine, batch_s=_root(longer, 0.0, _MOST_BATCH_S))
        if cheap is not None:

            def disturbed(interference: float, run: Pinned = cheap, of: Machine = machine) -> float:
                return _compute_s(run, family, samples, replace(of, interference=interference)) - run.live.compute_p50_s

            machine = replace(machine, interference=_root(disturbed, 0.0, 1.0))
    return machine


def _refused_s(overrun: Pinned, request_s: float) -> float | None:
    """Seconds of the event loop for a refusal; `None` where too few were refused to tell."""
    share = overrun.live.fates[Fate.REFUSED]
    if share < _LEAST_REFUSED:
        return None
    per_request_s = overrun.loop_s / len(overrun.workload)
    return min(max((per_request_s - (1.0 - share) * request_s) / share, 0.0), request_s)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is zero, by bisection; an end of the interval where it is zero beyond."""
    if rising(low) >= 0.0:
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < 0.0 else (low, middle)
    return (low + high) / 2.0


def _simulated(run: Pinned, family: Family, samples: Samples, machine: Machine) -> Simulation:
    return simulate(run.workload, family, samples, Fixed(run.variant), machine, np.random.default_rng(0))


def _compute_s(run: Pinned, family: Family, samples: Samples, machine: Machine) -> float:
    simulation = _simulated(run, family, samples, machine)
    return score(run.workload, samples.label, simulation.results).compute_p50_s


def _row_s(family: Family, variant: str) -> float:
    """Profiled seconds of one row of the smallest size."""
    return next(known.latency.median_s[0][0] for known in family.variants if known.name == variant)
