"""What the driver of the scheduler and the executors of its slots are to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from router.contract import Dispatch
from router.words import Reason
from service.work import Ran
from variants.preparation import Row


class SlotEvents(Protocol):
    """What executors tell. All but `ended` and `lost` may be called from any thread."""

    def done(self, batch_id: int, outcome: Ran | Exception, run_s: float) -> None:
        """A batch has ended; its model ran for so many seconds. One that was given up is ignored."""

    def ended(self, batch_id: int, outcome: Ran | Exception, run_s: float, ended_s: float) -> None:
        """As `done`, for a batch that ended at `ended_s`. What the outcome lies in may be used again after the call."""

    def lost(self, slot: int, reason: Reason, said: str) -> None:
        """The executor of a slot has ended, for this reason, and will be `restored`; `said` is one line for the log."""

    def restored(self, slot: int) -> None:
        """A slot that was lost or given up can run batches again."""


class SlotExecutor(Protocol):
    """Where the batches of one slot run."""

    def start(self, dispatch: Dispatch, rows: Sequence[Row]) -> None:
        """Begin a batch on inputs, or on states where it goes on, as soon as those begun before are done."""

    def give_up(self) -> None:
        """What it runs hangs: nobody waits for it, nor for what comes after it. `restored` once it is over."""

    def stop(self) -> None:
        """No more batches will come."""


MakeSlots = Callable[[SlotEvents], Sequence[SlotExecutor]]
"""Makes the executors of all slots, in order."""
