"""One request on its way: which rows still wait, what the answered ones got, and at last its record."""

from __future__ import annotations

from router.backlog import LaneKey
from router.contract import Dispatch, Record, Step
from router.flows import FlowKey
from router.quotas import Account
from router.request import NEVER, Item, Request
from router.words import Escalation, Outcome, Reason


class Pending:
    """What the scheduler knows of an unfinished request.

    `queued` has the rows that wait. `unanswered` counts rows without any answer, running ones included; `open` those
    and the rows whose answer may still be replaced by a better one. `insured` says that an alarm is set to send what
    there is in time, `overdue` that it rang while rows had none: the last of those ends the wait for better ones.
    `expected` says that it could have been answered in time when it came, `cold` that it has waited for a load: then
    it is answered though it is late. `permit` is its tenant's account. `steps` are noted of traced requests alone.
    `beyond` is the flow beyond whose share it was let in, `None` where it was within. `fault` is why a variant broke
    under one of its rows that was tried again.
    """

    __slots__ = (
        "_broke",
        "batch_size",
        "beyond",
        "cold",
        "confidence",
        "escalation",
        "expected",
        "fault",
        "insured",
        "last",
        "observed_s",
        "open",
        "overdue",
        "path",
        "permit",
        "qualities",
        "queued",
        "request",
        "started_s",
        "steps",
        "unanswered",
        "variants",
    )

    def __init__(self, request: Request) -> None:
        self.request = request
        self.queued: dict[int, tuple[LaneKey, Item]] = {}
        self.open = self.unanswered = len(request.row_classes)
        self.insured = self.overdue = self.expected = self.cold = False
        self.variants: list[str] = []
        self.qualities: list[float] = []
        self.path: tuple[str, ...] = ()
        self.confidence = 0.0
        self.escalation = Escalation.NONE
        self.started_s = NEVER
        self.batch_size = 0
        self.observed_s = 0.0
        self.last: Dispatch | None = None
        self.steps: tuple[Step, ...] = ()
        self.permit: Account | None = None
        self.beyond: FlowKey | None = None
        self.fault: Reason | None = None
        self._broke: dict[int, str] | None = None

    def taken(self, item: Item) -> None:
        """This row waits no longer: it is in a batch."""
        del self.queued[item.row]

    def started(self, now: float) -> None:
        """A batch with a row of this request has begun."""
        if self.started_s == NEVER:
            self.started_s = now

    def answered(self, item: Item, dispatch: Dispatch, quality: float, observed_s: float, confidence: float) -> None:
        """A batch with this row is done; the row stays open until `settled`."""
        if not self.variants:
            rows = len(self.request.row_classes)
            self.variants = [""] * rows
            self.qualities = [0.0] * rows
        if item.at < 0:
            self.unanswered -= 1
        self.variants[item.row] = dispatch.variant
        self.qualities[item.row] = quality
        self.batch_size = max(self.batch_size, len(dispatch.items))
        self.observed_s = observed_s
        self.last = dispatch
        if item.row == 0:
            self.path = (*self.path, dispatch.variant)
            if self.request.origin.span:
                self.steps = (*self.steps, _step(dispatch, observed_s))
            if item.at < 0:
                self.confidence = confidence
            else:
                self.escalation = Escalation.ESCALATED

    def settled(self) -> bool:
        """One row more has its last answer. Returns whether the request is answered."""
        self.open -= 1
        return self.open == 0 or (self.overdue and self.unanswered == 0)

    def judged(self, item: Item, *, kept: bool) -> None:
        """The policy has looked at this row's answer: it waits for a better one, or it is good enough."""
        if item.row == 0 and self.escalation is not Escalation.ESCALATED:
            # Kept: true until a better answer comes.
            self.escalation = Escalation.NO_TIME if kept else Escalation.CONFIDENT

    def better_failed(self, item: Item) -> None:
        """The batch that was to improve this row's answer broke."""
        if item.row == 0:
            self.escalation = Escalation.FAILED

    def broken(self, row: int, variant: str, reason: Reason) -> None:
        """A variant broke under this row, which is tried again."""
        self.fault = reason
        if self._broke is None:
            self._broke = {}
        self._broke[row] = variant

    def broken_by(self, row: int) -> str | None:
        """The variant that broke under this row, if one did."""
        return None if self._broke is None else self._broke.get(row)

    def kept_rows(self) -> list[int]:
        """The rows that wait though they have an answer."""
        return [row for row, (_, item) in self.queued.items() if item.at >= 0]

    def record(self, outcome: Outcome, reason: Reason, now: float) -> Record:
        """The record of this request, ended now."""
        request, variants, last = self.request, self.variants, self.last
        served = outcome is Outcome.SERVED or outcome is Outcome.SERVED_LATE
        rows = len(request.row_classes)
        variant, quality = "", 0.0
        row_variants: tuple[str, ...] = ()
        if served and last is not None:
            variant, row_variants, quality = variants[0], tuple(variants), sum(self.qualities) / rows
            if rows > 1 and any(other != variant for other in variants):
                variant = "mixed"
        started_s = min(self.started_s, now)
        return Record(
            request.id,
            request.family,
            last.revision if last else request.revision,
            variant,
            row_variants,
            self.path,
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
            self.confidence,
            self.escalation,
            self.cold,
            audit=request.audit,
            origin=request.origin,
            steps=self.steps,
            charged=self.permit is not None,
            retried=self.fault is not None,
            device=last.device if last else "",
        )


def _step(dispatch: Dispatch, observed_s: float) -> Step:
    return Step(
        dispatch.variant,
        dispatch.reason,
        len(dispatch.items),
        dispatch.decided_s,
        dispatch.started_s,
        dispatch.started_s + observed_s,
        dispatch.predicted_s,
    )
