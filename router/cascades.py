"""What another answer is worth: cascades of a family, computed from what its variants answered on held-out rows.

A row that variant v answered with some confidence may go on to a better variant. On a grid of prices of time (quality
per second) this module knows, for every variant and confidence bin,

- the gain of going on to each better variant, that variant's own chances to go on counted in (optimal stopping,
  backwards from the best variant), and from which confidence down it is worth its time;
- the operating points that result: expected seconds and quality of a row that starts at each variant.

Everything that depends on the labels alone (bins, gains, transitions) is computed once; a table of prices is computed
from planned seconds, and holds for all seconds in proportion to them.

Prices: quality per second. Confidence is cut into quantile bins; expected gains are made monotone in the confidence by
isotonic regression (pool adjacent violators, Ayer et al., 1955), because a sure answer that gains more than an unsure
one is noise of the sample.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.family import Evidence, Family

BINS = 20
PRICES = 33
WORTH_KEEPING = 0.002
"""Net gain in quality below which an answer is sent rather than kept."""

Floats = NDArray[np.float64]


def decreasing(values: Floats, weights: Floats) -> Floats:
    """The non-increasing sequence nearest to `values` [n] in weighted squares: isotonic regression."""
    blocks: list[list[float]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-1][0] > blocks[-2][0]:
            value2, weight2, count2 = blocks.pop()
            value1, weight1, count1 = blocks[-1]
            total = weight1 + weight2
            mean = (value1 * weight1 + value2 * weight2) / total if total else value1
            blocks[-1] = [mean, total, count1 + count2]
    return np.repeat([block[0] for block in blocks], [int(block[2]) for block in blocks])


def upper_hull(cost: Floats, value: Floats) -> tuple[Floats, Floats]:
    """The corners, from (0, 0) on and rising, of the upper concave hull of the points: arrays of one length."""
    order = np.lexsort((-value, cost))
    corners: list[tuple[float, float]] = [(0.0, 0.0)]
    for x, y in zip(cost[order].tolist(), value[order].tolist(), strict=True):
        if y <= corners[-1][1]:
            continue
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2], corners[-1]
            if (y1 - y0) * (x - x0) <= (y - y0) * (x1 - x0):
                corners.pop()
            else:
                break
        corners.append((max(x, corners[-1][0] + 1e-12), y))
    return np.array([c[0] for c in corners]), np.array([c[1] for c in corners])


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Everything that follows from a price of time for one family and size class.

    k variants of the ladder, p prices ascending, b bins. `first_s` [k] are planned seconds of one row that starts at a
    variant, in an economical batch, and `alone` [k] its quality if it never goes on. `go` [p, k, k] is the confidence
    below which a row at the first variant is worth going on to the second, 0 where none is; `keep` [p, k] below which
    some better variant is worth waiting for. `gain` [p, k, k, b]. Of a row that starts at a variant, `moves`
    [p, k, k, k] has how often it is expected to go on from each variant to each other, `quality` and `later_s` [p, k]
    the quality and the further seconds that come of it.
    """

    price: Floats
    first_s: Floats
    alone: Floats
    go: Floats
    keep: Floats
    gain: Floats
    moves: Floats
    later_s: Floats
    quality: Floats

    def index(self, price: float) -> int:
        """Index of the nearest price of the grid."""
        lowest, second = self.price[:2].tolist()
        if price <= lowest:
            return 0
        return min(len(self.price) - 1, round(math.log(price / lowest) / math.log(second / lowest)))

    def hull(self, lowest: int) -> tuple[Floats, Floats]:
        """Seconds and quality at the corners of what a row may be given that starts at rung `lowest` or above."""
        direct = np.zeros_like(self.first_s[lowest:])
        cost = (self.first_s[lowest:] + np.vstack([direct, self.later_s[:, lowest:]])).ravel()
        value = np.vstack([self.alone[lowest:], self.quality[:, lowest:]]).ravel()
        # Even a family that is always wrong has a segment.
        return upper_hull(cost, np.maximum(value, 1e-6))


