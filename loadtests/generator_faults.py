"""How a generator of load fared, and why what it sent is no measurement: it has measured itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.outcomes import LOST, NO_SOCKET, Fate, Results
from loadtests.traces import Seconds

MAX_LAG_P99_S = 0.001
"""A generator that sends later than this measures itself."""
FEW_REQUESTS, TAIL_REQUESTS, MAX_FEW_LAG_P99_S = 1000, 10, 0.010
"""The 99th percentile of few requests is that of a handful, which one hiccup of the machine decides: the bound is for
the percentile that leaves out so many of the latest, and the 99th may be ten times that."""
MAX_GENERATOR_CPU = 0.9
"""Share of one core beyond which the generator counts as saturated."""
MAX_APART_S = 0.05
"""Generators that share a load begin within so long of each other, by their clocks."""


@dataclass(frozen=True, slots=True)
class Sending:
    """How the generator itself fared: seconds each request left late (float64 [n]), share of a core, requests open.

    Where several shared the load, `apart_s` is how many seconds lie between the first and the last beginning.
    """

    lag_s: Seconds
    cpu_share: float
    most_in_flight: int
    apart_s: float = 0.0


def generator_faults(results: Results, sending: Sending) -> list[str]:
    """Why a generator measured itself: it was late, its core was full, or a part of it went missing."""
    found = _late(sending.lag_s)
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


def faults_of_the_run(results: Results, sending: Sending) -> tuple[str, ...]:
    """The same, and requests that were not sent because too many were open."""
    found = generator_faults(results, sending)
    told = (results.reason == LOST) | (results.reason == NO_SOCKET)
    if not_sent := int(((results.fate == Fate.NOT_SENT) & ~told).sum()):
        found.append(f"{not_sent} requests were not sent: {sending.most_in_flight} were open already")
    return tuple(found)


def percentile(values: NDArray[Any], percent: float) -> float:
    """That one of some values; not-a-number where there are none."""
    return float(np.percentile(values, percent)) if len(values) else math.nan


def _late(lag_s: Seconds) -> list[str]:
    """Why so much lag is too much, if it is."""
    requests, allowed = len(lag_s), f"at most {MAX_LAG_P99_S * 1e3:g} ms is allowed"
    p99_s = percentile(lag_s, 99.0)
    if requests >= FEW_REQUESTS:
        return [] if p99_s <= MAX_LAG_P99_S else [f"dispatch lag p99 is {p99_s * 1e3:.2f} ms, {allowed}"]
    percent = max(50.0, 100.0 * (1.0 - TAIL_REQUESTS / max(requests, 1)))
    judged_s = percentile(lag_s, percent)
    if not judged_s <= MAX_LAG_P99_S:
        of = f"of {requests} requests, too few for a p99"
        return [f"dispatch lag p{percent:.3g} is {judged_s * 1e3:.2f} ms ({of}), {allowed}"]
    if p99_s > MAX_FEW_LAG_P99_S:
        allowed = f"at most {MAX_FEW_LAG_P99_S * 1e3:g} ms is allowed of {requests} requests"
        return [f"dispatch lag p99 is {p99_s * 1e3:.2f} ms, {allowed}"]
    return []
