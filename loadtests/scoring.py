"""How well a workload was answered. Pure: the live run and the simulation hand in the same arrays.

Effective accuracy is the share of *all* arrivals that got the correct answer on time; attainment is the share of all
arrivals that got any answer on time. Refused, late and lost requests count against both. Latency runs from the
intended start, so a stalled generator or server cannot hide its own delays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.traces import Seconds
from loadtests.workload import Workload

MAX_LAG_P99_S = 0.001
"""A generator that sends later than this measures itself."""
MAX_GENERATOR_CPU = 0.9
"""Share of one core beyond which the generator counts as saturated."""


MAX_APART_S = 0.05
"""Generators that share a load begin within so long of each other, by their clocks."""

LOST, NO_SOCKET = "generator lost", "no socket"
"""Why requests were not sent that the generator is to blame for: it is gone, or its machine had no socket for them."""


class Fate(StrEnum):
    """What became of a request, as its sender sees it."""

    ANSWERED = "answered"
    REFUSED = "refused"
    EXPIRED = "expired"
    FAILED = "failed"
    NOT_SENT = "not_sent"


class Reply(NamedTuple):
    """What a sender got back for one request, in the words of `Results`."""

    fate: Fate
    label: int = -1
    variant: str = ""
    total_s: float = math.nan
    compute_s: float = math.nan
    escalated: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """What became of each request of a workload, in its order; arrays of its length n.

    `fate` and `variant` are object arrays of str; `label` int64 is the answered label's index, -1 where none was;
    `latency_s` float64 runs from the intended start to the answer, infinite where there was none. `total_s` and
    `compute_s` float64 are the server's own seconds for an answered request, not-a-number where it told none.
    `escalated` bool tells whether more than one variant answered it, one after the other. `reason` (object, str) is why
    a request has no answer, in the server's word or the client's; empty where nobody said.
    """

    fate: NDArray[np.object_]
    variant: NDArray[np.object_]
    label: NDArray[np.int64]
    latency_s: Seconds
    total_s: Seconds
    compute_s: Seconds
    escalated: NDArray[np.bool_]
    reason: NDArray[np.object_]

    @classmethod
    def pending(cls, count: int) -> Results:
        """Results of requests that nobody has sent yet, to be filled in."""
        fate = np.full(count, Fate.NOT_SENT, dtype=object)
        variant, reason = (np.full(count, "", dtype=object) for _ in range(2))
        unknown = np.full(count, math.nan)
        label, latency_s = np.full(count, -1, dtype=np.int64), np.full(count, math.inf)
        escalated = np.zeros(count, dtype=np.bool_)
        return cls(fate, variant, label, latency_s, unknown, unknown.copy(), escalated, reason)

    def take(self, index: int, reply: Reply, latency_s: float) -> None:
        """Write down what became of one request; `latency_s` runs from its intended start."""
        self.fate[index], self.label[index], self.variant[index] = reply.fate, reply.label, reply.variant
        self.total_s[index], self.compute_s[index] = reply.total_s, reply.compute_s
        self.escalated[index], self.reason[index] = reply.escalated, reply.reason
        if reply.fate is Fate.ANSWERED:
            self.latency_s[index] = latency_s

    def since(self, first: int) -> Results:
        """The results of the requests from that index on."""
        return self.of(slice(first, None))

    def of(self, which: slice | NDArray[np.bool_]) -> Results:
        """The results of some of the requests, in their order."""
        return Results(*(getattr(self, column.name)[which] for column in fields(self)))

    def put(self, which: slice, part: Results) -> None:
        """Write the results of some of the requests, which others have made, into these."""
        for column in fields(self):
            getattr(self, column.name)[which] = getattr(part, column.name)

    def save(self, path: Path) -> None:
        """Write as .npz."""
        arrays = {column.name: getattr(self, column.name) for column in fields(self)}
        arrays |= {name: arrays[name].astype(str) for name in ("fate", "variant", "reason")}
        with path.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote. Raises `OSError`, `KeyError` and `ValueError`."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = {column.name: archive[column.name] for column in fields(cls)}
        fate = np.array([Fate(word) for word in arrays["fate"].tolist()], dtype=object)
        words = {name: arrays[name].astype(object) for name in ("variant", "reason")}
        return cls(**{**arrays, **words, "fate": fate})


@dataclass(frozen=True, slots=True)
class Sending:
    """How the generator itself fared: seconds each request left late (float64 [n]), share of a core, requests open.

    Where several shared the load, `apart_s` is how many seconds lie between the first and the last beginning.
    """

    lag_s: Seconds
    cpu_share: float
    most_in_flight: int
    apart_s: float = 0.0


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
        p50_s=_percentile(latency_s, 50.0),
        p99_s=_percentile(latency_s, 99.0),
        p999_s=_percentile(latency_s, 99.9),
        overhead_p50_s=_percentile(_known((results.latency_s - results.total_s)[answered]), 50.0),
        compute_p50_s=_percentile(_known(results.compute_s[answered]), 50.0),
        fates={str(fate): float((results.fate == fate).mean()) for fate in Fate},
        answers={str(name): int(count) / len(latency_s) for name, count in zip(names, counts, strict=True)},
        escalated=float(results.escalated[answered].mean()) if answered.any() else 0.0,
        by_slo=tuple(
            SloScore(
                slo_s=float(slo_s),
                arrivals=int(of_slo.sum()),
                effective_accuracy=float(good[of_slo].mean()),
                attainment=float(on_time[of_slo].mean()),
                p50_s=_percentile(results.latency_s[of_slo & answered], 50.0),
                p99_s=_percentile(results.latency_s[of_slo & answered], 99.0),
            )
            for slo_s in np.unique(workload.slo_s)
            if (of_slo := workload.slo_s == slo_s).any()
        ),
        lag_p50_s=_percentile(sending.lag_s, 50.0) if sending else 0.0,
        lag_p99_s=_percentile(sending.lag_s, 99.0) if sending else 0.0,
        generator_cpu=sending.cpu_share if sending else 0.0,
        most_in_flight=sending.most_in_flight if sending else 0,
        faults=_faults(results, sending) if sending else (),
    )


def generator_faults(results: Results, sending: Sending) -> list[str]:
    """Why a generator measured itself: it was late, its core was full, or a part of it went missing."""
    found: list[str] = []
    lag_p99_s = _percentile(sending.lag_s, 99.0)
    if not lag_p99_s <= MAX_LAG_P99_S:
        found.append(f"dispatch lag p99 is {lag_p99_s * 1e3:.2f} ms, at most {MAX_LAG_P99_S * 1e3:g} ms is allowed")
    if sending.cpu_share > MAX_GENERATOR_CPU:
        found.append(f"the generator used {sending.cpu_share:.0%} of its core")
    if lost := int((results.reason == LOST).sum()):
        found.append(f"a worker was lost, and with it {lost} requests")
    if unsent := int((results.reason == NO_SOCKET).sum()):
        found.append(f"the generator's machine had no socket (files, ports) for {unsent} requests")
    if sending.apart_s > MAX_APART_S:
        found.append(
            f"generators began {sending.apart_s * 1e3:.0f} ms apart, at most {MAX_APART_S * 1e3:g} ms is allowed"
        )
    return found


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


def _faults(results: Results, sending: Sending) -> tuple[str, ...]:
    found = generator_faults(results, sending)
    told = (results.reason == LOST) | (results.reason == NO_SOCKET)
    if not_sent := int(((results.fate == Fate.NOT_SENT) & ~told).sum()):
        found.append(f"{not_sent} requests were not sent: {sending.most_in_flight} were open already")
    return tuple(found)


def _known(values: Seconds) -> Seconds:
    return values[~np.isnan(values)]


def _percentile(values: NDArray[Any], percent: float) -> float:
    return float(np.percentile(values, percent)) if len(values) else math.nan
