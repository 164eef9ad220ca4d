"""One request on its way: which rows still wait, what the answered ones got, and at last its record."""

from __future__ import annotations

from router.backlog import LaneKey
from router.contract import NEVER, Dispatch, Item, Outcome, Reason, Record, Request


class Pending:
    """What the scheduler knows of an unfinished request.

    `queued` has the rows that wait, `waiting` counts all rows without an answer, running ones included.
    """

    __slots__ = (
        "batch_size",
        "last",
        "observed_s",
        "quality_sum",
        "queued",
        "request",
        "started_s",
        "variants",
        "waiting",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.queued: dict[int, tuple[LaneKey, Item]] = {}
        self.waiting = len(request.row_classes)
        self.variants: list[str] = []
        self.started_s = NEVER
        self.quality_sum = 0.0
        self.batch_size = 0
        self.observed_s = 0.0
        self.last: Dispatch | None = None

    def started(self, item: Item, now: float) -> None:
        """A batch with this row has begun."""
        del self.queued[item.row]
        if self.started_s == NEVER:
            self.started_s = now

    def answered(self, item: Item, dispatch: Dispatch, quality: float, observed_s: float) -> None:
        """A batch with this row is done."""
        if not self.variants:
            self.variants = [""] * len(self.request.row_classes)
        self.variants[item.row] = dispatch.variant
        self.waiting -= 1
        self.quality_sum += quality
        self.batch_size = max(self.batch_size, len(dispatch.items))
        self.observed_s = observed_s
        self.last = dispatch

    def record(self, outcome: Outcome, reason: Reason, now: float) -> Record:
        """The record of this request, ended now."""
        request, variants, last = self.request, self.variants, self.last
        served = outcome is Outcome.SERVED or outcome is Outcome.SERVED_LATE
        rows = len(request.row_classes)
        variant, quality = "", 0.0
        row_variants: tuple[str, ...] = ()
        if served and last is not None:
            variant, row_variants, quality = variants[0], tuple(variants), self.quality_sum / rows
            if rows > 1 and any(other != variant for other in variants):
                variant = "mixed"
        started_s = min(self.started_s, now)
        return Record(
            request.id,
            request.family,
            last.revision if last else request.revision,
            variant,
            row_variants,
            row_variants[:1],
            outcome,
            reason,
            rows,
            request.arrival_s,
            now,
            started_s - request.arrival_s,
            now - started_s,
            request.deadline_s - request.arrival_s,
            outcome is Outcome.SERVED,
            quality,
            self.batch_size,
            request.tenant,
            request.service_class,
            last.predicted_s if last else 0.0,
            self.observed_s,
        )
