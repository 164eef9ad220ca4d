"""When requests expire: a heap that forgets those that have long ended.

Nearly every request is answered long before its timeout. Its entry stays in the heap until then, so the heap is swept
once more than half of it is dead: memory follows the unfinished requests, not the rate times the timeout.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Sized
from typing import Protocol

from router.request import NEVER


class Live(Container[int], Sized, Protocol):
    """The ids of unfinished requests."""


class Timeouts:
    """The hard timeouts of unfinished requests."""

    __slots__ = ("_heap", "_live")

    def __init__(self, live: Live) -> None:
        self._heap: list[tuple[float, int]] = []
        self._live = live

    def arm(self, request_id: int, at_s: float) -> None:
        """Expire this request then, if it is still unfinished."""
        heapq.heappush(self._heap, (at_s, request_id))
        if len(self._heap) > 2 * len(self._live) + 1024:
            self._heap = [entry for entry in self._heap if entry[1] in self._live]
            heapq.heapify(self._heap)

    def pop_due(self, now: float) -> int | None:
        """An unfinished request whose time is up, `None` where there is none (more)."""
        while self._heap and self._heap[0][0] <= now:
            _, request_id = heapq.heappop(self._heap)
            if request_id in self._live:
                return request_id
        return None

    def next_s(self) -> float:
        """When the next unfinished request expires."""
        while self._heap and self._heap[0][1] not in self._live:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else NEVER
