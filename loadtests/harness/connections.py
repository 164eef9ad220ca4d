"""HTTP/1.1 over kept-alive connections for greenlets: what an open-loop generator needs and no more.

A request costs some 65 us of the processor, through locust's FastHttpSession 215: a batch of eight answers that comes
back at once would otherwise wait for the generator longer than for the server. Imported only where locust has made
sockets cooperative.
"""

from __future__ import annotations

import socket
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from loadtests.fetch import trusting

CONNECT_TIMEOUT_S = 10.0
PATIENCE_S = 30.0
"""A server that is silent for so long has not answered."""
_PIECE_BYTES = 65536


class NoAnswerError(Exception):
    """A request got no answer; the message is a few words from a small set."""


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

    def exchange(self, request: bytes) -> Answer:
        """Send one whole request and wait for its answer. Raises `NoAnswerError`."""
        while self._idle:
            connection = self._idle.pop()
            try:
                return self._exchanged(connection, request)
            except _ClosedEarlierError:
                # It was kept open and the server closed it, as it may, just now: clients send again, on a new one.
                continue
        try:
            return self._exchanged(self._connected(), request)
        except _ClosedEarlierError:
            raise NoAnswerError("connection closed") from None

    def warm(self, count: int) -> None:
        """Have so many connections open. Raises `NoAnswerError`."""
        self._idle += [self._connected() for _ in range(count - len(self._idle))]

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop().socket.close()

    def _exchanged(self, connection: _Connection, request: bytes) -> Answer:
        kept = False
        try:
            answer = connection.exchange(request)
            kept = connection.stays
            return answer
        except TimeoutError:
            raise NoAnswerError(f"no answer within {self._patience_s:g} s") from None
        except HttpParserError:
            raise NoAnswerError("not HTTP") from None
        except OSError:
            if connection.used and not connection.begun:
                raise _ClosedEarlierError from None
            raise NoAnswerError("connection lost") from None
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.socket.close()

    def _connected(self) -> _Connection:
        try:
            opened = socket.create_connection((self._host, self._port), timeout=CONNECT_TIMEOUT_S)
        except TimeoutError:
            raise NoAnswerError("connecting took too long") from None
        except OSError:
            raise NoAnswerError("no connection") from None
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                opened = self._tls.wrap_socket(opened, server_hostname=self._host)
        except OSError:
            opened.close()
            raise NoAnswerError("TLS failed") from None
        opened.settimeout(self._patience_s)
        return _Connection(opened)


class _ClosedEarlierError(Exception):
    """The server had closed a connection before it took the request."""


class _Connection:
    """One connection; the methods that begin with `on_` are called by the parser."""

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.used = False
        """Whether an answer has come on it."""
        self.begun = False
        """Whether some of the present answer has come."""
        self.stays = False
        self._whole = False
        self._headers: dict[str, str] = {}
        self._body = b""
        self._parser = HttpResponseParser(self)

    def exchange(self, request: bytes) -> Answer:
        """Raises `OSError` where the connection breaks, `TimeoutError` and `HttpParserError`."""
        self.begun = self.stays = self._whole = False
        self.socket.sendall(request)
        while not self._whole:
            data = self.socket.recv(_PIECE_BYTES)
            seen_s = time.perf_counter()
            if not data:
                raise ConnectionError
            self.begun = True
            self._parser.feed_data(data)
        self.used = True
        return Answer(self._parser.get_status_code(), self._headers, self._body, seen_s)

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._whole = True
        # Behind the message the parser no longer knows.
        self.stays = self._parser.should_keep_alive()
