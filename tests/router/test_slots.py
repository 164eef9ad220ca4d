"""The slots: who is free, who may be given a next batch while one runs, and what begins when one ends."""

from __future__ import annotations

import pytest

from router.contract import NEVER, Dispatch, Reason, Slot
from router.slots import Slots
from router.view import Plan
from tests.queued import lane


def begin(slots: Slots, slot: int, now: float, rows: int = 1) -> Dispatch:
    """So many rows of `small`, planned to take 1 ms and one more for each row."""
    some = lane([0.1] * rows)
    return slots.start(Plan(slot, some, 0, some.items, Reason.FIXED), now, now)


def test_without_ahead_a_busy_slot_is_given_nothing() -> None:
    """However soon it will be free."""
    slots = Slots([Slot(0)])
    begin(slots, 0, 0.0)
    assert (slots.soon(1.0), slots.opens_s(0.002)) == (None, NEVER)


def test_a_slot_takes_its_next_batch_in_the_last_part_of_the_one_it_runs() -> None:
    """Of 2 ms the last half: from 1 ms on, and expected to be free at 2 ms, or now where that is over."""
    slots = Slots([Slot(0)], ahead=0.5)
    assert begin(slots, 0, 0.0).predicted_s == pytest.approx(0.002)
    assert slots.opens_s(0.0) == pytest.approx(0.001)
    assert slots.soon(0.0009) is None
    assert slots.soon(0.0011) == pytest.approx((0, 0.002))
    assert slots.soon(0.0030) == pytest.approx((0, 0.003))


def test_of_several_slots_the_first_to_be_free_comes_first() -> None:
    """Slot 1 runs one row since 0.5 ms, slot 0 four since 0 ms."""
    slots = Slots([Slot(0), Slot(1)], ahead=1.0)
    begin(slots, 0, 0.0, rows=4)
    begin(slots, 1, 0.0005)
    assert slots.soon(0.001) == pytest.approx((1, 0.0025))
    assert slots.busy_until_s(0.001, but=1) == pytest.approx((0.005,))


def test_the_next_batch_begins_when_the_one_before_ends() -> None:
    """Its slot counts as busy with both, and runs it since the other one ended: a millisecond before that is told."""
    slots = Slots([Slot(0)], ahead=1.0)
    first = begin(slots, 0, 0.0)
    second = begin(slots, 0, 0.002)
    assert (first.ahead, second.ahead) == (False, True)
    assert slots.busy_until_s(0.002) == pytest.approx((0.004,))
    assert (slots.busy, slots.soon(0.002), slots.opens_s(0.002)) == (1, None, NEVER)
    ended, begun = slots.release(first.batch_id, 0.006, failed=False, since_s=0.001)
    assert begun is not None
    assert (ended, begun.batch_id) == (first, second.batch_id)
    assert begun.started_s == pytest.approx(0.005)
    assert (slots.free, slots.busy) == ([], 1)
    assert slots.release(second.batch_id, 0.008, failed=False) == (begun, None)
    assert (slots.free, slots.busy) == ([0], 0)
    assert [batch.dispatch for batch in slots.take()] == [first, begun]


def test_a_next_batch_may_fail_before_it_begins() -> None:
    """The slot goes on with what it runs, and may be given another."""
    slots = Slots([Slot(0)], ahead=1.0)
    first, second = begin(slots, 0, 0.0), begin(slots, 0, 0.002)
    assert slots.release(second.batch_id, 0.001, failed=True) == (second, None)
    assert slots.soon(0.001) == pytest.approx((0, 0.002))
    assert slots.release(first.batch_id, 0.002, failed=False) == (first, None)
    assert slots.free == [0]


def test_a_slot_has_one_next_batch_at_most() -> None:
    """A third one is refused, and so is one for a slot that there is not."""
    slots = Slots([Slot(0)], ahead=1.0)
    begin(slots, 0, 0.0)
    begin(slots, 0, 0.0)
    for slot in (0, 7):
        with pytest.raises(ValueError, match=f"slot {slot} "):
            begin(slots, slot, 0.0)


def test_an_unknown_batch_is_refused() -> None:
    """Neither running nor next."""
    with pytest.raises(KeyError):
        Slots([Slot(0)], ahead=1.0).release(1, 0.0, failed=False)
