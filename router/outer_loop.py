"""The slow outer loop: what a Prometheus server knows of hours becomes advice for the router. Pure.

An SLO target (99 % in time) leaves an error budget (1 %); the **burn rate** is the share of requests not answered in
time over that budget. Source of the two windows: multi-window alerting (Google, The Site Reliability Workbook, 2018,
chapter 5): the long window says that it matters, the short one that it still goes on.

While both burn, a family's **caution** rises by a step with each reading, up to `Rule.most`; it multiplies the margin
with which batches are planned (`router.latency`), which keeps more time clear for what is not seen coming: stragglers,
neighbours. Once the short window is calm it falls by smaller steps to 1. Between the two it stays: that is the
hysteresis.

Two things bound it. Who is answered by the cheapest variant already has nothing left to be careful with: there the
caution falls, and overload is as without a loop. And caution is never below 1: a budget that is left over buys nothing,
because an answer that comes late counts for nothing, too (decision 0063 has the figures).

A host under pressure, from processes that are not the gateway's own, is a reason for a little caution before anything
is late. A family of which nothing is known is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from router.contract import Hints


class FamilyReading(NamedTuple):
    """What was read of one family, over all replicas; each a share in [0, 1], `None` where it is not known.

    `short` and `long` are the shares of requests that were not answered in time over the two windows. `downgraded` is
    how far answers were below the best variant, 0 where all were the best one's and 1 where all were the cheapest
    one's.
    """

    short: float | None = None
    long: float | None = None
    downgraded: float | None = None


class Readings(NamedTuple):
    """One reading: of each family, and how much the host is under pressure, a share in [0, 1]."""

    families: Mapping[str, FamilyReading]
    pressure: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """How advice follows readings. Rates are in error budgets, cautions factors from 1 to `most`.

    Caution rises by `up` while both windows burn at `burning` at least, and falls by `down` once the short one is at
    `calm` at most, and where answers are `spent` downgraded. The host counts as pressed from `pressed` on until
    `relieved`; the caution is `under_pressure` at least meanwhile.
    """

    most: float = 2.0
    up: float = 1.15
    down: float = 1.03
    burning: float = 1.0
    calm: float = 0.5
    spent: float = 0.9
    pressed: float = 0.5
    relieved: float = 0.3
    under_pressure: float = 1.15


def valid_share(value: float) -> bool:
    """Whether that can be a share: what is not is no reading, whoever says it."""
    return math.isfinite(value) and 0.0 <= value <= 1.0


@dataclass(slots=True)
class OuterLoop:
    """Readings in, advice out; `max_age_s` is how long one reading's advice holds. It has state, but no clock."""

    max_age_s: float
    rule: Rule = field(default_factory=Rule)
    pressed: bool = False
    """Whether the host is under pressure, as last read."""
    _caution: dict[str, float] = field(default_factory=dict)
    _read_s: float = -math.inf

    def read(self, readings: Readings, targets: Mapping[str, float], now: float) -> Hints:
        """Advice after a reading. `targets` has each served family's share of requests to be in time, below 1."""
        rule = self.rule
        if readings.pressure is not None:
            limit = rule.relieved if self.pressed else rule.pressed
            self.pressed = readings.pressure >= limit
        else:
            self.pressed = False
        least = rule.under_pressure if self.pressed else 1.0
        nothing = FamilyReading()
        if now - self._read_s > self.max_age_s:
            # What was advised is forgotten by now: it must not come back with the first reading.
            self._caution = {}
        self._read_s = now
        self._caution = {
            family: self._next(self._caution.get(family, 1.0), readings.families.get(family, nothing), 1.0 - target)
            for family, target in targets.items()
        }
        caution = {family: max(least, own) for family, own in self._caution.items()}
        return Hints(now, self.max_age_s, {family: own for family, own in caution.items() if own > 1.0})

    def _next(self, caution: float, reading: FamilyReading, budget: float) -> float:
        rule, (short, long, downgraded) = self.rule, reading
        if short is None or long is None:
            return max(1.0, caution / rule.down)
        if downgraded is not None and downgraded >= rule.spent:
            return max(1.0, caution / rule.down)
        if min(short, long) >= rule.burning * budget:
            return min(rule.most, caution * rule.up)
        return max(1.0, caution / rule.down) if short <= rule.calm * budget else caution
