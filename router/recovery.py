"""What becomes of a batch that gave no answer: whose fault that is, and who answers its rows instead.

A row whose variant broke is tried once more, on another variant, where there is time and room for it: where the first
one goes on answering others, on the best of those that cost less and are in time, else on the cheapest. Rows of one
request are then alone in their batches: if the request is what breaks variants, it breaks nobody else's answer. A row
whose batch failed by no fault of its own (its executor was gone, or its variant broke elsewhere meanwhile) waits again
among the others. What cannot be tried again fails, with the reason why.
"""

from __future__ import annotations

from router.admission import lowest_variant
from router.contract import Dispatch
from router.family import Family
from router.latency import LatencyModel
from router.limits import Limits
from router.parts import Parts
from router.pending import Pending
from router.quarantine import FAULTS
from router.request import NEVER, Item
from router.roster import Roster
from router.rule import Rule
from router.words import Outcome, Reason, WhenLate

INNOCENT = frozenset({Reason.QUARANTINED, Reason.EXECUTOR_LOST})
"""Why a batch may have no answer though neither its rows nor its variant have done anything."""


class Recovery:
    """Blames variants, and saves rows; it reads and changes the other parts of the scheduler."""

    __slots__ = ("_limits", "_parts", "_roster", "_rule")

    def __init__(self, parts: Parts, roster: Roster, rule: Rule, limits: Limits) -> None:
        self._parts = parts
        self._roster = roster
        self._rule = rule
        self._limits = limits

    def fail(self, dispatch: Dispatch, reason: Reason, now: float) -> None:
        """A batch has ended without an answer, for this reason."""
        # First, so that its rows are not given to the variant that broke.
        try:
            if self._blame(dispatch, reason, now):
                self._roster.quarantine(dispatch.family, now)
        finally:
            self._salvage(dispatch, reason, now)
            # Even where no slot is free: rows that wait again must be found when they become hopeless.
            self._rule.wake_at = now

    def _blame(self, dispatch: Dispatch, reason: Reason, now: float) -> bool:
        """Whether a variant is in quarantine from now on because it broke under this batch."""
        if reason not in FAULTS:
            return False
        quarantine, name = self._parts.quarantine, dispatch.family
        began = quarantine.strike(name, dispatch.revision, dispatch.variant, reason, now)
        for item in dispatch.items:
            pending = self._parts.ledger.pending.get(item.request_id)
            before = None if pending is None else pending.broken_by(item.row)
            if before is not None and before != dispatch.variant:
                quarantine.doubt(name, before, now)
                quarantine.doubt(name, dispatch.variant, now)
        return began

    def _salvage(self, dispatch: Dispatch, reason: Reason, now: float) -> None:
        """Rows of a batch without an answer go out with the one they have, wait for another variant, or fail."""
        for item in dispatch.items:
            pending = self._parts.ledger.pending.get(item.request_id)
            if pending is None:
                # It has ended meanwhile, perhaps by another row of this batch.
                continue
            if item.at >= 0:
                pending.better_failed(item)
                if pending.settled():
                    self._parts.ledger.answer(pending, now)
            elif not self._again(pending, item, dispatch, reason, now):
                self._parts.ledger.abandon(pending, Outcome.FAILED, reason, now)

    def _again(self, pending: Pending, item: Item, dispatch: Dispatch, reason: Reason, now: float) -> bool:
        """Have a row wait again. Whether it does."""
        request, known = pending.request, self._parts.families.get(dispatch.family)
        broke = reason in FAULTS
        if known is None or request.audit or not (broke or reason in INNOCENT):
            return False
        if broke and pending.broken_by(item.row) is not None:
            return False
        backlog = self._parts.backlog
        if backlog.rows + backlog.cold_rows >= self._limits.backlog_rows:
            return False
        background = item.deadline_s == NEVER
        family, culprit = known.family, dispatch.variant if broke else pending.broken_by(item.row)
        # Where it is on suspicion alone, this row is not to meet it again.
        is_aside = culprit is not None and family.answers(culprit)
        if culprit is not None:
            family = family.without(culprit)
        lowest = lowest_variant(family, request, self._parts.viewer.fresh_hints(now))
        if is_aside and culprit is not None and lowest is not None:
            left_s = NEVER if background else item.deadline_s - now
            lowest = next_best(family, known.latency, lowest, culprit, item.size_class, left_s)
        if lowest is None:
            missing = self._roster.missing(family, request)
            if missing is None:
                return False
            lowest, pending.cold, pending.expected = ~missing, True, False
        elif not background and now + known.latency.planned_s(lowest, 1, item.size_class) >= item.deadline_s:
            if request.when_late is WhenLate.SHED and not pending.cold:
                return False
            background = True
        if broke:
            pending.broken(item.row, dispatch.variant, reason)
        again = item._replace(lowest=lowest)
        alone = pending.broken_by(item.row) is not None
        self._parts.waiting.retry(pending, again, background=background, alone=alone, aside=is_aside)
        return True


def next_best(family: Family, latency: LatencyModel, lowest: int, broke: str, size_class: int, left_s: float) -> int:
    """Index of the variant for a row that is not to meet the one that `broke` again, which `family` is without.

    `lowest` is the cheapest that may answer. The policy had thought that what broke could be afforded, so no dearer one
    is chosen while a cheaper may answer within `left_s`.
    """
    before = family.index(broke)
    cheaper = [rung for rung in family.ladder if lowest <= rung and (before is None or rung < before)]
    return next((rung for rung in reversed(cheaper) if latency.planned_s(rung, 1, size_class) < left_s), lowest)
