"""One look at the machine: how much time there is for whom, what it is worth, and what a batch would leave of it.

What is remembered between looks is in `router.memory`.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

from router.backlog import LaneKey
from router.demand import DemandKey
from router.fluid import Budget, Forecast, Hulls
from router.request import NEVER
from router.view import Lane, View

FAR = 1.5
"""The look-ahead reaches this many of the longest SLO."""
MOST_POINTS = 24
"""Waiting rows are looked at one by one as long as there are no more than that, else in groups of each lane, with up to
three points more a lane (its head, a last group, what is beyond the look-ahead): what a look costs does not grow with
the queue."""
MANY_LANES = 8
"""Of more lanes than that, those of few rows are one point each."""


class Ahead(NamedTuple):
    """What is expected: arrivals, the shortest and the longest usual SLO (seconds), and what time buys each kind.

    `trust` in (0, 1] is the share of the budget that experience leaves.
    """

    forecast: Forecast
    hulls: Hulls
    shortest_slo_s: float
    longest_slo_s: float
    trust: float = 1.0


class Point(NamedTuple):
    """Rows of a lane, numbered, that are due at a moment; `row_s` seconds each at their cheapest, all slots working."""

    deadline_s: float
    number: int
    rows: int
    row_s: float


def kind_of(lane: Lane) -> DemandKey:
    """What the rows of a lane cost and may be given."""
    return _kind(lane.key)


@lru_cache(maxsize=4096)
def _kind(key: LaneKey) -> DemandKey:
    return DemandKey(key.family, key.pinned, key.lowest, key.size_class)


def points_of(lanes: tuple[Lane, ...], slots: float) -> list[Point]:
    """All waiting rows by deadline. The head of a lane stands alone, the rows of a group are due with the last of them.

    The rows of a lane beyond the look-ahead are one group. Of many lanes, those of few rows are one group each, due
    with the first of them.
    """
    step = -(-sum([len(lane.items) for lane in lanes]) // MOST_POINTS)
    few = step if len(lanes) > MANY_LANES else 1
    points: list[Point] = []
    for number, lane in enumerate(lanes):
        items, count = lane.items, len(lane.items)
        row_s = lane.latency.full_row_s(lane.key.lowest, lane.key.size_class) / slots
        if step == 1:
            points += [Point(item.deadline_s, number, 1, row_s) for item in items]
        elif count <= few:
            points.append(Point(items[0].deadline_s, number, count, row_s))
        else:
            points.append(Point(items[0].deadline_s, number, 1, row_s))
            for first in range(1, count, step):
                end = min(first + step, count)
                points.append(Point(items[end - 1].deadline_s, number, end - first, row_s))
        if lane.depth > count:
            points.append(Point(lane.last_deadline_s, number, lane.depth - count, row_s))
    if len(lanes) > 1:
        points.sort()
    return points


class Outlook:
    """One look. `price` is what a second is worth up to the tightest horizon, in quality: that with the least time per
    row, waiting and expected ones together.

    `lane` is the one whose rows may be taken out; without it only what concerns all of them can be asked.
    """

    __slots__ = ("_before_s", "_behind_s", "_own", "_own_due_s", "_own_s", "_rows", "_spare_s", "price")

    def __init__(
        self, ahead: Ahead, view: View, lanes: tuple[Lane, ...], lane: Lane | None, budget: Budget, now: float
    ) -> None:
        slots, free = view.slots, len(view.free_slots) - 1
        others_s = [0.0] * free + [max(0.0, end_s - now) for end_s in view.busy_until_s]
        speeds = [1.0] * free + list(view.others or [1.0] * len(view.busy_until_s))
        others = tuple(zip(others_s, speeds, strict=True))
        points = points_of(lanes, slots)
        mine = next((number for number, some in enumerate(lanes) if some is lane), -1)
        self._own_s = own_s = next((point.row_s for point in points if point.number == mine), 0.0)
        self._own_due_s = [] if lane is None else [item.deadline_s - now - own_s for item in lane.items]
        self._own: list[int] = []
        self._rows: list[int] = []
        self._spare_s: list[float] = []
        forecast = ahead.forecast
        kept_s, kept_share, usable = budget.reserve * ahead.shortest_slo_s, budget.reserve_share, budget.usable
        add_own, add_rows, add_spare = self._own.append, self._rows.append, self._spare_s.append
        own = rows = 0
        work_s = 0.0
        least_s, tightest_s, tightest, budget_s = NEVER, 0.0, -1, 0.0
        for at, (deadline_s, number, count, row_s) in enumerate(points):
            rows += count
            work_s += count * row_s
            if number == mine:
                own += count
            add_own(own)
            add_rows(rows)
            left_s = deadline_s - now
            add_spare(left_s - work_s)
            # As `Budget.seconds`, which is looked up some dozens of times here.
            part_s = kept_share * left_s
            planned_s = seconds = left_s - (part_s if part_s < kept_s else kept_s)
            for busy_s, speed in others:
                if busy_s < planned_s:
                    seconds += speed * (planned_s - busy_s)
            seconds *= usable
            each_s = seconds / (rows + forecast.due(left_s))
            if each_s < least_s:
                least_s, tightest_s, tightest, budget_s = each_s, left_s, at, seconds
        far_s = max(FAR * ahead.longest_slo_s, points[-1].deadline_s - now if points else 0.0)
        seconds = budget.seconds(far_s, ahead.shortest_slo_s, others_s, speeds)
        to_come = rows + forecast.due(far_s)
        if to_come > 0.0 and seconds / to_come < least_s:
            tightest_s, tightest, budget_s = far_s, len(points) - 1, seconds
        demand: dict[DemandKey, float] = {}
        kinds = [kind_of(some) for some in lanes]
        for point in points[: tightest + 1]:
            kind = kinds[point.number]
            demand[kind] = demand.get(kind, 0.0) + point.rows
        forecast.add_due(demand, tightest_s)
        self.price = ahead.hulls.price(demand, ahead.trust * budget_s)
        self._behind_s, self._before_s = [NEVER], [NEVER]
        self._sum_up()

    def _sum_up(self) -> None:
        """By point: the least spare time from it on, and of the other lanes' rows before it."""
        behind_s = before_s = NEVER
        for spare_s in reversed(self._spare_s):
            behind_s = min(behind_s, spare_s)
            self._behind_s.append(behind_s)
        self._behind_s.reverse()
        # Rows of the own lane that came before will have been taken out.
        for own, rows, spare_s in zip(self._own, self._rows, self._spare_s, strict=True):
            if own < rows:
                before_s = min(before_s, spare_s + own * self._own_s)
            self._before_s.append(before_s)

    def latest_start_s(self, taken: int = 0) -> float:
        """Seconds that a slot may be away without making a waiting row late, the `taken` first of the lane left out.

        All that wait are answered at their cheapest then. Infinite where none does.
        """
        own, rows = self._own, self._rows
        at = bisect_left(own, taken)
        first = at + 1 if taken and at < len(rows) and rows[at] == taken else at
        latest_s = self._behind_s[first] + taken * self._own_s
        if taken < len(self._own_due_s):
            # The new head of the lane may be due long before the group that it is in.
            latest_s = min(latest_s, self._own_due_s[taken])
        return min(latest_s, self._before_s[at])
