"""Looking for the highest rate at which enough requests are answered in time. Pure: rates out, trials in.

Doubling until it is too much, then halving the gap (on a logarithmic scale). A rate that misses the target, or is too
close to call, is tried again, up to so many times, and the trials of a rate count together. Higher rates are taken to
be harder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from loadtests.harness.uncertainty import Interval, share_interval

MOST_TRIALS = 60
_SCORE = 1.96


class Trial(NamedTuple):
    """One run at a rate: requests and those in time by block of time; `fault` says what disqualifies it."""

    rate: float
    in_time: Sequence[int]
    requests: Sequence[int]
    fault: str = ""


class Standing(StrEnum):
    """What is known of a rate."""

    UNTRIED = "untried"
    MEETS = "meets"
    MISSES = "misses"
    OPEN = "open"
    """So far too close to call."""
    OUT_OF_REACH = "out of reach"
    """The generator cannot send so much."""


class Found(NamedTuple):
    """Where a search has ended. `rate` is the highest at which enough were in time, None where there is none.

    At `sure_low` that is so with 95 % confidence, at `sure_high` it is not (None where neither is known). `limit` says
    what ended it: `gateway`, `generator` or `range` (of the rates that may be tried).
    """

    rate: float | None
    attainment: Interval | None
    sure_low: float | None
    sure_high: float | None
    limit: str


@dataclass
class RateSearch:
    """`first` is where to begin, `precision` how close is close enough (0.05 is 5 %), `repeats` the most at a rate."""

    target: float
    first: float
    least: float
    most: float
    precision: float = 0.05
    repeats: int = 3
    trials: list[Trial] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        """Take in what came of the rate that was asked for."""
        self.trials.append(trial)

    def next_rate(self) -> float | None:
        """What to try next; None where it has ended."""
        if len(self.trials) >= MOST_TRIALS:
            return None
        if not self.trials:
            return min(max(self.first, self.least), self.most)
        last = self.trials[-1].rate
        if self.standing(last) is Standing.OPEN:
            return last
        low, high = self._bracket()
        if high is None:
            return None if low == self.most else min(2.0 * (low or self.least), self.most)
        if low is None:
            return None if high <= self.least else max(high / 2.0, self.least)
        if high <= low * (1.0 + self.precision):
            # The answer stands on as many trials as what is close to it.
            return low if len(self._valid(low)) < self.repeats else None
        return math.sqrt(low * high)

    def found(self) -> Found:
        """What is known by now."""
        low, high = self._bracket()
        rates = sorted({trial.rate for trial in self.trials})
        sure = {rate for rate in rates if self._sure(rate) is self.standing(rate)}
        meets = [rate for rate in rates if rate in sure and self.standing(rate) is Standing.MEETS]
        misses = [rate for rate in rates if rate in sure and self.standing(rate) is Standing.MISSES]
        sure_low = max((rate for rate in meets if rate <= (low or 0.0)), default=None)
        sure_high = min((rate for rate in misses if rate > (low or 0.0)), default=None)
        if high is None:
            limit = "range"
        elif self.standing(high) is Standing.OUT_OF_REACH:
            limit = "generator"
        else:
            limit = "gateway"
        return Found(low, self.interval(low) if low else None, sure_low, sure_high, limit)

    def standing(self, rate: float) -> Standing:
        """What is known of a rate, by all its trials that count."""
        tried = [trial for trial in self.trials if trial.rate == rate]
        if not tried:
            return Standing.UNTRIED
        counting = self._valid(rate)
        if not counting:
            return Standing.OUT_OF_REACH if len(tried) >= self.repeats else Standing.OPEN
        sure = self._sure(rate)
        if sure is Standing.MISSES and len(counting) < min(2, self.repeats):
            # What one run's blocks say of it does not say how runs differ: a neighbour may have disturbed this one.
            return Standing.OPEN
        if sure is not Standing.OPEN or len(tried) < self.repeats:
            return sure
        return Standing.MEETS if self.interval(rate).value >= self.target else Standing.MISSES

    def interval(self, rate: float) -> Interval:
        """The share in time at a rate, over all its trials that count."""
        counting = self._valid(rate)
        hits = [hit for trial in counting for hit in trial.in_time]
        return share_interval(hits, [count for trial in counting for count in trial.requests])

    def _valid(self, rate: float) -> list[Trial]:
        return [trial for trial in self.trials if trial.rate == rate and not trial.fault]

    def _sure(self, rate: float) -> Standing:
        if not self._valid(rate):
            return Standing.OPEN
        interval = self.interval(rate)
        if interval.low >= self.target:
            return Standing.MEETS
        return Standing.MISSES if interval.high < self.target else Standing.OPEN

    def _bracket(self) -> tuple[float | None, float | None]:
        """The highest rate that meets the target below the lowest that does not, and that one."""
        rates = sorted({trial.rate for trial in self.trials})
        too_much = (Standing.MISSES, Standing.OUT_OF_REACH)
        high = next((rate for rate in rates if self.standing(rate) in too_much), None)
        meets = [rate for rate in rates if self.standing(rate) is Standing.MEETS and (high is None or rate < high)]
        return max(meets, default=None), high


def requests_to_tell(target: float) -> int:
    """So many requests, all in time, and half as many again, to be sure that a share of `target` is reached."""
    return math.ceil(1.5 * _SCORE**2 * target / (1.0 - target)) if target < 1.0 else 1000
