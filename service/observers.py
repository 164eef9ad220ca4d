"""Who is told what became of requests and batches, and when: once the answers are on their way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from router.contract import BatchRecord, Record

logger = logging.getLogger("pareto.dispatcher")


class Observer(Protocol):
    """Whoever wants to know what happened; told after answers are on their way, perhaps once for several turns."""

    def observe(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """Take note of requests and batches that ended."""


def tell_each(observers: Sequence[Observer], records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
    """Tell all of them; one that raises does not blind the others."""
    for observer in observers:
        try:
            observer.observe(records, batches)
        except Exception:
            logger.exception("%s failed on what it was told", type(observer).__name__)


class Audience:
    """Tells observers what is added here, on the running event loop, in its order.

    No answer waits for that: the tasks of answered requests go on first. Whoever has an answer and asks then finds it
    counted, because what the loop reads, or finds behind the request on its connection, comes after that.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._loop = asyncio.get_running_loop()
        self._observers = observers
        self._records: list[Record] = []
        self._batches: list[BatchRecord] = []

    def add(self, records: Sequence[Record], batches: Sequence[BatchRecord]) -> None:
        """Requests and batches have ended."""
        if not self._records and not self._batches:
            self._loop.call_soon(self.tell)
        self._records += records
        self._batches += batches

    def tell(self) -> None:
        """Tell now what has been added."""
        if self._records or self._batches:
            records, self._records = self._records, []
            batches, self._batches = self._batches, []
            tell_each(self._observers, records, batches)
