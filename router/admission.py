"""What is known of a request at arrival: the cheapest variant that may answer, and whether it can be whole in time."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from math import inf
from typing import NamedTuple

from router.backlog import Backlog
from router.contract import Hints
from router.family import Family
from router.latency import LatencyModel
from router.request import Request
from router.slots import Slots
from router.stickiness import PATIENCE
from router.viewer import Known
from router.words import Reason

MOST_LANES = 64
"""Rows in more lanes than that are not counted: the cost of a request must not be the callers' to choose."""
SPARED = 0.8
"""Where far too much is asked for, requests beyond a share may fill so much of the time: batches are not always full,
nor as quick as planned. Elsewhere they may fill it, as long as nobody needs it (`router.relief`)."""
ROOMY, CROWDED = 1.0, 1.5
"""How many times the machine is asked for where `SPARED` and what is expected begin to count, and count in full."""


def lowest_variant(family: Family, request: Request, hints: Hints | None) -> int | None:
    """Index of the pinned variant, else of the first rung that satisfies the floor; `None` where none is loaded.

    A floor advised by fresh hints counts where some variant reaches it; advice alone never refuses a request.
    """
    if request.pinned is not None:
        pinned = family.index(request.pinned)
        return pinned if pinned is not None and family.is_loaded(pinned) else None
    if hints is None and request.min_quality <= 0.0:
        return family.ladder[0] if family.ladder else None
    if hints is not None and family.name in hints.floors:
        advised = family.lowest_rung(max(request.min_quality, hints.floors[family.name]))
        if advised is not None:
            return advised
    return family.lowest_rung(request.min_quality)


def missing_variant(family: Family, request: Request) -> int | None:
    """Index of the cheapest variant, loaded or not, that may answer; `None` where there is none.

    Advice does not count: nothing is loaded for it. What is in quarantine does not either.
    """
    if request.pinned is not None:
        pinned = family.index(request.pinned)
        return None if pinned in family.quarantined else pinned
    return next((rung for rung in family.sound if family.variants[rung].quality >= request.min_quality), None)


def why_nobody(family: Family, request: Request) -> Reason:
    """Why a request is refused that no variant may answer: whether one could but for its quarantine."""
    variants, held = family.variants, family.quarantined
    if request.pinned is not None:
        could = any(variants[index].name == request.pinned for index in held)
    else:
        could = any(variants[index].quality >= request.min_quality for index in held)
    return Reason.QUARANTINED if could else Reason.NOT_LOADED


def cannot_finish(latency: LatencyModel, request: Request, lowest: int, slots: float, now: float) -> bool:
    """Whether all slots together, doing nothing else, would be too late with the last row of this request.

    Its first rows would be answered in time and in vain: a request is answered whole or not at all. Requests of one
    row are left to the triage, which looks at them anyway.
    """
    if len(request.row_classes) == 1:
        return False
    rows = Counter(request.row_classes)
    work_s = sum(latency.clearing_s(lowest, count, size_class) for size_class, count in rows.items())
    return now + work_s / slots > request.deadline_s


class Ahead(NamedTuple):
    """What waits and runs when a request comes, in seconds of all slots with all rows at their cheapest.

    `before_s` goes before the request; `after` has, by lane with rows that go later, the deadline and the seconds of
    those. `rows` is how many rows go before it.
    """

    before_s: float
    rows: int
    after: tuple[tuple[float, float], ...]


def work_ahead(
    families: Mapping[str, Known], backlog: Backlog, slots: Slots, urgency: int, by_s: float, now: float
) -> Ahead:
    """What a request due at `by_s` finds. Rows go first whose deadline is not after that, or that are more urgent.

    A request for which this leaves no time is crowded out. Refusing it now loses as many as shedding it or another
    later, and costs less: nobody waits for a refusal, and the backlog holds no more than can be answered. Where no rows
    go first nobody is crowded out.
    """
    left_s, first = by_s - now, 0
    work_s = sum(speed * min(max(0.0, end_s - now), left_s) for end_s, speed in slots.ends(now))
    after: list[tuple[float, float]] = []
    for key, items in islice(backlog.lanes(), MOST_LANES):
        if key.at >= 0 or key.background or key.urgency > urgency:
            continue
        waiting = len(items)
        rows = waiting if key.urgency < urgency else bisect_right(items, (urgency, by_s, inf))
        row_s = families[key.family].latency.full_row_s(key.lowest, key.size_class)
        first += rows
        work_s += rows * row_s
        if rows < waiting:
            after.append((items[-1].deadline_s, (waiting - rows) * row_s))
    return Ahead(work_s, first, tuple(after))


def spares(
    ahead: Ahead, own_s: float, by_s: float, now: float, slots: float, crowd: float, due_s: Callable[[float], float]
) -> bool:
    """Whether nobody who waits or is expected needs the time that a request takes which is due at `by_s`.

    Looked at is its own deadline, and the last one of each lane with rows that go later: up to there, all that waits
    and all that will come and be due (`due_s` within so many seconds) must fit. `crowd` is what is asked for over what
    there is: the less that is, the less is left for whoever may come.
    """
    care = min(max(0.0, (crowd - ROOMY) / (CROWDED - ROOMY)), 1.0)
    filled = slots * (1.0 - care * (1.0 - SPARED))
    work_s = ahead.before_s + own_s
    if work_s + care * due_s(by_s - now) > filled * (by_s - now):
        return False
    for last_s, rows_s in sorted(ahead.after):
        work_s += rows_s
        if work_s + care * due_s(last_s - now) > filled * (last_s - now):
            return False
    return True


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
    latency, within_s = families[request.family].latency, PATIENCE * (by_s - now) * slots.count
    own_s = sum(latency.planned_s(held, 1, size_class) for size_class in request.row_classes)
    if own_s > within_s:
        return False
    ahead = work_ahead(families, backlog, slots, request.urgency, by_s, now)
    return not ahead.rows or ahead.before_s + own_s <= within_s
