"""What flows ask for, and what each of them may use of a crowded machine.

A flow is what shares are given to: all requests of one family, or of one tenant. What it uses is counted in seconds of
the cheapest variants in full batches, and so is what it asks for, over an exponential window. What the others are kept
from for it is counted in batches as they come: those of a row or two, where a family is seldom asked for.

Whether a single request is within its flow's share is asked of a server of the flow's own that is as fast as its share:
the flow's requests, one after the other, must be done there by their deadlines (the total bandwidth server of Spuri and
Buttazzo, 1996). As long as shares do not add up to more than the machine, earliest deadline first has time for all that
is within: so a burst costs those who burst. Where the server would need longer than the SLO for one request alone, as
among dozens of flows, nothing ever would be within: a request is then owed to its flow as long as the server is hardly
behind. The flow has its share on average so, where that makes nobody late who waits.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

from router.family import EVEN, Share
from router.water_filling import allotment, water_level

WINDOW_S = 1.0
"""Demand is remembered for about so long."""
UNSEEN = 0.25
"""Of the window: a flow that has been known for no longer is taken to have asked for as much all along."""
RESERVE = 1.1
"""The others are expected to ask for this many times what they asked for lately: they do not come evenly."""
REFRESH_S = 0.05
"""Shares are computed anew this often at most."""
MOST_FLOWS = 256
"""More flows of a kind than that share one, without a name."""
DRY = 1e-4
"""A flow that asks for less than that share of one slot is forgotten where room is wanted."""
BEHIND = 1.0
"""Requests that a flow's share is too small to answer by their deadline are owed to it where the server has work for no
more than so many of them."""
UNUSUAL = 2.0
"""What takes longer than so many usual requests is not owed: it would be the flow's others that pay for it."""
OTHERS = ""
SLO_STEP = 0.05
"""Of the way from the SLO that a flow had so far to that of a request."""


class FlowKey(NamedTuple):
    """Names a flow: that of a tenant, or of a family."""

    is_tenant: bool
    name: str


class _Flow:
    """Demand of a flow (seconds per second), and when a server of its own would have done what was let in."""

    __slots__ = (
        "_asked",
        "_since_s",
        "_updated_s",
        "allotted",
        "allotted_s",
        "done_s",
        "filled",
        "share",
        "slo_s",
        "stretch",
        "work_s",
    )

    def __init__(self, share: Share, slo_s: float, now: float) -> None:
        self.share = share
        self.slo_s = slo_s
        """Usual seconds from arrival to deadline."""
        self.work_s = 0.0
        """Usual seconds of a request at its cheapest."""
        self.stretch = 1.0
        """How many times as long its rows take in batches as they come."""
        self._asked = 0.0
        self._since_s = self._updated_s = now
        self.done_s = now
        self.filled = 0.0
        """What it lately asked for and gets of that, seconds per second."""
        self.allotted = 0.0
        self.allotted_s = -math.inf
        """When `allotted` was computed."""

    def ask(self, work_s: float, slo_s: float, now: float, stretch: float) -> None:
        self._asked = self._asked * self._kept(now) + work_s / WINDOW_S
        self._updated_s = max(now, self._updated_s)
        self.slo_s += SLO_STEP * (slo_s - self.slo_s)
        step = SLO_STEP if self.work_s else 1.0
        self.work_s += step * (work_s - self.work_s)
        self.stretch += step * (stretch - self.stretch)

    def asked(self, now: float) -> float:
        # Corrected for the time before anything was seen, of which a part is taken to have been as busy.
        seen = -math.expm1(-(now - self._since_s) / WINDOW_S - UNSEEN)
        return self._asked * self._kept(now) / seen

    def _kept(self, now: float) -> float:
        return math.exp(min(0.0, self._updated_s - now) / WINDOW_S)


