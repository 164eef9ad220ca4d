"""What no policy can beat: the yardsticks that policies are measured against.

Three of them, from tight and small to loose and general: `best_schedule` is exact for one executor, one SLO and few
requests; `lp_bound` holds for any workload and knows all arrivals in advance; `oracle_accuracy` ignores time and asks
which variants answer each sample right. The first two count a variant's mean accuracy: a policy that answers each row
once cannot pass them but by luck. Cascades choose by confidence, which tells a row's own chance, so they may pass the
first two and never the third.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.samples import Samples
from loadtests.traces import Seconds
from loadtests.workload import Workload
from router.family import Family
from router.latency import LatencyModel

STEP_S = 0.005
"""The grid of `fluid_value`, but a quarter of the tightest SLO where that is less."""
MOST_STEPS = 2048
"""Longer workloads get a coarser grid, which loosens the bound and never breaks it."""
_TOLERANCE = 1e-9


class Group(NamedTuple):
    """Requests alike but for when they come: `arrival_s` float64 [n] ascending, one SLO, one set of `options`.

    An option is (seconds of one executor a row, accuracy): the least that a variant costs and what it is worth.
    """

    arrival_s: Seconds
    slo_s: float
    options: tuple[tuple[float, float], ...]


def best_schedule(
    arrival_s: Sequence[float], slo_s: float, seconds: Sequence[Sequence[float]], accuracy: Sequence[float]
) -> float:
    """The greatest sum of accuracies of on-time answers: one executor, all arrivals known, exact.

    `seconds[v][b - 1]` is what a batch of b takes with variant v and must not fall as b grows. `arrival_s` ascends.

    With one SLO some best schedule serves on-time requests in order of arrival, in batches without gaps. So a state is
    the first request not yet looked at, with the Pareto front of (when the executor is free, value so far).
    """
    count = len(arrival_s)
    fronts: list[list[tuple[float, float]]] = [[] for _ in range(count + 1)]
    fronts[0] = [(0.0, 0.0)]
    for first in range(count):
        deadline_s = arrival_s[first] + slo_s + _TOLERANCE
        for free_s, value in _front(fronts[first]):
            fronts[first + 1].append((free_s, value))
            for batches, worth in zip(seconds, accuracy, strict=True):
                for batch, batch_s in enumerate(batches[: count - first], start=1):
                    end_s = max(free_s, arrival_s[first + batch - 1]) + batch_s
                    if end_s > deadline_s:
                        break
                    fronts[first + batch].append((end_s, value + batch * worth))
    return max(value for _, value in fronts[count])


def lp_bound(workload: Workload, family: Family, samples: Samples, slots: int, mean_over_median: float = 1.0) -> float:
    """The effective accuracy, a fraction of all arrivals, that no policy without cascades can expect to exceed.

    `mean_over_median` is what batches take on average over their profiled median. A variant's accuracy is that on the
    samples of the row's size class. A batch whose median exceeds the SLO counts as impossible, so a policy that gambles
    on lucky noise is not bounded.
    """
    latency = LatencyModel(family)
    groups = []
    size_class = samples.size_class[workload.sample]
    for slo_s in np.unique(workload.slo_s):
        for which in np.unique(size_class):
            chosen = (workload.slo_s == slo_s) & (size_class == which)
            if chosen.any():
                options = _options(family, latency, samples, int(which), float(slo_s), mean_over_median)
                groups.append(Group(workload.arrival_s[chosen], float(slo_s), options))
    return fluid_value(groups, slots) / len(workload)


def oracle_accuracy(workload: Workload, family: Family, samples: Samples) -> float:
    """The share of arrivals whose sample at least one variant of the family answers right, alone and in any time."""
    right = np.zeros(len(samples), dtype=np.bool_)
    for variant in family.variants:
        right |= samples.predicted[variant.name] == samples.label
    return float(right[workload.sample].mean())


def fluid_value(groups: Sequence[Group], executors: int, step_s: float | None = None) -> float:
    """The greatest sum of accuracies where rows are a fluid: a linear program on a grid of time, solved by HiGHS.

    Work of a row, any mixture of its options, is done after its arrival (rounded down to the grid) and before its
    deadline (rounded up); all work of a step fits `executors` times its length. Every schedule of whole batches obeys
    this, so the value bounds them all: families, size classes and SLOs are groups.

    Raises `RuntimeError` where the solver gives up.
    """
    groups = [group for group in groups if len(group.arrival_s) and _segments(group.options)]
    if not groups:
        return 0.0
    from scipy.optimize import linprog  # noqa: PLC0415 - a third of a second that only this costs

    last_s = max(float(group.arrival_s[-1]) + group.slo_s for group in groups)
    step_s = step_s or max(min(STEP_S, min(group.slo_s for group in groups) / 4.0), last_s / MOST_STEPS)
    program = _Program(executors * step_s, math.ceil(last_s / step_s) + 1)
    for slo_s in sorted({group.slo_s for group in groups}):
        program.add([group for group in groups if group.slo_s == slo_s], step_s)
    matrix, limit = program.constraints()
    least, most = program.bounds()
    solved = linprog(-program.objective(), matrix, limit, bounds=np.stack((least, most), axis=1), method="highs")
    if solved.status != 0:
        raise RuntimeError(f"the linear program was not solved: {solved.message}")
    return -float(solved.fun)


def _front(states: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other state reaches earlier with at least their value, earliest first."""
    kept: list[tuple[float, float]] = []
    for free_s, value in sorted(states, key=lambda state: (state[0], -state[1])):
        if not kept or value > kept[-1][1]:
            kept.append((free_s, value))
    return kept


