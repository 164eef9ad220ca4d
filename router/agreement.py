"""Quality without labels: how often a variant gives the answer of the best one, and whether that is as it was expected.

Each comparison counts less the older it is. The interval around a share is Wilson's score interval (JASA, 1927), which
holds near 0 and 1 and for few comparisons; decayed sums are taken as counts, which makes it wider than it need be. A
variant drifts where that interval stays clear of what its evidence predicts, by a margin, for long enough: one look at
many variants, again and again, would find chance deviations otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from router.family import Evidence, Family, VariantProfile

Z = 2.576
"""Standard errors of a two-sided interval of 99 %."""


def wilson(hits: float, trials: float, z: float = Z) -> tuple[float, float]:
    """The score interval of a share of `hits` among `trials`; [0, 1] without trials."""
    if trials <= 0.0:
        return 0.0, 1.0
    share, spread = hits / trials, z * z / trials
    middle = share + spread / 2.0
    half = z * math.sqrt(max(0.0, share * (1.0 - share) / trials + spread / (4.0 * trials)))
    return max(0.0, (middle - half) / (1.0 + spread)), min(1.0, (middle + half) / (1.0 + spread))


class Reading(NamedTuple):
    """A share with its interval. `trials` is what comparisons count for, `expected` what was predicted, if anything.

    All but `trials` are fractions in [0, 1].
    """

    share: float
    low: float
    high: float
    trials: float
    expected: float | None = None
    drifts: bool = False


class Share:
    """Hits among trials, both fading with a time constant of `window_s`."""

    __slots__ = ("_hits", "_since_s", "_trials", "_window_s")

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._hits = self._trials = 0.0
        self._since_s = -math.inf

    def add(self, hits: int, trials: int, now: float) -> None:
        """Count trials, of which so many were hits."""
        hits_before, trials_before = self.at(now)
        self._hits, self._trials = hits_before + hits, trials_before + trials
        self._since_s = max(now, self._since_s)

    def at(self, now: float) -> tuple[float, float]:
        """Hits and trials as they count now."""
        if not self._trials:
            return 0.0, 0.0
        kept = math.exp(-max(0.0, now - self._since_s) / self._window_s)
        return self._hits * kept, self._trials * kept

    def reading(self, now: float) -> Reading:
        """The share as it stands, with its interval; 0 without trials."""
        hits, trials = self.at(now)
        return Reading(hits / trials if trials else 0.0, *wilson(hits, trials), trials)


class Expected(NamedTuple):
    """A predicted share, and the rows that it was measured on."""

    share: float
    rows: int


@dataclass(frozen=True, slots=True)
class Rules:
    """A share drifts whose interval is off by more than `margin` for `hold_s`. `window_s` is how fast it forgets."""

    window_s: float = 3600.0
    margin: float = 0.02
    hold_s: float = 300.0


class Agreement:
    """How often one variant agrees with `reference` (revision and variant), against what is expected."""

    __slots__ = ("_off_since_s", "_rules", "_share", "expected", "reference")

    def __init__(self, reference: tuple[str, str], expected: Expected | None, rules: Rules) -> None:
        self.reference = reference
        self.expected = expected
        self._rules = rules
        self._share = Share(rules.window_s)
        self._off_since_s = math.inf

    def observe(self, agreed: bool, now: float) -> None:
        """One answer was compared."""
        self._share.add(int(agreed), 1, now)
        if not self._is_off(*wilson(*self._share.at(now))):
            self._off_since_s = math.inf
        elif self._off_since_s == math.inf:
            self._off_since_s = now

    def reading(self, now: float) -> Reading:
        """The share as it stands."""
        found = self._share.reading(now)
        drifts = self._is_off(found.low, found.high) and now - self._off_since_s >= self._rules.hold_s
        return found._replace(expected=self.expected.share if self.expected else None, drifts=drifts)

    def _is_off(self, low: float, high: float) -> bool:
        if self.expected is None:
            return False
        least, most = wilson(self.expected.share * self.expected.rows, self.expected.rows)
        return low > most + self._rules.margin or high < least - self._rules.margin


def expected_agreement(family: Family, variant: str, reference: str) -> Expected | None:
    """How often two variants gave one answer on the family's evidence, `None` where that is not known."""
    evidence, one, other = family.evidence, family.index(variant), family.index(reference)
    if evidence is None or evidence.predicted is None or one is None or other is None:
        return None
    same = evidence.predicted[one] == evidence.predicted[other]
    return Expected(float(same.mean()), len(same)) if len(same) else None


def corrected(family: Family, lost: Mapping[str, float]) -> Family:
    """The family, as it was measured, as if each variant were right less often by the share that `lost` gives.

    Shares are in [0, 1]; variants that it does not have are ignored. Its evidence changes with it, because cascades are
    planned from that: of the rows that a variant had right, evenly spread over its confidences, so many count as wrong.
    """
    if not lost:
        return family
    variants = tuple(_less(variant, lost.get(variant.name, 0.0)) for variant in family.variants)
    evidence = family.evidence
    if evidence is None:
        return replace(family, variants=variants)
    correct = evidence.correct.copy()
    for index, variant in enumerate(family.variants):
        right = np.flatnonzero(correct[index])
        right = right[np.argsort(evidence.confidence[index][right], kind="stable")]
        wrong = min(len(right), round(lost.get(variant.name, 0.0) * correct.shape[1]))
        if wrong > 0:
            places = np.linspace(0, len(right) - 1, wrong).round().astype(np.int64)
            correct[index][right[places]] = False
    changed = Evidence(correct, evidence.confidence, evidence.predicted)
    return replace(family, variants=variants, evidence=changed)


def _less(variant: VariantProfile, lost: float) -> VariantProfile:
    lost = min(max(0.0, lost), variant.quality)
    return replace(variant, quality=variant.quality - lost, lost=lost) if lost else variant
