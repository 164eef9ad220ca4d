"""The asyncio driver by itself: whatever raises, every future resolves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from router.contract import BatchRecord, Record, Slot
from router.limits import Limits
from router.policies import policy_named
from router.request import NEVER
from router.scheduler import Scheduler
from router.view import Decision, Plan, View
from router.words import Outcome, Reason
from service.dispatcher import Dispatcher
from service.executors import SlotEvents
from service.runner import BatchRunner
from tests.service.driven import FAMILY, ROW, AtOnce, Held, answers, outcomes, request


class Keeper:
    """An observer that remembers, and may raise."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.records: list[Record] = []
        self._fault = fault

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """Remember, then raise if so made."""
        self.records += records
        if self._fault is not None:
            raise self._fault


class Broken:
    """A policy with a bug."""

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """Raise."""
        raise ZeroDivisionError("a bug")


class BreaksLater:
    """A policy that raises after it has planned one batch in the same poll."""

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """Plan while the slot is free, raise once it is taken."""
        if not view.free_slots or state is not None:
            raise ZeroDivisionError("a bug")
        lane = view.lanes[0]
        return "planned", Decision((), Plan(view.free_slots[0], lane, 0, lane.items[:1], Reason.FIXED), now)


class DropsTheRest:
    """A policy that starts the head and calls every other row late, in one poll."""

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """First the batch of one, then the drops."""
        if not view.lanes:
            return None, Decision((), None, NEVER)
        lane = view.lanes[0]
        if view.free_slots:
            plan = Plan(view.free_slots[0], lane, 0, lane.items[:1], Reason.FIXED)
            return None, Decision((), plan, now)
        return None, Decision(tuple((lane, item) for item in lane.items), None, now)


def test_requests_are_answered_in_full() -> None:
    """Six requests of up to three rows through one slot: each has an answer for each of its rows."""
    ended = asyncio.run(answers(policy_named("slack-fraction"), [request(n, 1 + n % 3) for n in range(6)]))
    assert outcomes(ended) == [Outcome.SERVED] * 6
    assert [len(answer.answers.labels) for answer in ended] == [1, 2, 3, 1, 2, 3]


def test_a_batch_decided_ahead_waits_in_its_slot_however_short() -> None:
    """One row would run on the event loop, were its slot not busy with four: it is handed over behind them."""

    async def scenario() -> tuple[list[bool], list[Outcome]]:
        slots: list[Held] = []

        def make(events: SlotEvents) -> list[Held]:
            slots.append(Held(events))
            return slots

        scheduler = Scheduler([FAMILY], [Slot(0)], policy_named("fastest"), Limits(ahead=1.0))
        dispatcher = Dispatcher(scheduler, BatchRunner({}), make, (), inline_below_s=0.002)
        waiting = [dispatcher.submit(request(number, rows), [ROW] * rows) for number, rows in enumerate((4, 1))]
        await asyncio.sleep(0)
        begun = [dispatch.ahead for dispatch, _ in slots[0].begun]
        slots[0].finish()
        ended = await asyncio.wait_for(asyncio.gather(*waiting), 10.0)
        dispatcher.close()
        return begun, outcomes(ended)

    assert asyncio.run(scenario()) == ([False, True], [Outcome.SERVED] * 2)


def test_a_policy_that_raises_leaves_nobody_waiting() -> None:
    """Every request fails with the reason that it was our fault."""
    ended = asyncio.run(answers(Broken(), [request(1), request(2)]))
    assert {(a.record.outcome, a.record.reason) for a in ended} == {(Outcome.FAILED, Reason.INTERNAL_ERROR)}


def test_a_policy_that_raises_after_a_plan_leaves_no_slot_behind() -> None:
    """The batch that was started runs to its end, and its slot is free again."""

    async def run() -> tuple[list[Outcome], int]:
        scheduler = Scheduler([FAMILY], [Slot(0), Slot(1)], BreaksLater())
        dispatcher = Dispatcher(scheduler, BatchRunner({}), lambda events: [AtOnce(events, None)] * 2, [])
        waiting = [dispatcher.submit(request(1, 2), [ROW] * 2)]
        ended = await asyncio.wait_for(asyncio.gather(*waiting), 10.0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return outcomes(ended), scheduler.busy_slots

    assert asyncio.run(run()) == ([Outcome.FAILED], 0)


def test_an_observer_that_raises_does_not_blind_the_others() -> None:
    """Answers go out, and the next observer still sees every record."""
    keeper = Keeper()
    observers = [Keeper(RuntimeError("full disk")), keeper]
    ended = asyncio.run(answers(policy_named("fastest"), [request(1), request(2)], observers))
    assert outcomes(ended) == [Outcome.SERVED] * 2
    assert sorted(record.request_id for record in keeper.records) == [1, 2]


def test_a_batch_that_raises_fails_its_requests() -> None:
    """The exception becomes the outcome `failed`."""
    ended = asyncio.run(answers(policy_named("fastest"), [request(1, 2)], fault=RuntimeError("broken model")))
    assert [(a.record.outcome, a.record.reason) for a in ended] == [(Outcome.FAILED, Reason.EXECUTOR_ERROR)]


@pytest.mark.parametrize("inline_below_s", [0.0, 1.0])
def test_a_request_may_lose_a_row_in_the_poll_that_starts_another(inline_below_s: float) -> None:
    """The batch that was started for it runs into the void; its one outcome stands, and the slot is free again."""

    async def run() -> list[Outcome]:
        scheduler = Scheduler([FAMILY], [Slot(0)], DropsTheRest())
        dispatcher = Dispatcher(
            scheduler, BatchRunner({}), lambda events: [AtOnce(events, None)], [], inline_below_s=inline_below_s
        )
        first = await asyncio.wait_for(dispatcher.submit(request(1, 3), [ROW] * 3), 10.0)
        second = await asyncio.wait_for(dispatcher.submit(request(2), [ROW]), 10.0)
        return outcomes([first, second])

    expected = Outcome.FAILED if inline_below_s else Outcome.SERVED  # nothing is loaded that could run inline
    assert asyncio.run(run()) == [Outcome.REJECTED_INFEASIBLE, expected]
