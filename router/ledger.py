"""Who has no outcome yet, and how requests get theirs: exactly one record for each.

Two alarms belong to a request: its hard timeout, and, once all that is missing is a better answer, the moment at which
the answers it has must go out to be in time.
"""

from __future__ import annotations

from router.backlog import Backlog
from router.contract import Record
from router.pending import Pending
from router.request import NEVER, Request
from router.stickiness import Stickiness
from router.timeouts import Timeouts
from router.words import Outcome, Reason

_MISSED = frozenset({Outcome.SERVED_LATE, Outcome.REJECTED_INFEASIBLE, Outcome.EXPIRED})


class Ledger:
    """The unfinished requests by id, and the records of those that ended since the last `take`."""

    __slots__ = ("_backlog", "_kept", "_records", "_timeouts", "met", "missed", "pending", "stickiness")

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self.pending: dict[int, Pending] = {}
        self._records: list[Record] = []
        self.met = self.missed = 0
        """Requests so far that were answered in time, and that were not though they could have been when they came."""
        self._timeouts = Timeouts(self.pending)
        self._kept = Timeouts(self.pending)
        self.stickiness = Stickiness()

    def refuse(
        self, request: Request, outcome: Outcome, reason: Reason, now: float, retry_after_s: float = 0.0
    ) -> None:
        """A request that is not taken in has its record at once."""
        self._records.append(Pending(request).record(outcome, reason, now)._replace(retry_after_s=retry_after_s))

    def open(self, request: Request) -> Pending:
        """A request is taken in."""
        pending = self.pending[request.id] = Pending(request)
        if request.timeout_s != NEVER:
            self._timeouts.arm(request.id, request.timeout_s)
        return pending

    def keep(self, pending: Pending, at_s: float) -> None:
        """A row waits for a better answer; `ring` sends out what there is then, if it has not ended before."""
        if not pending.insured:
            pending.insured = True
            self._kept.arm(pending.request.id, at_s)

    def ring(self, now: float) -> None:
        """End whose hard timeout passed, and answer with what they have those that cannot wait for better."""
        while (expired := self._timeouts.pop_due(now)) is not None:
            self.abandon(self.pending[expired], Outcome.EXPIRED, Reason.TIMEOUT, now)
        while (due := self._kept.pop_due(now)) is not None:
            pending = self.pending[due]
            for row in pending.kept_rows():
                key, item = pending.queued.pop(row)
                self._backlog.remove(key, (item,))
                pending.open -= 1
            pending.overdue = True
            if pending.unanswered == 0:
                self.answer(pending, now)

    def answer(self, pending: Pending, now: float) -> None:
        """Every row has its answer."""
        request = pending.request
        late = now > request.deadline_s
        reason = pending.last.reason if pending.last is not None else Reason.INTERNAL_ERROR
        if reason is Reason.PINNED and request.pinned is None:
            reason = Reason.STICKY if pending.fault is None else Reason.RETRIED
        if request.sticky_s > 0.0 and pending.variants:
            self.stickiness.answered(request, pending.variants[0], now)
        self._end(pending, Outcome.SERVED_LATE if late else Outcome.SERVED, reason, now)

    def abandon(self, pending: Pending, outcome: Outcome, reason: Reason, now: float) -> None:
        """It will get no answer: its rows leave the backlog."""
        for key, item in pending.queued.values():
            self._backlog.remove(key, (item,))
        self._end(pending, outcome, reason, now)

    def close(self, pending: Pending, reason: Reason, now: float) -> None:
        """No batch will end any more: it is answered with what it has if that is whole, else it fails."""
        if pending.unanswered:
            self.abandon(pending, Outcome.FAILED, reason, now)
            return
        for key, item in pending.queued.values():
            self._backlog.remove(key, (item,))
        self.answer(pending, now)

    def take(self) -> tuple[Record, ...]:
        """The records since the last call."""
        records, self._records = self._records, []
        return tuple(records)

    def next_alarm_s(self) -> float:
        """When `ring` is due next."""
        return min(self._timeouts.next_s(), self._kept.next_s())

    def _end(self, pending: Pending, outcome: Outcome, reason: Reason, now: float) -> None:
        del self.pending[pending.request.id]
        if pending.permit is not None:
            pending.permit.release(now - pending.request.arrival_s)
        if outcome is Outcome.SERVED:
            self.met += 1
        elif pending.expected and outcome in _MISSED:
            self.missed += 1
        self._records.append(pending.record(outcome, reason, now))
