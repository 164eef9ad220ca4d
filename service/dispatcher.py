"""The asyncio driver of the scheduler: polls become batches, records become answers, wake-ups become timers.

It contains no scheduling rule: who runs when on what is decided in `router`. All methods run on the event loop's
thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

from router.contract import Poll, Record, Spell
from router.request import Request
from router.scheduler import Scheduler
from router.words import Outcome, Reason
from service.exchange import Receive
from service.executors import MakeSlots
from service.observers import Audience, Observer
from service.prober import PROBE_WITHIN_S, Probe, Prober, trust
from service.raising_rules import polled, whatever_raises
from service.runner import BatchRunner
from service.running import RunningBatches
from service.timer import Timer
from service.watching import CallerWatch
from service.work import NOTHING, Answer, Work
from variants.preparation import Row

logger = logging.getLogger("pareto.dispatcher")

_REFUSED_EARLY = (Outcome.REJECTED_INFEASIBLE, Outcome.REJECTED_QUOTA)
"""Requests may end so before there is any work of theirs."""

INLINE_TURN_S = 0.001
"""A turn that has run batches on the event loop for this long lets others have it."""

QUIET_STEP_S = 0.005
"""How often it is looked whether a family has become quiet, which is asked when somebody loads or unloads it."""


class Dispatcher:
    """Drives one scheduler on the running event loop.

    Batches planned to run for less than `inline_below_s` run on the event loop itself, through `runner`. Variants that
    broke are tried with `probe`, which has `probe_within_s`; `told` learns of spells of quarantine. `clock` is what all
    times are read from; `timer_step_s` is the coarseness of the loop's timers, see `service.timer`.
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
        self._loop = asyncio.get_running_loop()
        self._scheduler = scheduler
        self._runner = runner
        self._audience = Audience(observers)
        self._told = told
        self._prober = Prober(probe, probe_within_s, self._probed)
        self._timer = Timer(self._turn, timer_step_s)
        self._work: dict[int, Work] = {}
        self._running = RunningBatches(scheduler, self._work, make_slots, inline_below_s, clock, self._want_turn)
        self._turn_due = False
        self._burst = 0
        self._last_burst = 0
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
        """Wait until every request has its outcome, and observers know; false if some had none after `timeout_s`."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        self._audience.tell()
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
        self._prober.stop()
        self._scheduler.abandon_all(self._clock())
        self._turn()
        self._audience.tell()
        self._timer.stop()
        self._running.stop()

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
            poll = polled(self._scheduler, now)
            # Before the answers: a request may lose one row in the very poll that starts another one.
            inline = self._running.start(poll.dispatches)
            answered = False
            for record in poll.records:
                answered |= self._answer(record)
            if poll.records or poll.batches:
                self._audience.add(poll.records, poll.batches)
                if not answered:
                    # Who was refused had that at once, and may ask already what became of it.
                    self._audience.tell()
            if poll.hung or poll.probes or poll.spells:
                self._look_after(poll)
            if inline is None:
                break
            dispatch, rows = inline
            outcome, run_s = self._runner.attempt(dispatch, rows)
            self._running.settle(dispatch.batch_id, outcome, run_s, self._clock())
            now = self._clock()
            if now - started_s > INLINE_TURN_S:
                # Others wait for the event loop; what is left to do is done in its next iteration.
                self._want_turn()
                return
        self._timer.set(poll.wake_at, now)

    def _look_after(self, poll: Poll) -> None:
        """See to what broke: slots that hang, variants that are to be probed, and who wants to know of it."""
        for dispatch in poll.hung:
            self._running.give_up(dispatch)
        self._prober.begin(poll.probes)
        if poll.spells:
            try:
                self._told(poll.spells)
            except Exception:
                logger.exception("who is told of quarantines failed on it")

    def _probed(self, spell: Spell, fault: Reason | None) -> None:
        now = self._clock()
        with whatever_raises(self._scheduler, now):
            self._scheduler.probed(spell, fault, now)
        self._want_turn()

    def _answer(self, record: Record) -> bool:
        """Let whoever waits for it know; whether somebody does."""
        work = self._work.pop(record.request_id, None)
        if work is None:
            if record.outcome not in _REFUSED_EARLY:
                logger.error("request %d has a second outcome: %s", record.request_id, record.outcome)
            return False
        if work.watcher is not None:
            work.watcher.cancel()
        if not work.future.done():
            served = record.outcome is Outcome.SERVED or record.outcome is Outcome.SERVED_LATE
            answer = Answer(record, work.collect(), work.first_label()) if served else Answer(record, NOTHING)
            work.future.set_result(answer)
        self._rest()
        return True

    def _rest(self) -> None:
        if not self._work and not self._expected:
            self._idle.set()
