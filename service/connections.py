"""Bounds of what connections may take before and after the data plane sees a request: how many, how long, how large.

uvicorn bounds neither the head of a request nor how long it may take to come, and an answer that nobody reads is kept
until the connection ends. Here a subclass of its protocol counts bytes that are no body as they come, and one look a
second at all connections finds those that stand still, so that a request costs no timer.

uvicorn closes an idle connection when its time is over, whatever has arrived on it since the event loop last read, and
callers do not send a request again that may have been answered. Here the kernel is asked first.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import select
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.oip.errors import body

logger = logging.getLogger("pareto.connections")

HEAD_BYTES = 64 * 1024
"""Of a request's head, and of what follows a chunked body, beside what arrives together with their first byte."""
HEAD_S = 15.0
"""For the head of a request from when it begins, for the first one from when the connection is there."""
UNREAD_S = 30.0
"""An answer of which nothing has been read for so long is dropped."""
LOOK_S = 1.0
SOON_S = 0.001
"""An idle connection is looked at again then where a request has arrived and is not read yet."""
AT_ONCE = 100
"""Connections looked at in one go, some 0.1 ms."""

OTHER_FILES = 128
"""Files of the process that are no connections."""

FULL, HEAD_LARGE, HEAD_SLOW, UNREAD, UPGRADE = "full", "head_large", "head_slow", "unread", "upgrade"
"""Why a connection is closed."""


