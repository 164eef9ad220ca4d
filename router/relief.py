"""Relief: who was let in beyond a share makes room again when somebody within a share needs the time.

Letting requests in beyond a share costs nobody anything as long as there turns out to be time for all, and nobody knows
that when they come: batches last longer than planned, and others come. So the first rows that wait are gone through in
their order every few milliseconds. Where what goes before a row within its share, as cheaply as can be, would leave it
little time, rows of other flows that go before it and are beyond their shares are evicted: as many as that takes, of
the flow first that asks for the most over its share, those due last first.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice
from math import inf
from typing import NamedTuple

from router.admission import MOST_LANES
from router.fairness import Fairness
from router.flows import FlowKey
from router.parts import Parts
from router.pending import Pending
from router.request import Request
from router.words import Outcome, Reason, WhenLate

FILLED = 0.5
"""What goes before a row within its share fills so much of its time at most, or who is beyond theirs makes room."""
EVERY_S = 0.002
"""The rows that wait are gone through this often at most."""
MOST_ROWS = 256
"""So many rows are gone through at most: later ones have time, and the cost must not be the callers' to choose."""


class Newcomer(NamedTuple):
    """A request within its share that is not taken in yet: its rows take `work_s` together and are due at `by_s`."""

    request: Request
    by_s: float
    work_s: float


class _Guests:
    """The requests beyond their shares of which rows go before some row: seconds of these, and who, by flow."""

    __slots__ = ("_flows", "_work_s")

    def __init__(self) -> None:
        self._flows: dict[FlowKey, list[Pending]] = {}
        self._work_s: dict[int, float] = {}

    def __bool__(self) -> bool:
        return bool(self._flows)

    def add(self, pending: Pending, row_s: float) -> None:
        """One row more of a guest."""
        number = pending.request.id
        if number not in self._work_s:
            assert pending.beyond is not None
            self._work_s[number] = 0.0
            self._flows.setdefault(pending.beyond, []).append(pending)
        self._work_s[number] += row_s

    def evict(
        self, needed_s: float, at_least_s: float, own: tuple[FlowKey, ...], fairness: Fairness, now: float
    ) -> tuple[list[Pending], float]:
        """Guests of other flows than `own` that take `needed_s` seconds, or all, and what they take.

        Nobody where all of them take less than `at_least_s`: it would be in vain.
        """
        victims: list[Pending] = []
        freed_s = 0.0
        flows = [flow for flow in self._flows if flow not in own]
        if not flows or sum(self._work_s[p.request.id] for flow in flows for p in self._flows[flow]) < at_least_s:
            return victims, freed_s
        flows.sort(key=lambda flow: fairness.excess(flow, now))
        while flows and freed_s < needed_s:
            guests = self._flows[flows[-1]]
            victim = guests.pop()
            victims.append(victim)
            freed_s += self._work_s.pop(victim.request.id)
            if not guests:
                del self._flows[flows.pop()]
        return victims, freed_s


class Relief:
    """Knows which waiting requests are beyond their shares, and evicts them in time."""

    __slots__ = ("_fairness", "_looked_s", "_parts", "_until_s")

    def __init__(self, parts: Parts, fairness: Fairness) -> None:
        self._parts = parts
        self._fairness = fairness
        self._looked_s = self._until_s = -inf

    def mark(self, pending: Pending, flow: FlowKey, by_s: float) -> None:
        """A request is let in though it is beyond the share of its `flow`; it is due at `by_s`."""
        pending.beyond = flow
        self._until_s = max(self._until_s, by_s)

    def relieve(self, now: float) -> None:
        """Evict whoever is in the way of rows within their shares."""
        if now < self._until_s and now - self._looked_s >= EVERY_S:
            self._looked_s = now
            self.evict(self.victims(now), now)

    def victims(self, now: float, newcomer: Newcomer | None = None) -> list[Pending]:
        """Who is in the way, of one that comes or, without it, of those who wait."""
        if now >= self._until_s:
            return []
        parts, fairness, slots = self._parts, self._fairness, self._parts.slots.count
        lanes = (items for key, items in islice(parts.backlog.lanes(), MOST_LANES) if key.at < 0 and not key.background)
        ends = parts.slots.ends(now)
        guests, evicted, begun, work_s = _Guests(), dict[int, Pending](), set[str](), 0.0
        last = (inf,) if newcomer is None else (newcomer.request.urgency, newcomer.by_s, inf)
        for item in islice(heapq.merge(*lanes), MOST_ROWS):
            if item[:3] > last:
                break
            if item.request_id in evicted:
                continue
            pending = parts.ledger.pending[item.request_id]
            family = pending.request.family
            latency = parts.families[family].latency
            row_s = latency.full_row_s(item.lowest, item.size_class)
            if family not in begun:
                # What its rows take beside those of a full batch, they take once.
                begun.add(family)
                row_s *= latency.stretch
            work_s += row_s
            if pending.beyond is not None:
                # One of which rows run, or have answers, is let be.
                if len(pending.queued) == pending.unanswered == len(pending.request.row_classes):
                    guests.add(pending, row_s)
            elif newcomer is None and guests and item.deadline_s > now:
                left_s = _left_s(ends, slots, item.deadline_s, now)
                kept_s = (1.0 - FILLED) * slots * (item.deadline_s - now)
                if work_s + kept_s > left_s:
                    found, freed_s = guests.evict(
                        work_s + kept_s - left_s, work_s - left_s, fairness.flows_of(pending.request), fairness, now
                    )
                    evicted.update((victim.request.id, victim) for victim in found)
                    work_s -= freed_s
        if newcomer is not None:
            over_s = work_s + newcomer.work_s - _left_s(ends, slots, newcomer.by_s, now)
            return guests.evict(over_s, over_s, fairness.flows_of(newcomer.request), fairness, now)[0]
        return list(evicted.values())

    def evict(self, victims: Sequence[Pending], now: float) -> None:
        """Refuse these after all; who wants an answer though it is late waits behind all that can be in time."""
        for pending in victims:
            pending.beyond = None
            if pending.request.when_late is WhenLate.SERVE:
                for key, item in list(pending.queued.values()):
                    self._parts.waiting.postpone(pending, key, item)
            else:
                # Nobody was too late for it: policies learn from misses.
                pending.expected = False
                self._parts.ledger.abandon(pending, Outcome.REJECTED_INFEASIBLE, Reason.OVER_SHARE, now)


def _left_s(ends: tuple[tuple[float, float], ...], slots: float, by_s: float, now: float) -> float:
    """Seconds that all slots have left until `by_s` after what they run."""
    return slots * (by_s - now) - sum([speed * min(max(0.0, end_s - now), by_s - now) for end_s, speed in ends])
