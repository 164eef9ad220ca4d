"""The asyncio driver where answers are kept for better ones: what goes out, and what stays in memory."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from time import monotonic

import numpy as np
import pytest

from router.contract import Dispatch, Slot
from router.family import Family
from router.latency import LatencyModel
from router.request import Item, Request
from router.scheduler import Scheduler
from router.view import Decision, View
from router.words import Escalation, Outcome
from service.dispatcher import Dispatcher
from service.executors import SlotEvents
from service.runner import BatchRunner
from service.work import Answer, Ran, Work
from tests.scripted import STAGED, TwoSteps
from tests.service.driven import ROW, outcomes
from variants.preparation import Answers, Row


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
