"""What the rows of each kind may cost and are worth on this machine, kept in step with the learnt latencies.

A kind is what rows agree on that cost the same: family, pin, lowest variant, size class. Its hull comes from the table
of `router.cascades` of its family and size class. A table is made from planned seconds; while all variants become
slower or faster together, its seconds are scaled; where they drift apart its rules are priced anew, looked at every
`RECHECK_S`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.cascades import Cascades, Prices
from router.demand import DemandKey
from router.latency import LatencyModel

RECHECK_S = 0.25
DRIFT = 0.15
"""Relative change of the planned seconds against each other that makes a table out of date."""
SCALE_STEP = 0.02
SLO_STEP = 1.5
ESCALATION_BATCH = 8
FIRST_BATCH = 16
TIMES_ABOVE = 1.15
"""The future is planned this much dearer than a batch of the present. Below 1 it would look cheaper, and single rows
would be run now to have full batches later, for ever (our routing study: 7-9 points lost)."""

Floats = NDArray[np.float64]


class Offer(NamedTuple):
    """A variant that may give the first answer: the quality and the further seconds a row that come of it, expected."""

    variant: int
    quality: float
    later_s: float


class Table:
    """Prices of one family and size class; `scale` is planned seconds now over those it was made from."""

    __slots__ = (
        "_checked_s",
        "_hulls",
        "_made_from",
        "_offers",
        "_slo_s",
        "cascades",
        "latency",
        "prices",
        "scale",
        "size_class",
    )

    def __init__(self, cascades: Cascades, latency: LatencyModel, size_class: int, slo_s: float, now: float) -> None:
        self.cascades = cascades
        self.latency = latency
        self.size_class = size_class
        self._slo_s = slo_s
        self.make(now)

    def make(self, now: float, known: Prices | None = None, scale: float = 1.0) -> None:
        """Compute everything from the seconds planned now, divided by `scale`.

        With `known` prices, in a fraction of the time; then `scale` is what brings the seconds nearest to theirs.
        """
        ladder, latency, size_class = self.cascades.ladder, self.latency, self.size_class
        most = latency.medians_s(size_class).shape[1] - 1
        first_s = np.empty(len(ladder))
        for rung, variant in enumerate(ladder):
            batch = latency.largest_batch_within(variant, size_class, self._slo_s / 3.0, min(FIRST_BATCH, most)) or 1
            first_s[rung] = TIMES_ABOVE * latency.likely_s(variant, batch, size_class) / batch
        # A better variant that is quicker, batch for batch, would make the ladder no ladder.
        first_s = np.maximum.accumulate(first_s)
        step_s = np.zeros((len(ladder), len(ladder)))
        for v1, at in enumerate(ladder):
            for v2 in range(v1 + 1, len(ladder)):
                # What no batch of an SLO can have would make going on look cheaper than a better first answer.
                sizes = range(min(ESCALATION_BATCH, most), 0, -1)
                batch = next((b for b in sizes if self.step_s(at, ladder[v2], b) <= self._slo_s / 3.0), 1)
                # Anew it is a whole answer to come, as dear as a first one; else a row would be begun twice for less.
                times = 1.0 if self.cascades.family.first_stage(at, ladder[v2]) else TIMES_ABOVE
                step_s[v1, v2] = times * self.step_likely_s(at, ladder[v2], batch) / batch
        self.prices: Prices = self.cascades.prices(first_s / scale, step_s / scale, known)
        self._hulls: dict[tuple[int, bool], tuple[Floats, Floats]] = {}
        self._offers: dict[tuple[int, bool, int], list[Offer]] = {}
        self._made_from = self._planned() / scale
        self._checked_s = now
        self.scale = scale

    def step_s(self, at: int, variant: int, batch: int) -> float:
        """Planned seconds of a batch that goes on from `at` to a better variant, by shared stages or anew."""
        start = self.cascades.family.start(at, variant)
        return self.latency.planned_s(variant, batch, self.size_class, start)

    def step_likely_s(self, at: int, variant: int, batch: int) -> float:
        """The same for budgets: see `LatencyModel.likely_s`."""
        return self.latency.likely_s(variant, batch, self.size_class, self.cascades.family.start(at, variant))

    def row_s(self, variant: int) -> float:
        """Likely seconds of a row in a common batch of a variant."""
        batch = min(ESCALATION_BATCH, self.latency.medians_s(self.size_class).shape[1] - 1)
        return float(self.latency.likely_s(variant, batch, self.size_class) / batch)

    def is_due(self, now: float) -> bool:
        """Whether `refresh` would look."""
        return now - self._checked_s >= RECHECK_S

    def refresh(self, now: float, slo_s: float | None = None) -> bool:
        """Keep in step with learnt latencies and the SLO; true where seconds are no longer those of the last call."""
        if not self.is_due(now):
            return False
        self._checked_s = now
        if slo_s is not None and not 1.0 / SLO_STEP < slo_s / self._slo_s < SLO_STEP:
            self._slo_s = slo_s
            self.make(now, self.prices, self.scale)
            return True
        ratio = self._planned() / self._made_from
        scale = math.exp(float(np.log(ratio).mean()))
        if np.abs(ratio / scale - 1.0).max() > DRIFT:
            self.make(now, self.prices, scale)
            return True
        changed = abs(scale / self.scale - 1.0) > SCALE_STEP
        if changed:
            self.scale, self._offers = scale, {}
        return changed

    def hull(self, variant: int, *, pinned: bool) -> tuple[Floats, Floats]:
        """Seconds and quality of a row that may start at that variant or above, or at it alone where it is pinned."""
        key = (variant, pinned)
        if key not in self._hulls:
            if pinned:
                # Today's seconds in the table's units, as all hulls are.
                cost = TIMES_ABOVE * self.row_s(variant) / self.scale
                quality = max(self.cascades.family.variants[variant].quality, 1e-6)
                self._hulls[key] = np.array([0.0, cost]), np.array([0.0, quality])
            else:
                self._hulls[key] = self.prices.hull(self.cascades.ladder.index(variant))
        return self._hulls[key]

    def offers(self, key: DemandKey, at: int) -> list[Offer]:
        """What may be begun with rows of that kind at the price of an index, cheapest first."""
        known = (key.lowest, key.pinned >= 0, at)
        if known not in self._offers:
            ladder, prices = self.cascades.ladder, self.prices
            if key.pinned >= 0:
                self._offers[known] = [Offer(key.pinned, self.cascades.family.variants[key.pinned].quality, 0.0)]
            else:
                first = ladder.index(key.lowest)
                columns = (prices.quality[at, first:].tolist(), (self.scale * prices.later_s[at, first:]).tolist())
                self._offers[known] = list(map(Offer, ladder[first:], *columns))
        return self._offers[known]

    def index(self, price: float) -> int:
        """Index into the tables of the nearest price to one in today's seconds."""
        return self.prices.index(price * self.scale)

    def price(self, at: int) -> float:
        """The price of that index in today's seconds."""
        return float(self.prices.price[at]) / self.scale

    def _planned(self) -> Floats:
        latency, most = self.latency, self.latency.medians_s(self.size_class).shape[1] - 1
        batch = min(ESCALATION_BATCH, most)
        return np.array([latency.likely_s(variant, batch, self.size_class) for variant in self.cascades.ladder])
