"""Signs of life of what takes long, where nobody sees a progress bar."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

EVERY_S = 10.0


@contextmanager
def heartbeat(line: Callable[[float], str], every_s: float | None = None) -> Iterator[None]:
    """Write a line on the error output every so often (`EVERY_S` by default), until the block ends.

    `line` is asked for it with the seconds since the block began, on a thread of its own.
    """
    ended, began_s = threading.Event(), time.monotonic()

    def beat() -> None:
        while not ended.wait(EVERY_S if every_s is None else every_s):
            typer.echo(line(time.monotonic() - began_s), err=True)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
