"""The asyncio driver where slots hang or are lost and variants break: who waits is answered all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from router.contract import Dispatch, Slot, Spell
from router.family import Family, VariantProfile
from router.latency import LatencyModel, table
from router.limits import Limits
from router.policies import policy_named
from router.scheduler import Scheduler
from router.view import Decision, View
from router.words import Outcome, Reason
from service.dispatcher import Dispatcher
from service.executors import SlotEvents
from service.prober import Probe
from service.runner import BatchRunner
from tests.service.driven import FAMILY, ROW, AtOnce, Held, outcomes, request
from variants.preparation import Row


class Stuck(Held):
    """A slot whose first batch never ends."""

    def __init__(self, events: SlotEvents) -> None:
        super().__init__(events)
        self.events = events
        self.given_up = asyncio.Event()

    def start(self, dispatch: Dispatch, rows: Sequence[Row]) -> None:
        """Stick to the first, answer the others."""
        if self.begun:
            AtOnce.start(self, dispatch, rows)
        else:
            super().start(dispatch, rows)

    def give_up(self) -> None:
        """Say so."""
        self.given_up.set()


class Slots(list[Stuck]):
    """Makes a slot that is stuck, and keeps it at hand."""

    def __call__(self, events: SlotEvents) -> list[Stuck]:
        """For the dispatcher."""
        self.append(Stuck(events))
        return self


TWO = replace(
    FAMILY, variants=(*FAMILY.variants, VariantProfile("best", 0.95, table((1, 4), (0.002, 0.008)))), loaded=None
)


def test_a_slot_that_hangs_is_given_up_and_its_request_answered_by_another_variant() -> None:
    """What it answers late is ignored; it takes batches again when it says so, the variant once it is probed."""

    async def run() -> tuple[list[object], list[tuple[str, bool]]]:
        slots = Slots()
        spells: list[tuple[str, bool]] = []
        may_end, over = asyncio.Event(), asyncio.Event()

        def told(new: Sequence[Spell]) -> None:
            spells.extend((spell.variant, spell.over) for spell in new)
            if new[-1].over:
                over.set()

        async def probe(spell: Spell) -> Reason | None:
            await may_end.wait()
            return None

        scheduler = Scheduler([TWO], [Slot(0)], policy_named("most-accurate"), Limits(hang_s=0.02))
        dispatcher = Dispatcher(
            scheduler,
            BatchRunner({}),
            slots,
            [],
            probe=probe,
            told=told,
        )
        waiting = dispatcher.submit(request(1), [ROW])
        await asyncio.wait_for(slots[0].given_up.wait(), 10.0)
        assert (1, {"best"}) == (scheduler.lost_slots, set(scheduler.quarantined("f")))
        slots[0].finish()
        slots[0].events.restored(0)
        answer = await asyncio.wait_for(waiting, 10.0)
        may_end.set()
        await asyncio.wait_for(over.wait(), 10.0)
        dispatcher.close()
        return [answer.record.variant, answer.record.retried, scheduler.lost_slots], spells

    assert asyncio.run(run()) == (["only", True, 0], [("best", False), ("best", True)])


@pytest.mark.parametrize("reason", [Reason.CRASHED, Reason.EXECUTOR_LOST])
def test_a_slot_whose_executor_ended_runs_its_batches_again_once_it_is_back(reason: Reason) -> None:
    """On another variant where it was the batch's doing, on the same where it was not."""

    async def run() -> tuple[str, bool]:
        slots = Slots()
        scheduler = Scheduler([TWO], [Slot(0)], policy_named("most-accurate"))
        dispatcher = Dispatcher(scheduler, BatchRunner({}), slots, [])
        waiting = dispatcher.submit(request(1), [ROW])
        await asyncio.sleep(0)
        slots[0].events.lost(0, reason, "killed by SIGABRT")
        await asyncio.sleep(0)
        slots[0].events.restored(0)
        answer = await asyncio.wait_for(waiting, 10.0)
        dispatcher.close()
        return answer.record.variant, answer.record.retried

    expected = ("only", True) if reason is Reason.CRASHED else ("best", False)
    assert asyncio.run(run()) == expected


