"""A scheduler of one family whose batches end as a test wants."""

from __future__ import annotations

from router.contract import Dispatch, Poll, Record, Slot, Spell
from router.family import Family, VariantProfile
from router.latency import table
from router.limits import Limits
from router.policies import policy_named
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.view import Policy
from router.words import Outcome, Reason

FAMILY = Family(
    "f",
    (
        VariantProfile("small", 0.7, table((1, 8), (0.001, 0.008))),
        VariantProfile("middle", 0.8, table((1, 8), (0.004, 0.030))),
        VariantProfile("large", 0.9, table((1, 8), (0.010, 0.080))),
    ),
    max_batch=8,
)


class Bench:
    """A scheduler whose batches end as a test wants, and all that came out of it."""

    def __init__(
        self, family: Family = FAMILY, *, slots: int = 1, policy: str | Policy = "most-accurate", rows: int = 100
    ) -> None:
        limits = Limits(rows, hang_s=1.0)
        rule = policy_named(policy) if isinstance(policy, str) else policy
        self.scheduler = Scheduler([family], [Slot(i) for i in range(slots)], rule, limits, {"f": 1.0})
        self.running: list[Dispatch] = []
        self.records: list[Record] = []
        self.probes: list[Spell] = []

    def submit(self, number: int, now: float = 0.0, *, slo_s: float = 0.5, rows: int = 1, **changes: object) -> None:
        base = Request(number, "f", (0,) * rows, now, now + slo_s, NEVER)
        changed = base._replace(**changes)  # type: ignore[arg-type]  # field types are the caller's business in a test
        self.scheduler.submit(changed, now)
        self.poll(now)

    def poll(self, now: float) -> Poll:
        poll = self.scheduler.poll(now)
        self.running += poll.dispatches
        self.records += poll.records
        self.probes += poll.probes
        return poll

    def fail(self, now: float, reason: Reason = Reason.EXECUTOR_ERROR) -> Poll:
        self.scheduler.fail(self.running.pop(0).batch_id, reason, now)
        return self.poll(now)

    def complete(self, now: float) -> Poll:
        self.scheduler.complete(self.running.pop(0).batch_id, now)
        return self.poll(now)

    def variants(self) -> list[str]:
        return [dispatch.variant for dispatch in self.running]

    def ends(self) -> list[tuple[int, Outcome, Reason, str]]:
        return [(record.request_id, record.outcome, record.reason, record.variant) for record in self.records]
