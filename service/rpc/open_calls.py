"""The calls of a server that have not ended: how many there may be, and how long their answers may go unread.

The library has a bound of its own, which refuses with the code for quotas and holds a call for as long as its caller
does. Here a call counts until its task ends, and one look a second finds answers that stand still, so that a call costs
no timer.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import takewhile
from typing import Any, TypeAlias

from google.protobuf.message import Message

from service.connections import LOOK_S, UNREAD_S
from service.oip.errors import ProtocolError
from service.rpc.calls import Context

logger = logging.getLogger("pareto.rpc")

Task: TypeAlias = "asyncio.Task[Any]"


class OpenCalls:
    """Counts calls, `most` at a time. Its methods are called by the task that answers the call."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.begun = 0
        """So many calls were taken in so far, those that were refused among them."""
        self._open: set[Task] = set()
        # When something of the answer began its way out; the oldest is the first.
        self._sending: dict[Task, float] = {}
        self._looking = False

    def __len__(self) -> int:
        return len(self._open)

    def begin(self) -> None:
        """Count the call until its task ends, with its answer on its way or given up. Raises `ProtocolError` 503."""
        self.begun += 1
        task = _current()
        task.add_done_callback(self._ended)
        if len(self._open) >= self._most:
            raise ProtocolError(
                503, "too many calls at a time, try again later", reason="backlog_full", retry_after_s=1
            )
        self._open.add(task)

    def sends(self) -> None:
        """What comes now has to be on its way within `UNREAD_S`, or the call is given up."""
        loop = asyncio.get_running_loop()
        self._sending[_current()] = loop.time()
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK_S, self._look)

    async def write(self, context: Context, message: Message) -> None:
        """Send one message of several."""
        self.sends()
        await context.write(message)
        self._sending.pop(_current(), None)

    def _ended(self, task: Task) -> None:
        self._open.discard(task)
        self._sending.pop(task, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        limit_s = loop.time() - UNREAD_S
        unread = [task for task, _ in takewhile(lambda sent: sent[1] <= limit_s, self._sending.items())]
        for task in unread:
            # Nothing more can be said to this caller; the stream itself ends with its connection.
            task.cancel()
            del self._sending[task]
        if unread:
            logger.warning("%d calls given up: their answers were not read within %g s", len(unread), UNREAD_S)
        self._looking = bool(self._sending)
        if self._looking:
            loop.call_later(LOOK_S, self._look)


def _current() -> Task:
    task = asyncio.current_task()
    assert task is not None, "calls are answered by tasks"
    return task
