"""When the scheduler is to be asked again though nothing happens: one timer of the event loop, set at each turn."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from router.request import NEVER


class Timer:
    """Calls `fired` at the moment that was set last.

    `step_s` is the coarseness of the loop's timers: uvloop counts whole milliseconds, and a timer rounded down would
    fire early and spin until it is due.
    """

    def __init__(self, fired: Callable[[], None], step_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._fired = fired
        self._step_s = step_s
        self._handle: asyncio.TimerHandle | None = None
        self._at_s = NEVER

    def set(self, at_s: float, now: float) -> None:
        """Fire at that moment, `NEVER` included, and not when it was set to before."""
        if at_s == self._at_s and self._handle is not None:
            return
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._at_s = at_s
        if at_s != NEVER:
            delay_s = max(0.0, at_s - now)
            if self._step_s:
                delay_s = math.ceil(delay_s / self._step_s) * self._step_s
            self._handle = self._loop.call_later(delay_s, self._fire)

    def stop(self) -> None:
        """Do not fire."""
        if self._handle is not None:
            self._handle.cancel()

    def _fire(self) -> None:
        self._handle = None
        self._fired()
