"""Work that would hold up the event loop, for calls that may be cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


async def in_thread(threads: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
    """The result of `work`, done by a thread.

    Who is cancelled before it begins has it left undone; later, waits for its end, as it still holds what it works on.
    """
    begun = threads.submit(work)
    done = asyncio.wrap_future(begun)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        if not begun.cancel():
            await asyncio.wait((done,))
        raise
