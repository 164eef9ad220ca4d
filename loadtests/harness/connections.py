"""HTTP/1.1 over kept-alive connections for greenlets: what an open-loop generator needs and no more.

A request costs some 65 us of the processor, through locust's FastHttpSession 215: a batch of eight answers that comes
back at once would otherwise wait for the generator longer than for the server. Imported only where locust has made
sockets cooperative.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent  # type: ignore[import-untyped]  # gevent carries no types
from gevent import monkey
from httptools import HttpParserError, HttpResponseParser

from loadtests.fetch import trusting

CONNECT_TIMEOUT_S = 10.0
PATIENCE_S = 30.0
"""An answer that is not whole by then is none."""
_PIECE_BYTES = 65536
_OUT_OF_SOCKETS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
_HUNG_UP = getattr(select, "POLLRDHUP", 0)
_poll = monkey.get_original("select", "poll")


class NoAnswerError(Exception):
    """A request got no answer; the message is a few words from a small set."""


class NoSocketError(NoAnswerError):
    """The machine that sends has no socket for it: the other side was never asked."""


class Answer(NamedTuple):
    """A whole answer, and when it was whole on `time.perf_counter`. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    seen_s: float


class Connections:
    """Connections to one server, each with one request on its way at a time; the one used last is used next."""

    def __init__(self, url: str, *, insecure: bool = False, patience_s: float = PATIENCE_S) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "localhost"
        self._tls = trusting(insecure=insecure) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._patience_s = patience_s
        self._idle: list[_Connection] = []
        self._places: list[tuple[socket.AddressFamily, tuple[Any, ...]]] = []
        self.repeated = 0
        """Requests that were sent a second time: a kept connection would not take the first."""

    def exchange(self, request: bytes) -> Answer:
        """Send one whole request and wait for its answer. Raises `NoAnswerError`.

        Once it is written it is never sent again: whatever becomes of it then is the server's doing. A kept connection
        that takes nothing of it has not brought it anywhere, so it goes on a new one, once.
        """
        connection = self._kept()
        if connection is not None and not self._takes(connection, request):
            connection = None
            self.repeated += 1
        if connection is None:
            connection = self._connected()
            if not self._takes(connection, request):
                raise NoAnswerError("connection lost")
        return self._answered(connection)

    def warm(self, count: int, within_s: float) -> None:
        """Have so many connections open, or as many as can be had in that time; they are opened side by side."""
        self._idle = [connection for connection in self._idle if connection.is_open()]
        began_s = time.perf_counter()
        try:
            gevent.with_timeout(within_s, self._resolve, timeout_value=None)
        except NoAnswerError:
            return
        opening = [gevent.spawn(self._add) for _ in range(count - len(self._idle))]
        gevent.joinall(opening, timeout=max(0.0, within_s - (time.perf_counter() - began_s)))
        gevent.killall(opening)

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> _Connection | None:
        """The one used last that the server has not closed since."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open():
                return connection
        return None

    def _add(self) -> None:
        try:
            self._idle.append(self._connected())
        except NoAnswerError:
            # Who is not there fails request by request.
            return

    def _takes(self, connection: _Connection, request: bytes) -> bool:
        """Write a request; whether something of it is on its way, else the connection is closed."""
        try:
            connection.write(request, self._patience_s)
        except TimeoutError:
            connection.close()
            raise NoAnswerError(self._too_long()) from None
        except OSError:
            connection.close()
            return False
        return True

    def _too_long(self) -> str:
        return f"no answer within {self._patience_s:g} s"

    def _answered(self, connection: _Connection) -> Answer:
        kept = False
        try:
            answer = connection.answer(self._patience_s)
            kept = connection.stays
            return answer
        except TimeoutError:
            raise NoAnswerError(self._too_long()) from None
        except HttpParserError:
            raise NoAnswerError("not HTTP") from None
        except OSError:
            raise NoAnswerError("connection lost") from None
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()

    def _connected(self) -> _Connection:
        self._resolve()
        # Taken in turn, as a resolver would hand them out.
        self._places.append(self._places.pop(0))
        troubles: list[OSError] = []
        for family, place in self._places.copy():
            try:
                return self._opened(family, place)
            except OSError as error:
                troubles.append(error)
        raise _why(troubles)

    def _opened(self, family: socket.AddressFamily, place: tuple[Any, ...]) -> _Connection:
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.settimeout(CONNECT_TIMEOUT_S)
            opened.connect(place)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                try:
                    opened = self._tls.wrap_socket(opened, server_hostname=self._host)
                except OSError:
                    raise NoAnswerError("TLS failed") from None
            opened.settimeout(self._patience_s)
            return _Connection(opened, silent=self._tls is None)
        except BaseException:
            opened.close()
            raise

    def _resolve(self) -> None:
        """The name is looked up once: no request waits for it."""
        if self._places:
            return
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError:
            raise NoAnswerError("name not found") from None
        self._places = [(family, place) for family, _, _, _, place in found]


def _why(troubles: Sequence[OSError]) -> NoAnswerError:
    """Why there is no connection to any place of a name.

    Where only some of them have no socket, the machine does not speak their family of addresses: `localhost` may be
    `::1` too.
    """
    if all(trouble.errno in _OUT_OF_SOCKETS for trouble in troubles):
        return NoSocketError("no socket")
    took_too_long = any(isinstance(trouble, TimeoutError) for trouble in troubles)
    return NoAnswerError("connecting took too long" if took_too_long else "no connection")


class _Connection:
    """One connection; the methods that begin with `on_` are called by the parser."""

    def __init__(self, opened: socket.socket, *, silent: bool) -> None:
        """A `silent` one says nothing unasked; TLS may (session tickets), so there only its end is looked for."""
        self._socket = opened
        self._asked = _poll()
        self._asked.register(opened.fileno(), _HUNG_UP | (select.POLLIN if silent else 0))
        self.stays = False
        """Whether the server keeps it open after the last answer."""
        self._cut = False
        self._whole = False
        self._headers: dict[str, str] = {}
        self._body = b""
        self._parser = HttpResponseParser(self)

    def is_open(self) -> bool:
        """Whether the server has not closed it; closes it on this side too where it has."""
        if not self._asked.poll(0):
            return True
        self.close()
        return False

    def write(self, request: bytes, patience_s: float) -> None:
        """Write a request, or what the server takes of it: who refuses it unread may have answered. Then the connection
        is good for that answer alone.

        Raises `OSError` where the server takes nothing, `TimeoutError` where it does not take all of it in that time.
        """
        left = memoryview(request)
        until_s = time.perf_counter() + patience_s
        try:
            left = left[self._socket.send(left) :]
            while left:
                self._socket.settimeout(max(1e-3, until_s - time.perf_counter()))
                left = left[self._socket.send(left) :]
                self._socket.settimeout(patience_s)
        except TimeoutError:
            raise
        except OSError:
            if len(left) == len(request):
                raise
            self._cut = True

    def answer(self, patience_s: float) -> Answer:
        """The answer to what was written. Raises `OSError`, `TimeoutError` and `HttpParserError`."""
        self.stays = self._whole = False
        until_s = time.perf_counter() + patience_s
        pieces = 0
        while not self._whole:
            if pieces:
                # Who sends a little now and then does not wait for ever either.
                self._socket.settimeout(max(1e-3, until_s - time.perf_counter()))
            data = self._socket.recv(_PIECE_BYTES)
            seen_s = time.perf_counter()
            if not data or (pieces and seen_s > until_s):
                raise TimeoutError if data else ConnectionError
            pieces += 1
            self._parser.feed_data(data)
        if pieces > 1:
            self._socket.settimeout(patience_s)
        return Answer(self._parser.get_status_code(), self._headers, self._body, seen_s)

    def close(self) -> None:
        """Close this side."""
        self._socket.close()

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._whole = True
        # Behind the message the parser no longer knows.
        self.stays = self._parser.should_keep_alive() and not self._cut
