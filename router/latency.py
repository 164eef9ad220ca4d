"""How long a batch will take: the measured profile, corrected by what is observed while serving.

Seconds are the profiled median (`router.interpolation`) times what is believed of this machine (`router.beliefs`) times
a margin, so that a plan holds for most batches: the learnt one, or one that somebody sets. Either is multiplied by the
caution that the outer loop advises: it sees over hours what is forgotten here in seconds.

What a batch costs beside the model (handing it to its slot and back) does not grow with the model, so it is learnt
apart, as seconds: multiplied into the factors it would make a 20 us model look ten times slower than it is. Its mean
is part of every plan; its 95th percentile tells how punctual the driver is, and is kept clear before deadlines.

Where slots belong to several devices, each device has a model of its own (`on`), with its own profile and beliefs, for
what makes one of them slow need not touch another; what a batch costs beside the model is learnt by all of them
together, because they have one driver. These models also tell how much slower batches are beside busy neighbours
(`router.interference`); where all slots are alike, what is believed has that on average.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from router.beliefs import SPREAD, Beliefs
from router.family import Family, LatencyTable
from router.interference import Interference
from router.interpolation import dense, economical
from router.pace import Paces

OVERHEAD_STEP = 0.05
OVERHEAD_CLIP_S = 0.001
LATE_QUANTILE = 0.95
LATE_STEP_S = 0.0002
MOST_LATE_S = 0.01
STRETCH_STEP = 0.1
MOST_STRETCH = 8.0


class LatencyModel:
    """Planned seconds of every (variant, batch, size class) of one family, on its first device.

    `margin` (at least 1.0) multiplies the corrected median; with None it is learnt. `devices` has the models of the
    others. `paces` are those of all families; without them this one is alone.
    """

    __slots__ = (
        "_arrays",
        "_beliefs",
        "_calm",
        "_caution",
        "_crowd",
        "_factors",
        "_full_row_s",
        "_interference",
        "_late_s",
        "_margin",
        "_median",
        "_most",
        "_pace",
        "_together",
        "devices",
        "economical_batch",
        "overhead_s",
        "stretch",
    )

    def __init__(
        self, family: Family, margin: float | None = None, paces: Paces | None = None, device: str = ""
    ) -> None:
        paces = paces or Paces()
        self._margin = margin
        self._caution = 1.0
        self._median = tuple(
            tuple(dense(v.latency.batches, row, family.max_batch) for row in v.latency.median_s)
            for v in family.variants
        )
        self._arrays: dict[int, NDArray[np.float64]] = {}
        self.economical_batch = tuple(tuple(economical(row) for row in rows) for rows in self._median)
        """Batch size for [variant][size class] up to which batching makes a row cheaper."""
        self.overhead_s = 0.0
        """Seconds that a batch takes beside the model, as learnt."""
        self.stretch = 1.0
        """What rows took in the last dozens of batches over `full_row_s`, at least 1: batches are not always full, and
        models that are seldom asked for come back from memory slowly. It does not fade, as it is for just these."""
        self._most = family.max_batch
        self._late_s = 0.0
        self._beliefs = Beliefs(len(family.variants), paces.of(device))
        self._pace = 1.0
        """What the factors were made with."""
        self._full_row_s: dict[tuple[int, int], float] = {}
        self._crowd = 0.0
        self._interference: Interference | None = None
        self.devices = {name: LatencyModel(family.on(name), margin, paces, name) for name in family.devices}
        """The models of the other devices, by name."""
        self._together: tuple[LatencyModel, ...] = (self, *self.devices.values())
        for model in self._together if self.devices else ():
            model.join(self._together)
        self._refactor()

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

    @property
    def quickened(self) -> float:
        """So many times as long as measured, at most 1, batches of the variant take that has gained most since."""
        return min(1.0, *self._factors)

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
        for model in self._together:
            model.hear(max(0.0, busy_s - run_s))
        if start < 0:
            # `full_row_s`, which is forgotten after each batch.
            full_s = self._median[variant][size_class][-1] * self._factors[variant] * self._calm + self.overhead_s
            took = busy_s * self._most / (batch * full_s)
            took = 1.0 if took < 1.0 else MOST_STRETCH if took > MOST_STRETCH else took
            self._together[0].stretch += STRETCH_STEP * (took - self._together[0].stretch)
        ratio = run_s / self.median_s(variant, batch, size_class, start)
        if self._interference is not None:
            ratio = self._interference.observe(crowd, ratio, self.correction(variant))
        self._beliefs.learn(variant, ratio, now)
        self._refactor()

    def hear(self, waited_s: float) -> None:
        """Learn what a batch took beside its model."""
        self._late_s += LATE_STEP_S * (LATE_QUANTILE if waited_s > self._late_s else LATE_QUANTILE - 1.0)
        late_s = self._late_s
        self._late_s = 0.0 if late_s < 0.0 else MOST_LATE_S if late_s > MOST_LATE_S else late_s
        extra_s = waited_s - self.overhead_s
        self.overhead_s += OVERHEAD_STEP * (OVERHEAD_CLIP_S if extra_s > OVERHEAD_CLIP_S else extra_s)

    def relax_idle(self, now: float, busy: Iterable[str] = ()) -> None:
        """As `relax`, on all devices but those that are `busy` with this family."""
        running = [self.on(device) for device in busy]
        for model in self._together:
            if model not in running:
                model.relax(now)

    def relax(self, now: float) -> None:
        """Let beliefs of this device fade that nothing has confirmed for a while."""
        keep = self._beliefs.fade(now)
        if keep is not None:
            self.overhead_s *= keep
            self._late_s *= keep
        if keep is not None or self._pace != self._beliefs.pace.factor:
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
        return self._caution * (self._beliefs.spread if self._margin is None else self._margin)

    def set_margin(self, margin: float | None, caution: float = 1.0) -> None:
        """Plan with another margin from now on, or with the learnt one; `caution` (at least 1) multiplies it."""
        if (margin, caution) != (self._margin, self._caution):
            self._margin, self._caution = margin, caution
            self._refactor()
            for model in self.devices.values():
                model.set_margin(margin, caution)

    def _refactor(self) -> None:
        margin, beliefs = self.margin, self._beliefs
        self._pace = beliefs.pace.factor
        common = margin * self._pace * beliefs.shared
        if self._interference is not None:
            common *= self._interference.factor(self._crowd)
        self._factors = [common * own for own in beliefs.own]
        self._calm = min(1.0, SPREAD / margin)
        self._full_row_s.clear()

    def correction(self, variant: int) -> float:
        """Observed over profiled seconds, as learnt so far; 1.0 at the start."""
        return self._beliefs.pace.factor * self._beliefs.shared * self._beliefs.own[variant]


def table(batches: tuple[int, ...], *median_s: tuple[float, ...]) -> LatencyTable:
    """A latency table without spread, one row of medians per size class: for tests and what-if questions."""
    return LatencyTable(batches, median_s, median_s)
