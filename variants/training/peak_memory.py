"""The most memory that the process held while something ran."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from variants.resident import forget_the_peak, peak_bytes


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
    forget_the_peak()
    try:
        yield measured
    finally:
        measured.rss_bytes = peak_bytes()
