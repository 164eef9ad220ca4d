"""Slots without models and requests of nobody, for a dispatcher by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

import numpy as np

from router.contract import Dispatch, Slot
from router.family import Family, VariantProfile
from router.latency import table
from router.request import Request
from router.scheduler import Scheduler
from router.view import Policy
from router.words import Outcome
from service.dispatcher import Dispatcher
from service.executors import SlotEvents
from service.observers import Observer
from service.runner import BatchRunner
from service.work import Answer, Ran
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
