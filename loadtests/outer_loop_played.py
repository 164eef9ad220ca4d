"""A Prometheus for the simulator: scrapes the counters of a simulated gateway, and answers as late as a real one.

It keeps one row of counters for each scrape and takes shares over the windows from them, so what the rule is given is
as old and as coarse as live. It can also be away, or lie.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from router.contract import Hints, Poll, Record
from router.outer_loop import FamilyReading, OuterLoop, Readings, Rule
from router.request import NEVER
from router.scheduler import Scheduler
from router.words import Outcome


class Truth(StrEnum):
    """What the played server says."""

    TRUE = "true"
    STOPS = "stops"
    """True for the first half, then it cannot be reached any more."""
    ZERO = "says 0"
    """Nothing is ever late."""
    ONE = "says 1"
    """Everything is late."""
    NAN = "says NaN"
    """What the gateway rejects: nothing is known of the family."""


class Counters(NamedTuple):
    """A scrape: when, requests with an SLO, those met, answers, and the sum of their variants' qualities."""

    at_s: float
    judged: int = 0
    met: int = 0
    answers: int = 0
    quality: float = 0.0


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often it scrapes and is asked, over which windows, and how long advice holds; all seconds."""

    scrape_s: float
    every_s: float
    short_s: float
    long_s: float
    max_age_s: float


class PlayedPrometheus:
    """Scrapes one family. `qualities` are the cheapest and the best variant's."""

    def __init__(self, cadence: Cadence, qualities: tuple[float, float], truth: Truth, half_s: float) -> None:
        self._cadence = cadence
        self._worst, self._best = qualities
        self._truth = truth
        self._half_s = half_s
        self._now = Counters(0.0)
        self._scrapes = [self._now]

    def observe(self, records: Sequence[Record]) -> None:
        """Count what the gateway's metrics would."""
        _, judged, met, answers, quality = self._now
        for record in records:
            judged += record.slo_s != NEVER and record.outcome is not Outcome.CANCELLED
            met += record.slo_met
            answers += bool(record.variant)
            quality += record.quality
        self._now = Counters(0.0, judged, met, answers, quality)

    def scrape(self, now: float) -> None:
        """Scrape, if it is time to."""
        if now >= self._scrapes[-1].at_s + self._cadence.scrape_s:
            self._scrapes.append(self._now._replace(at_s=now))

    def reading(self, now: float) -> FamilyReading | None:
        """What it answers, `None` where it cannot be reached."""
        if self._truth is Truth.STOPS and now > self._half_s:
            return None
        if self._truth is Truth.NAN:
            return FamilyReading()
        short, long = self._missed(self._cadence.short_s, now), self._missed(self._cadence.long_s, now)
        first, last = self._window(self._cadence.short_s, now)
        answers = last.answers - first.answers
        downgraded = None
        if answers and self._best > self._worst:
            served = (last.quality - first.quality) / answers
            downgraded = min(1.0, max(0.0, (self._best - served) / (self._best - self._worst)))
        lies = {Truth.ZERO: 0.0, Truth.ONE: 1.0}
        if self._truth in lies:
            short = long = lies[self._truth]
        return FamilyReading(short, long, downgraded)

    def _window(self, window_s: float, now: float) -> tuple[Counters, Counters]:
        at = bisect_left(self._scrapes, now - window_s, key=lambda scrape: scrape.at_s)
        return self._scrapes[min(at, len(self._scrapes) - 1)], self._scrapes[-1]

    def _missed(self, window_s: float, now: float) -> float | None:
        first, last = self._window(window_s, now)
        judged = last.judged - first.judged
        return 1.0 - (last.met - first.met) / judged if judged else None


class AdvisedScheduler(Scheduler):
    """A scheduler whose outer loop reads a played Prometheus; `cautions` has the caution after each reading.

    With `constant`, it is advised that caution and nothing is read. The other arguments are `Scheduler`'s.
    """

    def __init__(
        self,
        *arguments: Any,
        prometheus: PlayedPrometheus | None,
        cadence: Cadence,
        target: float,
        constant: float | None = None,
        rule: Rule | None = None,
    ) -> None:
        super().__init__(*arguments)
        self._prometheus = prometheus
        self._cadence = cadence
        self._targets: Mapping[str, float] = dict.fromkeys(self.families, target)
        self._loop = OuterLoop(cadence.max_age_s, rule or Rule())
        self._read_s = 0.0
        self.cautions: list[float] = []
        if constant is not None:
            self.set_hints(Hints(0.0, NEVER, dict.fromkeys(self.families, constant)))

    def poll(self, now: float) -> Poll:
        """See `Scheduler.poll`; reads before, where it is time to."""
        if self._prometheus is not None:
            self._prometheus.scrape(now)
            if now >= self._read_s + self._cadence.every_s:
                self._read_s = now
                self._read(self._prometheus, now)
        turn = super().poll(now)
        if self._prometheus is not None:
            self._prometheus.observe(turn.records)
        return turn

    def _read(self, prometheus: PlayedPrometheus, now: float) -> None:
        reading = prometheus.reading(now)
        if reading is None:
            return
        hints = self._loop.read(Readings(dict.fromkeys(self._targets, reading)), self._targets, now)
        self.set_hints(hints)
        self.cautions += [hints.caution.get(family, 1.0) for family in self._targets]
