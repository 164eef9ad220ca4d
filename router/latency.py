"""How long a batch will take: the measured profile, corrected by what is observed while serving.

Source of the correction: the two-level rule of our routing study. With x = observed / profiled, a factor `shared` by
all variants of the family follows the machine (a busy neighbour slows everything) and one factor per variant follows
what is left over (a profile that was wrong for one of them):

    shared     += 0.03 * (x / own[v] - shared)
    own[v]     += 0.05 * (x / shared - own[v])

An observation counts for at most three times and at least a third of what was expected. The study skipped larger
ones as stragglers; clipping keeps a machine that really became four times slower from never being believed.

Only batches that run teach. A belief that stops batches from running (everything is shed because the machine was
slow) would therefore last for ever, so beliefs fade towards the profile while nothing is observed: all of them with a
half-life of a second once the family has run nothing for a second, a variant's own with one of ten seconds while
others run.

A plan must hold for most batches, not for half of them: seconds are planned at a quantile of what is observed over what
was expected. The quantile is tracked by stochastic approximation (Robbins and Monro, 1951): up by `SPREAD_STEP` times
`QUANTILE` after a batch that took longer, down by the rest after one that did not. A margin that somebody sets stands.
Either is multiplied by the caution that the outer loop advises: it sees over hours what is forgotten here in seconds.

What a batch costs beside the model (handing it to its slot and back) does not grow with the model, so it is learnt
apart, as seconds: multiplied into the factors it would make a 20 us model look ten times slower than it is. Its mean
is part of every plan; its 95th percentile tells how punctual the driver is, and is kept clear before deadlines.

Where slots belong to several devices, each device has a model of its own (`on`), with its own profile and beliefs, for
what makes one of them slow need not touch another; what a batch costs beside the model is learnt by all of them
together, because they have one driver. These models also tell how much slower batches are beside busy neighbours
(`router.interference`); where all slots are alike, `shared` has that on average.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from router.family import Family, LatencyTable
from router.interference import Interference

SHARED_STEP = 0.03
OWN_STEP = 0.05
OVERHEAD_STEP = 0.05
OVERHEAD_CLIP_S = 0.001
CLIP = 3.0
QUANTILE = 0.9
SPREAD = 1.12
"""Planned over expected seconds at the start: right for a machine whose batch times spread by 8 %."""
SPREAD_STEP = 0.02
LEAST_SPREAD, MOST_SPREAD = 1.02, 2.0
LATE_QUANTILE = 0.95
LATE_STEP_S = 0.0002
MOST_LATE_S = 0.01
FADE_AFTER_S = 1.0
FADE_HALF_LIFE_S = 1.0
OWN_FADE_HALF_LIFE_S = 10.0
FADE_STEP_S = 0.1
"""Fading is looked at this often."""
ECONOMY = 0.95
"""A larger batch is worth waiting for only if it costs at most this share per row of what the smaller one does."""


def _dense(batches: tuple[int, ...], seconds: tuple[float, ...], max_batch: int) -> tuple[float, ...]:
    """Seconds for each batch 0..max_batch: linear between measured batches, the last slope continued beyond them."""
    points = [(0, 0.0), *zip(batches, seconds, strict=True)]
    dense = [0.0]
    for batch in range(1, max_batch + 1):
        right = next((i for i, (b, _) in enumerate(points) if b >= batch and i > 0), len(points) - 1)
        (b0, s0), (b1, s1) = points[right - 1], points[right]
        dense.append(max(dense[-1], s0 + (s1 - s0) * (batch - b0) / (b1 - b0)))
    return tuple(dense)


def _economical(dense: tuple[float, ...]) -> int:
    """The smallest batch beyond which doubling no longer makes a row noticeably cheaper."""
    batch = 1
    while batch * 2 < len(dense) and dense[batch * 2] / (batch * 2) <= ECONOMY * dense[batch] / batch:
        batch *= 2
    return batch


class LatencyModel:
    """Planned seconds of every (variant, batch, size class) of one family, on its first device.

    `margin` (at least 1.0) multiplies the corrected median; with None it is learnt. `devices` has the models of the
    others.
    """

    __slots__ = (
        "_arrays",
        "_calm",
        "_caution",
        "_crowd",
        "_factors",
        "_faded_s",
        "_full_row_s",
        "_interference",
        "_late_s",
        "_margin",
        "_median",
        "_observed_s",
        "_own",
        "_shared",
        "_spread",
        "_together",
        "devices",
        "economical_batch",
        "overhead_s",
    )

    def __init__(self, family: Family, margin: float | None = None) -> None:
        self._margin = margin
        self._caution = 1.0
        self._spread = SPREAD
        self._median = tuple(
            tuple(_dense(v.latency.batches, row, family.max_batch) for row in v.latency.median_s)
            for v in family.variants
        )
        self._arrays: dict[int, NDArray[np.float64]] = {}
        self.economical_batch = tuple(tuple(_economical(row) for row in rows) for rows in self._median)
        """Batch size for [variant][size class] up to which batching makes a row cheaper."""
        self.overhead_s = 0.0
        """Seconds that a batch takes beside the model, as learnt."""
        self._late_s = 0.0
        self._shared = 1.0
        self._own = [1.0] * len(family.variants)
        self._full_row_s: dict[tuple[int, int], float] = {}
        self._crowd = 0.0
        self._interference: Interference | None = None
        self.devices = {name: LatencyModel(family.on(name), margin) for name in family.devices}
        """The models of the other devices, by name."""
        self._together: tuple[LatencyModel, ...] = (self, *self.devices.values())
        for model in self._together if self.devices else ():
            model.join(self._together)
        self._refactor()
        self._observed_s = [-math.inf] * len(family.variants)
        self._faded_s = -math.inf

    def join(self, together: tuple[LatencyModel, ...]) -> None:
        """Be one of the models of several devices, which have one driver and see which neighbours are busy."""
        self._together = together
        self._interference = Interference()

    def on(self, device: str) -> LatencyModel:
        """The model of a device; this one for the first, and for any of which nothing else is known."""
        return self.devices.get(device, self)

    def speed(self, device: str) -> float:
        """How much of a batch is done there while one is done on the first device, as profiled; 1.0: as fast.

        The geometric mean over variants, size classes, and batches of one and of as many rows as allowed.
        """
        other = self.devices.get(device)
        if other is None:
            return 1.0
        classes, ends = range(len(self._median[0])), (1, -1)
        ratios = [self.medians_s(c)[:, ends] / other.medians_s(c)[:, ends] for c in classes]
        return float(np.exp(np.log(ratios).mean()))

    def meet(self, crowd: float) -> None:
        """Plan for batches that begin while that share of the other slots' threads is busy, in [0, 1]."""
        if self._interference is not None and crowd != self._crowd:
            self._crowd = crowd
            self._refactor()

    def planned_s(self, variant: int, batch: int, size_class: int, start: int = -1) -> float:
        """Seconds to plan for a batch of 1..max_batch rows of that size class, from its start to its answer.

        With `start`, a variant whose path begins this one's: for going on from there.
        """
        return self.median_s(variant, batch, size_class, start) * self._factors[variant] + self.overhead_s

    def likely_s(self, variant: int, batch: int, size_class: int, start: int = -1) -> float:
        """As `planned_s` with at most the margin of a quiet machine: for budgets, where batches even each other out."""
        run_s = self.median_s(variant, batch, size_class, start) * self._factors[variant]
        return run_s * self._calm + self.overhead_s

    def full_row_s(self, variant: int, size_class: int) -> float:
        """Likely seconds of one row in a batch as large as allowed: what rows take that are cleared together."""
        known_s = self._full_row_s.get((variant, size_class))
        if known_s is None:
            most = len(self._median[variant][size_class]) - 1
            known_s = self._full_row_s[variant, size_class] = self.likely_s(variant, most, size_class) / most
        return known_s

    def full_rows_s(self, variant: int, size_classes: Sequence[int]) -> float:
        """The same for some rows."""
        if len(size_classes) == 1:
            return self.full_row_s(variant, size_classes[0])
        return sum([self.full_row_s(variant, size_class) for size_class in size_classes])

    def planned_run_s(self, variant: int, batch: int, size_class: int, start: int = -1) -> float:
        """Seconds of it in which the model runs."""
        return self.median_s(variant, batch, size_class, start) * self._factors[variant]

    def median_s(self, variant: int, batch: int, size_class: int, start: int = -1) -> float:
        """Profiled median seconds, uncorrected."""
        whole_s = self._median[variant][size_class][batch]
        if start < 0:
            return whole_s
        # At least a tenth: noise of two nearly equal profiles must not make going on free.
        return max(whole_s - self._median[start][size_class][batch], 0.1 * whole_s)

    def medians_s(self, size_class: int) -> NDArray[np.float64]:
        """Profiled medians of all variants and batches 0..max_batch, uncorrected: float64 [variants, max_batch + 1]."""
        if size_class not in self._arrays:
            self._arrays[size_class] = np.array([rows[size_class] for rows in self._median])
        return self._arrays[size_class]

    def planned_by_rows(self, variant: int, size_class: int) -> tuple[tuple[float, ...], float]:
        """Profiled medians for 0..max_batch rows, and planned over profiled seconds: `planned_run_s` of each."""
        return self._median[variant][size_class], self._factors[variant]

    def clearing_s(self, variant: int, rows: int, size_class: int) -> float:
        """Seconds one slot needs for any number of rows, in batches as large as allowed."""
        row = self._median[variant][size_class]
        largest = len(row) - 1
        full, rest = divmod(rows, largest)
        batches = full + (rest > 0)
        return (full * row[largest] + row[rest]) * self._factors[variant] + batches * self.overhead_s

    def largest_batch_within(self, variant: int, size_class: int, seconds: float, at_most: int) -> int:
        """Rows of the largest batch, at most `at_most`, planned to take no longer; 0 where a single row does."""
        row = self._median[variant][size_class]
        limit = (seconds - self.overhead_s) / self._factors[variant]
        batch = min(at_most, len(row) - 1)
        while batch and row[batch] > limit:
            batch -= 1
        return batch

    def observe(
        self,
        variant: int,
        batch: int,
        size_class: int,
        run_s: float,
        busy_s: float,
        now: float,
        start: int = -1,
        crowd: float = 0.0,
    ) -> None:
        """Learn from a finished batch: seconds that its model ran, and seconds from its start to its answer.

        `crowd` is the share of the other slots' threads that were busy when it began.
        """
        self._observed_s[variant] = now
        for model in self._together:
            model.hear(max(0.0, busy_s - run_s))
        ratio = run_s / self.median_s(variant, batch, size_class, start)
        expected = self._shared * self._own[variant]
        if self._interference is not None:
            ratio = self._interference.observe(crowd, ratio, expected)
        clipped = min(max(ratio, expected / CLIP), expected * CLIP)
        passed = ratio > expected * self._spread
        spread = self._spread * math.exp(SPREAD_STEP * (QUANTILE if passed else QUANTILE - 1.0))
        self._spread = min(max(spread, LEAST_SPREAD), MOST_SPREAD)
        self._shared += SHARED_STEP * (clipped / self._own[variant] - self._shared)
        self._own[variant] += OWN_STEP * (clipped / self._shared - self._own[variant])
        self._refactor()

    def hear(self, waited_s: float) -> None:
        """Learn what a batch took beside its model."""
        self._late_s += LATE_STEP_S * (LATE_QUANTILE if waited_s > self._late_s else LATE_QUANTILE - 1.0)
        self._late_s = min(max(self._late_s, 0.0), MOST_LATE_S)
        extra_s = min(waited_s, self.overhead_s + OVERHEAD_CLIP_S)
        self.overhead_s += OVERHEAD_STEP * (extra_s - self.overhead_s)

    def relax_idle(self, now: float, busy: Iterable[str] = ()) -> None:
        """As `relax`, on all devices but those that are `busy` with this family."""
        running = [self.on(device) for device in busy]
        for model in self._together:
            if model not in running:
                model.relax(now)

    def relax(self, now: float) -> None:
        """Let beliefs of this device fade that nothing has confirmed for a while."""
        before_s = self._faded_s
        if now - before_s < FADE_STEP_S:
            return
        self._faded_s = now
        if before_s == -math.inf:
            return
        # Not since it was asked last: while a family runs without a pause, nobody asks.
        stale_s = max(self._observed_s) + FADE_AFTER_S
        if now > stale_s:
            keep = 0.5 ** ((now - max(before_s, stale_s)) / FADE_HALF_LIFE_S)
            self.overhead_s *= keep
            self._late_s *= keep
            self._shared = 1.0 + keep * (self._shared - 1.0)
            self._spread = SPREAD + keep * (self._spread - SPREAD)
            self._own = [1.0 + keep * (own - 1.0) for own in self._own]
        else:
            self._own = [
                1.0 + 0.5 ** (max(0.0, now - max(before_s, seen_s + FADE_AFTER_S)) / OWN_FADE_HALF_LIFE_S) * (own - 1.0)
                for own, seen_s in zip(self._own, self._observed_s, strict=True)
            ]
        self._refactor()

    @property
    def slip_s(self) -> float:
        """Seconds to keep clear before a deadline, as learnt from how late one batch of twenty is handed over.

        Twice that: a busy driver reads requests as late as it sends answers, and only the latter can be seen here.
        """
        return 2.0 * self._late_s

    @property
    def calm(self) -> float:
        """Likely over planned seconds of the model."""
        return self._calm

    @property
    def margin(self) -> float:
        """Planned over expected seconds."""
        return self._caution * (self._spread if self._margin is None else self._margin)

    def set_margin(self, margin: float | None, caution: float = 1.0) -> None:
        """Plan with another margin from now on, or with the learnt one; `caution` (at least 1) multiplies it."""
        if (margin, caution) != (self._margin, self._caution):
            self._margin, self._caution = margin, caution
            self._refactor()
            for model in self.devices.values():
                model.set_margin(margin, caution)

    def _refactor(self) -> None:
        common = self.margin * self._shared
        if self._interference is not None:
            common *= self._interference.factor(self._crowd)
        self._factors = [common * own for own in self._own]
        self._calm = min(1.0, SPREAD / self.margin)
        self._full_row_s.clear()

    def correction(self, variant: int) -> float:
        """Observed over profiled seconds, as learnt so far; 1.0 at the start."""
        return self._shared * self._own[variant]


def table(batches: tuple[int, ...], *median_s: tuple[float, ...]) -> LatencyTable:
    """A latency table without spread, one row of medians per size class: for tests and what-if questions."""
    return LatencyTable(batches, median_s, median_s)
