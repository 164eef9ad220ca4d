"""Rows that wait, in lanes whose rows may share a batch, each lane earliest deadline first.

Rows of one size class cost about the same padded together, rows of different classes do not; a row with a high floor
would drag patient ones to a dear variant in a hurry. So a batch never mixes lanes, and within a lane the order is that
of deadlines alone.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from router.request import Item


class LaneKey(NamedTuple):
    """What rows must agree on to share a batch.

    `pinned` is a variant index, -1 where the caller pinned none; `lowest` the cheapest variant that may answer.
    `background` rows have no deadline, or none that can still be met. `at` is the variant whose answer the rows keep
    while they wait for a better one, -1 for fresh rows. Rows that wait for a variant to be loaded have a negative
    `lowest`, as `Item` has. `held` rows are pinned by what their caller was answered before, as long as that is in
    nobody's way. Rows that a variant broke under wait `alone`, in a lane of their request, whose id that is: should the
    request be what broke it, it breaks no others' answers.
    """

    family: str
    pinned: int
    lowest: int
    size_class: int
    urgency: int
    background: bool
    at: int = -1
    held: bool = False
    alone: int = -1


class Backlog:
    """All waiting rows. Bounded by its owner; adding and taking cost O(log n) and one memory move.

    `rows` counts those that a policy may plan, `cold_rows` those that wait for a variant to be loaded.
    """

    __slots__ = ("_cold", "_lanes", "changed", "cold_rows", "rows")

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, list[Item]] = {}
        self._cold: dict[LaneKey, list[Item]] = {}
        self.rows = self.cold_rows = 0
        self.changed: set[LaneKey] = set()
        """Lanes that are no longer as they were when somebody emptied this."""

    def add(self, key: LaneKey, item: Item) -> None:
        """Queue one row."""
        if key.lowest < 0:
            insort(self._cold.setdefault(key, []), item)
            self.cold_rows += 1
            return
        lane = self._lanes.get(key)
        self.changed.add(key)
        if lane is None:
            self._lanes[key] = [item]
        elif lane[-1] < item:
            lane.append(item)
        else:
            insort(lane, item)
        self.rows += 1

    def remove(self, key: LaneKey, items: Iterable[Item]) -> None:
        """Take these rows out. Raises `KeyError` where one does not wait in that lane."""
        lanes = self._cold if key.lowest < 0 else self._lanes
        lane = lanes[key]
        self.changed.add(key)
        for item in items:
            index = 0 if lane and lane[0] is item else bisect_left(lane, item)
            if index == len(lane) or lane[index] != item:
                raise KeyError(item)
            del lane[index]
            if key.lowest < 0:
                self.cold_rows -= 1
            else:
                self.rows -= 1
        if not lane:
            del lanes[key]

    def take_first(self, key: LaneKey, count: int) -> None:
        """Take the first `count` rows out: the common case of a batch, in one memory move."""
        lane = self._lanes[key]
        self.changed.add(key)
        del lane[:count]
        self.rows -= count
        if not lane:
            del self._lanes[key]

    def lanes(self) -> Iterable[tuple[LaneKey, Sequence[Item]]]:
        """The lanes that hold rows; the sequences are live, copy what is kept."""
        return self._lanes.items()

    def cold(self) -> Iterable[tuple[LaneKey, Sequence[Item]]]:
        """The lanes of rows that wait for a variant to be loaded; live as `lanes` are."""
        return self._cold.items()

    def of(self, family: str) -> list[tuple[LaneKey, tuple[Item, ...]]]:
        """All lanes of a family as they are now, those of its cold rows too."""
        both = (*self._lanes.items(), *self._cold.items())
        return [(key, tuple(lane)) for key, lane in both if key.family == family]

    def __repr__(self) -> str:
        lanes = ", ".join(f"{k.family}/{k.size_class}:{len(lane)}" for k, lane in self._lanes.items())
        return f"<Backlog {self.rows} rows [{lanes}]>"
