"""How rows come to their last answer: by a batch, by what was kept for them, or too late for any.

A row that a batch has answered is settled by that, or waits for a better answer where the policy keeps this one. A
policy may settle rows that wait for a better answer, and call those late that have none.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.contract import Dispatch
from router.gate import Gate
from router.limits import Limits
from router.parts import Parts
from router.pending import Pending
from router.request import NEVER, Item
from router.rule import Rule
from router.view import Decision
from router.viewer import Known
from router.words import Outcome, Reason, WhenLate


class Settling:
    """Settles rows; it reads and changes the other parts of the scheduler."""

    __slots__ = ("_gate", "_ledger", "_pending", "_reply_margin_s", "_rule", "_waiting")

    def __init__(self, parts: Parts, gate: Gate, rule: Rule, limits: Limits) -> None:
        self._gate = gate
        self._rule = rule
        self._ledger = parts.ledger
        self._pending = parts.ledger.pending
        self._waiting = parts.waiting
        self._reply_margin_s = limits.reply_margin_s

    def answer(
        self,
        dispatch: Dispatch,
        known: Known,
        variant: int,
        observed_s: float,
        confidences: Sequence[float] | None,
        now: float,
    ) -> list[int]:
        """A batch of that variant of the family has answered its rows, `observed_s` after its start.

        Returns the places in the batch of the rows whose answer is kept for a better one, ascending.
        """
        quality = known.family.variants[variant].measured
        may_keep = self._rule.cascades and dispatch.reason is not Reason.PINNED
        kept: list[int] = []
        for place, item in enumerate(dispatch.items):
            pending = self._pending.get(item.request_id)
            if pending is None:
                continue
            confidence = 0.0 if confidences is None else float(confidences[place])
            pending.answered(item, dispatch, quality, observed_s, confidence)
            if may_keep and confidence > 0.0 and self._keep(pending, known, item, variant, confidence, now):
                kept.append(place)
            elif pending.settled():
                self._ledger.answer(pending, now)
        return kept

    def late(self, decision: Decision, now: float) -> None:
        """The policy calls rows late: they are refused, or answered whenever there is time, as their requests chose."""
        for lane, item in decision.late:
            pending = self._pending.get(item.request_id)
            if pending is None:
                continue
            if lane.key.held:
                # The variant that the caller keeps is too slow now: the deadline goes before the wish.
                self._gate.loosen(lane.key, item, now)
            elif pending.request.when_late is WhenLate.SERVE or pending.cold:
                self._waiting.postpone(pending, lane.key, item)
            elif pending.fault is not None:
                # There was time when it came, and who broke under it has taken that.
                self._ledger.abandon(pending, Outcome.FAILED, pending.fault, now)
            else:
                self._ledger.abandon(pending, Outcome.REJECTED_INFEASIBLE, Reason.DEADLINE_INFEASIBLE, now)

    def settle(self, decision: Decision, now: float) -> None:
        """The policy has rows wait no longer for a better answer."""
        for lane, item in decision.settled:
            pending = self._pending.get(item.request_id)
            if pending is not None:
                self._waiting.leave(pending, lane.key, item)
                if pending.settled():
                    self._ledger.answer(pending, now)

    def _keep(self, pending: Pending, known: Known, item: Item, variant: int, confidence: float, now: float) -> bool:
        """Ask the policy whether this row waits for a better answer; if so, queue it."""
        request = pending.request
        margin_s = self._reply_margin_s + known.latency.slip_s
        by_s = min(item.deadline_s, request.timeout_s) - margin_s
        may = known.family.evidence is not None and request.pinned is None and not pending.cold
        # Overdue: its alarm has rung and will not ring again, and its last row must not leave another one behind.
        may = may and variant in known.family.ladder[:-1] and not pending.overdue
        if not may or now >= by_s or request.deadline_s == NEVER:
            return False
        answered = Item(*item[:9], variant, confidence)
        kept = self._rule.keeps(known, answered, now)
        pending.judged(answered, kept=kept)
        if kept:
            self._waiting.again(pending, answered)
            self._ledger.keep(pending, by_s)
        return kept
