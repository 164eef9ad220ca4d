"""Who may use how much of a crowded machine: max-min fair shares of its time, by family and by tenant.

A flow is what shares are given to: all requests of one family, or of one tenant. While there is time for everybody,
shares mean nothing. Where there is not, a flow is entitled to what max-min fairness leaves it, however much it asks for:
the others' demand is filled from below, in proportion to weights, and nobody is pushed below its guaranteed share
(water-filling; Bertsekas and Gallager, Data Networks, 1992, section 6.5). Demand is seconds of the cheapest variants in
full batches, over an exponential window.

Whether a single request is within its flow's share is asked of a server of the flow's own that is as fast as its share:
the flow's requests, one after the other, must be done there by their deadlines (the total bandwidth server of Spuri and
Buttazzo, 1996). As long as shares do not add up to more than the machine, earliest deadline first has time for all that
is within: so a burst costs those who burst.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from router.contract import Request, Share

WINDOW_S = 1.0
"""Demand is remembered for about so long."""
RESERVE = 1.2
"""The others are expected to ask for this many times what they asked for lately: they do not come evenly."""
REFRESH_S = 0.05
"""Shares are computed anew this often at most."""
MOST_FLOWS = 256
"""More flows of a kind than that share one, without a name."""
DRY = 1e-4
"""A flow that asks for less than that share of one slot is forgotten where room is wanted."""
OTHERS = ""


EVEN = Share()


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index of some values of at least 0: 1 where all are equal, 1 / n where one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares > 0.0 else 1.0


def entitlement(own: Share, others: Iterable[tuple[float, Share]], capacity: float) -> float:
    """Seconds per second that a flow may use, however much it asks for, beside `others` (demand and share of each).

    `capacity` is that of the machine, seconds per second. Guaranteed shares must not add up to more than 1.
    """
    left, slope = capacity - own.guaranteed * capacity, own.weight
    # Where a flow's allotment begins to rise with the level, by how much, and where the flow has what it wants.
    edges: list[tuple[float, float]] = []
    for asked, share in others:
        floor = share.guaranteed * capacity
        left -= min(asked, floor)
        if asked > floor:
            edges.append((floor / share.weight, share.weight))
            edges.append((asked / share.weight, -share.weight))
    level, rising, mine = 0.0, 0.0, own.guaranteed * capacity / own.weight
    edges.append((mine, slope))
    for at, change in sorted(edges):
        if rising > 0.0 and rising * (at - level) >= left:
            break
        left -= rising * (at - level)
        level, rising = at, rising + change
    # The flow itself never has enough, so that something rises for ever.
    return own.weight * max(mine, level + max(0.0, left) / rising)


class _Flow:
    """Demand of a flow (seconds per second), and when a server of its own would have done what was let in."""

    __slots__ = ("_asked", "_updated_s", "allotted", "done_s", "share", "since_s")

    def __init__(self, share: Share, now: float) -> None:
        self.share = share
        self._asked = 0.0
        self._updated_s = now
        self.done_s = now
        self.allotted = 0.0
        self.since_s = -math.inf
        """When `allotted` was computed."""

    def ask(self, work_s: float, now: float) -> None:
        self._asked = self.asked(now) + work_s / WINDOW_S
        self._updated_s = max(now, self._updated_s)

    def asked(self, now: float) -> float:
        return self._asked * math.exp(min(0.0, self._updated_s - now) / WINDOW_S)


class Flows:
    """The flows of one kind on a machine of so many seconds per second; at most `MOST_FLOWS` and one more."""

    __slots__ = ("_asked", "_asked_s", "_capacity", "_flows")

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._flows: dict[str, _Flow] = {}
        self._asked: list[tuple[_Flow, float]] = []
        self._asked_s = -math.inf

    def ask(self, name: str, share: Share, work_s: float, now: float) -> None:
        """A request asks for so many seconds, whether it gets them or not."""
        self._flow(name, share, now).ask(work_s, now)

    def is_beyond(self, name: str, share: Share, work_s: float, ahead_s: float, by_s: float, now: float) -> bool:
        """Whether a request of `work_s` seconds is more than its flow may have, and there is no time to spare for it.

        `ahead_s` is the work that goes first and its own: as long as the flow's share alone would have time for that,
        the others do not need theirs.
        """
        flow = self._flow(name, share, now)
        allotted = self._allotted(flow, now)
        return ahead_s > allotted * (by_s - now) and max(now, flow.done_s) + work_s / allotted > by_s

    def admit(self, name: str, share: Share, work_s: float, by_s: float, now: float) -> None:
        """A request is let in. What is let in beyond a share because there is time to spare is not held against it."""
        flow = self._flow(name, share, now)
        flow.done_s = min(max(now, flow.done_s) + work_s / self._allotted(flow, now), max(by_s, flow.done_s))

    def allotted(self, name: str, share: Share, now: float) -> float:
        """Seconds per second that a flow may use, however much it asks for."""
        return self._allotted(self._flow(name, share, now), now)

    def __len__(self) -> int:
        return len(self._flows)

    def _allotted(self, flow: _Flow, now: float) -> float:
        if now - flow.since_s >= REFRESH_S:
            if now - self._asked_s >= REFRESH_S:
                self._asked_s = now
                self._asked = [(other, RESERVE * other.asked(now)) for other in self._flows.values()]
            flow.since_s = now
            others = [(asked, other.share) for other, asked in self._asked if other is not flow]
            flow.allotted = max(entitlement(flow.share, others, self._capacity), 1e-9)
        return flow.allotted

    def _flow(self, name: str, share: Share, now: float) -> _Flow:
        flow = self._flows.get(name)
        if flow is None or (flow.share is not share and flow.share != share):
            if flow is None and len(self._flows) >= MOST_FLOWS:
                self._flows = {known: old for known, old in self._flows.items() if old.asked(now) > DRY}
                if len(self._flows) >= MOST_FLOWS:
                    name, share = OTHERS, EVEN
                    if OTHERS in self._flows:
                        return self._flows[OTHERS]
            flow = self._flows[name] = _Flow(share, now)
        return flow


class Fairness:
    """The shares of all families and tenants on a machine of so many slots. A request must be within both of its own.

    `tenants` has what the tenants count on that are known; all others have an even share. Where only one family and one
    tenant ask, nobody is ever beyond: there is nobody to be fair to.
    """

    __slots__ = ("_families", "_shares", "_tenants")

    def __init__(self, slots: int, tenants: Mapping[str, Share] | None = None) -> None:
        self._families, self._tenants = Flows(slots), Flows(slots)
        self._shares = dict(tenants or {})

    def ask(self, request: Request, share: Share, work_s: float, now: float) -> None:
        """A request came that takes so many seconds at its cheapest; `share` is its family's."""
        self._families.ask(request.family, share, work_s, now)
        self._tenants.ask(request.tenant, self._shares.get(request.tenant, EVEN), work_s, now)

    def is_beyond(
        self, request: Request, share: Share, work_s: float, ahead_s: float, by_s: float, now: float
    ) -> bool:
        """Whether it has to stand back for others: see `Flows.is_beyond`."""
        if len(self._families) > 1 and self._families.is_beyond(request.family, share, work_s, ahead_s, by_s, now):
            return True
        own = self._shares.get(request.tenant, EVEN)
        return len(self._tenants) > 1 and self._tenants.is_beyond(request.tenant, own, work_s, ahead_s, by_s, now)

    def admit(self, request: Request, share: Share, work_s: float, by_s: float, now: float) -> None:
        """It is let in."""
        if len(self._families) > 1:
            self._families.admit(request.family, share, work_s, by_s, now)
        if len(self._tenants) > 1:
            self._tenants.admit(request.tenant, self._shares.get(request.tenant, EVEN), work_s, by_s, now)
