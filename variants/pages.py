"""Pages of lookup tables that are gone, kept for the next ones.

Memory that was free for a while is slow to come by where the machine is virtual: its pages come back from the host one
by one as they are written. Filling 12 MB of them takes 15 to 60 ms there, and 5 where this process has had them.
"""

from __future__ import annotations

import mmap
import threading
from contextlib import suppress
from weakref import finalize

import numpy as np
from numpy.typing import NDArray


class KeptPages:
    """Keeps nothing until it is told how much it may; any thread may call anything at any moment."""

    def __init__(self) -> None:
        self._kept: list[mmap.mmap] = []
        self._most_bytes = 0
        # Pages come back when their last user is collected, which may be while this lock is held.
        self._lock = threading.RLock()

    @property
    def bytes(self) -> int:
        """What is kept now."""
        with self._lock:
            return sum(map(len, self._kept))

    def keep_at_most(self, most_bytes: int) -> None:
        """Keep no more than that from now on; what is beyond goes back to the system."""
        with self._lock:
            self._most_bytes = most_bytes
            while self._kept and self.bytes > most_bytes:
                self._kept.pop()

    def take(self, size_bytes: int) -> NDArray[np.uint8]:
        """Return so many bytes with anything in them.

        Their pages are kept again once nobody has this array any more, nor a view of it.
        """
        pages = self._taken(size_bytes) or mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        elements = np.frombuffer(pages, np.uint8)
        finalize(elements, self._give, pages).atexit = False
        return elements

    def _taken(self, size_bytes: int) -> mmap.mmap | None:
        """Kept pages of about that size, made as large; what is added to them comes from the system."""
        with self._lock:
            kept = min(self._kept, key=lambda pages: abs(len(pages) - size_bytes), default=None)
            if kept is None:
                return None
            self._kept.remove(kept)
        # Whoever has had them may have left a view of them behind: then they cannot be moved, and are left alone.
        with suppress(BufferError, OSError, SystemError, ValueError):
            kept.resize(size_bytes)
            return kept
        return None

    def _give(self, pages: mmap.mmap) -> None:
        with self._lock:
            if self.bytes + len(pages) <= self._most_bytes:
                self._kept.append(pages)


KEPT = KeptPages()
"""Those of this process."""
