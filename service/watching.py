"""Noticing callers that hang up, at no cost to the many that are answered before it would matter."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from service.exchange import Receive
from service.work import Work

WATCH_AFTER_S = 0.01
"""Requests older than this are watched; a task for each younger one would cost more than it could save."""


class CallerWatch:
    """Starts a task for each request that is not answered soon, which waits for its caller to hang up.

    `unfinished` is read at every look; `gone` is called with the id of a request whose caller is gone.
    """

    def __init__(self, unfinished: Mapping[int, Work], clock: Callable[[], float], gone: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._unfinished = unfinished
        self._clock = clock
        self._gone = gone
        self._due = False

    def begin(self) -> None:
        """There is a request to watch; looks go on for as long as there is any."""
        if not self._due:
            self._due = True
            self._loop.call_later(WATCH_AFTER_S, self._look)

    def _look(self) -> None:
        now = self._clock()
        for request_id, work in self._unfinished.items():
            if work.watcher is None and work.receive is not None and now - work.arrival_s >= WATCH_AFTER_S:
                work.watcher = self._loop.create_task(self._watch(request_id, work.receive))
        self._due = bool(self._unfinished)
        if self._due:
            self._loop.call_later(WATCH_AFTER_S, self._look)

    async def _watch(self, request_id: int, receive: Receive) -> None:
        message = await receive()
        if message["type"] == "http.disconnect":
            self._gone(request_id)
