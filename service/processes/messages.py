"""What gateway, template and executors say to each other: one message a datagram (SOCK_SEQPACKET).

The gateway's are pickled, for who reads them was started by it. What comes back is JSON: a model may have written
anywhere in the memory of its process, and nothing of that is ever run.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from variants.session import SessionOptions
from variants.shared_parts import TableFile

MOST_BYTES = 64 * 1024
"""Of one message: names and shapes of a model's inputs or outputs."""
NOT_NOW = "not_now"
"""A key of what is said of a model where there could be no process to open it."""
KILLED = "killed"
"""A key of what is said of a model where the process that opened it was killed by somebody."""
READY = b"[]"
"""What an executor says first."""


class Open(NamedTuple):
    """To the template: open a model, so that executors made from now on have it under this number.

    One that is `careful` is opened in a process of its own first, for the model may break the one that opens it.
    """

    number: int
    path: Path
    options: SessionOptions
    tables: tuple[TableFile, ...]
    runtime: str
    careful: bool


class Close(NamedTuple):
    """To the template: executors made from now on do not have this model."""

    number: int


class Fork(NamedTuple):
    """To the template: make an executor under this number; with its socket and its two areas come their files.

    It keeps to processor `cores`, if there are any, and has all models, or `only` that one. Of those that it opens
    itself it has those of so many `threads` alone, if that is said. Lists of processes show it by its `name`.
    """

    executor: int
    cores: tuple[int, ...] = ()
    only: int | None = None
    threads: int | None = None
    name: str = ""


class Kill(NamedTuple):
    """To the template: end an executor, if it lives."""

    executor: int


ToTemplate = Open | Close | Fork | Kill


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
