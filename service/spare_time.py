"""Single rows answered again for the gateway itself, in time that nobody else wants.

Such a request has no deadline, comes after everybody else's in urgency, takes no quota, loads nothing, and is given up
where there is no spare capacity for it. No user's counter knows of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from router.family import Family
from router.request import NEVER, Request
from service.work import Answer
from variants.preparation import Row

MOST_RUNNING = 16
"""Rows that wait or run; there is no room for more."""
TIMEOUT_S = 30.0
"""For so long a row waits for spare capacity."""
URGENCY = 1000
"""After every priority that a caller can have."""

Submit = Callable[[Request, Sequence[Row]], "asyncio.Future[Answer]"]


class SpareTime:
    """Asks for rows beside the callers'. `submit` takes a request in, `cancel` gives it up, `next_id` makes its id."""

    def __init__(self, submit: Submit, cancel: Callable[[int], None], next_id: Callable[[], int]) -> None:
        self._submit = submit
        self._cancel = cancel
        self._next_id = next_id
        self._running: dict[int, str] = {}
        """Families by the ids of requests."""
        self._stopped = False

    def room(self) -> int:
        """How many more rows may be asked for now; none after `stop`."""
        return 0 if self._stopped else MOST_RUNNING - len(self._running)

    def ask(self, family: Family, variant: str, size_class: int, row: Row) -> asyncio.Future[Answer]:
        """Have a variant answer a row; called where there is `room`. What is given up has an answer without a variant.

        As with callers' requests, the future resolves in any case.
        """
        now = monotonic()
        request = Request(
            self._next_id(),
            family.name,
            (size_class,),
            now,
            NEVER,
            now + TIMEOUT_S,
            urgency=URGENCY,
            tenant="",
            pinned=variant,
            revision=family.revision,
            audit=True,
        )
        self._running[request.id] = family.name
        future = self._submit(request, [row])
        future.add_done_callback(partial(self._done, request.id))
        return future

    def stop(self) -> None:
        """Give up what waits, and take up nothing more: the replica drains."""
        self._stopped = True
        for number in list(self._running):
            self._cancel(number)

    def give_up(self, family: str) -> None:
        """Give up what waits of one family: others wait for all of its requests to end."""
        for number in [number for number, name in self._running.items() if name == family]:
            self._cancel(number)

    def _done(self, number: int, _: asyncio.Future[Answer]) -> None:
        self._running.pop(number, None)
