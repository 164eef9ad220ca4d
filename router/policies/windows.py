"""The rate that a rule believes in: rows counted over windows of fixed length, as most published systems measure it."""

from __future__ import annotations

import math
from typing import NamedTuple

from router.family import Family
from router.latency import LatencyModel
from router.view import Lane, View

RATE_STEP = 1.1
"""What is worked out per rate is worked out for rates this factor apart, always for the upper one."""
EARLY_READINGS = 10
"""The first window is read so often while it fills."""


class Kind(NamedTuple):
    """Rows that cost the same."""

    family: str
    size_class: int


class Measured(NamedTuple):
    """Rows per second of one kind, and the shortest SLO among them (seconds)."""

    rate_per_s: float
    slo_s: float


class Windows:
    """Counts rows in windows of `window_s` seconds, one after the other; the last full one is what is believed.

    How a family's rows divide into size classes comes from `Demand.classes`. A rule keeps one in its state and calls
    `roll` first in each decision. Updated in place.
    """

    __slots__ = ("_arrived", "_full", "_load", "_models", "_read_s", "_since_s", "measured", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.measured: dict[Kind, Measured] = {}
        self._models: dict[str, tuple[Family, LatencyModel]] = {}
        self._arrived: dict[str, int] = {}
        self._since_s = self._read_s = -math.inf
        self._full = False
        self._load = 0.0

    def roll(self, view: View, now: float) -> bool:
        """Look at the counters; whether there are new rates."""
        for lane in view.lanes:
            self._models[lane.key.family] = (lane.family, lane.latency)
        if self._since_s == -math.inf:
            self._since_s = now
        elapsed_s = now - self._since_s
        early = not self._full and now - self._read_s >= self.window_s / EARLY_READINGS
        if elapsed_s < self.window_s and not early:
            return False
        self._read(view, max(elapsed_s, self.window_s / EARLY_READINGS), now)
        self._read_s = now
        if elapsed_s >= self.window_s:
            self._full = True
            self._since_s, self._arrived = now, dict(view.demand.arrived)
        return True

    def per_slot(self, view: View, lane: Lane) -> float:
        """Rows per second like the lane's that would load a slot as much as everything measured does.

        So a rule made for one family sees less of the machine where others use it. Loads are compared by what rows
        cost on the cheapest variants.
        """
        slots = view.slots
        return self._load / (slots * row_s(lane.family, lane.latency, lane.key.size_class))

    def model(self, family: str) -> tuple[Family, LatencyModel] | None:
        """A family and its latency model, once rows of it have been seen."""
        return self._models.get(family)

    def _read(self, view: View, seconds: float, now: float) -> None:
        shares: dict[Kind, float] = {}
        slos: dict[Kind, float] = {}
        sums: dict[str, float] = {}
        for demand in view.demand.classes(now):
            kind = Kind(demand.key.family, demand.key.size_class)
            shares[kind] = shares.get(kind, 0.0) + demand.rate_per_s
            slos[kind] = min(slos.get(kind, math.inf), demand.slo_s)
            sums[kind.family] = sums.get(kind.family, 0.0) + demand.rate_per_s
        self.measured = {}
        self._load = 0.0
        for kind, share in shares.items():
            rows = view.demand.arrived.get(kind.family, 0) - self._arrived.get(kind.family, 0)
            rate = rows / seconds * share / sums[kind.family] if sums[kind.family] > 0.0 else 0.0
            self.measured[kind] = Measured(rate, slos[kind])
            if kind.family in self._models:
                self._load += rate * row_s(*self._models[kind.family], kind.size_class)


def row_s(family: Family, latency: LatencyModel, size_class: int) -> float:
    """Planned seconds of a slot for one row on the cheapest variant, in an economical batch."""
    variant = family.ladder[0]
    rows = latency.economical_batch[variant][size_class]
    return latency.planned_s(variant, rows, size_class) / rows


def rate_step(rate_per_s: float) -> int:
    """The step of the geometric scale of rates at or above this one; 0 and less where next to nothing arrives."""
    return math.ceil(math.log(max(rate_per_s, 0.1)) / math.log(RATE_STEP) - 1e-9)


def rate_of(step: int) -> float:
    """Rows per second of that step."""
    return RATE_STEP**step
