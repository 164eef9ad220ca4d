"""What is counted of one family: the second that runs, the last ten in full, two minutes in short."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from router.contract import Record
from router.request import NEVER
from router.words import Escalation, Outcome, Reason
from service.page.expectation import Expectation

HISTORY_S = 120
"""Seconds kept in short: the page's time series."""
WINDOW_S = 10
"""Seconds kept in full: what the page calls now."""
DECISIONS = 50
"""Requests kept whole, the last ones."""
EDGES_S = tuple(1e-4 * 1.15**step for step in range(84))
"""Upper edges of the latency histogram, 0.1 ms to 11 s: percentiles are off by a seventh at the most."""

Ended = tuple[tuple[str, ...], str, Outcome, Reason, Escalation]
"""Path, variant, outcome, reason, escalation: how a request ended. Closed sets all, so few differ."""


class Second(NamedTuple):
    """One second in short. `at` numbers it on the monotonic clock; `answers` counts by variant.

    `requests` ended in it, `judged` of them had an SLO, `met` of those met it. `expected` is the expected number of
    correct answers in time, `refused` of the requests had no answer; those whose callers hung up are not counted.
    """

    at: int
    requests: int
    judged: int
    met: int
    refused: int
    expected: float
    answers: dict[str, int]


class Decision(NamedTuple):
    """One request that ended, and its number among all that did."""

    number: int
    record: Record


class Tally:
    """One second in full."""

    __slots__ = ("at", "ended", "expected", "judged", "latencies", "met", "refused", "requests")

    def __init__(self, at: int) -> None:
        self.at = at
        self.requests = self.judged = self.met = self.refused = 0
        self.expected = 0.0
        self.ended: dict[Ended, int] = {}
        self.latencies = [0] * (len(EDGES_S) + 1)

    def add(self, record: Record, expectation: Expectation) -> None:
        """Count one request that ended."""
        key = (record.path, record.variant, record.outcome, record.reason, record.escalation)
        self.ended[key] = self.ended.get(key, 0) + 1
        if record.outcome is Outcome.CANCELLED:
            return
        self.requests += 1
        if record.slo_s != NEVER:
            self.judged += 1
            self.met += record.slo_met
        if not record.variant:
            self.refused += 1
            return
        self.latencies[bisect_left(EDGES_S, record.finished_s - record.arrival_s)] += 1
        if record.slo_met:
            self.expected += expectation.of(record)

    def short(self) -> Second:
        """What is kept of it for long."""
        answers: dict[str, int] = {}
        for (_, variant, *_), count in self.ended.items():
            if variant:
                answers[variant] = answers.get(variant, 0) + count
        return Second(self.at, self.requests, self.judged, self.met, self.refused, self.expected, answers)


class History:
    """Everything kept of one family, bounded: see the constants above.

    `expectation` is that of the revision that is served; set it anew where another one is.
    """

    def __init__(self, expectation: Expectation, revision: str = "") -> None:
        self.expectation = expectation
        self.revision = revision
        self._running = Tally(0)
        self.seconds: deque[Second] = deque(maxlen=HISTORY_S)
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS)
        self._full: deque[Tally] = deque(maxlen=WINDOW_S)
        self.total = 0
        """Requests that ended since the start."""

    def add(self, record: Record, at: int) -> None:
        """Count a request that ended in that second."""
        if at != self._running.at:
            self.roll(at)
        self._running.add(record, self.expectation)
        self.total += 1
        self.decisions.append(Decision(self.total, record))

    def roll(self, at: int) -> None:
        """Let that second begin; of the one before, what happened is kept."""
        if at == self._running.at:
            return
        if self._running.ended:
            self.seconds.append(self._running.short())
            self._full.append(self._running)
        self._running = Tally(at)

    def window(self, at: int) -> list[Tally]:
        """The last `WINDOW_S` whole seconds before that one, those without requests left out."""
        return [tally for tally in self._full if tally.at >= at - WINDOW_S]

    def recent(self, at: int) -> list[Second]:
        """As `window`, in short: quick enough to be asked of every family."""
        found: list[Second] = []
        for second in reversed(self.seconds):
            if second.at < at - WINDOW_S:
                break
            found.append(second)
        return found


def quantile_s(tallies: Iterable[Tally], share: float) -> float:
    """The latency in seconds that this share of the answers did not exceed; not-a-number without answers."""
    counts = [sum(column) for column in zip(*(tally.latencies for tally in tallies), strict=True)]
    wanted, passed = share * sum(counts), 0
    if not wanted:
        return math.nan
    for edge_s, count in zip((*EDGES_S, EDGES_S[-1]), counts, strict=True):
        passed += count
        if passed >= wanted:
            return edge_s
    return EDGES_S[-1]