def _options(
    family: Family, latency: LatencyModel, samples: Samples, size_class: int, slo_s: float, mean_over_median: float
) -> tuple[tuple[float, float], ...]:
    own = samples.size_class == size_class
    found = []
    for index, variant in enumerate(family.variants):
        batches_s = [latency.median_s(index, batch, size_class) for batch in range(1, family.max_batch + 1)]
        a_row_s = [batch_s / batch for batch, batch_s in enumerate(batches_s, start=1) if batch_s <= slo_s]
        if a_row_s:
            accuracy = float((samples.predicted[variant.name][own] == samples.label[own]).mean())
            found.append((min(a_row_s) * mean_over_median, accuracy))
    return tuple(found)


def _segments(options: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The upper concave hull of the options from (0, 0) as (seconds, accuracy a second), steepest first, all rising."""
    hull = [(0.0, 0.0)]
    for cost_s, accuracy in sorted(options):
        if accuracy <= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], (cost_s, accuracy)) >= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append((cost_s, accuracy))
    return [(right[0] - left[0], _slope(left, right)) for left, right in pairwise(hull)]


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])


class _Program:
    """The linear program, column by column.

    Groups of one SLO are served in order of arrival whatever their options, so they share what was accepted so far (a
    sum for each step with arrivals) and what was served so far (a sum for each step of the grid); the latter lies
    between what was due and what had come. All sums run, so every row of the matrix is short.
    """

    def __init__(self, capacity_s: float, steps: int) -> None:
        self._steps = steps
        self._columns = 0
        self._rows = steps
        """The first rows are the capacity of the steps."""
        self._limit = [np.full(steps, capacity_s)]
        self._entries: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
        self._worth: list[NDArray[np.float64]] = []
        self._most: list[NDArray[np.float64]] = []

    def add(self, groups: Sequence[Group], step_s: float) -> None:
        """Add all groups of one SLO."""
        slo_s = groups[0].slo_s
        began = [np.floor(group.arrival_s / step_s + _TOLERANCE).astype(np.int64) for group in groups]
        arrived = np.unique(np.concatenate(began))
        due = np.zeros(len(arrived), dtype=np.int64)
        total = self._new(np.full(len(arrived), math.inf))
        served = self._new(np.full(self._steps, math.inf))
        # The sum is at least what it was before and what is accepted now; more would only be more to serve.
        summed = self._upper(len(arrived))
        self._put(summed, total, -1.0)
        self._put(summed[1:], total[:-1], 1.0)
        for group, first in zip(groups, began, strict=True):
            place = np.searchsorted(arrived, first)
            ended = np.ceil((group.arrival_s + slo_s) / step_s - _TOLERANCE).astype(np.int64)
            np.maximum.at(due, place, ended)
            counts = np.bincount(place, minlength=len(arrived))
            own = np.flatnonzero(counts)
            for width_s, slope in _segments(group.options):
                self._put(summed[own], self._new(width_s * counts[own].astype(np.float64), slope), 1.0)
        # Served at the end of a step is at most what had arrived before that end.
        steps = np.arange(self._steps)
        known = np.searchsorted(arrived, steps, side="right") - 1
        rows = self._upper(self._steps)
        self._put(rows, served, 1.0)
        self._put(rows[known >= 0], total[known[known >= 0]], -1.0)
        # What is due at the end of a step is served.
        rows = self._upper(len(arrived))
        self._put(rows, total, 1.0)
        self._put(rows, served[due - 1], -1.0)
        # Service never runs backwards, and what all groups take of a step fits its capacity.
        rows = self._upper(self._steps - 1)
        self._put(rows, served[:-1], 1.0)
        self._put(rows, served[1:], -1.0)
        self._put(steps, served, 1.0)
        self._put(steps[1:], served[:-1], -1.0)

    def constraints(self) -> tuple[object, NDArray[np.float64]]:
        """A sparse matrix and its limits: matrix @ variables <= limits."""
        from scipy.sparse import csr_array  # noqa: PLC0415 - loaded with the solver

        row, column, value = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
        return csr_array((value, (row, column)), shape=(self._rows, self._columns)), np.concatenate(self._limit)

    def objective(self) -> NDArray[np.float64]:
        return np.concatenate(self._worth)

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.zeros(self._columns), np.concatenate(self._most)

    def _new(self, most: NDArray[np.float64], worth: float = 0.0) -> NDArray[np.int64]:
        first = self._columns
        self._columns += len(most)
        self._most.append(most)
        self._worth.append(np.full(len(most), worth))
        return np.arange(first, self._columns)

    def _upper(self, count: int) -> NDArray[np.int64]:
        first = self._rows
        self._rows += count
        self._limit.append(np.zeros(count))
        return np.arange(first, self._rows)

    def _put(self, rows: NDArray[np.int64], columns: NDArray[np.int64], value: float) -> None:
        self._entries.append((rows, columns, np.full(len(rows), value)))
