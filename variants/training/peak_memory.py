"""The most memory that the process held while something ran."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"
"""See proc_pid_clear_refs(5): sets the high water mark back to what is resident now."""


@dataclass(slots=True)
class PeakMemory:
    """`rss_bytes` is the largest resident set, known when the block has ended."""

    rss_bytes: int = 0


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the largest resident set size of this process within the block, in bytes.

    Where the system cannot reset its high water mark (anything but Linux), the mark is that of the process's life.
    Blocks may follow one another; a block within another cuts the outer one's view to what came after it.
    """
    measured = PeakMemory()
    with suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    try:
        yield measured
    finally:
        measured.rss_bytes = _high_water_mark()


def _high_water_mark() -> int:
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
