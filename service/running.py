"""The batches that run: handed to their slots' executors, and what became of them told to the scheduler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident

from router.contract import Dispatch
from router.scheduler import Scheduler
from router.words import Reason
from service.executors import MakeSlots
from service.raising_rules import whatever_raises
from service.runner import fault_of
from service.work import Ran, Work
from variants.preparation import Row

logger = logging.getLogger("pareto.dispatcher")


class RunningBatches:
    """Batches between the scheduler and its slots; it is what executors tell (`service.executors.SlotEvents`).

    All methods run on the event loop's thread but `done` and `restored`, which slots call from theirs. `work` has the
    rows of requests, and takes their answers; `changed` is called where the scheduler is to be polled.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        work: Mapping[int, Work],
        make_slots: MakeSlots,
        inline_below_s: float,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._scheduler = scheduler
        self._work = work
        self._inline_below_s = inline_below_s
        self._clock = clock
        self._changed = changed
        self._running: dict[int, Dispatch] = {}
        self._slots = make_slots(self)

    def start(self, dispatches: Sequence[Dispatch]) -> tuple[Dispatch, list[Row]] | None:
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
                self._changed()
                continue
            if inline is None and dispatch.predicted_run_s < self._inline_below_s and not dispatch.ahead:
                inline = dispatch, rows
            else:
                self._slots[dispatch.slot].start(dispatch, rows)
        return inline

    def settle(self, batch_id: int, outcome: Ran | Exception, run_s: float, ended_s: float) -> None:
        """Tell the scheduler how a batch ended, and put its answers with the requests that they belong to."""
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
            with whatever_raises(self._scheduler, now):
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

    def give_up(self, dispatch: Dispatch) -> None:
        """A batch hangs: nobody waits for it any more, nor for what comes after it in its slot."""
        self._forget(dispatch.slot)
        said = "batch of %d on %s/%s hangs: it is given up after %.1f s"
        taken_s = self._clock() - dispatch.started_s
        logger.error(said, len(dispatch.items), dispatch.family, dispatch.variant, taken_s)
        self._slots[dispatch.slot].give_up()

    def stop(self) -> None:
        """Let the slots' executors end."""
        for slot in self._slots:
            slot.stop()

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
        first = running[0] if running else None
        under = "" if first is None else f" on {first.device} under a batch on {first.family}/{first.variant}"
        logger.error("the executor of slot %d has ended%s: %s", slot, under, said)
        self._forget(slot)
        now = self._clock()
        with whatever_raises(self._scheduler, now):
            self._scheduler.lose(slot, reason, now)
        self._changed()

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
        logger.info("slot %d is back", slot)
        self._scheduler.restore(slot, self._clock())
        self._changed()

    def _settle_and_turn(self, batch_id: int, outcome: Ran | Exception, run_s: float, ended_s: float) -> None:
        self.settle(batch_id, outcome, run_s, ended_s)
        self._changed()

    def _forget(self, slot: int) -> None:
        """Nobody waits for the batches of a slot any more."""
        for batch_id in [number for number, dispatch in self._running.items() if dispatch.slot == slot]:
            del self._running[batch_id]

    def _keep(self, dispatch: Dispatch, ran: Ran) -> None:
        """Put the answers of a batch with the requests that they belong to."""
        for index, item in enumerate(dispatch.items):
            work = self._work.get(item.request_id)
            # None where the request has ended meanwhile, as with the answer that was kept for it.
            if work is not None:
                work.keep(item.row, ran.answers, index)
