"""The scheduler: the only mutable state of the router, driven alike by the live server and by the simulator.

Rules of the house:

1. Never reads a clock: the same calls with the same times give the same answers.
2. A slot is busy from the moment `poll` names it until `complete` or `fail`.
3. Every submitted request yields exactly one `Record`, whatever fails; it comes out of the next `poll`.
4. A request of n rows is n items; it ends when the last row is answered, or at once when one row cannot be.
5. What a policy calls late is refused or moved to the background, as the request chose (`when_late`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from router.admission import cannot_finish, lowest_variant
from router.backlog import Backlog, LaneKey
from router.contract import (
    NEVER,
    BatchRecord,
    Dispatch,
    Family,
    Hints,
    Item,
    Outcome,
    Poll,
    Reason,
    Record,
    Request,
    Slot,
    WhenLate,
)
from router.latency import LatencyModel
from router.pending import Pending
from router.timeouts import Timeouts
from router.view import Decision, Lane, Plan, Policy, View


@dataclass(frozen=True, slots=True)
class Limits:
    """`backlog_rows` bounds the rows that wait, `look_ahead` the rows of a lane that a policy sees."""

    backlog_rows: int = 4096
    look_ahead: int = 64


@dataclass(slots=True)
class _FamilyState:
    family: Family
    latency: LatencyModel


class Scheduler:
    """Queues rows, asks the policy, hands out batches and keeps count of every request.

    `families` may differ in margin: `margins` maps a family's name to its planning margin (default 1.12).
    """

    def __init__(
        self,
        families: Iterable[Family],
        slots: Sequence[Slot],
        policy: Policy,
        limits: Limits | None = None,
        margins: dict[str, float] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._policy = policy
        self._state: object = None
        by_name = {family.name: family for family in families}
        self._margins = {name: (margins or {}).get(name, 1.12) for name in by_name}
        self._families = {n: _FamilyState(f, LatencyModel(f, self._margins[n])) for n, f in by_name.items()}
        self._free = [slot.index for slot in slots]
        self._slots = len(slots)
        self._running: dict[int, Dispatch] = {}
        self._backlog = Backlog()
        self._pending: dict[int, Pending] = {}
        self._records: list[Record] = []
        self._batch_records: list[BatchRecord] = []
        self._timeouts = Timeouts(self._pending)
        self._sequence = 0
        self._batches = 0
        self._hints: Hints | None = None
        self._wake_at = NEVER
        self._dispatches: list[Dispatch] = []
        """Started and not yet reported; survives a policy that raises after its first plan."""

    # What drivers call

    def submit(self, request: Request, now: float) -> None:
        """Take a request in. One that cannot be taken has its record in the next `poll`.

        Raises `ValueError` for an id that is in use: ids are the driver's to keep unique.
        """
        if request.id in self._pending:
            raise ValueError(f"request id {request.id} is in use")
        state = self._families.get(request.family)
        lowest = lowest_variant(state.family, request, self._fresh_hints(now)) if state else None
        pending = Pending(request)
        if state is None or lowest is None:
            self._records.append(pending.record(Outcome.REJECTED_INFEASIBLE, Reason.NOT_LOADED, now))
            return
        if self._backlog.rows + len(request.row_classes) > self.limits.backlog_rows:
            self._records.append(pending.record(Outcome.REJECTED_FULL, Reason.BACKLOG_FULL, now))
            return
        background = request.deadline_s == NEVER
        if not background and cannot_finish(state.latency, request, lowest, self._slots, now):
            if request.when_late is WhenLate.SHED:
                self._records.append(pending.record(Outcome.REJECTED_INFEASIBLE, Reason.DEADLINE_INFEASIBLE, now))
                return
            background = True
        self._pending[request.id] = pending
        self._queue(pending, lowest, background)
        self._wake_at = now
        if request.timeout_s != NEVER:
            self._timeouts.arm(request.id, request.timeout_s)

    def poll(self, now: float) -> Poll:
        """Decide all that can be decided now. Call after any other call, and again at `wake_at`, which is later."""
        while (expired := self._timeouts.pop_due(now)) is not None:
            self._abandon(self._pending[expired], Outcome.EXPIRED, Reason.TIMEOUT, now)
        while self._backlog.rows and (self._free or now >= self._wake_at):
            self._state, decision = self._policy.decide(self._state, self._view(now), now)
            self._wake_at = decision.wake_at
            if decision.late:
                self._set_late(decision, now)
            elif decision.plan is not None:
                self._dispatches.append(self._start(decision.plan, now))
            else:
                break
        if not self._backlog.rows:
            self._wake_at = NEVER
        dispatches, self._dispatches = self._dispatches, []
        records, self._records = self._records, []
        batches, self._batch_records = self._batch_records, []
        wake_at = min(self._wake_at, self._timeouts.next_s())
        return Poll(tuple(dispatches), tuple(records), tuple(batches), wake_at)

    def complete(self, batch_id: int, now: float, run_s: float | None = None) -> None:
        """The batch is answered; its model ran for `run_s` seconds (by default, for as long as the slot was busy).

        Raises `KeyError` for a batch that is not running.
        """
        dispatch = self._release(batch_id, now, failed=False)
        state = self._families[dispatch.family]
        variant = state.family.index(dispatch.variant)
        assert variant is not None, "a running variant belongs to its family"
        observed_s = now - dispatch.started_s
        size_class = dispatch.items[0].size_class
        ran_s = observed_s if run_s is None else run_s
        state.latency.observe(variant, len(dispatch.items), size_class, ran_s, observed_s, now)
        quality = state.family.variants[variant].quality
        for item in dispatch.items:
            pending = self._pending.get(item.request_id)
            if pending is None:
                continue
            pending.answered(item, dispatch, quality, observed_s)
            if pending.waiting == 0:
                late = now > pending.request.deadline_s
                self._finish(pending, Outcome.SERVED_LATE if late else Outcome.SERVED, dispatch.reason, now)

    def fail(self, batch_id: int, reason: Reason, now: float) -> None:
        """The batch has no answer; every request in it fails. Raises `KeyError` for a batch that is not running."""
        for item in self._release(batch_id, now, failed=True).items:
            pending = self._pending.get(item.request_id)
            if pending is not None:
                self._abandon(pending, Outcome.FAILED, reason, now)

    def cancel(self, request_id: int, now: float) -> None:
        """The caller is gone. Unknown and finished ids are ignored: a cancel may cross the answer."""
        pending = self._pending.get(request_id)
        if pending is not None:
            self._abandon(pending, Outcome.CANCELLED, Reason.CLIENT_GONE, now)

    def abandon_all(self, now: float, reason: Reason = Reason.SHUTDOWN) -> None:
        """Fail whatever has not been answered: the last step of a shutdown, or of a rule that raised."""
        for pending in list(self._pending.values()):
            self._abandon(pending, Outcome.FAILED, reason, now)

    def set_hints(self, hints: Hints | None) -> None:
        """Advice of the slow outer loop; forgotten by itself after its age."""
        self._hints = hints

    # What observers read

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._backlog.rows

    @property
    def unfinished(self) -> int:
        """Requests without an outcome."""
        return len(self._pending)

    @property
    def busy_slots(self) -> int:
        """Slots that run a batch."""
        return len(self._running)

    @property
    def families(self) -> dict[str, Family]:
        """Families by name."""
        return {name: state.family for name, state in self._families.items()}

    def latency(self, family: str) -> LatencyModel:
        """The corrected latency model of a family. Raises `KeyError` for an unknown one."""
        return self._families[family].latency

    def __repr__(self) -> str:
        return f"<Scheduler {self.unfinished} unfinished, {len(self._free)} free slots, {self._backlog!r}>"

    # Steps

    def _queue(self, pending: Pending, lowest: int, background: bool) -> None:
        request = pending.request
        pinned = lowest if request.pinned is not None else -1
        slo_s = request.deadline_s - request.arrival_s
        for row, size_class in enumerate(request.row_classes):
            self._sequence += 1
            item = Item(
                request.urgency,
                request.deadline_s,
                self._sequence,
                request.id,
                row,
                size_class,
                lowest,
                request.min_quality,
                slo_s,
            )
            key = LaneKey(request.family, pinned, lowest, size_class, request.urgency, background)
            self._backlog.add(key, item)
            pending.queued[row] = (key, item)

    def _fresh_hints(self, now: float) -> Hints | None:
        hints = self._hints
        if hints is None:
            return None
        return hints if 0.0 <= now - hints.issued_s <= hints.max_age_s else None

    def _view(self, now: float) -> View:
        hints = self._fresh_hints(now)
        running = {dispatch.family for dispatch in self._running.values()}
        lanes: list[Lane] = []
        background: list[Lane] = []
        for key, items in self._backlog.lanes():
            state = self._families[key.family]
            margin = hints.margin if hints is not None and hints.margin else self._margins[key.family]
            if state.latency.margin != margin:
                state.latency.set_margin(margin)
            if key.family not in running:
                state.latency.relax(now)
            lane = Lane(key, state.family, state.latency, len(items), tuple(items[: self.limits.look_ahead]))
            (background if key.background else lanes).append(lane)
        busy = tuple(d.started_s + d.predicted_s for d in self._running.values())
        return View(tuple(self._free), busy, tuple(lanes), tuple(background), hints)

    def _set_late(self, decision: Decision, now: float) -> None:
        for lane, item in decision.late:
            pending = self._pending.get(item.request_id)
            if pending is None:
                continue
            if pending.request.when_late is WhenLate.SERVE:
                self._backlog.remove(lane.key, (item,))
                key = lane.key._replace(background=True)
                self._backlog.add(key, item)
                pending.queued[item.row] = (key, item)
            else:
                self._abandon(pending, Outcome.REJECTED_INFEASIBLE, Reason.DEADLINE_INFEASIBLE, now)

    def _start(self, plan: Plan, now: float) -> Dispatch:
        lane, items = plan.lane, plan.items
        if items[-1] is lane.items[len(items) - 1]:
            self._backlog.take_first(lane.key, len(items))
        else:
            self._backlog.remove(lane.key, items)
        variant = lane.family.variants[plan.variant]
        self._batches += 1
        dispatch = Dispatch(
            self._batches,
            plan.slot,
            lane.family.name,
            lane.family.revision,
            variant.name,
            0,
            len(variant.stages),
            items,
            now,
            lane.latency.planned_s(plan.variant, len(items), items[0].size_class),
            lane.latency.planned_run_s(plan.variant, len(items), items[0].size_class),
            plan.reason,
        )
        self._free.remove(plan.slot)
        self._running[dispatch.batch_id] = dispatch
        for item in items:
            self._pending[item.request_id].started(item, now)
        return dispatch

    def _release(self, batch_id: int, now: float, *, failed: bool) -> Dispatch:
        dispatch = self._running.pop(batch_id)
        insort(self._free, dispatch.slot)
        self._batch_records.append(BatchRecord(dispatch, now, failed))
        return dispatch

    def _finish(self, pending: Pending, outcome: Outcome, reason: Reason, now: float) -> None:
        del self._pending[pending.request.id]
        self._records.append(pending.record(outcome, reason, now))

    def _abandon(self, pending: Pending, outcome: Outcome, reason: Reason, now: float) -> None:
        for key, item in pending.queued.values():
            self._backlog.remove(key, (item,))
        self._finish(pending, outcome, reason, now)