class Flows:
    """The flows of one kind on a machine of so many seconds per second; at most `MOST_FLOWS` and one more."""

    __slots__ = (
        "_asked",
        "_capacity",
        "_due",
        "_due_slo_s",
        "_filled",
        "_flows",
        "_known_s",
        "_levels",
        "_swept_s",
        "crowd",
    )

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._flows: dict[str, _Flow] = {}
        self._known_s = self._swept_s = -math.inf
        self._asked: list[_Flow] = []
        self._filled = 0.0
        self.crowd = 0.0
        """What all flows lately asked for, over the capacity."""
        self._levels = [0.0, 0.0]
        """The two highest levels at which flows have what they want."""
        self._due_slo_s: list[float] = []
        self._due: list[tuple[float, float]] = [(0.0, 0.0)]
        """By SLO: demand of all flows up to that one, as far as they get it, and the same weighted with their SLO."""

    def ask(self, name: str, share: Share, work_s: float, slo_s: float, now: float, stretch: float = 1.0) -> None:
        """A request asks for so many seconds, whether it gets them or not; `stretch` times as many as batches come."""
        flow = self._flow(name, share, slo_s, now)
        if name in self._flows:
            flow.share = share
        flow.ask(work_s, slo_s, now, stretch)

    def is_within(self, name: str, share: Share, work_s: float, slo_s: float, by_s: float, now: float) -> bool:
        """Whether a server of the flow's own would answer such a request by `by_s`."""
        flow = self._flow(name, share, slo_s, now)
        allotted = self._allotted(flow, now)
        return max(now, flow.done_s) + work_s / allotted <= by_s

    def is_owed(self, name: str, share: Share, work_s: float, slo_s: float, by_s: float, now: float) -> bool:
        """Whether its share is too small for a request of which the flow has not had its share lately."""
        flow = self._flow(name, share, slo_s, now)
        allotted = self._allotted(flow, now)
        behind_s = max(0.0, flow.done_s - now) * allotted
        return work_s > (by_s - now) * allotted and behind_s <= BEHIND * work_s <= BEHIND * UNUSUAL * flow.work_s

    def admit(self, name: str, share: Share, work_s: float, slo_s: float, by_s: float, now: float) -> None:
        """A request is let in. What is let in beyond a share because there is time to spare is not held against it."""
        flow = self._flow(name, share, slo_s, now)
        done_s = max(now, flow.done_s) + work_s / self._allotted(flow, now)
        if done_s > by_s and not self.is_owed(name, share, work_s, slo_s, by_s, now):
            done_s = max(by_s, flow.done_s)
        flow.done_s = done_s

    def due_s(self, name: str, within_s: float) -> float:
        """Seconds that come and are due within so long: what the others are expected to ask for, and the flow's share.

        The flow asks for more than that, or nobody would want to know.
        """
        demand, weighted = self._due[bisect_left(self._due_slo_s, within_s)]
        due_s = demand * within_s - weighted
        flow = self._flows.get(name)
        if flow is not None and flow.slo_s < within_s:
            due_s += (flow.allotted - flow.filled) * (within_s - flow.slo_s)
        return max(0.0, due_s)

    def excess(self, name: str, now: float) -> float:
        """What a flow asks for over what it may use."""
        flow = self._flows.get(name) or self._flows.get(OTHERS)
        return 0.0 if flow is None else flow.asked(now) / self._allotted(flow, now)

    def __len__(self) -> int:
        return len(self._flows)

    def _allotted(self, flow: _Flow, now: float) -> float:
        if now - flow.allotted_s >= REFRESH_S:
            if now - self._known_s >= REFRESH_S:
                self._known_s = now
                self._know(now)
            flow.allotted_s = now
            before, flow.allotted = flow.allotted, max(self._entitled(flow), 1e-9)
            if flow.done_s > now:
                # With another share what it was let in for is done at another time.
                flow.done_s = now + (flow.done_s - now) * before / flow.allotted
        return flow.allotted

    def _entitled(self, flow: _Flow) -> float:
        """What a flow may use, however much it asks for."""
        share, capacity = flow.share, self._capacity
        own = flow.filled
        left = capacity - (self._filled - own)
        highest = self._levels[1] if own > 0.0 and own / share.weight == self._levels[0] else self._levels[0]
        if left > share.weight * highest:
            # Enough for all others, and then more than any of them gets: the common case.
            return max(left, share.guaranteed * capacity)
        asks = [(other.filled, other.share) for other in self._asked if other is not flow]
        return allotment(math.inf, share, water_level([*asks, (math.inf, share)], capacity), capacity)

    def _know(self, now: float) -> None:
        """Take note of what all flows ask for."""
        flows, capacity = list(self._flows.values()), self._capacity
        plain = [flow.asked(now) for flow in flows]
        self.crowd = sum(plain) / capacity
        asked = [(RESERVE * flow.stretch * ask, flow.share) for flow, ask in zip(flows, plain, strict=True)]
        total = sum([ask for ask, _ in asked])
        level = water_level(asked, capacity) if total > capacity else math.inf
        levels = [0.0, 0.0]
        for flow, (ask, share) in zip(flows, asked, strict=True):
            flow.filled = ask if level == math.inf else allotment(ask, share, level, capacity)
            levels.append(flow.filled / share.weight)
        self._asked, self._levels = flows, sorted(levels)[:-3:-1]
        self._due_slo_s, self._due = [], [(0.0, 0.0)]
        demand = weighted = 0.0
        for flow in sorted(flows, key=lambda known: known.slo_s):
            demand += flow.filled
            weighted += flow.filled * flow.slo_s
            self._due_slo_s.append(flow.slo_s)
            self._due.append((demand, weighted))
        self._filled = demand

    def _flow(self, name: str, share: Share, slo_s: float, now: float) -> _Flow:
        flow = self._flows.get(name)
        if flow is not None:
            return flow
        if len(self._flows) >= MOST_FLOWS and now - self._swept_s >= REFRESH_S:
            self._swept_s = now
            self._flows = {known: old for known, old in self._flows.items() if old.asked(now) > DRY}
        if len(self._flows) >= MOST_FLOWS:
            name, share = OTHERS, EVEN
            if OTHERS in self._flows:
                return self._flows[OTHERS]
        flow = self._flows[name] = _Flow(share, slo_s, now)
        return flow
