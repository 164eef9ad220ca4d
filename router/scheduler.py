"""The scheduler: the only mutable state of the router, driven alike by the live server and by the simulator.

Rules of the house:

1. Never reads a clock: the same calls with the same times give the same answers.
2. A slot is busy from the moment `poll` names it until `complete` or `fail`. With `ahead`, it may be named again before
   that: the batch is its next, and begins when the one it runs has ended.
3. Every submitted request yields exactly one `Record`, whatever fails; it comes out of the next `poll`.
4. A request of n rows is n items; it ends when the last row is answered, or at once when one row cannot be.
5. What a policy calls late is refused or moved to the background, as the request chose (`when_late`).
6. A row may be answered again by a better variant where the policy keeps its answer. The kept answer is insurance: it
   goes out at the deadline (or timeout) less a margin, or when the better variant fails, whatever else happens.
7. Which variants are loaded may change at any time (`router.roster`). Batches that run go on; rows that nothing loaded
   may answer wait for a load, unseen by policies.
8. A variant that breaks under a batch is in quarantine until a probe of it succeeds (`router.quarantine`). Nobody is
   answered by it meanwhile, by batches that ran when it broke neither; their rows go to others (`router.recovery`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

from router.contract import Dispatch, Poll, Slot, Spell
from router.controlled import Controlled
from router.devices import across
from router.fairness import Fairness
from router.family import Family, Share
from router.gate import Gate
from router.limits import Limits
from router.parts import parts_of
from router.probation import Probation
from router.quotas import Quotas
from router.recovery import Recovery
from router.request import NEVER, Request
from router.roster import Roster
from router.rule import Rule
from router.settling import Settling
from router.view import Plan, Policy
from router.words import Outcome, Reason

RETRY_S = 0.05
"""A policy that lets a slot wait is asked again after this long at most."""


class Scheduler(Controlled):
    """Queues rows, asks the policy, hands out batches and keeps count of every request.

    `families` may differ in margin: `margins` maps a family's name to its planning margin; without one
    it is learnt. `quotas` bound what each tenant may ask for. `tenants` has what some of them may count on where the
    machine is crowded, see `Fairness`; without `fair`, whoever asks most gets most of it. Where slots are of several
    devices (`router.devices`), requests are judged when they arrive by the one whose latencies families name first.
    """

    def __init__(
        self,
        families: Iterable[Family],
        slots: Sequence[Slot],
        policy: Policy,
        limits: Limits | None = None,
        margins: Mapping[str, float | None] | None = None,
        tenants: Mapping[str, Share] | None = None,
        quotas: Quotas | None = None,
        *,
        fair: bool = True,
    ) -> None:
        self.limits = limits or Limits()
        parts = parts_of(families, slots, self.limits, margins or {})
        self._rule = rule = Rule(across(policy, slots), parts.families.values())
        roster = Roster(parts, rule)
        fairness = Fairness(parts.slots.count, tenants) if fair else None
        gate = Gate(parts, roster, quotas or Quotas(), fairness, self.limits)
        super().__init__(parts, roster, gate)
        self._recovery = Recovery(parts, roster, rule, self.limits)
        self._probation = Probation(parts, roster, rule)
        self._settling = Settling(parts, gate, rule, self.limits)
        self._families = parts.families
        self._viewer = parts.viewer
        self._slots = parts.slots
        self._backlog = parts.backlog
        self._waiting = parts.waiting
        self._ledger = parts.ledger
        self._pending = parts.ledger.pending
        self._demand = parts.demand
        self._quarantine = parts.quarantine
        self._dispatches: list[Dispatch] = []
        self._hung: list[Dispatch] = []
        """Started, given up, and not yet reported: both survive a policy that raises in the same poll."""

    # What drivers call

    def submit(self, request: Request, now: float) -> None:
        """Take a request in. One that cannot be taken has its record in the next `poll`.

        Raises `ValueError` for an id that is in use: ids are the driver's to keep unique.
        """
        if request.id in self._pending:
            raise ValueError(f"request id {request.id} is in use")
        start_by_s = self._gate.take(request, now)
        if start_by_s is None:
            return
        # Where nothing can start now, it is enough to look before a row of this request becomes hopeless.
        rule = self._rule
        rule.wake_at = now if self._slots.free else min(rule.wake_at, start_by_s)

    def refuse_hopeless(self, request: Request, now: float) -> Reason | None:
        """Refuse a request that `submit` would refuse on these terms whatever its rows; others are not counted.

        `request` has one row of the smallest size class. So who can tell early saves reading the rest of it. It is not
        counted as demand to plan for: what it would have asked for is not known. Returns why it is refused.
        """
        return self._gate.refuse_hopeless(request, now)

    def refuse_over_quota(self, request: Request, now: float) -> float:
        """Refuse a request whose tenant may not have a single row now; others are as if never seen.

        Returns after how many seconds it may have one, 0.0 where it may now. As `refuse_hopeless`, for who can tell
        early.
        """
        return self._gate.refuse_over_quota(request, now)

    def poll(self, now: float) -> Poll:
        """Decide all that can be decided now. Call after any other call, and again at `wake_at`, which is later."""
        rule = self._rule
        self._ledger.ring(now)
        self._demand.known_s = now
        if now >= self._slots.watch_s or now >= self._quarantine.next_s:
            self._look_after(self._slots.hung(now), now)
        self._gate.relieve(now)
        is_left = False
        """Whether slots are left free: of several devices, another one may be given its next batch all the same."""
        while self._backlog.rows:
            soon = None if self._slots.free and not is_left else self._slots.soon(now)
            if soon is None and (is_left or (not self._slots.free and now < rule.wake_at)):
                break
            at_s = now if soon is None else soon.at_s
            view = self._viewer.view(self._backlog, self._slots, self._demand, self._ledger, now, soon)
            decision = rule.decide(view, at_s)
            rule.wake_at = min(rule.wake_at, decision.wake_at) if is_left else decision.wake_at
            if is_left and decision.plan is None:
                # What would be late by then may be started on the slots that are left free meanwhile.
                break
            if decision.late or decision.settled:
                self._settling.late(decision, now)
                self._settling.settle(decision, now)
            elif decision.plan is not None:
                self._dispatches.append(self._start(decision.plan, at_s, now))
            elif soon is None and self._slots.kinds is not None and self._slots.busy:
                is_left = True
            else:
                break
        if not self._backlog.rows:
            rule.wake_at = NEVER
        elif self._slots.free:
            # Work without a deadline waits for others to stay away; nothing tells of that.
            rule.wake_at = min(rule.wake_at, now + RETRY_S)
            opens_s = NEVER if self._slots.kinds is None else self._slots.opens_s(now)
            rule.wake_at = min(rule.wake_at, opens_s) if opens_s > now else rule.wake_at
        else:
            # Later than now, or a batch would have been decided on: but for a policy that lets a slot wait.
            opens_s = self._slots.opens_s(now)
            rule.wake_at = min(rule.wake_at, opens_s) if opens_s > now else rule.wake_at
        dispatches, self._dispatches = tuple(self._dispatches), []
        gone, self._hung = tuple(self._hung), []
        wake_at = min(rule.wake_at, self._ledger.next_alarm_s(), self._slots.watch_s, self._quarantine.next_s)
        ended, spells = self._slots.take(), self._quarantine.take()
        return Poll(dispatches, self._ledger.take(), ended, wake_at, gone, self._probation.take(), spells)

    def complete(
        self,
        batch_id: int,
        now: float,
        run_s: float | None = None,
        confidences: Sequence[float] | None = None,
        since_s: float = 0.0,
    ) -> list[int] | None:
        """The batch is answered; its model ran for `run_s` seconds (by default, for as long as the slot was busy).

        `since_s` is how long ago it ended: what its driver took to say so. The slot has run its next batch since then.
        `confidences` has the calibrated probability of each row's answer, in the batch's order; without it no answer
        is kept for a better one. Returns the places in the batch of the rows whose answer is kept, ascending; `None`
        where none of the answers counts, because the variant broke in another batch meanwhile. Raises `KeyError` for a
        batch that is not running.
        """
        runs = self._slots.running_on(batch_id)
        if runs is not None and self._quarantine.holds(runs.family, runs.variant):
            self.fail(batch_id, Reason.QUARANTINED, now, since_s)
            return None
        dispatch = self._ended(batch_id, now, None, since_s)
        known = self._families[dispatch.family]
        variant = known.family.index(dispatch.variant)
        assert variant is not None, "a running variant belongs to its family"
        observed_s = now - dispatch.started_s
        first = dispatch.items[0]
        ran_s = observed_s if run_s is None else run_s
        known.latency.on(dispatch.device).observe(
            variant, len(dispatch.items), first.size_class, ran_s, observed_s, now, dispatch.start, dispatch.crowd
        )
        return self._settling.answer(dispatch, known, variant, observed_s, confidences, now)

    def fail(self, batch_id: int, reason: Reason, now: float, since_s: float = 0.0) -> None:
        """The batch has no answer. A variant that is to blame (`router.quarantine.FAULTS`) is in quarantine by that.

        Rows with a kept answer go out with that, others wait for another variant or fail, see `router.recovery`. Raises
        `KeyError` for a batch that is not running.
        """
        self._recovery.fail(self._ended(batch_id, now, reason, since_s), reason, now)

    def lose(self, slot: int, reason: Reason, now: float) -> None:
        """The executor of a slot is gone, with the batch that it ran, for this reason, and the one after it.

        The slot is out of service until `restore`. Raises `KeyError` for one that is already.
        """
        ran, following = self._slots.lose(slot, reason, now)
        try:
            if ran is not None:
                self._recovery.fail(ran, reason, now)
        finally:
            if following is not None:
                self._recovery.fail(following, Reason.EXECUTOR_LOST, now)

    def restore(self, slot: int, now: float) -> None:
        """The slot has an executor again. Raises `KeyError` for one that was not out of service."""
        self._slots.restore(slot)
        self._rule.wake_at = now

    def strike(
        self, family: str, variant: str, reason: Reason, strikes: int, now: float, *, certain: bool = True
    ) -> None:
        """A variant is known to have broken, so often by now, under a batch that nobody here remembers.

        Where that is not `certain`, the last one of a family that can answer is away for the first spell and no longer.
        Raises `KeyError` for an unknown family.
        """
        self._probation.strike(family, variant, reason, strikes, now, certain=certain)

    def probed(self, spell: Spell, fault: Reason | None, now: float) -> None:
        """A variant was tried, as `Poll.probes` wanted: it answered, or broke by this `fault`.

        What is no fault of a variant says that it could not be tried: it is probed again.
        """
        self._probation.probed(spell, fault, now)

    def cancel(self, request_id: int, now: float) -> None:
        """The caller is gone. Unknown and finished ids are ignored: a cancel may cross the answer."""
        pending = self._pending.get(request_id)
        if pending is not None:
            self._ledger.abandon(pending, Outcome.CANCELLED, Reason.CLIENT_GONE, now)

    def abandon_all(self, now: float, reason: Reason = Reason.SHUTDOWN) -> None:
        """End whatever has not ended: the last step of a shutdown, or of a rule that raised.

        Requests whose every row has an answer get it, though a better one was hoped for; the others fail.
        """
        for pending in list(self._pending.values()):
            self._ledger.close(pending, reason, now)

    # Steps

    def _start(self, plan: Plan, at_s: float, now: float) -> Dispatch:
        # First, because it may refuse: rows that have left the backlog would be lost.
        dispatch = self._slots.start(plan, at_s, now)
        self._waiting.take(plan)
        for item in plan.items:
            self._pending[item.request_id].taken(item)
        if not dispatch.ahead:
            self._begun(dispatch)
        return dispatch

    def _look_after(self, hung: Sequence[Dispatch], now: float) -> None:
        """Lose the slots that hang, then note what is to be probed; all of it, whatever a policy raises."""
        self._hung += hung
        with ExitStack() as steps:
            # Last: what hangs may have others doubted, who are due by that.
            steps.callback(self._probation.note_due, now)
            for dispatch in reversed(hung):
                steps.callback(self.lose, dispatch.slot, Reason.HUNG, now)

    def _ended(self, batch_id: int, now: float, fault: Reason | None, since_s: float) -> Dispatch:
        """The batch that has ended; the next one of its slot has begun."""
        ended, begun = self._slots.release(batch_id, now, fault=fault, since_s=since_s)
        if begun is not None:
            self._begun(begun)
        return ended

    def _begun(self, dispatch: Dispatch) -> None:
        for item in dispatch.items:
            pending = self._pending.get(item.request_id)
            if pending is not None:
                pending.started(dispatch.started_s)
