"""What cascades add to the variants alone: the router's own rules, followed on rows that they were not made from.

`router.cascades` makes its rules from what the variants answered on the validation part. Here they are followed on the
kept samples of the test part, row by row, and each operating point is compared with the single variants on those rows.
Which points are shown is decided on the validation part too, so nothing was picked by what it scored.

Costs are those of one row that is answered alone. A single variant takes its graph in one piece. In a cascade a variant
of a chain takes its stages, which is a little slower, and a row that goes on costs both answers, or only the remaining
stages where the better variant is a later exit of the same chain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.cascades import Cascades, Prices
from router.family import Family
from router.latency import LatencyModel
from variants.evidence import read_evidence
from variants.frontier import steps
from variants.paired import Comparison, compare
from variants.profiles import FamilyProfile, to_router_family
from variants.revision import RepositoryError, RevisionFolder

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A way to answer: start at a variant and, with cascades, go on where that is worth more than its time.

    `latency_s` and `quality` are means over the held-out rows, `escalated` the share of them that went on; `learnt_s`
    and `learnt_quality` what the rows that the rule was made from promised. `scores` [m] are those of the rows.
    """

    start: str
    latency_s: float
    quality: float
    escalated: float
    learnt_s: float
    learnt_quality: float
    scores: Floats

    @property
    def standard_error(self) -> float:
        """The binomial one."""
        return math.sqrt(self.quality * (1.0 - self.quality) / len(self.scores))


@dataclass(frozen=True, slots=True)
class Gain:
    """What a cascade does better than one variant: at no more time, and at no less quality. None where none does."""

    single: OperatingPoint
    as_quick: OperatingPoint | None
    as_good: OperatingPoint | None

    def quality_gained(self) -> Comparison | None:
        """Compare the cascade that takes no longer with the variant, row by row."""
        return compare(self.as_quick.scores, self.single.scores) if self.as_quick else None

    def quality_kept(self) -> Comparison | None:
        """Compare the cascade that is as good, as far as was learnt, with the variant, row by row."""
        return compare(self.as_good.scores, self.single.scores) if self.as_good else None


@dataclass(frozen=True, slots=True)
class CascadeCurve:
    """The variants of the ladder and the cascades between them, quickest first, on the same `rows` held-out rows.

    `learnt_rows` is how many rows the rules were made from.
    """

    singles: tuple[OperatingPoint, ...]
    cascades: tuple[OperatingPoint, ...]
    gains: tuple[Gain, ...]
    rows: int
    learnt_rows: int


def cascade_curve(folder: RevisionFolder, profile: FamilyProfile, names: Sequence[str]) -> CascadeCurve | None:
    """Return what cascades between the named variants give; None where no two of them make one, or nothing is known."""
    family = to_router_family(folder.manifest, profile, names, staged=True, evidence=lambda n: read_evidence(folder, n))
    if len(family.ladder) < 2 or family.evidence is None or not family.evidence.correct.shape[1]:
        return None
    try:
        correct, confidence = _held_out(folder, [family.variants[index].name for index in family.ladder])
    except RepositoryError:
        return None
    if not correct.shape[1]:
        return None
    first_s, step_s = seconds_of_a_row(family, len(family.sizes) // 2)
    rules = Cascades(family)
    prices = rules.prices(first_s, step_s)
    names = [family.variants[index].name for index in family.ladder]
    whole_s = [profile.variants[name].median_s[len(family.sizes) // 2][0] for name in names]
    singles = [
        OperatingPoint(name, cost, float(hits.mean()), 0.0, cost, float(learnt), hits)
        for name, cost, hits, learnt in zip(names, whole_s, correct, prices.alone, strict=True)
    ]
    points = [
        _followed(rules, prices, step_s, correct, confidence, start=start, at=at, name=name)
        for start, name in enumerate(names)
        for at in range(len(prices.price))
    ]
    cascades = _worth_showing([*singles, *points])
    gains = tuple(_gain(single, cascades) for single in singles)
    return CascadeCurve(tuple(singles), tuple(cascades), gains, correct.shape[1], rules.rows)


def seconds_of_a_row(family: Family, size_class: int) -> tuple[Floats, Floats]:
    """Return the median seconds of one row alone: to start at each rung [k], to go on between two [k, k]."""
    latency, ladder = LatencyModel(family), family.ladder
    first_s = np.maximum.accumulate([latency.median_s(variant, 1, size_class) for variant in ladder])
    step_s = np.zeros((len(ladder), len(ladder)))
    for at, variant in enumerate(ladder):
        for to in range(at + 1, len(ladder)):
            step_s[at, to] = latency.median_s(ladder[to], 1, size_class, family.start(variant, ladder[to]))
    return first_s, step_s


def _held_out(folder: RevisionFolder, names: Sequence[str]) -> tuple[Floats, Floats]:
    """Return scores and confidences [k, m] of the kept samples. Raises `RepositoryError`."""
    label = folder.samples()["label"]
    answers = [folder.calibration(name) for name in names]
    if any(len(answer.sample_predicted) != len(label) for answer in answers):
        raise RepositoryError(f"{folder.path}: the samples are not those that the variants answered")
    correct = np.stack([answer.sample_predicted == label for answer in answers]).astype(np.float64)
    return correct, np.stack([answer.sample_confidence for answer in answers]).astype(np.float64)


def _followed(
    rules: Cascades,
    prices: Prices,
    step_s: Floats,
    correct: Floats,
    confidence: Floats,
    *,
    start: int,
    at: int,
    name: str,
) -> OperatingPoint:
    """Follow every row from a rung on, under the rule of one price."""
    rungs, rows = correct.shape
    net = prices.gain[at] - prices.price[at] * step_s[:, :, None]
    place = np.full(rows, start)
    spent_s = np.full(rows, prices.first_s[start])
    for rung in range(start, rungs - 1):
        here = np.flatnonzero(place == rung)
        bins = np.searchsorted(rules.edges[rung], confidence[rung, here], side="right")
        better = net[rung, rung + 1 :, bins]
        goes = here[better.max(axis=1) > 0.0]
        to = rung + 1 + better.argmax(axis=1)[better.max(axis=1) > 0.0]
        spent_s[goes] += step_s[rung, to]
        place[goes] = to
    scores = correct[place, np.arange(rows)]
    return OperatingPoint(
        start=name,
        latency_s=float(spent_s.mean()),
        quality=float(scores.mean()),
        escalated=float((place != start).mean()),
        learnt_s=float(prices.first_s[start] + prices.later_s[at, start]),
        learnt_quality=float(prices.quality[at, start]),
        scores=scores,
    )


def _worth_showing(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """Return the cascades among the points that none beats on the rows that the rules were made from."""
    named = {(point.learnt_s, point.learnt_quality): point for point in reversed(points)}
    corners = [named[corner] for corner in steps(named)]
    return sorted((point for point in corners if point.escalated > 0.0), key=lambda point: point.latency_s)


def _gain(single: OperatingPoint, cascades: Sequence[OperatingPoint]) -> Gain:
    as_quick = [point for point in cascades if point.learnt_s <= single.learnt_s]
    as_good = [point for point in cascades if point.learnt_quality >= single.learnt_quality]
    best = max(as_quick, key=lambda point: point.learnt_quality, default=None)
    quickest = min(as_good, key=lambda point: point.learnt_s, default=None)
    return Gain(
        single,
        best if best is not None and best.learnt_quality > single.learnt_quality else None,
        quickest if quickest is not None and quickest.learnt_s < single.learnt_s else None,
    )
