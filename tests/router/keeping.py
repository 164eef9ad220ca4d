"""A scheduler that keeps unsure answers, and what a test asks of it."""

from __future__ import annotations

from typing import Any

from router.contract import Dispatch, Poll, Record, Slot
from router.limits import Limits
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.words import Reason
from tests.scripted import FAMILY, STAGED, TwoSteps

MARGIN_S = 0.002
SURE, UNSURE = 0.9, 0.5


class Bench:
    """A scheduler that keeps every answer under 0.7, and what came out of it."""

    def __init__(self, slots: int = 2, *, staged: bool = False, transit_s: float = 0.0) -> None:
        family = STAGED if staged else FAMILY
        limits = Limits(reply_margin_s=MARGIN_S, transit_s=transit_s)
        self.scheduler = Scheduler([family], [Slot(i) for i in range(slots)], TwoSteps(), limits, {"scripted": 1.0})
        self.running: list[Dispatch] = []
        self.records: list[Record] = []
        self.wake_at = NEVER

    def submit(self, rows: int = 1, slo_s: float = 0.1, **changes: Any) -> None:
        """One request at 0.0."""
        base = Request(1, "scripted", (0,) * rows, 0.0, slo_s, NEVER)
        self.scheduler.submit(base._replace(**changes), 0.0)
        self.poll(0.0)

    def poll(self, now: float) -> Poll:
        """One turn; starts and outcomes are noted."""
        poll = self.scheduler.poll(now)
        self.running += poll.dispatches
        self.records += poll.records
        self.wake_at = poll.wake_at
        return poll

    def answer(self, row: int, confidence: float, now: float) -> None:
        """The batch with this row ends."""
        self.scheduler.complete(self._take(row).batch_id, now, confidences=[confidence])
        self.poll(now)

    def fail(self, row: int, now: float) -> None:
        """The batch with this row breaks."""
        self.scheduler.fail(self._take(row).batch_id, Reason.EXECUTOR_ERROR, now)
        self.poll(now)

    def record(self) -> Record:
        """The one outcome."""
        (record,) = self.records
        return record

    def _take(self, row: int) -> Dispatch:
        (dispatch,) = [dispatch for dispatch in self.running if dispatch.items[0].row == row]
        self.running.remove(dispatch)
        return dispatch


def variants(bench: Bench) -> list[str]:
    return [dispatch.variant for dispatch in bench.running]
