"""The pinned families that there is room for.

For others nothing is kept free, or nobody would be served for their sake: they are loaded like who is not pinned.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from router.placement import CLEARLY_LESS


class Pins:
    """Knows which are `kept`, and who lacked room: it has some when there is clearly more.

    Room goes up and down by some megabytes all the time.
    """

    def __init__(self) -> None:
        self.kept: frozenset[str] = frozenset()
        self._lacking: Collection[str] = ()

    def find(self, pinned: Mapping[str, Mapping[str, int]], in_memory: Collection[str], room_bytes: float) -> None:
        """Keep, of families with the files of their smallest variants and their bytes, those that fit together.

        Those that are `in_memory` come first, then the others by name, each where it fits beside those before it.
        """
        files: dict[str, int] = {}
        kept: set[str] = set()
        for name in sorted(pinned, key=lambda name: (name not in in_memory, name)):
            with_it = {**files, **pinned[name]}
            limit = room_bytes * (CLEARLY_LESS if name in self._lacking else 1.0)
            if name in in_memory or sum(with_it.values()) <= limit:
                files = with_it
                kept.add(name)
        self._lacking = pinned.keys() - kept
        self.kept = frozenset(kept)
