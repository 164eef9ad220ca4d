"""How likely an answer is right, from held-out rows, for traffic that nobody labels."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from router.contract import Record
from router.family import Family

BINS = 20
LEAST_ROWS = 25
"""A bin of fewer rows says little; small evidence has fewer bins."""


class Expectation:
    """The expected accuracy of what one family answers.

    Rows that go on to a better variant are the hard ones, and those that do not are the easy ones, so the variants'
    mean qualities would be off on both sides. With evidence the held-out rows are cut into quantile bins of the first
    variant's confidence, and an answer is expected to be right as often as the variant that gave it was in that bin.
    """

    def __init__(self, family: Family) -> None:
        self._first: dict[str, tuple[list[float], dict[str, list[float]]]] = {}
        evidence = family.evidence
        rows = 0 if evidence is None else evidence.correct.shape[1]
        if evidence is None or not rows:
            return
        bins = max(1, min(BINS, rows // LEAST_ROWS))
        inner = np.linspace(0.0, 1.0, bins + 1)[1:-1]
        names = [variant.name for variant in family.variants]
        for index, name in enumerate(names):
            edges = np.quantile(evidence.confidence[index], inner)
            of_bin = edges.searchsorted(evidence.confidence[index], side="right")
            counts = np.bincount(of_bin, minlength=bins)
            # Where many rows are equally sure, bins are empty: taken as the next surer one, or the surest there is.
            full = np.flatnonzero(counts)
            source = full[np.minimum(np.searchsorted(full, np.arange(bins)), len(full) - 1)]
            shares: dict[str, list[float]] = {}
            for place, last in enumerate(names):
                right = np.bincount(of_bin, evidence.correct[place].astype(np.float64), bins)
                shares[last] = (right / np.maximum(counts, 1))[source].tolist()
            self._first[name] = edges.tolist(), shares

    def of(self, record: Record) -> float:
        """How likely the answer is right, in [0, 1]; the variants' mean quality where confidences say nothing."""
        if record.rows != 1 or record.confidence <= 0.0 or not record.path:
            return record.quality
        known = self._first.get(record.path[0])
        if known is None:
            return record.quality
        edges, shares = known
        share = shares.get(record.path[-1])
        return record.quality if share is None else share[bisect_right(edges, record.confidence)]
