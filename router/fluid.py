"""Fluid look-ahead: what a second is worth to everybody who waits or will come.

Rows are taken as a fluid: of each kind so many, each of which may be given time along its concave hull of (seconds,
quality). A budget of seconds goes to everybody's cheapest answer first and then fills the other hull segments in the
order of their slopes; the slope at which it runs out is the price of time. `Budget` keeps part of the time in reserve
for what a fluid cannot see.

Plain numbers, no arrays: a look has some dozens of them, and each call into an array library costs as much as ten.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from router.copying import by_fields
from router.demand import DemandClass, DemandKey
from router.request import NEVER


class Hull(NamedTuple):
    """Seconds and quality at the corners of what a row may be given: both from 0 on and rising, slopes falling."""

    seconds: tuple[float, ...]
    quality: tuple[float, ...]

    def given(self, price: float) -> tuple[float, float]:
        """Seconds and quality that a row is given at a price: its cheapest answer, and all that is steeper."""
        at = 1
        while at + 1 < len(self.seconds) and self._slope(at) > price:
            at += 1
        return self.seconds[at], self.quality[at]

    def segments(self) -> list[tuple[float, float]]:
        """Slope and width, seconds, of what lies behind the cheapest answer."""
        return [(self._slope(at), self.seconds[at + 1] - self.seconds[at]) for at in range(1, len(self.seconds) - 1)]

    def _slope(self, at: int) -> float:
        return (self.quality[at + 1] - self.quality[at]) / (self.seconds[at + 1] - self.seconds[at])


class Hulls:
    """The hulls of several kinds of rows: the first segment of each, then the others merged steepest first.

    First segments are the cheapest answers. Whoever waits gets one before anybody gets a better one, in the order of
    deadlines and not of what it costs: so together they are one segment with one slope. Were they merged by slope, in
    overload long rows would be worth nothing while the order of deadlines makes them run all the same, one by one.
    """

    __slots__ = ("_first", "_rest", "of")

    def __init__(self, hulls: Mapping[DemandKey, Hull] | None = None) -> None:
        self.of: dict[DemandKey, Hull] = {}
        self._first: dict[DemandKey, tuple[float, float]] = {}
        self._rest: list[tuple[float, float, DemandKey]] = []
        """Slope, falling, as a negative number, width and kind."""
        for key, hull in (hulls or {}).items():
            self.put(key, hull)

    def put(self, key: DemandKey, hull: Hull) -> None:
        """Add a hull, or replace the one of that kind; the others stay merged as they are."""
        if key in self.of:
            self._rest = [segment for segment in self._rest if segment[2] != key]
        self.of[key] = hull
        self._first[key] = hull.seconds[1], hull.quality[1]
        for slope, width in hull.segments():
            insort(self._rest, (-slope, width, key))

    def price(self, rows: Mapping[DemandKey, float], budget_s: float) -> float:
        """What the last second of the budget adds, in quality, for so many rows of each kind: 0 where it adds nothing.

        Where there is not even time for all cheapest answers, what a second of those is worth.
        """
        first_s = first = 0.0
        for key, count in rows.items():
            seconds, quality = self._first[key]
            first_s += count * seconds
            first += count * quality
        if budget_s <= first_s:
            return first / first_s if first_s > 0.0 else 0.0
        left_s = budget_s - first_s
        count_of = rows.get
        for falling, width, key in self._rest:
            left_s -= count_of(key, 0.0) * width
            if left_s <= 0.0:
                return -falling
        return 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of the time up to a horizon is planned with.

    Of a horizon of h seconds, min(`reserve` of the shortest SLO, `reserve_share` of h) is kept for arrivals that come
    together; of the rest, `usable` is counted on.
    """

    usable: float = 0.9
    reserve: float = 0.8
    reserve_share: float = 0.5

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return by_fields(self)

    def seconds(
        self,
        horizon_s: float,
        shortest_slo_s: float,
        others_busy_s: Sequence[float],
        speeds: Sequence[float] | None = None,
    ) -> float:
        """Seconds of all slots up to a horizon; `others_busy_s` is how long each other slot is still taken.

        `speeds` has how much each of those does while this one does 1, by default as much.
        """
        left_s = horizon_s - min(self.reserve * shortest_slo_s, self.reserve_share * horizon_s)
        total_s = left_s
        for busy_s, speed in zip(others_busy_s, speeds or [1.0] * len(others_busy_s), strict=True):
            if busy_s < left_s:
                total_s += speed * (left_s - busy_s)
        return self.usable * total_s


class Forecast:
    """The rows that are expected: classes with their kind, SLO (seconds) and rate (rows per second)."""

    __slots__ = ("_per_s", "_slo_s", "_weighted", "classes", "per_s")

    def __init__(self, classes: Iterable[DemandClass] = ()) -> None:
        self.classes = sorted(classes, key=lambda known: known.slo_s)
        self._slo_s = [known.slo_s for known in self.classes]
        self._per_s, self._weighted = [0.0], [0.0]
        for known in self.classes:
            self._per_s.append(self._per_s[-1] + known.rate_per_s)
            self._weighted.append(self._weighted[-1] + known.rate_per_s * known.slo_s)
        self.per_s = self._per_s[-1]
        """Rows per second of all classes."""

    def due(self, horizon_s: float) -> float:
        """Rows that arrive and are due within a horizon."""
        count = bisect_right(self._slo_s, horizon_s)
        return self._per_s[count] * horizon_s - self._weighted[count]

    def add_due(self, rows: dict[DemandKey, float], horizon_s: float) -> None:
        """The same by kind, added to `rows`."""
        for known in self.classes:
            if known.slo_s >= horizon_s:
                break
            rows[known.key] = rows.get(known.key, 0.0) + known.rate_per_s * (horizon_s - known.slo_s)

    def usual_slo_s(self, share: float) -> float:
        """The SLO that the given share of the rows has at most; infinite without rows."""
        wanted = share * self.per_s
        reached = (known.slo_s for known, per_s in zip(self.classes, self._per_s[1:], strict=True) if per_s >= wanted)
        return next(reached, NEVER)
