"""The asyncio driver of the scheduler: polls become batches, records become answers, wake-ups become timers.

It contains no scheduling rule: who runs when on what is decided in `router`. All methods run on the event loop's
thread but `done` and `restored`, which slots call from theirs.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from time import monotonic
from typing import Protocol

from router.contract import BatchRecord, Dispatch, Poll, Record, Spell
from router.request import NEVER, Request
from router.scheduler import Scheduler
from router.words import Outcome, Reason
from service.exchange import Receive
from service.executors import MakeSlots
from service.runner import BatchRunner, fault_of
from service.watching import CallerWatch
from service.work import NOTHING, Answer, Ran, Work
from variants.preparation import Row

logger = logging.getLogger("pareto.dispatcher")

_REFUSED_EARLY = (Outcome.REJECTED_INFEASIBLE, Outcome.REJECTED_QUOTA)
"""Requests may end so before there is any work of theirs."""

INLINE_TURN_S = 0.001
"""A turn that has run batches on the event loop for this long lets others have it."""


QUIET_STEP_S = 0.005
"""How often it is looked whether a family has become quiet, which is asked when somebody loads or unloads it."""


class Observer(Protocol):
    """Whoever wants to know what happened; called once a turn, after the answers are on their way."""

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """Take note of requests and batches that ended."""


PROBE_WITHIN_S = 60.0
"""A variant that has not answered its probe by then hangs: it runs nine rows, one and then eight."""

Probe = Callable[[Spell], Awaitable[Reason | None]]
"""Tries a variant in quarantine, away from all requests: by what it failed, `None` where it answered.

