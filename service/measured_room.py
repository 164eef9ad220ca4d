"""What one measurement of the room for models came to: whole values, as any thread may read them meanwhile."""

from __future__ import annotations

from math import inf
from typing import NamedTuple


class MeasuredFor(NamedTuple):
    """What room was measured for: the budget, who is pinned, and the families, without revisions on trial."""

    budget_bytes: int
    pinned: frozenset[str]
    families: frozenset[str]


class Stock(NamedTuple):
    """What was found: `taken_bytes` by models, and what would be left for them without any room to open others.

    `holds` says whether the budget does, with all that batches take for a moment.
    """

    taken_bytes: int
    at_rest_bytes: float
    holds: bool


class Room(NamedTuple):
    """What one measurement came to: room for all that a variant takes while it is opened alone, for models at most, and
    what more there would be without what comes and goes.
    """

    alone_bytes: float = inf
    most_bytes: float = inf
    passing_bytes: float = 0.0
