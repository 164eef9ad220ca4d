"""A load served by the scheduler in virtual time: batches take exactly what is profiled."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from router.contract import Dispatch, Record, Slot
from router.family import Family
from router.latency import LatencyModel
from router.limits import Limits
from router.policies import policy_named
from router.request import NEVER, Request
from router.scheduler import Scheduler

MARGIN_S = 0.002
"""Kept answers go out so long before the deadline."""


def serve(family: Family, policy: str, requests: Sequence[Request], slots: int = 1) -> tuple[Record, ...]:
    """The records of requests of one row each, in the order in which they ended.

    The row of a request is that of the family's evidence that its id names, counted around.
    """
    scheduler = Scheduler(
        [family],
        [Slot(index) for index in range(slots)],
        policy_named(policy),
        Limits(reply_margin_s=MARGIN_S),
        {family.name: 1.02},
    )
    evidence, exact = family.evidence, LatencyModel(family, 1.0)
    assert evidence is not None
    count = evidence.correct.shape[1]
    events: list[tuple[float, int, int]] = [(request.arrival_s, 1, at) for at, request in enumerate(requests)]
    heapq.heapify(events)
    running: dict[int, tuple[Dispatch, int]] = {}
    records: list[Record] = []
    wake_at = NEVER
    while events or wake_at < NEVER:
        if not events or wake_at < events[0][0]:
            now = wake_at
        else:
            now, arrives, number = heapq.heappop(events)
            if arrives:
                scheduler.submit(requests[number], now)
            else:
                dispatch, variant = running.pop(number)
                rows = [item.request_id % count for item in dispatch.items]
                scheduler.complete(number, now, confidences=evidence.confidence[variant, rows].tolist())
        poll = scheduler.poll(now)
        wake_at = poll.wake_at
        records += poll.records
        for dispatch in poll.dispatches:
            runs = family.index(dispatch.variant)
            assert runs is not None
            running[dispatch.batch_id] = (dispatch, runs)
            longest = max(item.size_class for item in dispatch.items)
            ends_s = now + exact.planned_s(runs, len(dispatch.items), longest, dispatch.start)
            heapq.heappush(events, (ends_s, 0, dispatch.batch_id))
    assert len(requests) == len(records)
    return tuple(records)
