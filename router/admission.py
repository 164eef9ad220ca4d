"""What is known of a request at arrival: the cheapest variant that may answer, and whether it can be whole in time."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from math import inf

from router.backlog import Backlog
from router.contract import Family, Hints, Request
from router.latency import LatencyModel
from router.slots import Slots
from router.stickiness import PATIENCE
from router.viewer import Known

MOST_LANES = 64
"""Rows in more lanes than that are not counted: the cost of a request must not be the callers' to choose."""


def lowest_variant(family: Family, request: Request, hints: Hints | None) -> int | None:
    """Index of the pinned variant, else of the first rung that satisfies the floor; `None` where there is none.

    A floor advised by fresh hints counts where some variant reaches it; advice alone never refuses a request.
    """
    if request.pinned is not None:
        return family.index(request.pinned)
    if hints is None and request.min_quality <= 0.0:
        return family.ladder[0]
    if hints is not None and family.name in hints.floors:
        advised = family.lowest_rung(max(request.min_quality, hints.floors[family.name]))
        if advised is not None:
            return advised
    return family.lowest_rung(request.min_quality)


def cannot_finish(latency: LatencyModel, request: Request, lowest: int, slots: int, now: float) -> bool:
    """Whether all slots together, doing nothing else, would be too late with the last row of this request.

    Its first rows would be answered in time and in vain: a request is answered whole or not at all. Requests of one
    row are left to the triage, which looks at them anyway.
    """
    if len(request.row_classes) == 1:
        return False
    rows = Counter(request.row_classes)
    work_s = sum(latency.clearing_s(lowest, count, size_class) for size_class, count in rows.items())
    return now + work_s / slots > request.deadline_s


def is_crowded_out(
    families: Mapping[str, Known],
    backlog: Backlog,
    slots: Slots,
    urgency: int,
    row_s: float,
    by_s: float,
    now: float,
    share: float = 1.0,
) -> bool:
    """Whether the rows that go first leave no time before `by_s` for rows that take `row_s` seconds, all at cheapest.

    Refusing it now loses as many as shedding it or another later, and costs less: nobody waits for a refusal, and the
    backlog holds no more than can be answered. Rows go first whose deadline is not after `by_s`, or that are more
    urgent. Where none does nobody is crowded out, whatever is believed of latencies: what is refused teaches nothing.
    With a `share`, only that part of the time counts as left.
    """
    left_s = by_s - now
    work_s, first = row_s + sum(min(max(0.0, end_s - now), left_s) for end_s in slots.busy_until_s(now)), 0
    for key, items in islice(backlog.lanes(), MOST_LANES):
        if key.at >= 0 or key.background or key.urgency > urgency:
            continue
        rows = len(items) if key.urgency < urgency else bisect_right(items, (urgency, by_s, inf))
        first += rows
        work_s += rows * families[key.family].latency.full_row_s(key.lowest, key.size_class)
    return first > 0 and work_s / slots.count > share * left_s


def has_time_for(
    held: int,
    request: Request,
    families: Mapping[str, Known],
    backlog: Backlog,
    slots: Slots,
    by_s: float,
    now: float,
) -> bool:
    """Whether variant `held` would be done with this request within `PATIENCE` of the time until `by_s`.

    All that goes first is counted at its cheapest, so in a busy moment nobody keeps a variant that others pay for.
    """
    if by_s == inf:
        return True
    latency = families[request.family].latency
    row_s = sum(latency.planned_s(held, 1, size_class) for size_class in request.row_classes)
    if row_s / slots.count > PATIENCE * (by_s - now):
        return False
    return not is_crowded_out(families, backlog, slots, request.urgency, row_s, by_s, now, PATIENCE)
