"""Work in threads for calls that may be cancelled: what has begun is waited for, what has not is left undone."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from service.rpc.threads import in_thread
from tests.rpc.test_reading import settled


async def _cancelled() -> list[str]:
    begun, goes_on, done = Event(), Event(), list[str]()

    def first() -> None:
        begun.set()
        goes_on.wait()
        done.append("first")

    with ThreadPoolExecutor(1) as threads:
        running = asyncio.create_task(in_thread(threads, first))
        waiting = asyncio.create_task(in_thread(threads, lambda: done.append("second")))
        await asyncio.to_thread(begun.wait)
        running.cancel()
        waiting.cancel()
        await settled()
        assert (running.done(), waiting.cancelled()) == (False, True)
        goes_on.set()
        await asyncio.wait((running,))
        assert running.cancelled()
        assert await in_thread(threads, lambda: 7) == 7
    return done


def test_who_is_cancelled_waits_for_work_that_has_begun() -> None:
    """And work that has not begun is never done."""
    assert asyncio.run(_cancelled()) == ["first"]
