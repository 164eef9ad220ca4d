"""HTTP/1.1 over kept-alive connections as callbacks on an event loop: what a load generator needs and no more.

Each connection has one request on its way at a time; the next request takes the connection that was used last, and a
new one is opened where all are busy. Any failure is an answer of status 0.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpResponseParser

TIMEOUT_S = 20.0
"""A connection that has not answered by then is closed: far beyond what a server may take."""
_WATCH_S = 1.0

Answered = Callable[[int, dict[bytes, bytes], bytes], None]
"""Called once with status (0 where there was no answer), headers with names in lower case, and body."""


class Connections:
    """Connections to one server. All methods are to be called on the event loop that they run on."""

    def __init__(self, host: str, port: int, most: int = 1024, timeout_s: float = TIMEOUT_S) -> None:
        self._address = (host, port)
        self._most = most
        self._timeout_s = timeout_s
        self._open = 0
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._waiting: deque[tuple[bytes, Answered]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._watch = self._loop.call_later(_WATCH_S, self._close_stalled)

    def ask(self, request: bytes, answered: Answered) -> None:
        """Send a whole request."""
        if self._idle:
            self._start(self._idle.pop(), request, answered)
            return
        self._waiting.append((request, answered))
        if self._open < self._most:
            self._open += 1
            task = self._loop.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def close(self) -> None:
        """Close all connections; requests on their way are answered with status 0."""
        self._watch.cancel()
        for task in self._opening:
            task.cancel()
        for connection in [*self._idle, *self._busy]:
            connection.transport.close()

    def free(self, connection: _Connection) -> None:
        """A connection has answered and is whole: it takes the next request."""
        self._busy.discard(connection)
        if self._waiting:
            self._start(connection, *self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection is closed; requests that wait go to a new one."""
        self._open -= 1
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._open_for_waiting()

    def _open_for_waiting(self) -> None:
        if self._waiting:
            self.ask(*self._waiting.popleft())

    def _start(self, connection: _Connection, request: bytes, answered: Answered) -> None:
        self._busy.add(connection)
        connection.ask(request, answered)

    async def _connect(self) -> None:
        try:
            _, connection = await self._loop.create_connection(lambda: _Connection(self), *self._address)
        except OSError:
            self._open -= 1
            if self._waiting:
                self._waiting.popleft()[1](0, {}, b"")
            self._open_for_waiting()
        else:
            self.free(connection)

    def _close_stalled(self) -> None:
        self._watch = self._loop.call_later(_WATCH_S, self._close_stalled)
        since_s = time.perf_counter() - self._timeout_s
        for connection in [busy for busy in self._busy if busy.asked_s < since_s]:
            connection.transport.abort()


class _Connection(asyncio.Protocol):
    """One connection; the methods that begin with `on_` are called by the parser."""

    transport: asyncio.Transport

    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._parser = HttpResponseParser(self)
        self._answered: Answered | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self.asked_s = 0.0

    def ask(self, request: bytes, answered: Answered) -> None:
        self._answered = answered
        self.asked_s = time.perf_counter()
        self.transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        answered, self._answered = self._answered, None
        self._owner.lost(self)
        if answered is not None:
            answered(0, {}, b"")

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answered, self._answered = self._answered, None
        # First, so that what is asked because of this answer finds this connection.
        self._owner.free(self)
        if answered is not None:
            answered(self._parser.get_status_code(), self._headers, self._body)
