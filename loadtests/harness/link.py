"""Messages between the command and the generator process that it started, over a pair of sockets."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any, NamedTuple

import msgpack

_LENGTH = struct.Struct("!Q")


class Said(NamedTuple):
    """One message: a word for what it is about, and values that msgpack takes."""

    kind: str
    values: dict[str, Any]


class LinkClosedError(Exception):
    """The other side is gone."""


class Link:
    """One end. Messages are whole or not there at all."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._received = bytearray()
        self._writing = threading.Lock()

    def say(self, kind: str, **values: Any) -> None:
        """Send a message. Raises `LinkClosedError`."""
        packed: bytes = msgpack.packb([kind, values])
        try:
            with self._writing:
                self._end.sendall(_LENGTH.pack(len(packed)) + packed)
        except OSError:
            raise LinkClosedError from None

    def hear(self, within_s: float | None = None) -> Said | None:
        """The next message; None where none has come `within_s` (None: wait). Raises `LinkClosedError`."""
        if within_s is not None:
            self._end.settimeout(within_s)
        try:
            while (found := self._taken()) is None:
                data = self._end.recv(1 << 20)
                if not data:
                    raise LinkClosedError
                self._received += data
        except TimeoutError:
            return None
        except OSError:
            raise LinkClosedError from None
        finally:
            if within_s is not None:
                self._end.settimeout(None)
        return found

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _taken(self) -> Said | None:
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        end = _LENGTH.size + length
        if len(self._received) < end:
            return None
        kind, values = msgpack.unpackb(bytes(self._received[_LENGTH.size : end]))
        del self._received[:end]
        return Said(kind, values)
