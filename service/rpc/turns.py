"""Turns at what only so many may do at a time, shared fairly among connections."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from service.oip.errors import ProtocolError

TURN_S = 5.0
"""Who has had no turn after this long is told to come back."""


class Turns:
    """`most` at a time, `of_one` of them by the same connection; connections that wait take turns with each other."""

    def __init__(self, most: int, of_one: int) -> None:
        self._free = most
        self._of_one = of_one
        self._taken: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, connection: str) -> None:
        """Wait for a turn, to be given back with `give_back`. Raises `ProtocolError` 503 where none comes."""
        # Where turns are free, all that wait are of connections that have their part.
        if self._may(connection):
            self._give(connection)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(connection, deque()).append(turn)
        try:
            async with asyncio.timeout(TURN_S):
                await turn
        except BaseException as ended:
            self._leave(connection, turn)
            if isinstance(ended, TimeoutError):
                raise ProtocolError(
                    503, "too many calls at a time, try again later", reason="backlog_full", retry_after_s=1
                ) from None
            raise

    def give_back(self, connection: str) -> None:
        """The turn is over."""
        left = self._taken[connection] - 1
        if left:
            self._taken[connection] = left
        else:
            del self._taken[connection]
        self._free += 1
        if self._waiting:
            self._next()

    def _may(self, connection: str) -> bool:
        return self._free > 0 and self._taken.get(connection, 0) < self._of_one

    def _give(self, connection: str) -> None:
        self._free -= 1
        self._taken[connection] = self._taken.get(connection, 0) + 1

    def _next(self) -> None:
        """Give the turn that is free to the connection that has waited longest for one."""
        while (connection := next(filter(self._may, self._waiting), None)) is not None:
            turns = self._waiting[connection]
            turn = turns.popleft()
            self._waiting.move_to_end(connection)
            if not turns:
                del self._waiting[connection]
            # It is done where its task has been cancelled, and has not got to say so yet.
            if not turn.done():
                self._give(connection)
                turn.set_result(None)
                return

    def _leave(self, connection: str, turn: asyncio.Future[None]) -> None:
        """Who waited does so no longer; it may have been given the turn at that very moment."""
        if not turn.cancelled():
            self.give_back(connection)
            return
        turns = self._waiting.get(connection)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[connection]
