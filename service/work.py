"""The payload of a request on its way: its prepared rows, the answers that have come, and where they go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from router.contract import Record
from service.exchange import Receive
from variants.preparation import Answers, Row


class Answer(NamedTuple):
    """The end of a request: its record and the answers of its rows in order, none where it was not served."""

    record: Record
    answers: Answers


NOTHING = Answers(np.empty(0, np.int64), np.empty((0, 0), np.float32), np.empty(0, np.float32))


class Work:
    """The payload of one unfinished request and where its answer goes."""

    __slots__ = ("answers", "arrival_s", "future", "receive", "rows", "watcher")

    def __init__(
        self, rows: Sequence[Row], future: asyncio.Future[Answer], arrival_s: float, receive: Receive | None
    ) -> None:
        self.rows = rows
        self.future = future
        self.arrival_s = arrival_s
        self.receive = receive
        self.watcher: asyncio.Task[None] | None = None
        self.answers: list[tuple[Answers, int] | None] = [None] * len(rows)

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
