"""The slots: which are free, which batch each of the others runs, and which batches have ended."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence

from router.contract import BatchRecord, Dispatch, Slot
from router.view import Plan


class Slots:
    """Turns plans into dispatches and keeps count of them. A slot is busy from `start` until `release`.

    `free` has the indices of the free slots, those that became free since the beginning ascending.
    """

    __slots__ = ("_batches", "_ended", "_running", "count", "free")

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.free = [slot.index for slot in slots]
        self.count = len(slots)
        self._running: dict[int, Dispatch] = {}
        self._ended: list[BatchRecord] = []
        self._batches = 0

    @property
    def running(self) -> Iterable[Dispatch]:
        """The batches that run, oldest first; live."""
        return self._running.values()

    @property
    def busy_until_s(self) -> tuple[float, ...]:
        """The expected end of each batch that runs."""
        return tuple([dispatch.started_s + dispatch.predicted_s for dispatch in self._running.values()])

    @property
    def busy(self) -> int:
        """How many run a batch."""
        return len(self._running)

    def start(self, plan: Plan, now: float) -> Dispatch:
        """Give the plan's slot its batch. Raises `ValueError` for a slot that is not free."""
        lane, items = plan.lane, plan.items
        family, latency = lane.family, lane.latency
        variant = family.variants[plan.variant]
        start = family.start(lane.key.at, plan.variant)
        rows, size_class = len(items), items[0].size_class
        self.free.remove(plan.slot)
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
        )
        self._running[dispatch.batch_id] = dispatch
        return dispatch

    def release(self, batch_id: int, now: float, *, failed: bool) -> Dispatch:
        """A batch has ended. Raises `KeyError` for one that is not running."""
        dispatch = self._running.pop(batch_id)
        insort(self.free, dispatch.slot)
        self._ended.append(BatchRecord(dispatch, now, failed))
        return dispatch

    def take(self) -> tuple[BatchRecord, ...]:
        """The batches that ended since the last call."""
        ended, self._ended = self._ended, []
        return tuple(ended)
