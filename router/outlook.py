"""One look at the machine: how much time there is for whom, what it is worth, and what a batch would leave of it.

What is remembered between looks is in `router.memory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from router.contract import NEVER
from router.demand import DemandKey
from router.fluid import Budget, Curve, Floats, Segments, tightest
from router.view import Lane, View
from router.worth import Choices, Integers

if TYPE_CHECKING:
    from router.memory import Memory

FAR = 1.5
"""The look-ahead reaches this many of the longest SLO."""

_NOTHING = np.zeros((1, 1))


class Planned(NamedTuple):
    """The value of time up to the tightest horizon, seconds from now, and after it."""

    near: Curve
    later: Curve
    horizon_s: float


def kind_of(lane: Lane) -> DemandKey:
    """What the rows of a lane cost and may be given."""
    key = lane.key
    return DemandKey(key.family, key.pinned, key.lowest, key.size_class)


class Outlook:
    """One look. `price` is what a second is worth up to the tightest horizon, in quality.

    All times are seconds from now. The waiting rows of all lanes are merged in the order of their deadlines; the rows
    of a lane beyond the look-ahead count as one lump that is due with the last of them.
    """

    def __init__(
        self, memory: Memory, segments: Segments, view: View, lanes: tuple[Lane, ...], budget: Budget, now: float
    ) -> None:
        self._memory = memory
        self._segments = segments
        self._now = now
        self._slots = len(view.free_slots) + len(view.busy_until_s)
        self._others_s = [0.0] * (len(view.free_slots) - 1) + [max(0.0, end_s - now) for end_s in view.busy_until_s]
        self._several = len(lanes) > 1
        self._numbers = {id(lane): number for number, lane in enumerate(lanes)}
        self._due_of: list[Floats] = []
        self._merge(memory, lanes)
        self.planned = self.with_budget(budget)
        self.price = self.planned.near.price
        # Latest start of everything from a row on: its deadline less all cheapest work up to it.
        work_s = (self._row_s * self._rows).cumsum()
        self._slack_s = self._horizons_s[:-1] - work_s
        self._latest_s = np.empty(len(self._rows) + 1)
        self._latest_s[-1] = NEVER
        np.minimum.accumulate(self._slack_s[::-1], out=self._latest_s[-2::-1])

    def _merge(self, memory: Memory, lanes: tuple[Lane, ...]) -> None:
        """All waiting rows by deadline, as arrays of one length: rows, kind, seconds a row, number of the lane."""
        due: list[float] = []
        rows: list[float] = []
        of_lane: list[tuple[int, float, int, int]] = []
        for number, lane in enumerate(lanes):
            count = len(lane.items)
            own_s = lane.latency.full_row_s(lane.key.lowest, lane.key.size_class) / self._slots
            due += [item.deadline_s for item in lane.items]
            rows += [1.0] * count
            if lane.depth > count:
                due.append(lane.last_deadline_s)
                rows.append(float(lane.depth - count))
                count += 1
            of_lane.append((memory.kinds[kind_of(lane)], own_s, number, count))
        due_at = np.array(due) - self._now
        ends = [0]
        for lane, (_, _, _, count) in zip(lanes, of_lane, strict=True):
            self._due_of.append(due_at[ends[-1] : ends[-1] + len(lane.items)])
            ends.append(ends[-1] + count)
        far_s = FAR * memory.longest_s
        if self._several:
            order = due_at.argsort(kind="stable")
            due_at, self._rows = due_at[order], np.array(rows)[order]
            counts = [count for _, _, _, count in of_lane]
            columns = np.array([entry[:3] for entry in of_lane]).repeat(counts, axis=0)[order]
            self._kind, self._row_s = columns[:, 0].astype(np.intp), columns[:, 1]
            self._owner = columns[:, 2]
        else:
            self._rows = np.array(rows)
            kind, own_s, _, count = of_lane[0] if of_lane else (0, 0.0, 0, 0)
            self._kind, self._row_s = np.full(count, kind, np.intp), np.full(count, own_s)
        self._horizons_s = np.empty(len(due) + 1)
        self._horizons_s[:-1] = due_at
        # A lump may be due after the far horizon.
        self._horizons_s[-1] = max(far_s, float(self._horizons_s[-2])) if due else far_s

    def with_budget(self, budget: Budget) -> Planned:
        """The value of time if that much of it is planned with."""
        memory = self._memory
        budget_s = budget.seconds(self._horizons_s, memory.shortest_s, self._others_s, memory.trust)
        kinds = self._segments.kinds
        horizon = tightest(self._horizons_s, self._rows, self._kind, memory.arrivals, budget_s, kinds)
        return Planned(
            self._segments.curve(horizon.rows, horizon.budget_s),
            self._segments.curve(horizon.later_rows, horizon.later_budget_s),
            float(self._horizons_s[horizon.due]),
        )

    def due_s(self, lane: Lane) -> Floats:
        """When the rows of a lane are due, ascending: float64 [n]."""
        return self._due_of[self._numbers[id(lane)]]

    def latest_start_s(self) -> float:
        """Until when a slot may be away without making a waiting row late; infinite where none waits."""
        return float(self._latest_s[0])

    def latest_start_after(self, lane: Lane, rows: Integers) -> Floats:
        """The same for what remains when the first `rows` [b] rows of a lane are taken out: float64 [b]."""
        if not self._several:
            alone: Floats = self._latest_s[rows] + rows * self._row_s[0]
            return alone
        own = self._owner == self._numbers[id(lane)]
        at = own.nonzero()[0]
        own_s = self._row_s[at[0]]
        last = at[rows - 1]
        behind = self._latest_s[last + 1] + rows * own_s
        others = np.where(own, NEVER, self._slack_s + np.cumsum(own) * own_s)
        found: Floats = np.minimum(behind, np.minimum.accumulate(others)[last])
        return found

    def gain(self, lane: Lane, choices: Choices, taken: Integers, planned: Planned, longest_s: float) -> Floats:
        """What each choice adds to the whole: quality of its rows, and the change in what is left for all others.

        `taken` [b] or [k, b] counts the first rows of the lane that are gone afterwards, answered or not. Choices that
        take longer than `longest_s` do not matter. Returns float64 [k, b].
        """
        near, later, horizon_s = planned
        kind = self._memory.kinds[kind_of(lane)]
        segments, due_s = self._segments, self.due_s(lane)
        count = int(due_s.searchsorted(horizon_s, side="right"))
        soon = np.minimum(taken, count)
        freed_s = soon * segments.taken_s[near.segments, kind] - choices.likely_s - choices.rows * choices.later_s
        value: Floats = choices.rows * (self.weight(lane) * choices.quality) - self._blocked(
            choices.likely_s, longest_s
        )
        value = value + near.change(freed_s) - soon * segments.taken[near.segments, kind]
        if count < len(due_s):
            rest = taken - soon
            freed_s = rest * segments.taken_s[later.segments, kind]
            value = value + later.change(freed_s) - rest * segments.taken[later.segments, kind]
        return value

    def cost_of(self, seconds: float) -> float:
        """What is lost by taking a slot for so long: never positive."""
        change = self.planned.near.change(np.array([-seconds]))
        return float(change[0] - self._blocked(np.array([[seconds]]), seconds)[0, 0])

    def weight(self, lane: Lane) -> float:
        """What the quality of a lane's rows counts."""
        return self._memory.weight(lane.key.family)

    def _blocked(self, seconds: Floats, longest_s: float) -> Floats:
        """Quality of arrivals that are doomed because every slot is taken for `seconds` when they come."""
        memory, arrivals = self._memory, self._memory.arrivals
        most_s = min(self._others_s, default=NEVER)
        if most_s <= 0.0 or not len(arrivals.rate):
            return _NOTHING
        # What an arrival needs at the end of the wait: a batch of all that came with it, at its cheapest.
        rate, longest_s = float(arrivals.rate.sum()), min(longest_s, most_s)
        if longest_s + float(memory.row_s.max()) * (1.0 + rate * longest_s) <= memory.shortest_s:
            return _NOTHING
        taken_s = np.minimum(seconds, most_s)
        doomed = np.zeros_like(taken_s)
        classes = zip(arrivals.slo_s.tolist(), arrivals.rate.tolist(), memory.row_s.tolist(), strict=True)
        for slo_s, per_s, row_s in classes:
            needed_s = taken_s + row_s * (1.0 + rate * taken_s)
            doomed += per_s * np.minimum(np.maximum(needed_s - slo_s, 0.0), taken_s)
        return doomed
