"""The payload of a request on its way: its prepared rows, the answers that have come, and where they go.

A row may be answered more than once, each time by a better variant: the answer that has come is kept until a better
one replaces it. Where the variants are exits of one network, the state that the last stage left of the row is kept as
well, so that the next exit goes on from there; the row's input stays for variants that start anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from router.contract import Record
from service.exchange import Receive
from variants.preparation import Answers, Row
from variants.stages import State


class Answer(NamedTuple):
    """The end of a request: its record and the answers of its rows in order, none where it was not served.

    `first_label` is the index of the label that its first row was answered first, before any better answer.
    """

    record: Record
    answers: Answers
    first_label: int = -1


class Ran(NamedTuple):
    """What a batch gave: its answers, and the state of each row where a longer path may go on from here (else none).

    A state is a view of the row's own part of the batch's last hidden tensor, as `variants.stages` cuts it.
    """

    answers: Answers
    states: Sequence[State] = ()


NOTHING = Answers(np.empty(0, np.int64), np.empty((0, 0), np.float32), np.empty(0, np.float32))


class Work:
    """The payload of one unfinished request and where its answer goes.

    What it holds ends with it: nothing else keeps rows, answers or states.
    """

    __slots__ = ("answers", "arrival_s", "first", "future", "receive", "rows", "states", "watcher")

    def __init__(
        self, rows: Sequence[Row], future: asyncio.Future[Answer], arrival_s: float, receive: Receive | None
    ) -> None:
        self.rows = rows
        self.future = future
        self.arrival_s = arrival_s
        self.receive = receive
        self.watcher: asyncio.Task[None] | None = None
        self.answers: list[tuple[Answers, int] | None] = [None] * len(rows)
        self.states: dict[int, State] = {}
        self.first: tuple[Answers, int] | None = None

    def feed(self, row: int, from_stage: int) -> Row:
        """What a batch needs of a row: its input, or, to go on at a later stage, its state, which is handed over."""
        return self.states.pop(row) if from_stage else self.rows[row]

    def keep(self, row: int, answers: Answers, index: int) -> None:
        """Take a row's answer from a batch in which it was at `index`; it replaces an earlier one and its state."""
        self.answers[row] = (answers, index)
        if row == 0 and self.first is None:
            self.first = (answers, index)
        if self.states:
            self.states.pop(row, None)

    def hold(self, row: int, state: State) -> None:
        """Keep the state that the row's answer left: a copy, so that it does not hold its whole batch's."""
        self.states[row] = state.copy()

    def first_label(self) -> int:
        """The label that the first row was answered first; the request is served, so there is one."""
        assert self.first is not None, "served requests have an answer for each row"
        answers, index = self.first
        return int(answers.labels[index])

    def collect(self) -> Answers:
        """All rows' answers in order; the request is served, so none is missing."""
        if len(self.answers) == 1:
            only = self.answers[0]
            assert only is not None, "served requests have an answer for each row"
            answers, index = only
            own = slice(index, index + 1)
            return Answers(answers.labels[own], answers.probabilities[own], answers.confidences[own])
        parts = [part for part in self.answers if part is not None]
        return Answers(
            np.array([answers.labels[index] for answers, index in parts]),
            np.stack([answers.probabilities[index] for answers, index in parts]),
            np.array([answers.confidences[index] for answers, index in parts]),
        )
