"""Fluid look-ahead: what the time that is left is worth to everybody who waits or will come.

Rows are taken as a fluid: of each kind so many, each of which may be given time along its concave hull of (seconds,
quality). A budget of seconds goes to everybody's cheapest answer first and then fills the other hull segments in the
order of their slopes; the slope at which it runs out is the price of time. `Budget` keeps part of the time in reserve
for what a fluid cannot see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FAR_S = 1e6
_NO_SECONDS, _NO_VALUE = np.array([-_FAR_S, _FAR_S]), np.zeros(2)


class Curve(NamedTuple):
    """The value of seconds, piecewise linear: one line for all cheapest answers, also below 0, and concave from there.

    `price` is the slope at the budget, `worth` the value there, `segments` how many segments behind the cheapest
    answers have been filled, being steeper than that.
    """

    seconds: Floats
    value: Floats
    budget_s: float
    price: float
    worth: float
    segments: int

    def change(self, freed_s: Floats) -> Floats:
        """How the value changes when the budget grows by so much (or shrinks)."""
        return np.interp(self.budget_s + freed_s, self.seconds, self.value) - self.worth


class Segments:
    """The hulls of several kinds of rows: the first segment of each, then the others merged steepest first.

    First segments are the cheapest answers. Whoever waits gets one before anybody gets a better one, in the order of
    deadlines and not of what it costs: so together they are one segment with one slope. Were they merged by slope, in
    overload long rows would be worth nothing while the order of deadlines makes them run all the same, one by one.

    `count` is how many others there are: none where every kind has one answer to give. `taken_s` and `taken`
    [count + 1, kinds] are the seconds and the quality that a row of a kind has been given by
    its first segment and the steepest so many others.
    """

    __slots__ = ("_first", "_first_s", "_kind", "_slope", "_steepness", "_width", "count", "kinds", "taken", "taken_s")

    def __init__(self, hulls: Sequence[tuple[Floats, Floats]]) -> None:
        self.kinds = len(hulls)
        self._first_s = np.array([cost[1] for cost, _ in hulls])
        self._first = np.array([value[1] for _, value in hulls])
        kind = np.concatenate([np.full(len(cost) - 2, number) for number, (cost, _) in enumerate(hulls)])
        width = np.concatenate([np.diff(cost[1:]) for cost, _ in hulls])
        gain = np.concatenate([np.diff(value[1:]) for _, value in hulls])
        order = np.argsort(-gain / width, kind="stable")
        self._kind, self._width, gain = kind[order].astype(np.intp), width[order], gain[order]
        self.count = len(order)
        self._slope = gain / self._width
        self._steepness = -self._slope
        one_hot = np.eye(self.kinds)[self._kind]
        self.taken_s = np.cumsum(np.vstack((self._first_s, one_hot * self._width[:, None])), axis=0)
        self.taken = np.cumsum(np.vstack((self._first, one_hot * gain[:, None])), axis=0)

    def curve(self, rows: Floats, budget_s: float) -> Curve:
        """The value of time for so many rows of each kind, float64 [kinds]."""
        slope, count = self._slope, self.count
        if not rows.any():
            return Curve(_NO_SECONDS, _NO_VALUE, budget_s, 0.0, 0.0, count)
        first_s, first = float(self._first_s @ rows), float(self._first @ rows)
        steepest = first / first_s
        seconds, value = np.empty(count + 3), np.empty(count + 3)
        seconds[0], value[0] = -_FAR_S, -_FAR_S * steepest
        seconds[1] = value[1] = 0.0
        width = self._width * rows[self._kind]
        width.cumsum(out=seconds[3:])
        (width * slope).cumsum(out=value[3:])
        seconds[2] = value[2] = 0.0
        seconds[2:] += first_s
        value[2:] += first
        if budget_s <= first_s:
            return Curve(seconds, value, budget_s, steepest, budget_s * steepest, 0)
        at = int(seconds.searchsorted(budget_s))
        if at == count + 3:
            return Curve(seconds, value, budget_s, 0.0, float(value[-1]), count)
        price = float(slope[at - 3])
        worth = float(value[at]) - (float(seconds[at]) - budget_s) * price
        return Curve(seconds, value, budget_s, price, worth, int(self._steepness.searchsorted(-price)))


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of the time up to a horizon is planned with.

    Of a horizon of h seconds, min(`reserve` of the shortest SLO, `reserve_share` of h) is kept for arrivals that come
    together; of the rest, `usable` is counted on.
    """

    usable: float = 0.9
    reserve: float = 0.6
    reserve_share: float = 0.4

    def seconds(
        self, horizon_s: Floats, shortest_slo_s: float, others_busy_s: Sequence[float], trust: float = 1.0
    ) -> Floats:
        """Seconds of all slots up to each horizon; `others_busy_s` is how long each other slot is still taken.

        `trust` in (0, 1] is the share of them that experience leaves.
        """
        left = horizon_s - np.minimum(self.reserve * shortest_slo_s, self.reserve_share * horizon_s)
        total = left
        for busy_s in others_busy_s:
            total = total + np.maximum(left - busy_s, 0.0)
        return self.usable * trust * total


class Horizon(NamedTuple):
    """Rows of each kind, float64 [kinds], and the seconds there are for them: up to a horizon, and after it.

    `due` is the index of the last waiting row before the horizon.
    """

    due: int
    rows: Floats
    budget_s: float
    later_rows: Floats
    later_budget_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """The forecast: classes with their kind (intp [c]), SLO (seconds [c]) and rate (rows per second [c])."""

    kind: NDArray[np.intp]
    slo_s: Floats
    rate: Floats

    def expected(self, horizon_s: Floats) -> Floats:
        """Rows of all classes that arrive and are due within each horizon [h]."""
        return np.maximum(horizon_s[:, None] - self.slo_s, 0.0) @ self.rate

    def by_kind(self, horizon_s: float, kinds: int) -> Floats:
        """Rows of each kind that arrive and are due within a horizon."""
        return _tally(self.kind, self.rate * np.maximum(horizon_s - self.slo_s, 0.0), kinds)


def _tally(kind: NDArray[np.intp], amount: Floats, kinds: int) -> Floats:
    return np.bincount(kind, amount, kinds).astype(np.float64, copy=False)


def tightest(
    due_s: Floats, rows: Floats, kind: NDArray[np.intp], ahead: Arrivals, budget_s: Floats, kinds: int
) -> Horizon:
    """Find the horizon with the least time per row.

    `due_s` [n + 1] ascends: seconds until each waiting row (or lump of `rows` [n] rows of a `kind` [n]) is due, and at
    last the far horizon; `budget_s` [n + 1] is the time there is until then.
    """
    demand = ahead.expected(due_s) + 1e-9
    waiting = rows.cumsum()
    demand[:-1] += waiting
    if len(rows):
        demand[-1] += waiting[-1]
    index = int((budget_s / demand).argmin())
    near = _tally(kind[: index + 1], rows[: index + 1], kinds) + ahead.by_kind(float(due_s[index]), kinds)
    if index == len(due_s) - 1:
        return Horizon(index, near, float(budget_s[-1]), np.zeros(kinds), 0.0)
    far = _tally(kind, rows, kinds) + ahead.by_kind(float(due_s[-1]), kinds)
    return Horizon(
        index,
        near,
        float(budget_s[index]),
        np.maximum(far - near, 0.0),
        max(0.0, float(budget_s[-1] - budget_s[index])),
    )