async def probed(probe: Probe, enough: Callable[[list[Spell]], bool], **changes: Any) -> list[Spell]:
    """The spells of a variant that breaks once and is then tried with `probe`, until they are enough."""
    spells: list[Spell] = []
    over = asyncio.Event()

    def told(new: Sequence[Spell]) -> None:
        spells.extend(new)
        if enough(spells):
            over.set()

    slots = Slots()
    scheduler = Scheduler([TWO], [Slot(0)], policy_named("most-accurate"))
    dispatcher = Dispatcher(scheduler, BatchRunner({}), slots, [], probe=probe, told=told, **changes)
    dispatcher.submit(request(1), [ROW])
    slots[0].events.done(slots[0].begun[0][0].batch_id, MemoryError("no room"), 0.0)
    await asyncio.wait_for(over.wait(), 10.0)
    dispatcher.close()
    return spells


def test_a_probe_that_raises_says_nothing_of_the_variant() -> None:
    """It stays away with the strike that it has, and is probed again later."""
    tries: list[Spell] = []

    async def probe(spell: Spell) -> Reason | None:
        tries.append(spell)
        if len(tries) == 1:
            raise OSError("no processes left")
        return None

    spells = asyncio.run(probed(probe, lambda spells: spells[-1].over))
    assert [(1, False), (0, True)] == [(spell.strikes, spell.over) for spell in spells]
    assert 2 == len(tries)


def test_a_probe_that_does_not_end_is_a_hang() -> None:
    """The variant stays away, for longer each time, and the driver does not wait for it."""

    async def probe(spell: Spell) -> Reason | None:
        await asyncio.Event().wait()
        return None

    spells = asyncio.run(probed(probe, lambda spells: len(spells) == 2, probe_within_s=0.02))
    assert [(Reason.OUT_OF_MEMORY, 1), (Reason.HUNG, 2)] == [(spell.reason, spell.strikes) for spell in spells]


class RaisesOnFaults:
    """A policy with a bug in its tables, which are made anew when a variant is in quarantine."""

    def __init__(self) -> None:
        self._rule, self._made = policy_named("most-accurate"), 0

    def prepare(self, families: Sequence[tuple[Family, LatencyModel]]) -> object:
        """Raise, but for the first time."""
        self._made += 1
        if self._made > 1:
            raise ZeroDivisionError("a bug")
        return None

    def adopt(self, state: object, family: str, prepared: object | None) -> object:
        """Nothing is remembered."""
        return None

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """As the rule."""
        return self._rule.decide(state, view, now)


def test_a_slot_may_be_lost_restored_and_lost_again_in_one_iteration() -> None:
    """As when its template ends just after its next executor was ready: its request waits, and is answered."""

    async def run() -> tuple[Outcome, int]:
        slots = Slots()
        scheduler = Scheduler([TWO], [Slot(0)], policy_named("most-accurate"))
        dispatcher = Dispatcher(scheduler, BatchRunner({}), slots, [])
        waiting = dispatcher.submit(request(1), [ROW])
        events = slots[0].events
        events.lost(0, Reason.EXECUTOR_LOST, "killed by SIGKILL")
        events.restored(0)
        events.lost(0, Reason.EXECUTOR_LOST, "ended with its template")
        events.restored(0)
        answer = await asyncio.wait_for(waiting, 10.0)
        dispatcher.close()
        return answer.record.outcome, scheduler.lost_slots

    assert asyncio.run(run()) == (Outcome.SERVED, 0)


@pytest.mark.parametrize("how", ["lost", "failed"])
def test_a_policy_that_raises_on_a_fault_strands_nobody(how: str) -> None:
    """What was unfinished fails; the slot is back, and the other variant answers."""

    async def run() -> tuple[list[Outcome], str, int]:
        slots = Slots()

        async def probe(spell: Spell) -> Reason | None:
            return Reason.OUT_OF_MEMORY

        scheduler = Scheduler([TWO], [Slot(0)], RaisesOnFaults())
        dispatcher = Dispatcher(scheduler, BatchRunner({}), slots, [], probe=probe)
        waiting = [dispatcher.submit(request(number), [ROW]) for number in (1, 2)]
        events = slots[0].events
        if how == "lost":
            events.lost(0, Reason.CRASHED, "killed by SIGABRT")
            events.restored(0)
        else:
            events.done(slots[0].begun[0][0].batch_id, MemoryError("no room"), 0.0)
        ended = await asyncio.wait_for(asyncio.gather(*waiting), 10.0)
        after = await asyncio.wait_for(dispatcher.submit(request(3), [ROW]), 10.0)
        dispatcher.close()
        return outcomes(ended), after.record.variant, scheduler.lost_slots

    assert asyncio.run(run()) == ([Outcome.FAILED, Outcome.FAILED], "only", 0)
