"""Who is too late: rows that no allowed variant can answer by their deadline are known before they cost anything.

Serving them would only make others late (the early drop of Nexus, SOSP'19). They are reported as `late`; whether
that means refusal or an answer after all others is each request's own choice (`when_late`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

from router.request import NEVER, Item
from router.view import Lane, View

Choose = Callable[[Lane, Item], int]
"""Index of the quickest variant that the policy would use for a row."""


def lowest(lane: Lane, item: Item) -> int:
    """The cheapest variant that may answer the row."""
    return item.lowest


def quickest(lane: Lane, item: Item) -> int:
    """The variant that takes least for one row, of all that may answer it."""
    return min(allowed(lane), key=lambda rung: lane.latency.planned_s(rung, 1, item.size_class), default=item.lowest)


def quickest_of(view: View) -> Choose:
    """`lowest` where slots are alike. Which variant is cheapest on one device need not be the quickest on another."""
    return lowest if view.kinds is None else quickest


def allowed(lane: Lane) -> tuple[int, ...]:
    """The variants that may answer the lane's rows, cheapest first: the pinned one, or the rungs from the lowest on."""
    if lane.key.pinned >= 0:
        return (lane.key.pinned,)
    ladder, cheapest = lane.family.ladder, lane.key.lowest
    return ladder if ladder[0] == cheapest else tuple([rung for rung in ladder if rung >= cheapest])


class Triage(NamedTuple):
    """Lanes without the hopeless rows, those rows, and when the next one becomes hopeless."""

    lanes: tuple[Lane, ...]
    late: tuple[tuple[Lane, Item], ...]
    wake_at: float


def triage(lanes: tuple[Lane, ...], now: float, choose: Choose = lowest) -> Triage:
    """Sort out rows whose deadline lies before now plus a batch of one.

    Looks at the head of each lane and past every hopeless row, so a step costs as much as it sheds. Rows of a lane
    share their cheapest variant and come by deadline, so there is none hopeless behind a feasible one, unless
    `choose` tells rows of one lane apart; such a row is found when it gets to the head.
    """
    kept: list[Lane] = []
    late: list[tuple[Lane, Item]] = []
    wake_at = NEVER
    for lane in lanes:
        dropped = 0
        for item in lane.items:
            latest_start = item.deadline_s - lane.latency.planned_s(choose(lane, item), 1, item.size_class)
            if latest_start > now:
                wake_at = min(wake_at, latest_start)
                break
            late.append((lane, item))
            dropped += 1
        if dropped == 0:
            kept.append(lane)
        elif dropped < len(lane.items):
            kept.append(lane._replace(depth=lane.depth - dropped, items=lane.items[dropped:]))
        elif lane.depth > dropped:
            wake_at = now
    return Triage(tuple(kept), tuple(late), wake_at)


def first_in_time(lane: Lane, now: float, reply_margin_s: float) -> int:
    """The index among all rows of the lane of the first one that some variant can answer in time, or better in time.

    Found by bisection: a lane may be long, and its rows come by deadline.
    """
    needed_s = _better_s(lane, reply_margin_s) if lane.key.at >= 0 else _alone_s(lane)
    return bisect_left(lane.rows, True, key=lambda item: item.deadline_s - needed_s > now)


class KeptTriage(NamedTuple):
    """Kept rows whose answer cannot be bettered in time any more, and when the next one gets there."""

    settled: tuple[tuple[Lane, Item], ...]
    wake_at: float


def triage_kept(kept: tuple[Lane, ...], now: float, reply_margin_s: float) -> KeptTriage:
    """Sort out kept rows that even the quickest better variant, alone, would answer too late.

    An answer counts as in time until its deadline less `reply_margin_s`.
    """
    settled: list[tuple[Lane, Item]] = []
    wake_at = NEVER
    for lane in kept:
        needed_s = _better_s(lane, reply_margin_s)
        for item in lane.items:
            if item.deadline_s - needed_s > now:
                wake_at = min(wake_at, item.deadline_s - needed_s)
                break
            settled.append((lane, item))
    return KeptTriage(tuple(settled), wake_at)


def _alone_s(lane: Lane) -> float:
    """Seconds of the quickest allowed variant for one fresh row of the lane."""
    return min((lane.latency.planned_s(v, 1, lane.key.size_class) for v in allowed(lane)), default=0.0)


def _better_s(lane: Lane, reply_margin_s: float) -> float:
    """Seconds before its deadline at which a kept row of the lane must start on the quickest better variant."""
    family, at = lane.family, lane.key.at
    better = [variant for variant in family.ladder if variant > at]
    size_class, planned_s = lane.key.size_class, lane.latency.planned_s
    quickest_s = min((planned_s(v, 1, size_class, family.start(at, v)) for v in better), default=NEVER)
    return reply_margin_s + lane.latency.slip_s + quickest_s
