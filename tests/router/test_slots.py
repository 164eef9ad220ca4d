"""The slots: who is free, who may be given a next batch while one runs, and what begins when one ends."""

from __future__ import annotations

import pytest

from router.contract import Dispatch, Slot
from router.request import NEVER
from router.slots import Slots
from router.view import Plan
from router.words import Reason
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
    ended, begun = slots.release(first.batch_id, 0.006, since_s=0.001)
    assert begun is not None
    assert (ended, begun.batch_id) == (first, second.batch_id)
    assert begun.started_s == pytest.approx(0.005)
    assert (slots.free, slots.busy) == ([], 1)
    assert slots.release(second.batch_id, 0.008) == (begun, None)
    assert (slots.free, slots.busy) == ([0], 0)
    assert [batch.dispatch for batch in slots.take()] == [first, begun]


def test_a_next_batch_may_fail_before_it_begins() -> None:
    """The slot goes on with what it runs, and may be given another."""
    slots = Slots([Slot(0)], ahead=1.0)
    first, second = begin(slots, 0, 0.0), begin(slots, 0, 0.002)
    assert slots.release(second.batch_id, 0.001, fault=Reason.EXECUTOR_ERROR) == (second, None)
    assert slots.soon(0.001) == pytest.approx((0, 0.002))
    assert slots.release(first.batch_id, 0.002) == (first, None)
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
        Slots([Slot(0)], ahead=1.0).release(1, 0.0)


def test_a_lost_slot_takes_no_batch_until_it_is_restored() -> None:
    """Both of its batches are given back; it is neither free nor busy meanwhile, and the machine is smaller."""
    slots = Slots([Slot(0), Slot(1)], ahead=1.0)
    first, second = begin(slots, 0, 0.0), begin(slots, 0, 0.0)
    assert (first, second) == slots.lose(0, Reason.CRASHED, 0.001)
    assert ([1], 0, 1, 1) == (slots.free, slots.busy, slots.lost, slots.count)
    assert [Reason.CRASHED, Reason.EXECUTOR_LOST] == [batch.fault for batch in slots.take()]
    with pytest.raises(KeyError):
        slots.lose(0, Reason.CRASHED, 0.002)
    with pytest.raises(ValueError, match="slot 0 "):
        begin(slots, 0, 0.002)
    slots.restore(0)
    assert ([0, 1], 0, 2) == (slots.free, slots.lost, slots.count)


def test_plans_go_on_where_no_slot_is_in_service() -> None:
    """Seconds are divided by the number of slots."""
    slots = Slots([Slot(0)])
    slots.lose(0, Reason.CRASHED, 0.0)
    assert ([], 1, 1) == (slots.free, slots.lost, slots.count)


def test_a_batch_hangs_that_is_found_twice_to_run_for_too_long() -> None:
    """20 times the planned 2 ms are less than the least, 1 s: it is suspected after that, and hangs a quarter later."""
    slots = Slots([Slot(0), Slot(1)], hang_s=1.0)
    first = begin(slots, 0, 0.0)
    assert 1.0 == slots.watch_s
    assert ((), ()) == (slots.hung(0.9), slots.hung(1.1)), "seen too long once"
    second = begin(slots, 1, 1.2)
    assert (first,) == slots.hung(1.4)
    slots.lose(0, Reason.HUNG, 1.4)
    slots.release(second.batch_id, 1.5)
    assert ((), NEVER) == (slots.hung(1.7), slots.watch_s), "nothing runs that could hang"


def test_a_batch_that_was_planned_to_take_long_has_long() -> None:
    """Of one that is planned to take a second, twenty are waited for."""
    slots = Slots([Slot(0)], hang_s=1.0)
    batch = begin(slots, 0, 0.0)
    slow = batch._replace(predicted_s=1.0)
    slots._running[batch.batch_id] = slow
    assert ((), ()) == (slots.hung(19.0), slots.hung(19.9))
    assert ((), (slow,)) == (slots.hung(20.5), slots.hung(21.0))
