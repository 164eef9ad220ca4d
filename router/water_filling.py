"""Max-min fairness of a capacity that is asked for more than there is of it.

Demand is filled from below, in proportion to weights, and nobody is pushed below a guaranteed share (water-filling;
Bertsekas and Gallager, Data Networks, 1992, section 6.5).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from router.family import Share


def water_level(asks: Iterable[tuple[float, Share]], capacity: float) -> float:
    """The level up to which demand is filled where it is more than `capacity`, both in seconds per second.

    Of each (demand, share), allotted are demand, or level times weight, whichever is less, and what is guaranteed in
    any case. Infinite where there is enough for all. Guaranteed shares must not add up to more than 1.
    """
    left = capacity
    # Where an allotment begins to rise with the level, by how much, and where the flow has what it wants.
    edges: list[tuple[float, float]] = []
    for asked, share in asks:
        floor = share.guaranteed * capacity
        left -= min(asked, floor)
        begins, ends = floor / share.weight, asked / share.weight
        # What faded demand is left over a weight may be no number any more that is above the other.
        if ends > begins:
            edges.append((begins, share.weight))
            edges.append((ends, -share.weight))
    edges.sort()
    level = rising = 0.0
    for at, change in edges:
        if rising > 0.0 and rising * (at - level) >= left:
            return level + max(0.0, left) / rising
        if rising > 0.0:
            left -= rising * (at - level)
        level, rising = at, max(0.0, rising + change)
    return math.inf


def allotment(asked: float, share: Share, level: float, capacity: float) -> float:
    """What a flow gets at a level, seconds per second."""
    return min(asked, max(share.weight * level, share.guaranteed * capacity))
