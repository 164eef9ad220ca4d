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

from router.backlog import Backlog
from router.contract import Dispatch, Hints, Poll, Slot, Spell
from router.demand import Demand
from router.devices import across, speeds
from router.fairness import Fairness
from router.family import Family, Share
from router.gate import Gate
from router.latency import LatencyModel
from router.ledger import Ledger
from router.limits import Limits
from router.parts import Parts
from router.pending import Pending
from router.quarantine import Quarantine
from router.quotas import Quota, Quotas
from router.recovery import Recovery
from router.request import NEVER, Item, Request
from router.roster import Cold, Missing, Prepared, Roster
from router.slots import Slots
from router.view import CascadePolicy, Decision, Plan, Policy, PreparedPolicy
from router.viewer import Known, Viewer
from router.waiting import Waiting
from router.words import Outcome, Reason, WhenLate

RETRY_S = 0.05
"""A policy that lets a slot wait is asked again after this long at most."""


class Scheduler:
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
        self._policy = policy = across(policy, slots)
        self._cascades = policy if isinstance(policy, CascadePolicy) else None
        self._state: object = None
        by_name = {family.name: family for family in families}
        own_margins = {name: (margins or {}).get(name) for name in by_name}
        self._families = {name: Known(f, LatencyModel(f, own_margins[name])) for name, f in by_name.items()}
        if isinstance(policy, PreparedPolicy):
            self._state = policy.prepare([known for known in self._families.values() if known.family.ladder])
        self._viewer = Viewer(self._families, own_margins, self.limits.look_ahead, self.limits.reply_margin_s)
        speed = speeds(slots, [known.latency for known in self._families.values()])
        self._slots = Slots(slots, self.limits.ahead, self.limits.hang_s, speed)
        self._backlog = Backlog()
        self._waiting = Waiting(self._backlog)
        self._ledger = Ledger(self._backlog)
        self._pending = self._ledger.pending
        self._demand = Demand()
        self._quarantine = Quarantine()
        parts = Parts(
            self._families,
            own_margins,
            self._viewer,
            self._slots,
            self._backlog,
            self._waiting,
            self._ledger,
            self._demand,
            self._quarantine,
        )
        self._roster = Roster(parts, policy)
        self._recovery = Recovery(parts, self._roster, self.limits)
        fairness = Fairness(self._slots.count, tenants) if fair else None
        self._gate = Gate(parts, self._roster, quotas or Quotas(), fairness, self.limits)
        self._wake_at = NEVER
        self._dispatches: list[Dispatch] = []
        self._hung: list[Dispatch] = []
        self._probes: list[Spell] = []
        """Started, given up, due, and not yet reported: all of that survives a policy that raises in the same poll."""

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
        self._wake_at = now if self._slots.free else min(self._wake_at, start_by_s)

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
        self._ledger.ring(now)
        self._demand.known_s = now
        if now >= self._slots.watch_s or now >= self._quarantine.next_s:
            self._look_after(self._slots.hung(now), now)
        self._gate.relieve(now)
        is_left = False
        """Whether slots are left free: of several devices, another one may be given its next batch all the same."""
        while self._backlog.rows:
            soon = None if self._slots.free and not is_left else self._slots.soon(now)
            if soon is None and (is_left or (not self._slots.free and now < self._wake_at)):
                break
            at_s = now if soon is None else soon.at_s
            view = self._viewer.view(self._backlog, self._slots, self._demand, self._ledger, now, soon)
            self._state, decision = self._policy.decide(self._state, view, at_s)
            self._wake_at = min(self._wake_at, decision.wake_at) if is_left else decision.wake_at
            if is_left and decision.plan is None:
                # What would be late by then may be started on the slots that are left free meanwhile.
                break
            if decision.late or decision.settled:
                self._set_late(decision, now)
                self._settle(decision, now)
            elif decision.plan is not None:
                self._dispatches.append(self._start(decision.plan, at_s, now))
            elif soon is None and self._slots.kinds is not None and self._slots.busy:
                is_left = True
            else:
                break
        if not self._backlog.rows:
            self._wake_at = NEVER
        elif self._slots.free:
            # Work without a deadline waits for others to stay away; nothing tells of that.
            self._wake_at = min(self._wake_at, now + RETRY_S)
            opens_s = NEVER if self._slots.kinds is None else self._slots.opens_s(now)
            self._wake_at = min(self._wake_at, opens_s) if opens_s > now else self._wake_at
        else:
            # Later than now, or a batch would have been decided on: but for a policy that lets a slot wait.
            opens_s = self._slots.opens_s(now)
            self._wake_at = min(self._wake_at, opens_s) if opens_s > now else self._wake_at
        dispatches, self._dispatches = tuple(self._dispatches), []
        gone, self._hung = tuple(self._hung), []
        probes, self._probes = tuple(self._probes), []
        wake_at = min(self._wake_at, self._ledger.next_alarm_s(), self._slots.watch_s, self._quarantine.next_s)
        ended, spells = self._slots.take(), self._quarantine.take()
        return Poll(dispatches, self._ledger.take(), ended, wake_at, gone, probes, spells)

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
        state = self._families[dispatch.family]
        variant = state.family.index(dispatch.variant)
        assert variant is not None, "a running variant belongs to its family"
        observed_s = now - dispatch.started_s
        first = dispatch.items[0]
        ran_s = observed_s if run_s is None else run_s
        state.latency.on(dispatch.device).observe(
            variant, len(dispatch.items), first.size_class, ran_s, observed_s, now, dispatch.start, dispatch.crowd
        )
        quality = state.family.variants[variant].measured
        kept: list[int] = []
        for place, item in enumerate(dispatch.items):
            pending = self._pending.get(item.request_id)
            if pending is None:
                continue
            confidence = 0.0 if confidences is None else float(confidences[place])
            pending.answered(item, dispatch, quality, observed_s, confidence)
            free = self._cascades is not None and confidence > 0.0 and dispatch.reason is not Reason.PINNED
            if free and self._keep(pending, item, variant, confidence, now):
                kept.append(place)
            else:
                self._settled(pending, now)
        return kept

    def fail(self, batch_id: int, reason: Reason, now: float, since_s: float = 0.0) -> None:
        """The batch has no answer. A variant that is to blame (`router.quarantine.FAULTS`) is in quarantine by that.

        Rows with a kept answer go out with that, others wait for another variant or fail, see `router.recovery`. Raises
        `KeyError` for a batch that is not running.
        """
        self._failed(self._ended(batch_id, now, reason, since_s), reason, now)

    def lose(self, slot: int, reason: Reason, now: float) -> None:
        """The executor of a slot is gone, with the batch that it ran, for this reason, and the one after it.

        The slot is out of service until `restore`. Raises `KeyError` for one that is already.
        """
        ran, following = self._slots.lose(slot, reason, now)
        try:
            if ran is not None:
                self._failed(ran, reason, now)
        finally:
            if following is not None:
                self._failed(following, Reason.EXECUTOR_LOST, now)

    def restore(self, slot: int, now: float) -> None:
        """The slot has an executor again. Raises `KeyError` for one that was not out of service."""
        self._slots.restore(slot)
        self._wake_at = now

    def strike(
        self, family: str, variant: str, reason: Reason, strikes: int, now: float, *, certain: bool = True
    ) -> None:
        """A variant is known to have broken, so often by now, under a batch that nobody here remembers.

        Where that is not `certain`, the last one of a family that can answer is away for the first spell and no longer.
        Raises `KeyError` for an unknown family.
        """
        known = self._families[family].family
        if not certain and not any(known.answers(other.name) for other in known.variants if other.name != variant):
            strikes = 1
        if self._quarantine.strike(family, known.revision, variant, reason, now, strikes=strikes):
            self._hold(family, now)

    def probed(self, spell: Spell, fault: Reason | None, now: float) -> None:
        """A variant was tried, as `Poll.probes` wanted: it answered, or broke by this `fault`.

        What is no fault of a variant says that it could not be tried: it is probed again.
        """
        if self._quarantine.probed(spell, fault, now):
            # Even if the policy raises on that: it may be asked at once.
            self._wake_at = now if self._slots.free else self._wake_at
            self._hold(spell.family, now)

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

    def set_quotas(self, named: Mapping[str, Quota], others: Quota, now: float) -> None:
        """Other quotas hold from now on, by tenant and for all others; what was used up stays so."""
        self._gate.quotas.change(named, others, now)

    def set_shares(self, tenants: Mapping[str, Share]) -> None:
        """Tenants may count on other shares from now on; see `Fairness`."""
        if self._gate.fairness is not None:
            self._gate.fairness.change(tenants)

    def prepare(self, family: Family, margin: float | None = None) -> Prepared:
        """What `replace` takes, for a new family, another revision, other variants loaded or another belief.

        It takes milliseconds, and any thread may call it. `margin` is the planning margin of a family that is new.
        """
        return self._roster.prepare(family, margin)

    def replace(self, prepared: Prepared, now: float) -> None:
        """Serve a family as prepared from now on; one that is not known is added. Batches that run go on.

        Rows that wait for what is no longer loaded wait for what is, or for a load. Raises `ValueError` for another
        revision while requests of the old one have no outcome.
        """
        self._state = self._roster.change(prepared, self._state, now)
        if self._slots.free:
            self._wake_at = now

    def remove(self, family: str, now: float) -> None:
        """Serve a family no longer; rows of it that wait get the answers they have, or none.

        Raises `ValueError` while a batch of it runs, `KeyError` for an unknown family.
        """
        self._state = self._roster.remove(family, self._state, now)

    def refuse_cold(self, family: str, missing: Missing, now: float) -> None:
        """Refuse what waits for this to be loaded: nothing that would do can be."""
        self._roster.refuse_cold(family, missing, now)

    def set_margin(self, family: str, margin: float | None) -> None:
        """Plan with this margin for a family from now on; None learns it."""
        self._roster.set_margin(family, margin)

    def set_hints(self, hints: Hints | None) -> None:
        """Advice of the slow outer loop; forgotten by itself after its age."""
        self._viewer.set_hints(hints)

    # What observers read

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._backlog.rows + self._backlog.cold_rows

    @property
    def cold_rows(self) -> int:
        """Those of them that wait for a variant to be loaded."""
        return self._backlog.cold_rows

    def cold(self) -> Mapping[str, Cold]:
        """What waits for a variant to be loaded, by family."""
        return self._roster.cold()

    def in_use(self, family: str) -> set[str]:
        """The variants of a family that batches run on or are about to: they must stay in memory."""
        return self._roster.in_use(family)

    def busy(self) -> frozenset[str]:
        """The families of which requests have no outcome yet."""
        return self._roster.busy()

    def is_busy(self, family: str) -> bool:
        """Whether a family has requests without an outcome, or batches that run."""
        return self._roster.is_busy(family)

    @property
    def unfinished(self) -> int:
        """Requests without an outcome."""
        return len(self._pending)

    @property
    def busy_slots(self) -> int:
        """Slots that run a batch."""
        return self._slots.busy

    @property
    def lost_slots(self) -> int:
        """Slots that are out of service."""
        return self._slots.lost

    def quarantined(self, family: str) -> Mapping[str, Spell]:
        """The variants of a family that are in quarantine, with why and until when."""
        return self._quarantine.spells(family)

    @property
    def families(self) -> dict[str, Family]:
        """Families by name."""
        return {name: state.family for name, state in list(self._families.items())}

    def latency(self, family: str) -> LatencyModel:
        """The corrected latency model of a family. Raises `KeyError` for an unknown one."""
        return self._families[family].latency

    def __repr__(self) -> str:
        return f"<Scheduler {self.unfinished} unfinished, {len(self._slots.free)} free slots, {self._backlog!r}>"

    # Steps

    def _set_late(self, decision: Decision, now: float) -> None:
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

    def _settle(self, decision: Decision, now: float) -> None:
        for lane, item in decision.settled:
            pending = self._pending.get(item.request_id)
            if pending is not None:
                self._waiting.leave(pending, lane.key, item)
                self._settled(pending, now)

    def _keep(self, pending: Pending, item: Item, variant: int, confidence: float, now: float) -> bool:
        """Ask the policy whether this row waits for a better answer; if so, queue it."""
        request = pending.request
        state = self._families[request.family]
        margin_s = self.limits.reply_margin_s + state.latency.slip_s
        by_s = min(item.deadline_s, request.timeout_s) - margin_s
        may = state.family.evidence is not None and request.pinned is None and not pending.cold
        # Overdue: its alarm has rung and will not ring again, and its last row must not leave another one behind.
        may = may and variant in state.family.ladder[:-1] and not pending.overdue
        if not may or now >= by_s or request.deadline_s == NEVER or self._cascades is None:
            return False
        answered = Item(*item[:9], variant, confidence)
        kept = self._cascades.keeps(self._state, state.family, state.latency, answered, now)
        pending.judged(answered, kept=kept)
        if kept:
            self._waiting.again(pending, answered)
            self._ledger.keep(pending, by_s)
        return kept

    def _settled(self, pending: Pending, now: float) -> None:
        """One row more has its last answer."""
        if pending.settled():
            self._ledger.answer(pending, now)

    def _start(self, plan: Plan, at_s: float, now: float) -> Dispatch:
        # First, because it may refuse: rows that have left the backlog would be lost.
        dispatch = self._slots.start(plan, at_s, now)
        self._waiting.take(plan)
        for item in plan.items:
            self._pending[item.request_id].taken(item)
        if not dispatch.ahead:
            self._begun(dispatch)
        return dispatch

    def _failed(self, dispatch: Dispatch, reason: Reason, now: float) -> None:
        # First, so that its rows are not given to the variant that broke.
        try:
            if self._recovery.blame(dispatch, reason, now):
                self._hold(dispatch.family, now)
        finally:
            self._recovery.salvage(dispatch, reason, now)
            # Even where no slot is free: rows that wait again must be found when they become hopeless.
            self._wake_at = now

    def _hold(self, family: str, now: float) -> None:
        """Other variants of a family are in quarantine. A policy that raises on that remembers nothing any more."""
        state, self._state = self._state, None
        self._state = self._roster.quarantine(family, state, now)

    def _look_after(self, hung: Sequence[Dispatch], now: float) -> None:
        """Lose the slots that hang, then note what is to be probed; all of it, whatever a policy raises."""
        self._hung += hung
        with ExitStack() as steps:
            # Last: what hangs may have others doubted, who are due by that.
            steps.callback(self._note_due, now)
            for dispatch in reversed(hung):
                steps.callback(self.lose, dispatch.slot, Reason.HUNG, now)

    def _note_due(self, now: float) -> None:
        """A variant that is not in memory is tried when it is loaded: its spell is over."""
        with ExitStack() as steps:
            for spell in self._quarantine.due(now):
                family = self._families[spell.family].family
                index = family.index(spell.variant)
                if index is not None and family.loaded is not None and index in family.loaded:
                    self._probes.append(spell)
                else:
                    steps.callback(self.probed, spell, None, now)

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
