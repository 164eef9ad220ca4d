"""A scheduler of one family of two variants, and how its batches end."""

from __future__ import annotations

from router.contract import Poll, Slot
from router.family import Family, VariantProfile
from router.latency import table
from router.limits import Limits
from router.policies.slack_fraction import SlackFraction
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.view import Policy

FAMILY = Family(
    "f",
    (
        VariantProfile("small", 0.7, table((1, 8), (0.001, 0.008), (0.002, 0.016))),
        VariantProfile("large", 0.9, table((1, 8), (0.010, 0.080), (0.020, 0.160))),
    ),
    sizes=(16, 32),
    max_batch=8,
)


def scheduler(policy: Policy | None = None, slots: int = 1, backlog_rows: int = 100) -> Scheduler:
    return Scheduler(
        [FAMILY], [Slot(i) for i in range(slots)], policy or SlackFraction(), Limits(backlog_rows), {"f": 1.0}
    )


def request(number: int, slo_s: float = 0.1, **changes: object) -> Request:
    base = Request(number, "f", (0,), 0.0, slo_s, NEVER)
    return base._replace(**changes)  # type: ignore[arg-type]  # field types are the caller's business in a test


def run(driven: Scheduler, poll: Poll, now: float) -> Poll:
    """Complete everything that was dispatched, at `now`."""
    for dispatch in poll.dispatches:
        driven.complete(dispatch.batch_id, now)
    return driven.poll(now)
