"""The asyncio driver by itself: whatever raises, every future resolves."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import pytest

from router.contract import BatchRecord, Dispatch, Record, Slot, Spell
from router.family import Family, VariantProfile
from router.latency import LatencyModel, table
from router.limits import Limits
from router.policies import policy_named
from router.request import NEVER, Item, Request
from router.scheduler import Scheduler
from router.view import Decision, Plan, Policy, View
from router.words import Escalation, Outcome, Reason
from service.dispatcher import Dispatcher, Observer, Probe
from service.executors import SlotEvents
from service.runner import BatchRunner
from service.work import Answer, Ran, Work
from tests.scripted import STAGED, TwoSteps
from variants.preparation import Answers, Row

FAMILY = Family("f", (VariantProfile("only", 0.9, table((1, 4), (0.001, 0.004))),), sizes=(16, 32), max_batch=4)
ROW = np.zeros((1, 4), np.float32)


class AtOnce:
    """A slot that is done as soon as it is asked, or raises what it was made with."""

    def __init__(self, events: SlotEvents, fault: Exception | None) -> None:
        self._events, self._fault = events, fault

    def start(self, dispatch: Dispatch, rows: Sequence[Row]) -> None:
        """Answer label 0 for each row."""
        count = len(rows)
        answers = Answers(np.zeros(count, np.int64), np.ones((count, 1), np.float32), np.ones(count, np.float32))
        self._events.done(dispatch.batch_id, self._fault or Ran(answers), 0.0)

    def give_up(self) -> None:
        """Nothing hangs here."""

    def stop(self) -> None:
        """Nothing to end."""


class Held(AtOnce):
    """A slot that is done with nothing until `finish`."""

    def __init__(self, events: SlotEvents) -> None:
        super().__init__(events, None)
        self.begun: list[tuple[Dispatch, Sequence[Row]]] = []

    def start(self, dispatch: Dispatch, rows: Sequence[Row]) -> None:
        """Remember it."""
        self.begun.append((dispatch, rows))

    def finish(self) -> None:
        """Answer all, in order."""
        for dispatch, rows in self.begun:
            super().start(dispatch, rows)


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


async def answers(
    policy: Policy,
    requests: Sequence[Request],
    observers: Sequence[Observer] = (),
    fault: Exception | None = None,
) -> list[Answer]:
    """The ends of these requests through a dispatcher with one slot."""
    scheduler = Scheduler([FAMILY], [Slot(0)], policy)
    dispatcher = Dispatcher(scheduler, BatchRunner({}), lambda events: [AtOnce(events, fault)], observers)
    waiting = [dispatcher.submit(request, [ROW] * len(request.row_classes)) for request in requests]
    ended = await asyncio.wait_for(asyncio.gather(*waiting), 10.0)
    assert await dispatcher.drained(1.0)
    dispatcher.close()
    return ended


def request(number: int, rows: int = 1) -> Request:
    now = monotonic()
    return Request(number, "f", (0,) * rows, now, now + 5.0, now + 10.0)


def outcomes(ended: Sequence[Answer]) -> list[Outcome]:
    return [answer.record.outcome for answer in ended]


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


class Unsure:
    """A slot of the staged family: the first exit is never sure, the second one does as `better` says.

    `states` has weak references to all states that the first one has left, `stuck` the batches that do not end.
    """

    def __init__(self, events: SlotEvents, better: str) -> None:
        self.done, self._better = events.done, better
        self.states: list[weakref.ref[Row]] = []
        self.stuck: list[int] = []

    def start(self, dispatch: Dispatch, rows: Sequence[Row]) -> None:
        """Label 0 from the first exit, label 1 from the second."""
        label = dispatch.to_stage - 1
        answers = Answers(
            np.full(len(rows), label), np.ones((len(rows), 2), np.float32), np.full(len(rows), 0.5, np.float32)
        )
        if dispatch.from_stage == 0:
            states = [np.full((3, 2), float(row[0, 0]), np.float32) for row in rows]
            self.states += [weakref.ref(state) for state in states]
            self.done(dispatch.batch_id, Ran(answers, states), 0.0)
            return
        assert [row.shape for row in rows] == [(3, 2)] * len(rows)
        if self._better == "stuck":
            self.stuck.append(dispatch.batch_id)
        elif self._better == "fails":
            self.done(dispatch.batch_id, RuntimeError("broken model"), 0.0)
        else:
            self.done(dispatch.batch_id, Ran(answers), 0.0)

    def give_up(self) -> None:
        """Nobody looks for what is stuck here."""

    def stop(self) -> None:
        """Nothing to end."""


async def escalated(better: str, rows: int, requests: int = 1, slo_s: float = 5.0) -> tuple[list[Answer], Unsure]:
    """The ends of requests, one after the other, through a dispatcher that keeps every first answer."""
    slots: list[Unsure] = []

    def make(events: SlotEvents) -> list[Unsure]:
        slots.append(Unsure(events, better))
        return slots

    dispatcher = Dispatcher(Scheduler([STAGED], [Slot(0)], TwoSteps()), BatchRunner({}), make, [])
    ended = []
    for number in range(requests):
        now = monotonic()
        asked = Request(number, STAGED.name, (0,) * rows, now, now + slo_s, now + 10.0)
        ended.append(await asyncio.wait_for(dispatcher.submit(asked, [ROW] * rows), 10.0))
    for batch_id in slots[0].stuck:
        slots[0].done(batch_id, RuntimeError("stuck for too long"), 0.0)
    await asyncio.sleep(0)
    assert await dispatcher.drained(1.0)
    dispatcher.close()
    return ended, slots[0]


@pytest.mark.parametrize(
    ("better", "slo_s", "label", "word"),
    [
        ("answers", 5.0, 1, Escalation.ESCALATED),
        ("fails", 5.0, 0, Escalation.FAILED),
        ("stuck", 0.1, 0, Escalation.NO_TIME),
    ],
)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_kept_answer_is_replaced_or_goes_out(
    better: str, slo_s: float, label: int, word: Escalation, rows: int
) -> None:
    """Whatever becomes of the better batch, each row has an answer, the better one where it came."""
    ended, _ = asyncio.run(escalated(better, rows, slo_s=slo_s))
    (answer,) = ended
    assert answer.answers.labels.tolist() == [label] * rows
    assert (answer.record.escalation, answer.record.path[0]) == (word, "small")


@pytest.mark.parametrize("better", ["answers", "fails"])
def test_states_end_with_their_requests(better: str) -> None:
    """Of fifty requests of two rows none leaves a state in memory."""
    ended, slot = asyncio.run(escalated(better, rows=2, requests=50))
    assert len(ended) == 50
    assert len(slot.states) == 100
    assert [state for state in slot.states if state() is not None] == []


class RaisesOnAnswers:
    """`TwoSteps` with a bug in what it makes of answers."""

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """As `TwoSteps`."""
        return TwoSteps().decide(state, view, now)

    def keeps(self, state: object, family: Family, latency: LatencyModel, item: Item, now: float) -> bool:
        """Raise."""
        raise ZeroDivisionError("a bug")


def test_a_policy_that_raises_on_an_answer_strands_nobody() -> None:
    """Whoever is answered in full gets the answer, the others fail, and the slot is free again."""

    async def run() -> tuple[list[Outcome], int]:
        scheduler = Scheduler([STAGED], [Slot(0)], RaisesOnAnswers())
        dispatcher = Dispatcher(scheduler, BatchRunner({}), lambda events: [Unsure(events, "answers")], [])
        now = monotonic()
        asked = [Request(number, STAGED.name, (0,) * (1 + number), now, now + 5.0, now + 10.0) for number in range(2)]
        waiting = [dispatcher.submit(each, [ROW] * len(each.row_classes)) for each in asked]
        ended = await asyncio.wait_for(asyncio.gather(*waiting), 10.0)
        dispatcher.close()
        return outcomes(ended), scheduler.busy_slots

    assert asyncio.run(run()) == ([Outcome.SERVED, Outcome.FAILED], 0)


def test_a_kept_state_does_not_hold_its_batch() -> None:
    """A row that may go on has a copy of its own state, until it is handed over or there is another answer."""
    whole = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2)
    answered = Answers(np.zeros(2, np.int64), np.ones((2, 2), np.float32), np.ones(2, np.float32))
    work = Work([ROW, ROW], asyncio.new_event_loop().create_future(), 0.0, None)
    for row in range(2):
        work.keep(row, answered, row)
        work.hold(row, whole[row])
    assert work.states[1].base is None
    np.testing.assert_array_equal(whole[1], work.feed(1, 1))
    work.keep(0, answered, 0)
    assert not work.states
