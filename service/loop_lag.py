"""When requests really came: an event loop that is busy reads them late.

What one iteration of the loop reads from its sockets has been there, at the longest, since the iteration before looked
(uvloop's iterations end with reading; asyncio's own loop reads one iteration earlier, which is not counted).
In overload that is most of an SLO, and a deadline that counts from when the loop got round to a request is no deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic


class ArrivalClock:
    """Tells requests when they came; costs nothing while none come.

    Without a `loop`, that of the first request.
    """

    __slots__ = ("_began_s", "_clock", "_loop", "_read_since_s", "_seen", "_ticking")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._ticking = self._seen = False
        self._began_s = 0.0
        self._read_since_s: float | None = None

    def arrival_s(self) -> float:
        """The earliest moment at which the request that is being handled can have come, on the clock."""
        self._seen = True
        if not self._ticking or (self._loop is not None and self._loop.is_closed()):
            self._ticking, self._read_since_s = True, None
            self._began_s = self._clock()
            if self._loop is None or self._loop.is_closed():
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._tick)
            return self._began_s
        return self._clock() if self._read_since_s is None else self._read_since_s

    def _tick(self) -> None:
        """An iteration begins: it handles what the one before has read."""
        if not self._seen:
            self._ticking = False
            self._read_since_s = None
            return
        self._seen = False
        self._read_since_s, self._began_s = self._began_s, self._clock()
        assert self._loop is not None, "it ticks"
        self._loop.call_soon(self._tick)
