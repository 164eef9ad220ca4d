"""Always the same variant: what one has without a router, and the yardstick for every other policy."""

from __future__ import annotations

from dataclasses import dataclass

from router.policies.batching import best_rung, next_turn, reason_for
from router.request import Item
from router.view import Decision, Lane, Plan, View
from router.words import Reason


@dataclass(frozen=True, slots=True)
class Fixed:
    """Earliest deadline first, the largest batch that still fits the head's slack, always one variant.

    `choice` is a variant's name, `cheapest` or `best`. A family that has none of that name loaded uses its cheapest;
    pins and floors of the request are honoured. Early drop: see `router.policies.batching.next_turn`; it asks whether
    this variant, not the cheapest, can answer in time.
    """

    choice: str
    early_drop: bool = True

    def variant(self, lane: Lane, item: Item) -> int:
        """Index of the variant that answers this row."""
        if lane.key.pinned >= 0 or self.choice == "cheapest":
            return item.lowest
        if self.choice == "best":
            return best_rung(lane)
        named = lane.family.index(self.choice)
        if named is None or not lane.family.is_loaded(named):
            return item.lowest
        return named if lane.family.variants[named].quality >= item.floor else item.lowest

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        turn = next_turn(view, now, early_drop=self.early_drop, quickest=self.variant)
        if isinstance(turn, Decision):
            return state, turn
        lane = turn.lane
        head = lane.items[0]
        variant = self.variant(lane, head)
        size = lane.latency.largest_batch_within(variant, head.size_class, head.deadline_s - now, len(lane.items))
        items = tuple(item for item in lane.items if self.variant(lane, item) == variant)[: max(1, size)]
        plan = Plan(view.free_slots[0], lane, variant, items, reason_for(lane, Reason.FIXED))
        return state, Decision((), plan, turn.wake_at)
