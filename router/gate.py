"""Who is taken in: quotas first, then what may answer, room to wait, time to be answered, shares, and wishes last.

Every request that comes is either refused here, with its record, or its rows wait from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from router.admission import Ahead, cannot_finish, has_time_for, lowest_variant, spares, why_nobody, work_ahead
from router.backlog import LaneKey
from router.fairness import Fairness
from router.family import Share
from router.flows import FlowKey
from router.limits import Limits
from router.parts import Parts
from router.pending import Pending
from router.quotas import Account, Quotas
from router.relief import Newcomer, Relief
from router.request import NEVER, Item, Request
from router.roster import Roster
from router.viewer import Known
from router.words import Outcome, Reason, WhenLate


class _Verdict(NamedTuple):
    """Why a request is refused, or the flow beyond whose share it is let in, or who has to make room for it."""

    refusal: Reason | None = None
    beyond: FlowKey | None = None
    victims: Sequence[Pending] = ()


_LET_IN = _Verdict()
_REFUSED = _Verdict(Reason.DEADLINE_INFEASIBLE)


class Gate:
    """Lets requests in, or refuses them. It reads the other parts of the scheduler.

    `limits` bounds the rows that wait and says how long before their deadline answers are planned to be ready. Without
    `fairness` shares mean nothing.
    """

    __slots__ = ("_limits", "_parts", "_relief", "_roster", "fairness", "quotas")

    def __init__(self, parts: Parts, roster: Roster, quotas: Quotas, fairness: Fairness | None, limits: Limits) -> None:
        self._parts = parts
        self._roster = roster
        self._limits = limits
        self.quotas = quotas
        self.fairness = fairness
        self._relief = None if fairness is None else Relief(parts, fairness)

    def take(self, request: Request, now: float) -> float | None:
        """Let a request in. Returns by when a policy must look at it, `None` where it is refused or waits for a load.

        That is when its first batch must begin at the latest, `NEVER` where it has no deadline to keep.
        """
        account = None if request.audit else self.quotas.account(request.tenant, now)
        wait_s = 0.0 if account is None or request.charged else account.wait_s(len(request.row_classes), now)
        if wait_s:
            self._parts.ledger.refuse(request, Outcome.REJECTED_QUOTA, Reason.QUOTA, now, wait_s)
            return None
        state, lowest = self._answering(request, now)
        if state is None or lowest is None:
            self._take_cold(request, state, account, now)
            return None
        if len(request.row_classes) > self._room():
            self._parts.ledger.refuse(request, Outcome.REJECTED_FULL, Reason.BACKLOG_FULL, now)
            return None
        background, by_s = request.deadline_s == NEVER, self._planned_by_s(request)
        if not background and cannot_finish(state.latency, request, lowest, self._parts.slots.count, now):
            if request.when_late is WhenLate.SHED:
                self._parts.ledger.refuse(request, Outcome.REJECTED_INFEASIBLE, Reason.DEADLINE_INFEASIBLE, now)
                return None
            background = True
        beyond = None
        if not background:
            refusal, beyond, victims = self._judge(request, state, lowest, by_s, now)
            self._ask(request, state, lowest, by_s, now, admitted=refusal is None)
            if refusal is not None and request.when_late is WhenLate.SHED:
                self._parts.demand.observe(request, lowest, now)
                self._parts.ledger.refuse(request, Outcome.REJECTED_INFEASIBLE, refusal, now)
                return None
            # Who wants an answer though it is late does not take the time of those who want it in time.
            background = refusal is not None
            if self._relief is not None:
                self._relief.evict(victims, now)
        return self._enter(request, state, lowest, by_s, account, now, background=background, beyond=beyond)

    def relieve(self, now: float) -> None:
        """Whoever is beyond a share and in the way of others makes room; call before a policy decides."""
        if self._relief is not None:
            self._relief.relieve(now)

    def refuse_hopeless(self, request: Request, now: float) -> Reason | None:
        """See `Scheduler.refuse_hopeless`."""
        state, lowest = self._answering(request, now)
        if state is None or lowest is None or request.when_late is not WhenLate.SHED:
            return None
        by_s = self._planned_by_s(request)
        refusal = self._judge(request, state, lowest, by_s, now).refusal
        if refusal is None:
            return None
        self._ask(request, state, lowest, by_s, now, admitted=False)
        self._parts.ledger.refuse(request, Outcome.REJECTED_INFEASIBLE, refusal, now)
        return refusal

    def refuse_over_quota(self, request: Request, now: float) -> float:
        """See `Scheduler.refuse_over_quota`."""
        account = self.quotas.account(request.tenant, now)
        wait_s = 0.0 if account is None else account.wait_s(1, now)
        if wait_s:
            self._parts.ledger.refuse(request, Outcome.REJECTED_QUOTA, Reason.QUOTA, now, wait_s)
        return wait_s

    def loosen(self, key: LaneKey, item: Item, now: float) -> None:
        """A row may be answered by others than the variant that its caller keeps."""
        pending = self._parts.ledger.pending[item.request_id]
        _, lowest = self._answering(pending.request, now)
        self._parts.waiting.loosen(pending, key, item, item.lowest if lowest is None else lowest)

    # Steps

    def _answering(self, request: Request, now: float) -> tuple[Known | None, int | None]:
        """The family that is asked for and the cheapest of its variants that may answer, `None` where there is none."""
        state = self._parts.families.get(request.family)
        return state, lowest_variant(state.family, request, self._parts.viewer.fresh_hints(now)) if state else None

    def _planned_by_s(self, request: Request) -> float:
        """When the answer is planned to be ready."""
        return request.deadline_s - min(self._limits.transit_s, 0.1 * (request.deadline_s - request.arrival_s))

    def _room(self) -> int:
        """How many more rows may wait."""
        return self._limits.backlog_rows - self._parts.backlog.rows - self._parts.backlog.cold_rows

    def _take_cold(self, request: Request, state: Known | None, account: Account | None, now: float) -> None:
        """Nothing loaded may answer: wait for a load, if there can be one."""
        if state is None or not self._roster.is_cold(state.family, request):
            reason = Reason.NOT_LOADED if state is None else why_nobody(state.family, request)
            wait_s = self._parts.quarantine.retry_after_s(request.family, now) if reason is Reason.QUARANTINED else 0.0
            self._parts.ledger.refuse(request, Outcome.REJECTED_INFEASIBLE, reason, now, wait_s)
        elif len(request.row_classes) > min(self._room(), self._roster.cold_room(self._limits.backlog_rows)):
            self._parts.ledger.refuse(request, Outcome.REJECTED_FULL, Reason.BACKLOG_FULL, now)
        else:
            _admit(self._roster.enter_cold(state.family, request, self._planned_by_s(request)), account, now)

    def _enter(
        self,
        request: Request,
        state: Known,
        lowest: int,
        by_s: float,
        account: Account | None,
        now: float,
        *,
        background: bool,
        beyond: FlowKey | None,
    ) -> float:
        """Its rows wait from now on; returns what `take` does."""
        pending = self._parts.ledger.open(request)
        _admit(pending, account, now)
        if beyond is not None and self._relief is not None:
            self._relief.mark(pending, beyond, by_s)
        held = self._held(request, state, lowest, by_s, now)
        self._parts.waiting.enter(pending, lowest, by_s, background=background, held=held)
        first = max(lowest, held)
        latest_s = by_s - max([state.latency.planned_s(first, 1, c) for c in set(request.row_classes)])
        if latest_s > now and not request.audit:
            # Impossible requests are refused; they must not make the policy fear for others of their kind.
            self._parts.demand.observe(request, lowest, now)
            pending.expected = True
        return NEVER if background else latest_s

    def _held(self, request: Request, state: Known, lowest: int, by_s: float, now: float) -> int:
        """Index of the variant that the caller keeps and that is in nobody's way, -1 where there is none."""
        name = self._parts.ledger.stickiness.held(request, now)
        held = None if name is None else state.family.index(name)
        if held is None or held < lowest or held not in state.family.ladder:
            return -1
        fits = has_time_for(held, request, self._parts.families, self._parts.backlog, self._parts.slots, by_s, now)
        return held if fits else -1

    def _loosen_all(self, request: Request, lowest: int, by_s: float, now: float) -> None:
        """Let all rows that wait for the variant of their caller go where this request has little time."""
        if has_time_for(lowest, request, self._parts.families, self._parts.backlog, self._parts.slots, by_s, now):
            return
        for key, item in [(key, item) for key, items in self._parts.backlog.lanes() if key.held for item in items]:
            self.loosen(key, item, now)

    def _judge(self, request: Request, state: Known, lowest: int, by_s: float, now: float) -> _Verdict:
        """Whether it is refused at once, or comes after all others: its time is over, or taken by others that go first
        even with everything at its cheapest, or others have a right to it.

        Nobody keeps a variant where that leaves it little time.
        """
        if request.deadline_s == NEVER:
            return _LET_IN
        if self._parts.backlog.rows and len(self._parts.ledger.stickiness):
            self._loosen_all(request, lowest, by_s, now)
        if by_s <= now:
            return _REFUSED
        if not self._parts.backlog.rows:
            return _LET_IN
        if all(dispatch.family != request.family for dispatch in self._parts.slots.running):
            # Views do so only for families whose rows wait: one that is always refused would never recover.
            state.latency.relax_idle(now)
        ahead = work_ahead(self._parts.families, self._parts.backlog, self._parts.slots, request.urgency, by_s, now)
        if not ahead.rows:
            # Whatever is believed of latencies: what is refused teaches nothing.
            return _LET_IN
        own_s, share = state.latency.full_rows_s(lowest, request.row_classes), state.family.share
        return self._by_shares(request, share, ahead, own_s, by_s, now)

    def _by_shares(
        self, request: Request, share: Share, ahead: Ahead, own_s: float, by_s: float, now: float
    ) -> _Verdict:
        """What becomes of a request that takes `own_s` seconds at its cheapest and is due at `by_s`."""
        count = self._parts.slots.count
        fits = ahead.before_s + own_s <= (by_s - now) * count
        fairness, relief = self.fairness, self._relief
        if fairness is None or relief is None:
            return _LET_IN if fits else _REFUSED
        beyond = fairness.beyond(request, share, own_s, by_s, now)
        if beyond is None:
            victims = () if fits else relief.victims(now, Newcomer(request, by_s, own_s))
            return _Verdict(victims=victims) if fits or victims else _REFUSED
        if not fits:
            return _REFUSED
        due_s = partial(fairness.due_s, request, beyond)
        owed = fairness.is_owed(request, share, beyond, own_s, by_s, now)
        if not spares(ahead, own_s, by_s, now, count, 0.0 if owed else beyond.crowd, due_s):
            return _Verdict(Reason.OVER_SHARE)
        return _LET_IN if owed else _Verdict(beyond=fairness.flow_of(request, beyond))

    def _ask(self, request: Request, state: Known, lowest: int, by_s: float, now: float, *, admitted: bool) -> None:
        """Count what a request asks of its family's and its tenant's share."""
        if self.fairness is None:
            return
        own_s, share = state.latency.full_rows_s(lowest, request.row_classes), state.family.share
        self.fairness.ask(request, share, own_s, now, state.latency.stretch)
        if admitted:
            self.fairness.admit(request, share, own_s, by_s, now)


def _admit(pending: Pending, account: Account | None, now: float) -> None:
    """A request that is taken in counts in its tenant's account."""
    if account is not None:
        account.take(0 if pending.request.charged else len(pending.request.row_classes), now)
        pending.permit = account