class Connections:
    """The connections of one process by HTTP, at most so many on each of its `ports`, which share its files.

    `closed` counts those that were closed by reason.
    """

    def __init__(self, most: int, ports: int = 1) -> None:
        self.most = min(most, max(1, _most_possible() // ports))
        """On each port. Beyond what the process may open nobody could be told that there are too many."""
        self.closed: dict[str, int] = {}
        self._open: set[BoundedProtocol] = set()
        self._seen: dict[BoundedProtocol, tuple[object, float]] = {}
        self._looking = False
        self._contexts: list[ssl.SSLContext] = []
        self._load: Callable[[ssl.SSLContext], None] | None = None
        self.renewed: tuple[bytes, bytes] | None = None
        """Private key and chain (PEM) of the certificate that replaced the first one, if any did."""

    @property
    def open(self) -> int:
        """How many there are."""
        return len(self._open)

    def count(self, reason: str) -> None:
        """One is closed for this reason."""
        self.closed[reason] = self.closed.get(reason, 0) + 1

    def renew(self, load: Callable[[ssl.SSLContext], None], pair: tuple[bytes, bytes]) -> None:
        """Have `load` put another certificate, which `pair` is, into the contexts of all servers, for connections from
        now on.
        """
        self._load = load
        self.renewed = pair
        for context in self._contexts:
            load(context)

    def add(self, connection: BoundedProtocol) -> None:
        """Look after a connection until it is discarded."""
        self._open.add(connection)
        context = connection.config.ssl if connection.config.is_ssl else None
        if context is not None and context not in self._contexts:
            self._contexts.append(context)
            if self._load is not None:
                self._load(context)
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def discard(self, connection: BoundedProtocol) -> None:
        """It is closed."""
        self._open.discard(connection)
        self._seen.pop(connection, None)

    def _look(self, left: list[BoundedProtocol] | None = None) -> None:
        loop = asyncio.get_running_loop()
        if left is None:
            left = list(self._open)
        now, part = loop.time(), left[-AT_ONCE:]
        del left[-AT_ONCE:]
        for connection in part:
            try:
                self._judge(connection, now)
            except Exception:
                # The others are looked at all the same.
                logger.exception("a connection could not be looked at")
        if left:
            loop.call_soon(self._look, left)
        elif self._open:
            loop.call_later(LOOK_S, self._look)
        else:
            self._looking = False

    def _judge(self, connection: BoundedProtocol, now: float) -> None:
        """Close it where it has stood still for too long."""
        stands = connection.stands_still()
        if stands is None:
            self._seen.pop(connection, None)
            return
        before, since_s = self._seen.get(connection, (None, now))
        if before != stands:
            self._seen[connection] = (stands, now)
        elif now - since_s >= (UNREAD_S if stands[0] == UNREAD else HEAD_S):
            if connection.is_fresh and not connection.takes_leave():
                return
            self.count(stands[0])
            self._seen.pop(connection)
            connection.transport.abort()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol within bounds; `bound_to` says whose."""

    bound_to: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Turn it away where there are too many."""
        super().connection_made(transport)
        # Bytes of the request that is read that came since its last ones of a body; -1: what comes next is not counted.
        self._silent_bytes = -1
        self.bound_to.add(self)
        if len(self.connections) > self.bound_to.most:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections, try again later", FULL)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        self.bound_to.discard(self)

    def on_body(self, body: bytes) -> None:
        """A part of a body is there."""
        HttpToolsProtocol.on_body(self, body)
        self._silent_bytes = -1

    def handle_websocket_upgrade(self) -> None:
        """There are none here."""
        self._refuse(HTTPStatus.BAD_REQUEST, "WebSockets are not served here", UPGRADE)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        HttpToolsProtocol.data_received(self, data)
        if not self._is_reading:
            self._silent_bytes = -1
        elif self._silent_bytes < 0:
            self._silent_bytes = 0
        else:
            self._silent_bytes += len(data)
            if self._silent_bytes > HEAD_BYTES and not self.transport.is_closing():
                status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
                self._refuse(status, f"headers: expected at most {HEAD_BYTES} bytes", HEAD_LARGE)

    @property
    def _is_reading(self) -> bool:
        """Whether a request has begun and is not there as a whole, or none has begun yet."""
        # uvicorn declares it without `None`, which it begins with.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.more_body or self.scope is not cycle.scope

    @property
    def is_fresh(self) -> bool:
        """Whether nothing was read from it yet."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None and self._silent_bytes < 0

    def takes_leave(self) -> bool:
        """Tell the caller that no request is taken any more, unless one has arrived that the event loop has not read.

        A transport closes in its own time, and what came until then would be lost.
        """
        if self.transport.is_closing():
            return True
        number = self.transport.get_extra_info("socket").fileno()
        asked = select.poll()
        asked.register(number, select.POLLIN)
        if asked.poll(0):
            return False
        # What is still to be read of an answer goes first, and so does what TLS has to say.
        if not (self.config.is_ssl or self.transport.get_write_buffer_size()):
            _say_no_more(number)
        return True

    def shutdown(self) -> None:
        """The server ends: close it once it is idle, and has nothing that is not read yet."""
        cycle: RequestResponseCycle | None = self.cycle
        if (cycle is None or cycle.response_complete) and not self.takes_leave():
            self.loop.call_later(SOON_S, self.shutdown)
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Nobody has asked for long: close it, unless somebody does just now."""
        if self.takes_leave():
            super().timeout_keep_alive_handler()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(SOON_S, self.timeout_keep_alive_handler)

    def stands_still(self) -> tuple[str, object] | None:
        """What it waits for on the part of the caller, and how far that has come; nothing where it does not.

        A body that is read is not meant: whoever reads it has a limit of time.
        """
        unread_bytes = self.transport.get_write_buffer_size()
        if unread_bytes:
            return UNREAD, unread_bytes
        cycle: RequestResponseCycle | None = self.cycle
        # An idle connection has a timer. Another one sends a head, or what is left of a body that nobody wanted.
        is_idle = self.timeout_keep_alive_task is not None and not self._is_reading
        if (cycle is None or cycle.response_complete) and not is_idle:
            return HEAD_SLOW, id(cycle)
        return None

    def _refuse(self, status: HTTPStatus, message: str, reason: str) -> None:
        self.bound_to.count(reason)
        content = body(message)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode() + content)
        self.transport.close()


def _say_no_more(number: int) -> None:
    """Have the other end of a connection, by the number of its file, see that nothing more comes."""
    with suppress(OSError):
        same = socket.socket(fileno=number)
        try:
            same.shutdown(socket.SHUT_WR)
        finally:
            same.detach()


def _most_possible() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files == resource.RLIM_INFINITY else files - OTHER_FILES


def bounded(connections: Connections) -> type[BoundedProtocol]:
    """The protocol for a server whose connections these are."""

    class OfThese(BoundedProtocol):
        bound_to = connections

    return OfThese
