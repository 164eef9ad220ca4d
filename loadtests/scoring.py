"""How well a workload was answered. Pure: the live run and the simulation hand in the same arrays.

Effective accuracy is the share of *all* arrivals that got the correct answer on time; attainment is the share of all
arrivals that got any answer on time. Refused, late and lost requests count against both. Latency runs from the
intended start, so a stalled generator or server cannot hide its own delays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtests.generator_faults import Sending, faults_of_the_run, percentile
from loadtests.outcomes import Fate, Results
from loadtests.traces import Seconds
from loadtests.workload import Workload


@dataclass(frozen=True, slots=True)
class SloScore:
    """Score of the requests of one SLO."""

    slo_s: float
    arrivals: int
    effective_accuracy: float
    attainment: float
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Score:
    """The judgement of one run. Shares are of all arrivals, percentiles and `accuracy` of the answered ones.

    `escalated` is the share of the answered that several variants answered, one after the other. `overhead_p50_s` is
    the median of what the answered waited beyond the server's own account of its time (network, HTTP, dispatch lag),
    `compute_p50_s` the median of the server's compute time. `faults` says why the run is not a measurement; empty for
    a simulation and for a generator that kept up.
    """

    description: str
    arrivals: int
    rate: float
    effective_accuracy: float
    effective_accuracy_error: float
    attainment: float
    accuracy: float
    p50_s: float
    p99_s: float
    p999_s: float
    overhead_p50_s: float
    compute_p50_s: float
    fates: dict[str, float]
    answers: dict[str, float]
    escalated: float
    by_slo: tuple[SloScore, ...]
    lag_p50_s: float
    lag_p99_s: float
    generator_cpu: float
    most_in_flight: int
    faults: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether the generator kept up, so that the numbers are the server's."""
        return not self.faults


def score(workload: Workload, label: NDArray[np.int64], results: Results, sending: Sending | None = None) -> Score:
    """Judge a run. `label` int64 [m] holds the true labels of the samples that the workload indexes."""
    answered = results.fate == Fate.ANSWERED
    on_time = in_time(workload, results)
    correct = answered & (results.label == label[workload.sample])
    good = correct_in_time(workload, label, results)
    effective = float(good.mean())
    latency_s = results.latency_s[answered]
    names, counts = np.unique(results.variant[answered].astype(str), return_counts=True)
    return Score(
        description=workload.description,
        arrivals=len(workload),
        rate=len(workload) / max(workload.duration_s, 1e-9),
        effective_accuracy=effective,
        effective_accuracy_error=math.sqrt(effective * (1.0 - effective) / len(workload)),
        attainment=float(on_time.mean()),
        accuracy=float(correct[answered].mean()) if answered.any() else math.nan,
        p50_s=percentile(latency_s, 50.0),
        p99_s=percentile(latency_s, 99.0),
        p999_s=percentile(latency_s, 99.9),
        overhead_p50_s=percentile(_known((results.latency_s - results.total_s)[answered]), 50.0),
        compute_p50_s=percentile(_known(results.compute_s[answered]), 50.0),
        fates={str(fate): float((results.fate == fate).mean()) for fate in Fate},
        answers={str(name): int(count) / len(latency_s) for name, count in zip(names, counts, strict=True)},
        escalated=float(results.escalated[answered].mean()) if answered.any() else 0.0,
        by_slo=tuple(
            SloScore(
                slo_s=float(slo_s),
                arrivals=int(of_slo.sum()),
                effective_accuracy=float(good[of_slo].mean()),
                attainment=float(on_time[of_slo].mean()),
                p50_s=percentile(results.latency_s[of_slo & answered], 50.0),
                p99_s=percentile(results.latency_s[of_slo & answered], 99.0),
            )
            for slo_s in np.unique(workload.slo_s)
            if (of_slo := workload.slo_s == slo_s).any()
        ),
        lag_p50_s=percentile(sending.lag_s, 50.0) if sending else 0.0,
        lag_p99_s=percentile(sending.lag_s, 99.0) if sending else 0.0,
        generator_cpu=sending.cpu_share if sending else 0.0,
        most_in_flight=sending.most_in_flight if sending else 0,
        faults=faults_of_the_run(results, sending) if sending else (),
    )


def turned_late(workload: Workload, results: Results, sending: Sending) -> float:
    """The share of all requests that would have been in time, had they left when they should."""
    late = (results.fate == Fate.ANSWERED) & ~in_time(workload, results)
    return float((late & (results.latency_s - sending.lag_s <= workload.slo_s)).mean())


def in_time(workload: Workload, results: Results) -> NDArray[np.bool_]:
    """Whether each request was answered by its deadline, up to and including its last moment."""
    met: NDArray[np.bool_] = (results.fate == Fate.ANSWERED) & (results.latency_s <= workload.slo_s)
    return met


def correct_in_time(workload: Workload, label: NDArray[np.int64], results: Results) -> NDArray[np.bool_]:
    """Whether each request was answered by its deadline and rightly; `label` as in `score`."""
    right: NDArray[np.bool_] = results.label == label[workload.sample]
    return in_time(workload, results) & right


def is_in_time(fate: Fate, latency_s: float, slo_s: float) -> bool:
    """The same of one request, as it ends."""
    return fate is Fate.ANSWERED and latency_s <= slo_s


def _known(values: Seconds) -> Seconds:
    return values[~np.isnan(values)]
