"""Always the same variant: what one has without a router, and the yardstick for every other policy."""

from __future__ import annotations

from dataclasses import dataclass

from router.contract import Item, Reason
from router.policies.batching import background, best_rung, earliest, reason_for
from router.triage import triage
from router.view import Decision, Lane, Plan, View


@dataclass(frozen=True, slots=True)
class Fixed:
    """Earliest deadline first, the largest batch that still fits the head's slack, always one variant.

    `choice` is a variant's name, `cheapest` or `best`. A family that has no variant of that name uses its cheapest;
    pins and floors of the request are honoured. Rows that this variant cannot answer in time are late at once.
    """

    choice: str

    def variant(self, lane: Lane, item: Item) -> int:
        """Index of the variant that answers this row."""
        if lane.key.pinned >= 0 or self.choice == "cheapest":
            return item.lowest
        if self.choice == "best":
            return best_rung(lane)
        named = lane.family.index(self.choice)
        if named is None:
            return item.lowest
        return named if lane.family.variants[named].quality >= item.floor else item.lowest

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        lanes, late, wake_at = triage(view.lanes, now, self.variant)
        if late or not view.free_slots:
            return state, Decision(late, None, wake_at)
        lane = earliest(lanes)
        if lane is None:
            return state, Decision((), background(view, now), wake_at)
        head = lane.items[0]
        variant = self.variant(lane, head)
        size = lane.latency.largest_batch_within(variant, head.size_class, head.deadline_s - now, len(lane.items))
        items = tuple(item for item in lane.items if self.variant(lane, item) == variant)[: max(1, size)]
        plan = Plan(view.free_slots[0], lane, variant, items, reason_for(lane, Reason.FIXED))
        return state, Decision((), plan, wake_at)
