"""The slots: which batch each of them runs, which one comes next, and which batches have ended.

A slot that waits for its next batch to be decided and handed over works less: a millisecond each time, where the event
loop is busy. So the next batch may be decided ahead, while the slot still runs one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from router.contract import BatchRecord, Dispatch, Slot
from router.request import NEVER
from router.view import Kinds, Plan
from router.words import Reason

MOST_AHEAD_S = 0.006
"""However long a batch is, its successor is decided no earlier than this before its end: what is to be hidden, deciding
and handing over, does not grow with it, and what is committed makes others wait."""

HUNG_AFTER = 20.0
LOOK_AGAIN = 0.25
"""A batch is looked at again after this share of the least seconds that it hangs for."""


class Soon(NamedTuple):
    """A slot that runs a batch, and when that is expected to end."""

    slot: int
    at_s: float


class Slots:
    """Turns plans into dispatches and keeps count of them. A slot is busy from `start` until `release`.

    `free` has the indices of the free slots, those that became free since the beginning ascending. A slot may be out of
    service, from `lose` to `restore`: then it is neither free nor busy. A batch that runs for more than `HUNG_AFTER`
    times as long as planned, and for `hang_s`, hangs. For the last `ahead` (0 to 1) of the seconds that its batch is
    planned to take, `MOST_AHEAD_S` at most, the busy slot that is the first to be free may be given its next.
    `speeds` has how fast each device is against the first one; without it all slots are alike.
    """

    __slots__ = (
        "_ahead",
        "_batches",
        "_ended",
        "_hang_s",
        "_lost",
        "_next",
        "_running",
        "_slots",
        "_suspects",
        "count",
        "free",
        "kinds",
        "watch_s",
    )

    def __init__(
        self,
        slots: Sequence[Slot],
        ahead: float = 0.0,
        hang_s: float = NEVER,
        speeds: Mapping[str, float] | None = None,
    ) -> None:
        self.free = [slot.index for slot in slots]
        self.watch_s = NEVER
        """When `hung` looks next. It is rarely moved: drivers set a timer for it."""
        self.kinds = None if speeds is None else Kinds.of(slots, speeds)
        """The devices of the slots, none where they are all alike."""
        self._slots = {slot.index: slot for slot in slots}
        self._lost: set[int] = set()
        self.count = self._in_service()
        """How many are in service, in slots of the first device, at least one: plans go on where there is none for a
        moment."""
        self._hang_s = hang_s
        self._suspects: frozenset[int] = frozenset()
        self._ahead = ahead
        self._running: dict[int, Dispatch] = {}
        self._next: dict[int, Dispatch] = {}
        self._ended: list[BatchRecord] = []
        self._batches = 0

    @property
    def lost(self) -> int:
        """How many are out of service."""
        return len(self._lost)

    @property
    def running(self) -> Iterable[Dispatch]:
        """The batches that run, oldest first, and those that come next; live."""
        return chain(self._running.values(), self._next.values())

    def busy_slots(self, but: int = -1) -> tuple[int, ...]:
        """The slots that `busy_until_s` tells of, in its order."""
        return tuple([batch.slot for batch in self._running.values() if batch.slot != but])

    def ends(self, now: float) -> tuple[tuple[float, float], ...]:
        """When each busy slot is expected to have nothing left to run, and how fast it is against the first device."""
        kinds = self.kinds
        return tuple(
            [
                (self._end_s(batch, now), 1.0 if kinds is None else kinds.speed[batch.slot])
                for batch in self._running.values()
            ]
        )

    def busy_until_s(self, now: float, but: int = -1) -> tuple[float, ...]:
        """When each busy slot, `but` one, is expected to have nothing left to run."""
        return tuple([self._end_s(batch, now) for batch in self._running.values() if batch.slot != but])

    @property
    def busy(self) -> int:
        """How many run a batch."""
        return len(self._running)

    def soon(self, now: float) -> Soon | None:
        """The slot that is the next to be free, if it may be given a batch already.

        A slot that is free later is given none: by then the first one may have room.
        """
        first = self._first(now)
        if first is None or self._opens_s(first) > now:
            return None
        return Soon(first.slot, self._end_s(first, now))

    def opens_s(self, now: float) -> float:
        """When that slot may be given a batch though it runs one; infinite where none may."""
        first = self._first(now)
        return NEVER if first is None else self._opens_s(first)

    def start(self, plan: Plan, at_s: float, now: float) -> Dispatch:
        """Give the plan's slot its batch, which begins now, or a busy one its next, expected to begin at `at_s`.

        Raises `ValueError` for a slot that has one already.
        """
        lane, items = plan.lane, plan.items
        family, latency = lane.family, lane.latency
        variant = family.variants[plan.variant]
        start = family.start(lane.key.at, plan.variant)
        rows, size_class = len(items), items[0].size_class
        ahead = plan.slot not in self.free
        if ahead and (plan.slot in self._next or not any(d.slot == plan.slot for d in self._running.values())):
            raise ValueError(f"slot {plan.slot} cannot be given a batch")
        self._batches += 1
        dispatch = Dispatch(
            self._batches,
            plan.slot,
            family.name,
            family.revision,
            variant.name,
            family.first_stage(lane.key.at, plan.variant),
            len(variant.stages),
            items,
            at_s,
            latency.planned_s(plan.variant, rows, size_class, start),
            latency.planned_run_s(plan.variant, rows, size_class, start),
            plan.reason,
            ahead,
            now,
            self._slots[plan.slot].device,
            self._crowd(plan.slot),
        )
        if ahead:
            self._next[plan.slot] = dispatch
        else:
            self.free.remove(plan.slot)
            self._running[dispatch.batch_id] = dispatch
            if self.watch_s == NEVER:
                self.watch_s = now + self._hang_s
        return dispatch

    def running_on(self, batch_id: int) -> Dispatch | None:
        """The batch of that number if it runs."""
        return self._running.get(batch_id)

    def hung(self, now: float) -> tuple[Dispatch, ...]:
        """The batches that hang: those that ran for too long when this was asked a while ago, and still do.

        Whoever stops the whole process for a while and lets it go on again makes no batch hang by that.
        """
        if now < self.watch_s:
            return ()
        late = [d for d in self._running.values() if now - d.started_s > max(self._hang_s, HUNG_AFTER * d.predicted_s)]
        hung = tuple(d for d in late if d.batch_id in self._suspects)
        self._suspects = frozenset(d.batch_id for d in late) - {d.batch_id for d in hung}
        self.watch_s = now + self._hang_s * LOOK_AGAIN if self._running else NEVER
        return hung

    def lose(self, slot: int, fault: Reason, now: float) -> tuple[Dispatch | None, Dispatch | None]:
        """A slot is out of service, with the batch that it ran, by whose `fault` that is, and its next one.

        Raises `KeyError` for a slot that is out of service already.
        """
        if slot in self._lost:
            raise KeyError(slot)
        self._lost.add(slot)
        self.count = self._in_service()
        if slot in self.free:
            self.free.remove(slot)
        ran = next((dispatch for dispatch in self._running.values() if dispatch.slot == slot), None)
        following = self._next.pop(slot, None)
        if ran is not None:
            del self._running[ran.batch_id]
            self._ended.append(BatchRecord(ran, now, True, fault))
        if following is not None:
            self._ended.append(BatchRecord(following, now, True, Reason.EXECUTOR_LOST))
        return ran, following

    def restore(self, slot: int) -> None:
        """A slot is in service again. Raises `KeyError` for one that is not out of it."""
        self._lost.remove(slot)
        self.count = self._in_service()
        insort(self.free, slot)

    def release(
        self, batch_id: int, now: float, *, fault: Reason | None = None, since_s: float = 0.0
    ) -> tuple[Dispatch, Dispatch | None]:
        """A batch has ended, `since_s` ago; also the one that has run in its slot since then, if there is one.

        With a `fault` it has no answer. Raises `KeyError` for a batch that is not known, and for one that has not begun
        but where it has a fault.
        """
        ended = self._running.pop(batch_id, None)
        begun = None
        if ended is None:
            # Handed over in vain: it is not the batch that its slot runs.
            ended = next((dispatch for dispatch in self._next.values() if dispatch.batch_id == batch_id), None)
            if ended is None or fault is None:
                raise KeyError(batch_id)
            del self._next[ended.slot]
        elif ended.slot in self._next:
            # It may have been handed over after that: the event loop learns late of what has ended.
            following = self._next.pop(ended.slot)
            started_s = max(now - since_s, following.decided_s)
            begun = following._replace(started_s=started_s, crowd=self._crowd(ended.slot))
            self._running[begun.batch_id] = begun
        else:
            insort(self.free, ended.slot)
        self._ended.append(BatchRecord(ended, now, fault is not None, fault))
        return ended, begun

    def take(self) -> tuple[BatchRecord, ...]:
        """The batches that ended since the last call."""
        ended, self._ended = self._ended, []
        return tuple(ended)

    def _in_service(self) -> float:
        if self.kinds is None:
            return max(1, len(self._slots) - len(self._lost))
        return sum(speed for slot, speed in self.kinds.speed.items() if slot not in self._lost) or 1.0

    def _crowd(self, slot: int) -> float:
        """The share of the other slots' threads that are busy; looked at only where slots are of several kinds."""
        return 0.0 if self.kinds is None else self.kinds.crowd(slot, (d.slot for d in self._running.values()))

    def _first(self, now: float) -> Dispatch | None:
        """The batch of the slot that is the first to have nothing left to run; none where it has its next already."""
        if not self._ahead:
            return None
        first = min(self._running.values(), key=lambda batch: self._end_s(batch, now), default=None)
        return None if first is None or first.slot in self._next else first

    def _opens_s(self, dispatch: Dispatch) -> float:
        seconds = dispatch.predicted_s
        return dispatch.started_s + seconds - min(self._ahead * seconds, MOST_AHEAD_S)

    def _end_s(self, dispatch: Dispatch, now: float) -> float:
        """When its slot will be free; one that takes longer than planned ends now, and not before."""
        end_s = max(now, dispatch.started_s + dispatch.predicted_s)
        following = self._next.get(dispatch.slot)
        return end_s if following is None else end_s + following.predicted_s