What is no fault of a variant (`router.quarantine.FAULTS`) says that it could not be tried."""


async def trust(_spell: Spell) -> Reason | None:
    """No probe at all: the next request tries the variant."""
    return None


class Dispatcher:
    """Drives one scheduler on the running event loop; it is what executors tell (`service.executors.SlotEvents`).

    Batches planned to run for less than `inline_below_s` run on the event loop itself, through `runner`. Variants that
    broke are tried with `probe`, which has `probe_within_s`; `told` learns of spells of quarantine. `clock` is what all
    times are read from; `timer_step_s` is the coarseness of the loop's timers: uvloop counts whole milliseconds, and a
    timer rounded down would fire early and spin until it is due.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        runner: BatchRunner,
        make_slots: MakeSlots,
        observers: Sequence[Observer],
        inline_below_s: float = 0.0,
        *,
        probe: Probe = trust,
        probe_within_s: float = PROBE_WITHIN_S,
        told: Callable[[Sequence[Spell]], None] = lambda _: None,
        clock: Callable[[], float] = monotonic,
        timer_step_s: float = 0.001,
    ) -> None:
        self._clock = clock
        self._timer_step_s = timer_step_s
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._scheduler = scheduler
        self._runner = runner
        self._observers = observers
        self._inline_below_s = inline_below_s
        self._probe = probe
        self._probe_within_s = probe_within_s
        self._told = told
        self._probing: set[asyncio.Task[None]] = set()
        self._slots = make_slots(self)
        self._work: dict[int, Work] = {}
        self._running: dict[int, Dispatch] = {}
        self._turn_due = False
        self._burst = 0
        self._last_burst = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = NEVER
        self._callers = CallerWatch(self._work, clock, self.cancel)
        self._idle = asyncio.Event()
        self._idle.set()
        self._expected = 0
        self.closed = False
        """Whether nothing that is submitted would be answered any more."""

    def submit(self, request: Request, rows: Sequence[Row], receive: Receive | None = None) -> asyncio.Future[Answer]:
        """Take a request in; the future always resolves, with whatever outcome.

        `receive` is the ASGI channel of the caller: once it says that the caller is gone, the request is cancelled.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._work[request.id] = Work(rows, future, request.arrival_s, receive)
        self._idle.clear()
        self._scheduler.submit(request, self._clock())
        self._burst += 1
        if self._burst > 1 or self._last_burst > 1:
            self._want_turn()
        else:
            # Callers come one at a time: waiting for others would only cost this one a round of the event loop.
            self._turn()
            self._loop.call_soon(self._end_of_burst)
        if receive is not None:
            self._callers.begin()
        return future

    def refuses(self, request: Request) -> Reason | None:
        """Why the request is refused at once, whatever its rows are; see `Scheduler.refuse_hopeless`."""
        refused = self._scheduler.refuse_hopeless(request, self._clock())
        if refused is not None:
            self._want_turn()
        return refused

    def refuses_quota(self, request: Request) -> float:
        """Seconds after which its tenant may have a row again, where the request is refused; else 0.0."""
        wait_s = self._scheduler.refuse_over_quota(request, self._clock())
        if wait_s:
            self._want_turn()
        return wait_s

    def tell(self, change: Callable[[float], None]) -> None:
        """Let the scheduler know of something; `change` is called with the time, and rows may start or end by it."""
        change(self._clock())
        self._want_turn()

    def cancel(self, request_id: int) -> None:
        """The caller is gone."""
        self._scheduler.cancel(request_id, self._clock())
        self._want_turn()

    async def quiet(self, family: str, timeout_s: float) -> bool:
        """Wait until no request of a family is without an outcome and no batch of it runs; false after `timeout_s`."""
        limit_s = self._clock() + timeout_s
        while self._scheduler.is_busy(family):
            if self._clock() > limit_s:
                return False
            await asyncio.sleep(QUIET_STEP_S)
        return True

    async def drained(self, timeout_s: float) -> bool:
        """Wait until every request has its outcome; false if some still had none after `timeout_s`."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Another request may come of what is done in the block: `drained` waits for its end as well."""
        self._expected += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._expected -= 1
            self._rest()

    def close(self) -> None:
        """Fail what is left and let the slots' executors end."""
        self.closed = True
        for task in self._probing:
            task.cancel()
        self._scheduler.abandon_all(self._clock())
        self._turn()
        if self._timer is not None:
            self._timer.cancel()
        for slot in self._slots:
            slot.stop()

    def _want_turn(self) -> None:
        """One turn for all that happens in this iteration of the event loop, so that bursts are batched."""
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._due_turn)

    def _due_turn(self) -> None:
        self._turn_due = False
        self._end_of_burst()
        self._turn()

    def _end_of_burst(self) -> None:
        """Remember how many requests came within one iteration of the event loop."""
        if self._burst:
            self._last_burst, self._burst = self._burst, 0

    def _turn(self) -> None:
        now = started_s = self._clock()
        while True:
            poll = self._poll(now)
            # Before the answers: a request may lose one row in the very poll that starts another one.
            inline = self._start(poll.dispatches)
            for record in poll.records:
                self._answer(record)
            if poll.records or poll.batches:
                self._observe(poll)
            if poll.hung or poll.probes or poll.spells:
                self._look_after(poll)
            if inline is None:
                break
            dispatch, rows = inline
            outcome, run_s = self._runner.attempt(dispatch, rows)
            self._settle(dispatch.batch_id, outcome, run_s, self._clock())
            now = self._clock()
            if now - started_s > INLINE_TURN_S:
                # Others wait for the event loop; what is left to do is done in its next iteration.
                self._want_turn()
                return
        self._set_timer(poll.wake_at, now)

    def _poll(self, now: float) -> Poll:
        """Unlike `_whatever_raises`, what raises here costs no time where nothing does."""
        try:
            return self._scheduler.poll(now)
        except Exception:
            logger.exception("the scheduler failed; every unfinished request fails with it")
            self._scheduler.abandon_all(now, Reason.INTERNAL_ERROR)
            return self._scheduler.poll(now)

    @contextmanager
    def _whatever_raises(self, now: float) -> Iterator[None]:
        """A rule that raises must not leave anybody without an outcome."""
        try:
            yield
        except Exception:
            logger.exception("the scheduler failed; every unfinished request ends with it")
            self._scheduler.abandon_all(now, Reason.INTERNAL_ERROR)

    def _observe(self, poll: Poll) -> None:
        for observer in self._observers:
            try:
                observer.observe(poll.records, poll.batches)
            except Exception:
                logger.exception("%s failed on what it was told", type(observer).__name__)

    def _look_after(self, poll: Poll) -> None:
        """See to what broke: slots that hang, variants that are to be probed, and who wants to know of it."""
        for dispatch in poll.hung:
            self._forget(dispatch.slot)
            said = "batch of %d on %s/%s hangs: it is given up after %.1f s"
            taken_s = self._clock() - dispatch.started_s
            logger.error(said, len(dispatch.items), dispatch.family, dispatch.variant, taken_s)
            self._slots[dispatch.slot].give_up()
        for spell in poll.probes:
            task = self._loop.create_task(self._probed(spell))
            self._probing.add(task)
            task.add_done_callback(self._probing.discard)
        if poll.spells:
            try:
                self._told(poll.spells)
            except Exception:
                logger.exception("who is told of quarantines failed on it")

    async def _probed(self, spell: Spell) -> None:
        try:
            fault = await asyncio.wait_for(self._probe(spell), self._probe_within_s)
        except TimeoutError:
            said = "family %s: variant %s has not answered its probe within %g s"
            logger.warning(said, spell.family, spell.variant, self._probe_within_s)
            fault = Reason.HUNG
        except Exception:
            # It says nothing of the variant, and must not keep it away for ever.
            logger.exception("family %s: variant %s could not be probed", spell.family, spell.variant)
            fault = Reason.EXECUTOR_LOST
        now = self._clock()
        with self._whatever_raises(now):
            self._scheduler.probed(spell, fault, now)
        self._want_turn()

    def _forget(self, slot: int) -> None:
        """Nobody waits for the batches of a slot any more."""
        for batch_id in [number for number, dispatch in self._running.items() if dispatch.slot == slot]:
            del self._running[batch_id]

    def _start(self, dispatches: Sequence[Dispatch]) -> tuple[Dispatch, list[Row]] | None:
        """Hand batches to their slots' threads, but give one back that is so short that it is to run here.

        At most one: several would run one after another, though the scheduler counts on them side by side.
        """
        inline = None
        work = self._work
        for dispatch in dispatches:
            self._running[dispatch.batch_id] = dispatch
            from_stage = dispatch.from_stage
            try:
                rows = [work[item.request_id].feed(item.row, from_stage) for item in dispatch.items]
            except KeyError:
                logger.error("%s/%s: a row has no state to go on from", dispatch.family, dispatch.variant)
                self._running.pop(dispatch.batch_id)
                self._scheduler.fail(dispatch.batch_id, Reason.INTERNAL_ERROR, self._clock())
                self._want_turn()
                continue
            if inline is None and dispatch.predicted_run_s < self._inline_below_s and not dispatch.ahead:
                inline = dispatch, rows
            else:
                self._slots[dispatch.slot].start(dispatch, rows)
        return inline

    def done(self, batch_id: int, outcome: Ran | Exception, run_s: float) -> None:
        """See `service.executors.SlotEvents`."""
        try:
            self._loop.call_soon_threadsafe(self._settle_and_turn, batch_id, outcome, run_s, self._clock())
        except RuntimeError:
            logger.debug("batch %d ended after the event loop", batch_id)

    def ended(self, batch_id: int, outcome: Ran | Exception, run_s: float, ended_s: float) -> None:
        """See `service.executors.SlotEvents`."""
        self._settle_and_turn(batch_id, outcome, run_s, min(ended_s, self._clock()))

    def lost(self, slot: int, reason: Reason, said: str) -> None:
        """See `service.executors.SlotEvents`."""
        running = [dispatch for dispatch in self._running.values() if dispatch.slot == slot]
        under = f" under a batch on {running[0].family}/{running[0].variant}" if running else ""
        logger.error("the executor of slot %d has ended%s: %s", slot, under, said)
        self._forget(slot)
        now = self._clock()
        with self._whatever_raises(now):
            self._scheduler.lose(slot, reason, now)
        self._want_turn()

    def restored(self, slot: int) -> None:
        """See `service.executors.SlotEvents`."""
        if get_ident() == self._thread:
            # At once: it may be lost again before the event loop's next iteration.
            self._restore(slot)
            return
        try:
            self._loop.call_soon_threadsafe(self._restore, slot)
        except RuntimeError:
            logger.debug("slot %d came back after the event loop", slot)

    def _restore(self, slot: int) -> None:
        self._scheduler.restore(slot, self._clock())
        self._want_turn()

    def _settle_and_turn(self, batch_id: int, outcome: Ran | Exception, run_s: float, ended_s: float) -> None:
        self._settle(batch_id, outcome, run_s, ended_s)
        self._want_turn()

    def _settle(self, batch_id: int, outcome: Ran | Exception, run_s: float, ended_s: float) -> None:
        dispatch = self._running.pop(batch_id, None)
        if dispatch is None:
            # It was given up.
            return
        if isinstance(outcome, Exception):
            logger.error(
                "batch of %d on %s/%s failed: %s: %s",
                len(dispatch.items),
                dispatch.family,
                dispatch.variant,
                type(outcome).__name__,
                " ".join(str(outcome).split())[:500],
            )
            now = self._clock()
            with self._whatever_raises(now):
                self._scheduler.fail(batch_id, fault_of(outcome), now, now - ended_s)
            return
        now = self._clock()
        try:
            kept = self._scheduler.complete(batch_id, now, run_s, outcome.answers.confidences.tolist(), now - ended_s)
        except Exception:
            logger.exception("the scheduler failed; every unfinished request ends with it")
            self._keep(dispatch, outcome)
            self._scheduler.abandon_all(now, Reason.INTERNAL_ERROR)
            return
        if kept is None:
            # The variant broke meanwhile: nobody is answered by it.
            return
        self._keep(dispatch, outcome)
        if outcome.states:
            for place in kept:
                item = dispatch.items[place]
                self._work[item.request_id].hold(item.row, outcome.states[place])

    def _keep(self, dispatch: Dispatch, ran: Ran) -> None:
        """Put the answers of a batch with the requests that they belong to."""
        for index, item in enumerate(dispatch.items):
            work = self._work.get(item.request_id)
            # None where the request has ended meanwhile, as with the answer that was kept for it.
            if work is not None:
                work.keep(item.row, ran.answers, index)

    def _answer(self, record: Record) -> None:
        work = self._work.pop(record.request_id, None)
        if work is None:
            if record.outcome not in _REFUSED_EARLY:
                logger.error("request %d has a second outcome: %s", record.request_id, record.outcome)
            return
        if work.watcher is not None:
            work.watcher.cancel()
        if not work.future.done():
            served = record.outcome is Outcome.SERVED or record.outcome is Outcome.SERVED_LATE
            answer = Answer(record, work.collect(), work.first_label()) if served else Answer(record, NOTHING)
            work.future.set_result(answer)
        self._rest()

    def _rest(self) -> None:
        if not self._work and not self._expected:
            self._idle.set()

    def _set_timer(self, wake_at: float, now: float) -> None:
        if wake_at == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = wake_at
        if wake_at != NEVER:
            delay_s = max(0.0, wake_at - now)
            if self._timer_step_s:
                delay_s = math.ceil(delay_s / self._timer_step_s) * self._timer_step_s
            self._timer = self._loop.call_later(delay_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._turn()
