"""What is to blame for the end of an executor under a batch."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from router.words import Reason
from service.processes.conversation import NO_TEMPLATE, TEMPLATE_ENDED, End

_COUNTS = Path("/proc/vmstat")
_COUNT = "oom_kill "
RECENT_S = 5.0
"""Of several processes that the kernel killed at once, the last one's end may be heard so much later."""
LOOK_EVERY_S = 1.0
"""While there is work, the count is looked at so often at most: looking takes some 30 us."""


def kills_for_memory() -> int | None:
    """How many processes the kernel has killed because memory ended, of the machine or of a control group.

    Since it started; `None` where it does not say.
    """
    with suppress(OSError, ValueError):
        for line in _COUNTS.read_text(encoding="ascii").splitlines():
            if line.startswith(_COUNT):
                return int(line.removeprefix(_COUNT))
    return None


class MemoryKills:
    """Tells whether the kernel has killed processes lately because memory ended."""

    def __init__(
        self, count: Callable[[], int | None] = kills_for_memory, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._clock = clock
        self._seen = count()
        self._looked_s = self._rose_s = -math.inf

    def begin(self) -> None:
        """An executor gets work: how it ends is no matter of kills that were long before."""
        now_s = self._clock()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        # What nobody has looked at for long may have been at any time since.
        rose_s, is_recent = self._rose_s, now_s - self._looked_s < RECENT_S
        self._look(now_s)
        if not is_recent:
            self._rose_s = rose_s

    def lately(self) -> bool:
        """Whether there were any since work began last, or in the last seconds; true where nobody says.

        Some other process may have been killed, too: then one that was not is taken for one.
        """
        now_s = self._clock()
        return not self._look(now_s) or now_s - self._rose_s < RECENT_S

    def _look(self, now_s: float) -> bool:
        """Read the count; whether there is one to compare."""
        count = self._count()
        if count is None or self._seen is None:
            return False
        if count > self._seen:
            self._seen, self._rose_s = count, now_s
        self._looked_s = now_s
        return True


_KILLS = MemoryKills()
"""The kernel counts for all, so this process does, too."""


def work_begins() -> None:
    """To be called before an executor gets work. From any thread."""
    _KILLS.begin()


def reason_of(end: End, kills: MemoryKills = _KILLS) -> Reason:
    """What the batch failed by that the executor ran.

    A model does not send SIGKILL. The kernel does where memory ends, and so do others who look after memory or
    containers: whose doing that is, nobody knows.
    """
    if end.said in (TEMPLATE_ENDED, NO_TEMPLATE):
        return Reason.EXECUTOR_LOST
    if end.signal != signal.SIGKILL:
        return Reason.CRASHED
    return Reason.OUT_OF_MEMORY if kills.lately() else Reason.KILLED
