"""A busy event loop knows that requests came before it read them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from service.loop_lag import ArrivalClock


class Loop:
    """An event loop in slow motion: each iteration runs what was there when it began, then takes `seconds`."""

    def __init__(self) -> None:
        self.now = 100.0
        self._ready: list[Callable[[], Any]] = []

    def call_soon(self, callback: Callable[[], Any]) -> None:
        self._ready.append(callback)

    def is_closed(self) -> bool:
        return False

    def time(self) -> float:
        return self.now

    def iteration(self, seconds: float, handled: int, clock: ArrivalClock) -> list[float]:
        """Run the callbacks, then handle so many requests that the iteration before has read; their arrivals."""
        ready, self._ready = self._ready, []
        for callback in ready:
            callback()
        arrivals = [clock.arrival_s() for _ in range(handled)]
        self.now += seconds
        return arrivals

    @property
    def idle(self) -> bool:
        return not self._ready


def clock_of(loop: Loop) -> ArrivalClock:
    return ArrivalClock(cast("asyncio.AbstractEventLoop", loop), loop.time)


def test_an_idle_loop_reads_requests_when_they_come() -> None:
    """The first request came now, and so does one after a pause; in between the loop is left to sleep."""
    loop = Loop()
    clock = clock_of(loop)
    assert loop.iteration(0.03, 1, clock) == [100.0]
    loop.iteration(0.0, 0, clock)
    loop.iteration(0.0, 0, clock)
    assert loop.idle
    loop.now = 200.0
    assert loop.iteration(0.0, 1, clock) == [200.0]


def test_a_busy_loop_counts_from_when_it_last_looked() -> None:
    """Requests handled after an iteration of 30 ms may have come at its beginning, all of them alike."""
    loop = Loop()
    clock = clock_of(loop)
    loop.iteration(0.03, 1, clock)
    assert loop.iteration(0.02, 2, clock) == [100.0, 100.0]
    assert loop.iteration(0.01, 1, clock) == [100.03]


def test_a_real_loop_that_was_held_up_says_so() -> None:
    """On asyncio's own loop, a request handled right after a busy iteration came before it."""

    async def held_up() -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        clock = ArrivalClock(loop, loop.time)
        first = clock.arrival_s()
        until = loop.time() + 0.02
        while loop.time() < until:
            pass
        await asyncio.sleep(0)
        return first, clock.arrival_s(), loop.time()

    first, second, now = asyncio.run(held_up())
    assert first <= second <= now - 0.02
