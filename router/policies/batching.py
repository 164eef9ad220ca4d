"""Steps that policies share: whose turn it is, who may share a batch, and what runs when nobody is in a hurry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from router.request import NEVER, Item
from router.triage import Choose, Triage, allowed, lowest, triage
from router.view import Decision, Lane, Plan, View
from router.words import Reason

BACKGROUND_BATCH_S = 0.02
"""Work without a deadline never holds a slot longer than this (unless one row takes longer)."""


PATIENCE = 0.4
"""Who comes while such work holds the last free slot loses at most this share of its SLO."""
RARE_PER_S = 0.01
"""Rows that come less often are not waited for."""


class Turn(NamedTuple):
    """Whose turn it is: the lane whose head comes first, beside all `lanes` of rows that are not late."""

    lane: Lane
    lanes: tuple[Lane, ...]
    wake_at: float


def earliest(lanes: Iterable[Lane]) -> Lane | None:
    """The lane whose head comes first in the order of urgency and deadline."""
    return min(lanes, key=lambda lane: lane.items[0], default=None)


def best_rung(lane: Lane) -> int:
    """The most accurate variant that may answer the lane's head."""
    return lane.key.pinned if lane.key.pinned >= 0 else lane.family.ladder[-1]


def next_turn(view: View, now: float, *, early_drop: bool, quickest: Choose = lowest) -> Turn | Decision:
    """Whose turn it is, or the whole decision where that is clear without looking at variants.

    Early drop: rows are late that `quickest` cannot answer in time any more, and in overload heads that are too tight
    for an economical batch (`tight_heads`). Lazy drop: rows whose deadline is over.
    """
    lanes, late, wake_at = triage(view.lanes, now, quickest) if early_drop else overdue(view.lanes, now)
    if late or not view.free_slots:
        return Decision(late, None, wake_at)
    lane = earliest(lanes)
    if lane is None:
        return Decision((), background(view, now), wake_at)
    if early_drop:
        tight = tight_heads(view, lane, lanes, quickest(lane, lane.items[0]), now)
        if tight:
            return Decision(tight, None, wake_at)
    return Turn(lane, lanes, wake_at)


def overdue(lanes: tuple[Lane, ...], now: float) -> Triage:
    """Sort out rows whose deadline is over: lazy drop, as in servers that only look at the clock."""
    kept: list[Lane] = []
    late: list[tuple[Lane, Item]] = []
    wake_at = NEVER
    for lane in lanes:
        gone = 0
        while gone < len(lane.items) and lane.items[gone].deadline_s <= now:
            late.append((lane, lane.items[gone]))
            gone += 1
        if gone < len(lane.items):
            wake_at = min(wake_at, lane.items[gone].deadline_s)
            kept.append(lane._replace(depth=lane.depth - gone, items=lane.items[gone:]) if gone else lane)
    return Triage(tuple(kept), tuple(late), wake_at)


def tight_heads(
    view: View, lane: Lane, lanes: tuple[Lane, ...], variant: int, now: float
) -> tuple[tuple[Lane, Item], ...]:
    """The heads to drop so that the batch behind them is economical; none where everything queued can be answered.

    The early drop of Nexus (SOSP'19, section 4.3): a window as large as the wanted batch slides over the queue until
    its first row has the slack for it. Left open there, chosen here: the wanted batch is the one beyond which rows get
    no cheaper, planned within half of the SLO; overload is when the batch that the head has the slack for, and then
    the rest of its family, take longer than the last row of the lane can wait.
    """
    head, latency = lane.items[0], lane.latency
    size_class, slack_s = head.size_class, head.deadline_s - now
    wanted = min(latency.economical_batch[variant][size_class], len(lane.items))
    wanted = max(1, latency.largest_batch_within(variant, size_class, head.slo_s / 2, wanted))
    wanted_s = latency.planned_s(variant, wanted, size_class)
    if slack_s >= wanted_s:
        return ()
    fitting = max(1, latency.largest_batch_within(variant, size_class, slack_s, wanted))
    work_s = latency.planned_s(variant, fitting, size_class)
    work_s += latency.clearing_s(variant, lane.depth - fitting, size_class)
    for other in lanes:
        if other is not lane and other.key.family == lane.key.family:
            work_s += latency.clearing_s(other.key.lowest, other.depth, other.key.size_class)
    if work_s <= (lane.last_deadline_s - now) * view.slots:
        return ()
    tight = 0
    while len(lane.items) - tight > wanted and lane.items[tight].deadline_s - now < wanted_s:
        tight += 1
    return tuple((lane, item) for item in lane.items[:tight])


