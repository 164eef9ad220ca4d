"""Copies of a process (fork) that do some work and end, and whose ends are told."""

from __future__ import annotations

import ctypes
import math
import os
import selectors
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Never

from variants.runtimes.table import ONNXRUNTIME

PR_SET_PDEATHSIG = 1
FIRST_TO_GO = 500
"""Added to how likely the kernel's out-of-memory killer is to choose an executor."""
MOST_LIKELY = 1000
"""More is not taken by the kernel."""
HANGS = "hangs"
"""How one did that was ended by force because it took too long."""
OOM_SCORE = Path("/proc/self/oom_score_adj")
NAME = Path("/proc/self/comm")


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; at once where it has."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def be_called(name: str) -> None:
    """Have lists of processes (`ps -o comm`, `top`) show this one by a name of at most 15 characters."""
    with suppress(OSError):
        NAME.write_text(name)


def survives_a_fork(runtime: str, threads: int) -> bool:
    """Whether a model that is open works in a copy of the process: it has no threads of its own."""
    return runtime == ONNXRUNTIME and threads == 1


@dataclass(slots=True)
class _Copy:
    """A process that was made of this one: what is done after its end, and when it is ended by force."""

    pid: int
    ended: Callable[[str, int], None]
    until_s: float
    is_late: bool = False


class Copies:
    """Those of this process, which has one thread. The file that tells of the end of each is in the selector.

    `in_each` is what is done first in each of them: it is to close what is not its own.
    """

    def __init__(self, selector: selectors.BaseSelector, in_each: Callable[[], None]) -> None:
        self._selector = selector
        self._in_each = in_each
        self._copies: dict[int, _Copy] = {}
        """By the file that tells of the end of each."""

    def make(self, work: Callable[[], None], ended: Callable[[str, int], None], within_s: float = math.inf) -> int:
        """Have a copy of this process do some work, and end, by force after so long; returns its number.

        `ended` is called after that: how it did, in words, and by which signal (0: by none).
        """
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            self._in_copy(parent, work)
        try:
            watch = os.pidfd_open(pid)
        except OSError:
            # No files left: nobody could be told of its end.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._copies[watch] = _Copy(pid, ended, monotonic() + within_s)
        self._selector.register(watch, selectors.EVENT_READ)
        return pid

    def ended(self, watch: int) -> None:
        """Tell of the end of one, of which its file in the selector has told."""
        copy = self._copies.pop(watch)
        self._selector.unregister(watch)
        os.close(watch)
        _, status = os.waitpid(copy.pid, 0)
        how = HANGS if copy.is_late else how_it_ended(status)
        copy.ended(how, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)

    def until_late_s(self) -> float | None:
        """In how many seconds one is to be ended by force; None where none is."""
        until_s = min((copy.until_s for copy in self._copies.values() if not copy.is_late), default=math.inf)
        return None if until_s == math.inf else max(0.0, until_s - monotonic())

    def end_late_ones(self) -> None:
        """End by force those that take too long."""
        now_s = monotonic()
        for copy in self._copies.values():
            if copy.until_s <= now_s and not copy.is_late:
                copy.is_late = True
                os.kill(copy.pid, signal.SIGKILL)

    def _in_copy(self, parent: int, work: Callable[[], None]) -> Never:
        """Whatever happens, a copy never goes on as the one it was made of."""
        code = 1
        try:
            end_with(parent)
            with suppress(OSError, ValueError):
                OOM_SCORE.write_text(str(min(MOST_LIKELY, int(OOM_SCORE.read_text()) + FIRST_TO_GO)))
            self._selector.close()
            self._in_each()
            for watch in self._copies:
                os.close(watch)
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 - there is nobody above who could take it
            sys.stderr.write(f"executor: {type(error).__name__}: {error}\n")
        finally:
            sys.stderr.flush()
            os._exit(code)


def how_it_ended(status: int) -> str:
    """What `os.waitpid` says, in words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        known = number in set(signal.Signals)
        return f"was killed by {signal.Signals(number).name if known else f'signal {number}'}"
    return f"ended with exit code {os.WEXITSTATUS(status)}"
