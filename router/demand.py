"""How fast rows arrive, by what they ask for: the forecast that policies plan with.

The rate of a class is the mean of two exponential windows, a quick one that notices bursts and a slow one that
remembers, each corrected for the time before it had seen anything. Our routing study found the exact estimator to
matter little.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from router.family import Family
from router.request import Request

QUICK_S = 0.05
SLOW_S = 2.0
SLO_STEP = math.log(1.25)
"""SLOs within a quarter of each other are one class."""
MOST_CLASSES = 192
"""More kinds of requests than that are counted with a class of their family and size, whatever its SLO."""
SWEEP_S = 1.0
"""Classes that have run dry are looked for this often at most."""
FORGOTTEN_PER_S = 0.01


class DemandKey(NamedTuple):
    """What rows agree on that cost the same and are worth the same; the part of a lane's key that is known at arrival.

    `pinned` is a variant index or -1.
    """

    family: str
    pinned: int
    lowest: int
    size_class: int


class DemandClass(NamedTuple):
    """Rows per second of one kind with one SLO (seconds)."""

    key: DemandKey
    slo_s: float
    rate_per_s: float


class _Rate:
    __slots__ = ("_quick", "_since_s", "_slow", "_updated_s", "slo_s")

    def __init__(self, slo_s: float, now: float) -> None:
        self.slo_s = slo_s
        self._quick = self._slow = 0.0
        self._since_s = self._updated_s = now

    def add(self, rows: int, now: float) -> None:
        self._decay(now)
        self._quick += rows / QUICK_S
        self._slow += rows / SLOW_S

    def at(self, now: float) -> float:
        self._decay(now)
        age_s = now - self._since_s + 0.5 * QUICK_S
        quick = self._quick / -math.expm1(-age_s / QUICK_S)
        slow = self._slow / -math.expm1(-age_s / SLOW_S)
        return 0.5 * (quick + slow)

    def join(self, other: _Rate) -> None:
        """Count what another one has counted."""
        now = max(self._updated_s, other._updated_s)
        self._decay(now)
        other._decay(now)
        self._quick += other._quick
        self._slow += other._slow
        self._since_s = min(self._since_s, other._since_s)

    def _decay(self, now: float) -> None:
        step_s = now - self._updated_s
        if step_s > 0.0:
            self._quick *= math.exp(-step_s / QUICK_S)
            self._slow *= math.exp(-step_s / SLOW_S)
            self._updated_s = now


def _now_lowest(key: DemandKey, before: Family, after: Family) -> DemandKey | None:
    """The same kind of rows in a family that has changed, None where nothing may answer them."""
    if key.pinned >= 0:
        named = after.index(before.variants[key.pinned].name)
        loaded = named is not None and after.is_loaded(named)
        return key._replace(pinned=named, lowest=named) if named is not None and loaded else None
    # Rows that took the cheapest there was take the cheapest there is.
    quality = 0.0 if before.ladder[:1] == (key.lowest,) else before.variants[key.lowest].quality
    lowest = after.lowest_rung(quality)
    return None if lowest is None else key._replace(lowest=lowest)


class Demand:
    """Counts arrivals. Bounded: `MOST_CLASSES` classes, and those that have run dry are forgotten."""

    __slots__ = ("_rates", "_swept_s", "arrived", "known_s")

    def __init__(self) -> None:
        self._swept_s = -math.inf
        self.known_s = math.inf
        """Until when all arrivals are known: policies that look at a later moment must not take it that nobody came."""
        self._rates: dict[tuple[DemandKey, int], _Rate] = {}
        self.arrived: dict[str, int] = {}
        """Rows so far by family, for policies with windows of their own."""

    def observe(self, request: Request, lowest: int, now: float) -> None:
        """A request came, with time for it or not. Counts only with a deadline.

        `lowest` is the cheapest variant that may answer it.
        """
        rows = len(request.row_classes)
        self.arrived[request.family] = self.arrived.get(request.family, 0) + rows
        slo_s = request.deadline_s - request.arrival_s
        if not 0.0 < slo_s < math.inf:
            return
        pinned = lowest if request.pinned is not None else -1
        step = round(math.log(slo_s) / SLO_STEP)
        classes = request.row_classes
        if rows == 1 or classes.count(classes[0]) == rows:
            self._rate(DemandKey(request.family, pinned, lowest, classes[0]), step, slo_s, now).add(rows, now)
            return
        for size_class in set(classes):
            key = DemandKey(request.family, pinned, lowest, size_class)
            self._rate(key, step, slo_s, now).add(classes.count(size_class), now)

    def relabel(self, before: Family, after: Family) -> None:
        """Other variants of a family are loaded: what is known of its demand is known under their names.

        Demand that nothing loaded may answer is forgotten.
        """
        known, self._rates = self._rates, {}
        for (key, step), rate in known.items():
            to = key if key.family != before.name else _now_lowest(key, before, after)
            if to is None:
                continue
            same = self._rates.setdefault((to, step), rate)
            if same is not rate:
                same.join(rate)

    def classes(self, now: float) -> tuple[DemandClass, ...]:
        """The rates of all classes at this moment, or at the last one that is known."""
        now = min(now, self.known_s)
        return tuple([DemandClass(key, rate.slo_s, rate.at(now)) for (key, _), rate in self._rates.items()])

    def _rate(self, key: DemandKey, step: int, slo_s: float, now: float) -> _Rate:
        rate = self._rates.get((key, step))
        if rate is not None:
            return rate
        if len(self._rates) >= MOST_CLASSES and now - self._swept_s > SWEEP_S:
            self._swept_s = now
            self._rates = {name: old for name, old in self._rates.items() if old.at(now) > FORGOTTEN_PER_S}
        if len(self._rates) >= MOST_CLASSES:
            alike = (
                old for (name, _), old in self._rates.items() if (name.family, name.size_class) == (key[0], key[3])
            )
            # Where the family has none either, its rows are counted, but not forecast.
            return next(alike, None) or _Rate(slo_s, now)
        rate = self._rates[key, step] = _Rate(slo_s, now)
        return rate
