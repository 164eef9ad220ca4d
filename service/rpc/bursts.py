"""Calls that come together go on together.

`grpc.aio` (1.85) takes in one call at a time, and the next one some iterations of the event loop later. Of calls that
came at the same moment, each would be scheduled, run and answered alone before the next one is seen; over HTTP they
come in one iteration and share a batch. So here calls wait for those behind them, but only while there are such.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Protocol

NEAR_S = 0.002
"""A call that begins so soon after another one, which has not ended yet, shows that calls come together."""
QUIET_S = 0.002
"""Where no call has begun for this long, none is on its way. uvloop counts whole milliseconds from the last one that it
has seen: this is one at the least."""
MOST_S = 0.005
"""Calls that go on coming are waited for no longer; that is looked at each `QUIET_S`."""
PATIENT_S = 0.04
"""Calls that have less time left do not wait: what they would wait for is too large a part of it. Of an SLO of 50 ms
some has passed already, in reading and decoding."""
WATCHED = 8
"""Of so many bursts one is waited for to its end, which tells how many calls come together now."""


class Timer(Protocol):
    """What has been put off, and may be called off."""

    def cancel(self) -> None:
        """It is not to happen."""


def later(delay_s: float, then: Callable[[], None]) -> Timer:
    """Put something off, on the running event loop."""
    return asyncio.get_running_loop().call_later(delay_s, then)


class Bursts:
    """Keeps calls that have come until as many are there as came together last, or no more come.

    Calls that come one by one are not kept at all. Its methods are called by the tasks that answer the calls.
    """

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        put_off: Callable[[float, Callable[[], None]], Timer] = later,
    ) -> None:
        self._clock = clock
        self._put_off = put_off
        self._open = 0
        self._begun = 0
        self._begun_s = -inf
        self._expected = 1
        self._bursts = 0
        self._watched = False
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: Timer | None = None
        self._seen = 0
        self._limit_s = 0.0

    def begin(self) -> None:
        """Count the call until its task ends."""
        task = asyncio.current_task()
        assert task is not None, "calls are answered by tasks"
        task.add_done_callback(self._ended)
        now_s = self._clock()
        if self._expected == 1 and self._open and now_s - self._begun_s < NEAR_S:
            self._expected, self._watched = 2, True
        self._begun += 1
        self._begun_s = now_s
        self._open += 1

    async def gathered(self, left_s: float) -> None:
        """Wait for the calls that come with this one, where calls come together.

        `left_s` is the time until its SLO or its timeout has passed, whichever is first; `inf` where it has neither.
        """
        if self._expected == 1 or left_s < PATIENT_S:
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if len(self._waiting) >= self._expected and not self._watched:
            self._go_on()
        elif self._timer is None:
            self._limit_s = self._clock() + MOST_S
            self._look_later()
        await turn

    def _ended(self, _: object) -> None:
        self._open -= 1

    def _look_later(self) -> None:
        self._seen = self._begun
        self._timer = self._put_off(QUIET_S, self._look)

    def _look(self) -> None:
        if self._seen != self._begun and self._clock() < self._limit_s:
            self._look_later()
            return
        self._expected = len(self._waiting)
        self._go_on()

    def _go_on(self) -> None:
        """All that wait go on in the same iteration of the event loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._bursts += 1
        self._watched = self._bursts % WATCHED == 0
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            # It is done where its call has been cancelled meanwhile.
            if not turn.done():
                turn.set_result(None)