class Cascades:
    """The part that depends on labels alone. Rungs number the variants of the family's ladder, cheapest first.

    A family without evidence, or one whose answers are not to be `follow`ed up, has operating points without cascades.
    """

    def __init__(self, family: Family, *, follow: bool = True) -> None:
        self.family = family
        self.ladder = family.ladder
        self.quality: Floats = np.array([family.variants[v].quality for v in family.ladder])
        """Of each rung, on the rows of the evidence where there are some: gains are differences on the same rows."""
        evidence = family.evidence
        rungs = len(family.ladder)
        if evidence is None or not follow:
            evidence = Evidence(
                np.zeros((len(family.variants), 0), np.bool_), np.zeros((len(family.variants), 0), np.float32)
            )
        self._correct = evidence.correct[list(family.ladder)].astype(np.float64)
        confidence = evidence.confidence[list(family.ladder)]
        self.rows = self._correct.shape[1]
        if self.rows:
            self.quality = self._correct.mean(axis=1)
        self.bins = max(1, min(BINS, self.rows // 25))
        inner = np.linspace(0.0, 1.0, self.bins + 1)[1:-1]
        self.edges = [np.quantile(row, inner) if self.rows else np.zeros(0) for row in confidence]
        """Ascending inner edges of each rung's bins: bin i holds confidences from edge i-1 up to edge i."""
        self._edges: list[list[float]] = [row.tolist() for row in self.edges]
        self._bin = np.stack([self.bins_of(rung, row) for rung, row in enumerate(confidence)])
        self._share = np.stack([np.bincount(row, minlength=self.bins) for row in self._bin]).astype(np.float64)
        self._transition: dict[tuple[int, int], Floats] = {}
        self._gain: dict[tuple[int, int], Floats] = {}
        for v1 in range(rungs if self.rows else 0):
            # Where many rows are equally sure, bins are empty: taken as the next surer one. The last never is.
            full = np.flatnonzero(self._share[v1])
            source = full[np.searchsorted(full, np.arange(self.bins))]
            for v2 in range(v1 + 1, rungs):
                pairs = np.bincount(self._bin[v1] * self.bins + self._bin[v2], minlength=self.bins**2)
                joint = pairs.reshape(self.bins, self.bins)
                rows = np.maximum(self._share[v1], 1.0)
                better = np.bincount(self._bin[v1], self._correct[v2] - self._correct[v1], minlength=self.bins)
                self._transition[v1, v2] = (joint / rows[:, None])[source]
                self._gain[v1, v2] = decreasing((better / rows)[source], self._share[v1])

    def bins_of(self, rung: int, confidences: Sequence[float] | NDArray[np.floating]) -> NDArray[np.intp]:
        """The bin of each of a rung's confidences: int [n] in 0 to `bins` - 1."""
        return self.edges[rung].searchsorted(confidences, side="right")

    def bin_of(self, rung: int, confidence: float) -> int:
        """The bin of one of a rung's confidences."""
        return bisect_right(self._edges[rung], confidence)

    def prices(self, first_s: Floats, step_s: Floats, known: Prices | None = None) -> Prices:
        """The table for planned seconds of a row: `first_s` [k] starting, `step_s` [k, k] going on, both at batches.

        To follow every held-out row takes milliseconds, which a server does not have while it serves. With a table that
        is `known` for somewhat other seconds, its rules are priced anew: what becomes of rows under them has not
        changed.
        """
        rungs = len(self.ladder)
        grid = self._grid(first_s, step_s) if known is None else known.price
        gain = np.zeros((PRICES, rungs, rungs, self.bins))
        net = np.full((PRICES, rungs, rungs, self.bins), -1.0)
        worth = np.zeros((PRICES, rungs, self.bins))
        if self.rows:
            for v1 in range(rungs - 2, -1, -1):
                for v2 in range(v1 + 1, rungs):
                    onward = worth[:, v2] @ self._transition[v1, v2].T
                    # Monotone already in the first part; the second is smoothed from the unsure end.
                    gain[:, v1, v2] = self._gain[v1, v2] + np.minimum.accumulate(onward, axis=1)
                    net[:, v1, v2] = gain[:, v1, v2] - grid[:, None] * step_s[v1, v2]
                worth[:, v1] = np.maximum(0.0, net[:, v1].max(axis=1))
        moves, quality = self._followed(net) if known is None else (known.moves, known.quality)
        later_s = (moves * step_s).sum(axis=(2, 3))
        go, keep = self._limits(net, 0.0), self._limits(net, WORTH_KEEPING).max(axis=2)
        return Prices(grid, first_s, self.quality, go, keep, gain, moves, later_s, quality)

    def _grid(self, first_s: Floats, step_s: Floats) -> Floats:
        highest = 1.0 / first_s[0]
        lowest = WORTH_KEEPING / max(float(step_s.max()), float(first_s[-1]))
        return np.geomspace(min(lowest, highest / 2.0), highest, PRICES)

    def _limits(self, net: Floats, above: float) -> Floats:
        """The confidence below which each step's net gain is more than `above`, [p, k, k]."""
        bins = (net > above).sum(axis=3)
        limits = np.zeros(bins.shape)
        for v1 in range(len(self.ladder)):
            upper = np.concatenate(([0.0], self.edges[v1], [np.inf]))
            limits[:, v1] = upper[bins[:, v1]]
        return limits

    def _followed(self, net: Floats) -> tuple[Floats, Floats]:
        """How often rows go on, and quality, under every price's rule on the held-out rows: [p, k, k, k] and [p, k]."""
        rungs = len(self.ladder)
        moves = np.zeros((PRICES, rungs, rungs, rungs))
        quality = np.tile(self.quality, (PRICES, 1))
        if not self.rows:
            return moves, quality
        best = np.where(net.max(axis=2) > 0.0, net.argmax(axis=2), -1)
        to = [best[:, v1][:, self._bin[v1]] for v1 in range(rungs)]
        goes = {(v1, v2): to[v1] == v2 for v1 in range(rungs) for v2 in range(v1 + 1, rungs)}
        for start in range(rungs):
            at = np.zeros((rungs, PRICES, self.rows), dtype=np.bool_)
            at[start] = True
            for v1 in range(start, rungs):
                for v2 in range(v1 + 1, rungs):
                    there = at[v1] & goes[v1, v2]
                    at[v2] |= there
                    moves[:, start, v1, v2] = np.count_nonzero(there, axis=1) / self.rows
                    quality[:, start] += there @ (self._correct[v2] - self._correct[v1]) / self.rows
        return moves, quality