def in_time(lane: Lane, variant: int, now: float) -> int:
    """`variant`, or the best cheaper one that may answer the head where this one is too late for it.

    The cheapest where all are too late.
    """
    head, latency = lane.items[0], lane.latency
    for rung in reversed(allowed(lane)):
        if rung <= variant and now + latency.planned_s(rung, 1, head.size_class) <= head.deadline_s:
            return rung
    return head.lowest


def batch(view: View, lane: Lane, variant: int, now: float, reason: Reason, at_most: int | None = None) -> Plan:
    """The largest batch of the lane's first rows that the head has the slack for; the head alone where it has none."""
    head = lane.items[0]
    most = len(lane.items) if at_most is None else min(at_most, len(lane.items))
    size = max(1, lane.latency.largest_batch_within(variant, head.size_class, head.deadline_s - now, most))
    return Plan(view.free_slots[0], lane, variant, lane.items[:size], chosen(lane, variant, reason))


def background(view: View, now: float) -> Plan | None:
    """A short batch of spare-capacity work, for when nothing with a deadline waits.

    Rows that are late get the cheapest allowed variant, rows that never had a deadline the best one that is quick
    enough not to be in the way; where none is, they wait: a batch cannot be stopped for who comes meanwhile.
    """
    lane = earliest(view.background)
    if lane is None:
        return None
    head = lane.items[0]
    patience_s = patience(view, now)
    within_s = min(BACKGROUND_BATCH_S, patience_s)
    variant = head.lowest
    if head.deadline_s == NEVER:
        if lane.key.pinned < 0:
            quick = (
                rung
                for rung in reversed(lane.family.ladder)
                if rung >= head.lowest and lane.latency.planned_s(rung, 1, head.size_class) <= within_s
            )
            variant = next(quick, head.lowest)
        if lane.latency.planned_s(variant, 1, head.size_class) > patience_s:
            return None
    count = lane.latency.largest_batch_within(variant, head.size_class, within_s, len(lane.items))
    items = lane.items[: max(1, count)]
    reason = Reason.SPARE_CAPACITY if head.deadline_s == NEVER else Reason.LATE
    return Plan(view.free_slots[0], lane, variant, items, reason_for(lane, reason))


def patience(view: View, now: float) -> float:
    """Seconds that a slot may be taken without making anybody late who is expected to come meanwhile.

    Infinite where another slot stays free for them.
    """
    if len(view.free_slots) + len(view.idle) > 1:
        return NEVER
    expected = (known.slo_s for known in view.demand.classes(now) if known.rate_per_s > RARE_PER_S)
    return PATIENCE * min(expected, default=NEVER)


def chosen(lane: Lane, variant: int, otherwise: Reason) -> Reason:
    """Why this variant: the caller's choice, the only one, the best one, or `otherwise`."""
    if lane.key.pinned < 0 and variant == lane.family.ladder[-1]:
        return Reason.ONLY_VARIANT if variant == lane.key.lowest else Reason.MOST_ACCURATE
    return reason_for(lane, otherwise)


def reason_for(lane: Lane, otherwise: Reason) -> Reason:
    """The caller's own choice explains a variant before any rule does."""
    return Reason.PINNED if lane.key.pinned >= 0 else otherwise
