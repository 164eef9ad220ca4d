"""The slots: which batch each of them runs, which one comes next, and which batches have ended.

A slot that waits for its next batch to be decided and handed over works less: a millisecond each time, where the event
loop is busy. So the next batch may be decided ahead, while the slot still runs one.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from router.contract import NEVER, BatchRecord, Dispatch, Slot
from router.view import Plan


class Soon(NamedTuple):
    """A slot that runs a batch, and when that is expected to end."""

    slot: int
    at_s: float


class Slots:
    """Turns plans into dispatches and keeps count of them. A slot is busy from `start` until `release`.

    `free` has the indices of the free slots, those that became free since the beginning ascending. For the last `ahead`
    (0 to 1) of the seconds that its batch is planned to take, a busy slot may be given its next.
    """

    __slots__ = ("_ahead", "_batches", "_ended", "_next", "_running", "count", "free")

    def __init__(self, slots: Sequence[Slot], ahead: float = 0.0) -> None:
        self.free = [slot.index for slot in slots]
        self.count = len(slots)
        self._ahead = ahead
        self._running: dict[int, Dispatch] = {}
        self._next: dict[int, Dispatch] = {}
        self._ended: list[BatchRecord] = []
        self._batches = 0

    @property
    def running(self) -> Iterable[Dispatch]:
        """The batches that run, oldest first, and those that come next; live."""
        return chain(self._running.values(), self._next.values())

    @property
    def busy_until_s(self) -> tuple[float, ...]:
        """When each busy slot is expected to have nothing left to run."""
        return tuple([self._end_s(dispatch) for dispatch in self._running.values()])

    def others_until_s(self, slot: int) -> tuple[float, ...]:
        """The same of all busy slots but one."""
        return tuple([self._end_s(dispatch) for dispatch in self._running.values() if dispatch.slot != slot])

    @property
    def busy(self) -> int:
        """How many run a batch."""
        return len(self._running)

    def soon(self, now: float) -> Soon | None:
        """The slot that is the next to be free and may be given a batch already, if there is one."""
        found = [
            Soon(dispatch.slot, max(now, dispatch.started_s + dispatch.predicted_s))
            for dispatch in self._running.values()
            if dispatch.slot not in self._next and self._opens_s(dispatch) <= now
        ]
        return min(found, key=lambda soon: soon.at_s, default=None) if self._ahead else None

    def opens_s(self) -> float:
        """When the next slot may be given a batch though it runs one; infinite where none will."""
        if not self._ahead:
            return NEVER
        waiting = (self._opens_s(dispatch) for dispatch in self._running.values() if dispatch.slot not in self._next)
        return min(waiting, default=NEVER)

    def start(self, plan: Plan, now: float) -> Dispatch:
        """Give the plan's slot its batch, which begins at `now`: a busy one its next.

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
            now,
            latency.planned_s(plan.variant, rows, size_class, start),
            latency.planned_run_s(plan.variant, rows, size_class, start),
            plan.reason,
            ahead,
        )
        if ahead:
            self._next[plan.slot] = dispatch
        else:
            self.free.remove(plan.slot)
            self._running[dispatch.batch_id] = dispatch
        return dispatch

    def release(
        self, batch_id: int, now: float, *, failed: bool, since_s: float = 0.0
    ) -> tuple[Dispatch, Dispatch | None]:
        """A batch has ended, `since_s` ago; also the one that has run in its slot since then, if there is one.

        Raises `KeyError` for a batch that is not known.
        """
        ended = self._running.pop(batch_id, None)
        begun = None
        if ended is None:
            # Handed over in vain: it is not the batch that its slot runs.
            ended = next((dispatch for dispatch in self._next.values() if dispatch.batch_id == batch_id), None)
            if ended is None:
                raise KeyError(batch_id)
            del self._next[ended.slot]
        elif ended.slot in self._next:
            begun = self._next.pop(ended.slot)._replace(started_s=now - since_s)
            self._running[begun.batch_id] = begun
        else:
            insort(self.free, ended.slot)
        self._ended.append(BatchRecord(ended, now, failed))
        return ended, begun

    def take(self) -> tuple[BatchRecord, ...]:
        """The batches that ended since the last call."""
        ended, self._ended = self._ended, []
        return tuple(ended)

    def _opens_s(self, dispatch: Dispatch) -> float:
        return dispatch.started_s + (1.0 - self._ahead) * dispatch.predicted_s

    def _end_s(self, dispatch: Dispatch) -> float:
        following = self._next.get(dispatch.slot)
        end_s = dispatch.started_s + dispatch.predicted_s
        return end_s if following is None else end_s + following.predicted_s
