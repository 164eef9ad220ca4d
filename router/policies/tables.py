"""What published systems work out offline, per rate: here lazily, from the latencies as they are believed now.

A table is kept under the rounded planned seconds that it was made from. So it is made anew when the machine became
noticeably slower, and found again when that is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from router.policies.windows import Windows
from router.view import Lane

PACE_STEP = math.log(1.1)
MOST_TABLES = 512
"""So many are kept before all are forgotten; a table is a few hundred to a few thousand numbers."""

Table = TypeVar("Table")


class Tables(Generic[Table]):
    """Tables of one rule by what they were made for. Updated in place."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[Hashable, Table] = {}

    def get(self, key: Hashable, make: Callable[[], Table]) -> Table:
        """The table for that key, made by `make` where there is none yet."""
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= MOST_TABLES:
                self._made.clear()
            found = self._made[key] = make()
        return found


class RateTables(Generic[Table]):
    """The state of a rule that looks a table up for the rate it believes in. Updated in place."""

    __slots__ = ("tables", "windows")

    def __init__(self, window_s: float) -> None:
        self.windows = Windows(window_s)
        self.tables: Tables[Table] = Tables()


def pace(lane: Lane) -> tuple[int, ...]:
    """The planned seconds of every rung at batch 1, in steps of a tenth: what a table may be kept for."""
    latency, size_class = lane.latency, lane.key.size_class
    steps = [math.log(latency.planned_s(rung, 1, size_class)) / PACE_STEP for rung in lane.family.ladder]
    return tuple([round(step) for step in steps])


def slo_step(slo_s: float) -> int:
    """The step of the geometric scale of SLOs (a quarter apart) at or below this one."""
    return math.floor(math.log(slo_s) / math.log(1.25) + 1e-9)


def slo_of(step: int) -> float:
    """Seconds of that step."""
    return math.exp(step * math.log(1.25))
