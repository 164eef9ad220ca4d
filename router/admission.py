"""What is known of a request at arrival: the cheapest variant that may answer, and whether it can be whole in time."""

from __future__ import annotations

from collections import Counter

from router.contract import Family, Hints, Request
from router.latency import LatencyModel


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
