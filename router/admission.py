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


def work_ahead_s(
    families: Mapping[str, Known], backlog: Backlog, slots: Slots, urgency: int, by_s: float, now: float
) -> float:
    """Seconds of all slots that rows and batches take that go before a request due at `by_s`, all rows at cheapest.

    Rows go first whose deadline is not after `by_s`, or that are more urgent. Nothing where none does, whatever runs and
    whatever is believed of latencies: what is refused teaches nothing.

    A request for which this leaves no time is crowded out. Refusing it now loses as many as shedding it or another
    later, and costs less: nobody waits for a refusal, and the backlog holds no more than can be answered.
    """
    left_s = by_s - now
    running_s, work_s, first = sum(min(max(0.0, end_s - now), left_s) for end_s in slots.busy_until_s(now)), 0.0, 0
    for key, items in islice(backlog.lanes(), MOST_LANES):
        if key.at >= 0 or key.background or key.urgency > urgency:
            continue
        rows = len(items) if key.urgency < urgency else bisect_right(items, (urgency, by_s, inf))
        if not rows:
            continue
        first += rows
        work_s += rows * families[key.family].latency.full_row_s(key.lowest, key.size_class)
    return running_s + work_s if first else 0.0
