"""How often families are asked for: arrivals counted with exponential decay, which remembers minutes."""

from __future__ import annotations

import math

REMEMBERED_S = 300.0


class Popularity:
    """Rows a second by family. Remembers the families that it was told of until they are forgotten, no others."""

    __slots__ = ("_counts", "_remembered_s", "last_s")

    def __init__(self, remembered_s: float = REMEMBERED_S) -> None:
        self._remembered_s = remembered_s
        self._counts: dict[str, tuple[float, float]] = {}
        self.last_s: dict[str, float] = {}
        """When a family was asked for last."""

    def observe(self, family: str, rows: int, now: float) -> None:
        """Rows of that family have come."""
        self._counts[family] = (self._counted(family, now) + rows, now)
        self.last_s[family] = now

    def per_s(self, family: str, now: float) -> float:
        """Rows a second that are expected; 0 for a family that nobody has asked for."""
        return self._counted(family, now) / self._remembered_s

    def forget(self, family: str) -> None:
        """The family is gone."""
        self._counts.pop(family, None)
        self.last_s.pop(family, None)

    def _counted(self, family: str, now: float) -> float:
        count, counted_s = self._counts.get(family, (0.0, now))
        return count * math.exp(-max(0.0, now - counted_s) / self._remembered_s)
