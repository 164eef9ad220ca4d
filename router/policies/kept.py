"""Steps of rules that answer a row again: which kept rows can still be bettered, and whose turn it is among all."""

from __future__ import annotations

from collections.abc import Callable

from router.policies.batching import batch, earliest, next_turn
from router.request import NEVER, Item
from router.view import Decision, Lane, Plan, View
from router.words import Reason

Better = Callable[[Lane], int]
"""The variant that is to answer the kept rows of a lane, -1 for none."""


def next_of_all(view: View, now: float, *, early_drop: bool, better: Better, first: Callable[[Lane], int]) -> Decision:
    """Earliest deadline first over fresh and kept rows; the whole decision of a rule with fixed choices.

    `better` answers kept rows, `first` fresh ones, in the largest batch that the head has the slack for. Kept rows that
    `better` cannot answer by their deadline less the reply margin are settled with the answer they have.
    """
    fresh = next_turn(view, now, early_drop=early_drop)
    lanes, settled, wake_at = _sort_out(view, now, better)
    wake_at = min(wake_at, fresh.wake_at)
    if isinstance(fresh, Decision):
        if fresh.late or settled or not view.free_slots or not lanes:
            return fresh._replace(wake_at=wake_at, settled=settled)
        lane = None
    else:
        if settled:
            return Decision((), None, wake_at, settled)
        lane = fresh.lane
    kept = earliest(lanes)
    if kept is not None and (lane is None or kept.items[0] < lane.items[0]):
        return Decision((), _again(view, kept, better(kept), now), wake_at)
    assert lane is not None, "without fresh rows there are kept ones here"
    return Decision((), batch(view, lane, first(lane), now, Reason.FIXED), wake_at)


def planned_again_s(lane: Lane, variant: int, rows: int) -> float:
    """Planned seconds for a batch of kept rows on a better variant, which goes on from their state where it can."""
    start = lane.family.start(lane.key.at, variant)
    return lane.latency.planned_s(variant, rows, lane.key.size_class, start)


def _sort_out(view: View, now: float, better: Better) -> tuple[list[Lane], tuple[tuple[Lane, Item], ...], float]:
    """Kept lanes whose head can be bettered in time, the rows that cannot, and when the next cannot any more."""
    lanes: list[Lane] = []
    settled: list[tuple[Lane, Item]] = []
    wake_at = NEVER
    for lane in view.kept:
        variant = better(lane)
        needed_s = view.reply_margin_s + planned_again_s(lane, variant, 1) if variant >= 0 else NEVER
        for item in lane.items:
            latest_s = item.deadline_s - needed_s
            if latest_s > now:
                wake_at = min(wake_at, latest_s)
                lanes.append(lane)
                break
            settled.append((lane, item))
    return lanes, tuple(settled), wake_at


def _again(view: View, lane: Lane, variant: int, now: float) -> Plan:
    """The largest batch of kept rows that is in time for the head."""
    slack_s = lane.items[0].deadline_s - view.reply_margin_s - now
    size = min(len(lane.items), lane.family.max_batch)
    while size > 1 and planned_again_s(lane, variant, size) > slack_s:
        size -= 1
    return Plan(view.free_slots[0], lane, variant, lane.items[:size], Reason.ESCALATED)
