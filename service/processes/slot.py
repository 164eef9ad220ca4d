"""The executor of one slot, in a process of its own: batches go there, and another one takes its place if it ends."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence

import orjson

from router.contract import Dispatch, Slot
from router.words import Reason
from service.executors import SlotEvents
from service.loaded_family import LoadedFamily
from service.processes.batches import Executor, Sent, outcome_of
from service.processes.conversation import End
from service.processes.deaths import reason_of, work_begins
from service.processes.host import BEGINS_WITHIN_S, Host
from service.processes.messages import MOST_BYTES, READY
from service.processes.models import HostedSession
from service.processes.tensors import TensorError
from service.runner import feeds_of
from variants.preparation import Row

logger = logging.getLogger("pareto.executors")

LEAST_PAUSE_S, MOST_PAUSE_S = 0.05, 10.0
"""Between two executors of which the first could not even begin; twice as long each time."""


class SlotProcess:
    """See `service.executors.SlotExecutor`. All methods run on the event loop's thread. It keeps to `cores`, if any.

    A slot has an executor, and for a while a second one: that is made while the first one works, and takes over between
    two batches. What is begun meanwhile is held back until then.
    """

    def __init__(
        self,
        place: Slot,
        host: Host,
        families: Mapping[str, LoadedFamily],
        events: SlotEvents,
        cores: Sequence[int] = (),
    ) -> None:
        self._index = place.index
        # Where all slots are alike, all models are for each.
        self._threads = None if place.device == Slot(0).device else place.width
        self._host = host
        self._families = families
        self._events = events
        self._cores = tuple(cores)
        self._loop = asyncio.get_running_loop()
        self._now: Executor | None = None
        self._next: Executor | None = None
        self._held: deque[tuple[Dispatch, Sequence[Row]]] = deque()
        self._left: set[int] = set()
        """Executors that it has nothing more to do with, until they have ended."""
        self._is_lost = False
        self._is_stopped = False
        self._pause_s = LEAST_PAUSE_S
        self._later: asyncio.TimerHandle | None = None
        host.slots.append(self)
        self.renew()

    @property
    def generation(self) -> int:
        """See `service.processes.host.Slot`."""
        return self._host.generation if self._now is None else self._now.generation

    @property
    def is_settled(self) -> bool:
        """See `service.processes.host.Slot`."""
        return not self._left

    @property
    def is_up(self) -> bool:
        """Whether it can run batches now."""
        return self._now is not None

    def start(self, dispatch: Dispatch, rows: Sequence[Row]) -> None:
        """See `SlotExecutor`."""
        self._held.append((dispatch, rows))
        self._go_on()

    def give_up(self) -> None:
        """See `SlotExecutor`: the executor is killed, and the slot restored once there is another one."""
        self._is_lost = True
        self._held.clear()
        if self._now is not None:
            self._host.kill(self._now.link.executor)
            self._left.add(self._now.link.executor)
            self._leave(self._now)
            self._now = None
        self.renew()
        self._go_on()

    def stop(self) -> None:
        """See `SlotExecutor`. An executor that still runs something is killed with the template."""
        self._is_stopped = True
        if self._later is not None:
            self._later.cancel()
        for executor in (self._now, self._next):
            if executor is not None:
                self._leave(executor)
        self._now = self._next = None

    def renew(self) -> None:
        """Have an executor made that is as new as can be, unless there is one or will be."""
        newest = self._next or self._now
        if self._is_stopped or self._next is not None or self._later is not None or not self._host.is_up:
            return
        if newest is not None and newest.generation >= self._host.generation:
            return
        generation = self._host.generation
        try:
            link = self._host.fork(
                lambda end: self._ended(executor, end),
                self._cores,
                threads=self._threads,
                name=f"pareto-slot-{self._index}",
            )
        except OSError as error:
            # No files left, say: for now.
            self._failed_to_begin(f"could not be made: {error.strerror}")
            return
        executor = self._next = Executor(link, generation)
        link.connection.setblocking(False)
        self._loop.add_reader(link.connection.fileno(), self._read, executor)
        executor.limit = self._loop.call_later(BEGINS_WITHIN_S, self._host.kill, link.executor)

    def _go_on(self) -> None:
        """Change executors where that is due, and begin what is held back."""
        coming = self._next
        if self._now is not None and self._now.is_gone:
            # What is lost with it is told first.
            return
        if coming is not None and coming.is_ready and (self._now is None or not self._now.sent):
            if self._now is not None:
                self._left.add(self._now.link.executor)
                self._leave(self._now)
            self._now, self._next = coming, None
            if self._is_lost:
                self._is_lost = False
                self._events.restored(self._index)
            self.renew()
            coming = self._next
        now = self._now
        while self._held and now is not None and not now.is_gone and len(now.sent) < len(now.link.areas):
            if coming is not None and coming.is_ready:
                return
            if not self._send(now, *self._held[0]):
                self.renew()
                return
            self._held.popleft()

    def _send(self, executor: Executor, dispatch: Dispatch, rows: Sequence[Row]) -> bool:
        """Hand a batch over; false where the executor is too old for it: it has not got all its models."""
        at = 1 if any(sent.area == 0 for sent in executor.sent.values()) else 0
        try:
            loaded = self._families[dispatch.family]
            stages = [
                stage
                for stage in loaded.paths_on(dispatch.device)[dispatch.variant][dispatch.from_stage : dispatch.to_stage]
                if isinstance(stage, HostedSession)
            ]
            if any(stage.generation > executor.generation for stage in stages):
                return False
            told = executor.link.areas[at].write(feeds_of(loaded, stages, rows, dispatch.from_stage))
            message = orjson.dumps([dispatch.batch_id, at, [stage.number for stage in stages], told])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a batch is its outcome
            self._events.done(dispatch.batch_id, error, 0.0)
            return True
        work_begins()
        try:
            executor.link.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            # It has ended, or else it does now: that is told by the template in a moment. The batch is no part of that.
            executor.is_gone = True
            self._host.kill(executor.link.executor)
        except OSError as error:
            self._events.done(dispatch.batch_id, error, 0.0)
        else:
            executor.sent[dispatch.batch_id] = Sent(at, dispatch, rows, loaded, stages)
        return True

    def _read(self, executor: Executor) -> None:
        """Take in what an executor says, until it says nothing more."""
        while executor in (self._now, self._next):
            try:
                message = executor.link.connection.recv(MOST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                # It has ended: that is told by the template in a moment.
                self._loop.remove_reader(executor.link.connection.fileno())
                return
            if message == READY and not executor.is_ready:
                executor.is_ready = True
                if executor.limit is not None:
                    executor.limit.cancel()
                self._pause_s = LEAST_PAUSE_S
            else:
                self._answered(executor, message)
            self._go_on()
            if not executor.sent:
                # It has nothing more to say, which asking for would tell by an exception.
                return

    def _answered(self, executor: Executor, message: bytes) -> None:
        try:
            number, ran_s, ended_s, said = orjson.loads(message)
            sent = executor.sent[number]
            outcome = outcome_of(executor, sent, said)
            ran_s, ended_s = float(ran_s), float(ended_s)
        except (ValueError, TypeError, KeyError, TensorError) as error:
            said = " ".join(str(error).split())[:200]
            logger.error("slot %d: its executor says what makes no sense, and is ended: %s", self._index, said)
            executor.is_mad = True
            self._host.kill(executor.link.executor)
            return
        del executor.sent[number]
        self._events.ended(number, outcome, ran_s, ended_s)

    def _ended(self, executor: Executor, end: End) -> None:
        self._left.discard(executor.link.executor)
        if executor is self._now:
            # What it said before that counts.
            self._read(executor)
        if executor is self._now:
            self._leave(executor)
            self._now = None
            self._held.clear()
            if not self._is_lost:
                self._is_lost = True
                # What was held back has not been run by it.
                blamed = Reason.CRASHED if executor.is_mad else reason_of(end)
                reason = blamed if executor.sent else Reason.EXECUTOR_LOST
                self._events.lost(self._index, reason, f"it {end.said}")
            self._go_on()
            self.renew()
        elif executor is self._next:
            self._leave(executor)
            self._next = None
            if not self._host.is_up:
                # It is renewed with the template.
                return
            self._failed_to_begin(end.said)

    def _failed_to_begin(self, said: str) -> None:
        logger.error("slot %d: an executor could not begin: it %s", self._index, said)
        self._later = self._loop.call_later(self._pause_s, self._again)
        self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)

    def _again(self) -> None:
        self._later = None
        self.renew()

    def _leave(self, executor: Executor) -> None:
        """Have no more to do with it; it ends by that once it has nothing left to run."""
        if executor.limit is not None:
            executor.limit.cancel()
        self._loop.remove_reader(executor.link.connection.fileno())
        executor.link.close()
