"""Pinned slots run where they were told to, and the event loop somewhere else."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import cast

import pytest

from router.contract import Dispatch
from service.executors import SlotEvents
from service.pinning import PinningError, core_of_slots, leave_to_slots
from service.runner import BatchRunner, SlotThread
from service.work import Ran
from variants.preparation import Row

USABLE = sorted(os.sched_getaffinity(0))
needs_two_cores = pytest.mark.skipif(len(USABLE) < 2, reason="needs a core for the slots and one for the rest")


class _Affinity(BatchRunner):
    """Answers with the cores that its thread may use."""

    def attempt(self, dispatch: Dispatch, rows: Sequence[Row]) -> tuple[Ran | Exception, float]:
        return Exception(os.sched_getaffinity(0)), 0.0


def test_without_cores_no_slot_is_pinned() -> None:
    """By default batches run wherever the system puts them."""
    assert core_of_slots((), 3) == [None, None, None]


@needs_two_cores
def test_slots_take_the_cores_in_turn() -> None:
    """More slots than cores share them evenly."""
    assert core_of_slots(USABLE[:1], 2) == [USABLE[0], USABLE[0]]


@needs_two_cores
def test_a_slot_runs_on_its_core_and_nothing_else_does() -> None:
    """The slot's thread may use one core, and whoever leaves it to the slots all others."""
    done: list[tuple[int, Ran | Exception, float]] = []
    ran = threading.Event()
    seen: set[int] = set()

    class Told:
        def done(self, *result: object) -> None:
            done.append(cast("tuple[int, Ran | Exception, float]", result))
            ran.set()

    def rest() -> None:
        leave_to_slots(USABLE[:1])
        seen.update(os.sched_getaffinity(0))

    slot = SlotThread(0, _Affinity({}), cast("SlotEvents", Told()), [USABLE[0]])
    slot.start(cast("Dispatch", type("Batch", (), {"batch_id": 1})), [])
    assert ran.wait(10.0)
    slot.stop()
    other = threading.Thread(target=rest)
    other.start()
    other.join()
    assert isinstance(done[0][1], Exception)
    assert done[0][1].args == ({USABLE[0]},)
    assert seen == set(USABLE[1:])


@pytest.mark.parametrize(("cores", "fault"), [((4096,), "not one of the cores"), (tuple(USABLE), "no core")])
def test_cores_that_cannot_be_had_are_named(cores: tuple[int, ...], fault: str) -> None:
    """A core that is not there, or none left for the event loop, is told in one line."""
    with pytest.raises(PinningError, match=fault):
        core_of_slots(cores, 1)
