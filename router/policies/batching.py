"""Steps that every policy shares: whose turn it is, who may share a batch, and what runs when nobody is in a hurry."""

from __future__ import annotations

from collections.abc import Iterable

from router.contract import NEVER, Reason
from router.view import Lane, Plan, View

BACKGROUND_BATCH_S = 0.02
"""Work without a deadline never holds a slot longer than this (unless one row takes longer)."""


def earliest(lanes: Iterable[Lane]) -> Lane | None:
    """The lane whose head comes first in the order of urgency and deadline."""
    return min(lanes, key=lambda lane: lane.items[0], default=None)


def best_rung(lane: Lane) -> int:
    """The most accurate variant that may answer the lane's head."""
    return lane.key.pinned if lane.key.pinned >= 0 else lane.family.ladder[-1]


def background(view: View, now: float) -> Plan | None:
    """A short batch of spare-capacity work, for when nothing with a deadline waits.

    Rows that are late get the cheapest allowed variant, rows that never had a deadline the best one that is quick
    enough not to be in the way.
    """
    lane = earliest(view.background)
    if lane is None:
        return None
    head = lane.items[0]
    variant = head.lowest
    if head.deadline_s == NEVER and lane.key.pinned < 0:
        quick = (
            rung
            for rung in reversed(lane.family.ladder)
            if rung >= head.lowest and lane.latency.planned_s(rung, 1, head.size_class) <= BACKGROUND_BATCH_S
        )
        variant = next(quick, head.lowest)
    count = lane.latency.largest_batch_within(variant, head.size_class, BACKGROUND_BATCH_S, len(lane.items))
    items = lane.items[: max(1, count)]
    reason = Reason.SPARE_CAPACITY if head.deadline_s == NEVER else Reason.LATE
    return Plan(view.free_slots[0], lane, variant, items, reason_for(lane, reason))


def reason_for(lane: Lane, otherwise: Reason) -> Reason:
    """The caller's own choice explains a variant before any rule does."""
    return Reason.PINNED if lane.key.pinned >= 0 else otherwise
