"""A gRPC client that does what no library does: it leaves answers unread, and calls without a message."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4


class RawCaller:
    """One connection by HTTP/2 with a window of nothing: no answer gets out, only refusals, which have no message."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = 1
        window = struct.pack(">HI", INITIAL_WINDOW_SIZE, 0)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, window))

    def begin(self, method: str, message: bytes | None = None) -> None:
        """Begin a call; without a message it says nothing more."""
        said = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost")]
        said += [("te", "trailers"), ("content-type", "application/grpc")]
        head = b"".join(b"\0" + _text(name) + _text(value) for name, value in said)
        sent = _frame(HEADERS, END_HEADERS, self._stream, head)
        if message is not None:
            sent += _frame(DATA, END_STREAM, self._stream, b"\0" + struct.pack(">I", len(message)) + message)
        self._connection.sendall(sent)
        self._stream += 2


@contextmanager
def raw_caller(port: int) -> Iterator[RawCaller]:
    """One whose connection is closed at the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=30.0) as connection:
        yield RawCaller(connection)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(text: str) -> bytes:
    """As HPACK has a short text, neither indexed nor compressed."""
    return bytes([len(text)]) + text.encode()
