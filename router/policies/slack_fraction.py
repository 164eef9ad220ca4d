"""SlackFraction: the most accurate variant with which everything queued still fits, else the cheapest.

Rules, in order:

1. Rows that even the cheapest allowed variant cannot answer in time are late.
2. The lane whose head has the earliest deadline runs next; the other lanes of its family count as work to come.
3. Budget = min(slack of the head, `fraction` of its SLO). A variant fits if its batch, and its share of all queued
   work of the family over all slots, are planned within the budget, and leave other families' rows time: what of them
   is due by any moment, at its cheapest, takes with it no more than a share `others` of the time until then. The best
   fitting variant runs; the queue is shared out over the free slots, so that none idles while one is long, unless a
   larger batch makes rows cheaper and fits too.
4. Where none fits: the cheapest allowed variant, in the batch size beyond which batching no longer makes rows
   cheaper. Heads too tight for that batch are answered in a smaller one if that makes rows hardly dearer, and are late
   otherwise (early drop): running them alone would cost more rows than it saves.
5. Where nothing has a deadline: a short batch of background work.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.copying import by_fields
from router.policies.batching import background, chosen, earliest, overdue, reason_for
from router.request import NEVER, Item
from router.triage import quickest_of, triage
from router.view import Decision, Lane, Plan, View
from router.words import Reason


@dataclass(frozen=True, slots=True)
class SlackFraction:
    """The short rule: one look at the queue, no forecast.

    `fraction` (0 to 1] of the SLO is what clearing the queue may take: less keeps more in reserve for arrivals to
    come, more is more accurate. The default came out best in simulations of steady and bursty arrivals; and so did
    `others`, what other families' rows may take of their time, in mixes of 16 and 64 families: with 0.3 fewer are in
    time, with less no more. For heads with little time, rows may take `dearer` times as long (at least 1) as in the
    usual batch: more saves heads, and answers fewer where far more is asked for than there is time for. Without
    `early_drop` only rows whose deadline is over are late.
    """

    fraction: float = 0.3
    others: float = 0.1
    early_drop: bool = True
    dearer: float = 1.2

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return by_fields(self)

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        early = self.early_drop
        lanes, late, wake_at = triage(view.lanes, now, quickest_of(view)) if early else overdue(view.lanes, now)
        if late or not view.free_slots:
            return state, Decision(late, None, wake_at)
        lane = earliest(lanes)
        if lane is None:
            return state, Decision((), background(view, now), wake_at)
        tight, plan = self.choose(view, lane, lanes, now)
        return state, Decision(tight, plan, wake_at)

    def choose(
        self, view: View, lane: Lane, lanes: tuple[Lane, ...], now: float
    ) -> tuple[tuple[tuple[Lane, Item], ...], Plan | None]:
        """Rules 3 and 4 for the lane whose turn it is: heads to drop or, where there are none, the batch to run.

        No row of `lanes` is late.
        """
        head = lane.items[0]
        budget_s = min(head.deadline_s - now, self.fraction * head.slo_s)
        plan = self._best_fitting(view, lane, lanes, budget_s, now)
        return ((), plan) if plan is not None else self._overload(view, lane, budget_s, now)

    def _best_fitting(
        self, view: View, lane: Lane, lanes: tuple[Lane, ...], budget_s: float, now: float
    ) -> Plan | None:
        """Rule 3."""
        head = lane.items[0]
        free = len(view.free_slots) + sum(view.idle, 0.0)
        slots = view.slots
        largest = min(lane.family.max_batch, lane.depth)
        shared_out = min(largest, int(-(-lane.depth // free)))
        latency, size_class, pinned = lane.latency, head.size_class, lane.key.pinned
        others = [other for other in lanes if other is not lane and other.key.family == lane.key.family]
        room_s = min(budget_s * slots, self._room_s(lane, lanes, slots, now))
        if room_s <= 0.0:
            return None
        rungs = (pinned,) if pinned >= 0 else lane.family.ladder
        for variant in reversed(rungs):
            if variant < head.lowest:
                break
            size = max(shared_out, min(largest, latency.economical_batch[variant][size_class]))
            if latency.planned_s(variant, size, size_class) > budget_s:
                size = shared_out
            if latency.planned_s(variant, size, size_class) > budget_s:
                continue
            work_s = latency.clearing_s(variant, lane.depth, size_class)
            for other in others:
                theirs = other.key.pinned if other.key.pinned >= 0 else max(variant, other.key.lowest)
                work_s += latency.clearing_s(theirs, other.depth, other.key.size_class)
            if work_s <= room_s:
                reason = chosen(lane, variant, Reason.FITS_SLACK)
                return Plan(view.free_slots[0], lane, variant, lane.items[:size], reason)
        return None

    def _room_s(self, lane: Lane, lanes: tuple[Lane, ...], slots: float, now: float) -> float:
        """Seconds that the rows of other families leave of a share `others` of the time until any of them are due.

        They are taken at their cheapest, a lane's to be due with its last; those that are less urgent leave everything.
        """
        room_s, work_s = NEVER, 0.0
        key = lane.key
        theirs = [some for some in lanes if some.key.family != key.family and some.key.urgency <= key.urgency]
        for other in sorted(theirs, key=lambda some: some.last_deadline_s):
            work_s += other.latency.clearing_s(other.key.lowest, other.depth, other.key.size_class)
            room_s = min(room_s, self.others * (other.last_deadline_s - now) * slots - work_s)
        return room_s

    def _overload(
        self, view: View, lane: Lane, budget_s: float, now: float
    ) -> tuple[tuple[tuple[Lane, Item], ...], Plan | None]:
        """Rule 4: the rows to drop or, where there are none, the batch to run."""
        head = lane.items[0]
        variant, latency = quickest_of(view)(lane, head), lane.latency
        wanted = min(latency.economical_batch[variant][head.size_class], len(lane.items))
        wanted = max(1, latency.largest_batch_within(variant, head.size_class, self.fraction * head.slo_s, wanted))
        batch_s = latency.planned_s(variant, wanted, head.size_class)
        fitting = latency.largest_batch_within(variant, head.size_class, head.deadline_s - now, wanted)
        if 0 < fitting < wanted:
            fitting_s = latency.planned_s(variant, fitting, head.size_class)
            if fitting_s * wanted <= self.dearer * batch_s * fitting:
                wanted, batch_s = fitting, fitting_s
        tight: list[tuple[Lane, Item]] = []
        for item in lane.items if self.early_drop else ():
            if item.deadline_s - now >= batch_s or len(lane.items) - len(tight) <= wanted:
                break
            tight.append((lane, item))
        if tight:
            return tuple(tight), None
        longest_s = min(head.deadline_s - now, max(budget_s, batch_s))
        size = max(1, latency.largest_batch_within(variant, head.size_class, longest_s, len(lane.items)))
        return (), Plan(view.free_slots[0], lane, variant, lane.items[:size], reason_for(lane, Reason.OVERLOAD))
