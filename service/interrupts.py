"""Ctrl-C while there is nothing to clean up: one line, and the process is gone.

A `KeyboardInterrupt` can be raised in the middle of an import, where it becomes a traceback, is swallowed by a
callback, or has Python end by the signal though it was caught.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A handler of SIGINT for who holds nothing: no process, no file, no lock."""
    try:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"pareto: interrupted\n")
    finally:
        # Also where nobody can be told, as on a terminal that is gone.
        os._exit(INTERRUPTED)


def end_at_once_from_here() -> None:
    """Have SIGINT end the process so, where it is the command's own and would be raised; until `raise_from_here`."""
    # Neither who imports the command, nor a process that `multiprocessing` has started.
    if _is_the_command(sys.orig_argv) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


def raise_from_here() -> None:
    """Have SIGINT raise `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """The same for a part of a command that still holds nothing."""
    end_at_once_from_here()
    try:
        yield
    finally:
        raise_from_here()


def _is_the_command(argv: Sequence[str]) -> bool:
    """Whether an interpreter started with these words runs the command: its script, or its module by `-m`."""
    words = iter(argv[1:])
    for word in words:
        if word == "-m":
            return next(words, "") == "service.cli"
        # Other options of the interpreter come before, as `-u` does.
        if not word.startswith("-"):
            return word.rpartition("/")[2] == "pareto"
    return False
