"""Histograms of seconds with three digits at every size, small enough to be kept and exact enough to be merged.

Buckets are those of an HdrHistogram of three significant digits in units of a microsecond: below 2048 us one
for each, above that each doubling has 1024 buckets, so a value is known to within 0.1 %. Locust keeps two digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

UNIT_S = 1e-6
_HALF = 1024
"""Buckets of each doubling; the first doubling has twice as many."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bucket: `bucket` int64 [k] ascending, `count` int64 [k] positive."""

    bucket: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, values_s: NDArray[np.float64]) -> Self:
        """Count seconds; negative ones count as zero. All must be finite."""
        bucket, count = np.unique(_bucket(values_s), return_counts=True)
        return cls(bucket.astype(np.int64), count.astype(np.int64))

    @classmethod
    def merged(cls, parts: Iterable[Histogram]) -> Self:
        """The histogram of everything that the parts counted."""
        parts = list(parts)
        every = np.concatenate([part.bucket for part in parts]) if parts else np.zeros(0, np.int64)
        bucket, place = np.unique(every, return_inverse=True)
        count = np.zeros(len(bucket), np.int64)
        if parts:
            np.add.at(count, place, np.concatenate([part.count for part in parts]))
        return cls(bucket, count)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.count.sum())

    def quantile_s(self, share: float) -> float:
        """The smallest value, within 0.1 %, that at least that share of the values do not exceed; NaN for none."""
        if not len(self.count):
            return math.nan
        rank = max(1, math.ceil(share * self.total - 1e-9))
        place = int(np.searchsorted(np.cumsum(self.count), rank))
        return float(middle_s(self.bucket[place : place + 1])[0])

    def values(self) -> dict[str, Any]:
        """For JSON: buckets as differences to the one before, which are short, and counts."""
        return {"bucket": np.diff(self.bucket, prepend=0).tolist(), "count": self.count.tolist()}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """What `values` made. Raises `KeyError`, `TypeError` and `ValueError`."""
        bucket = np.cumsum(np.array(values["bucket"], dtype=np.int64))
        count = np.array(values["count"], dtype=np.int64)
        if bucket.shape != count.shape or bucket.ndim != 1 or (count <= 0).any() or (np.diff(bucket) <= 0).any():
            raise ValueError("is no histogram")
        return cls(bucket, count)


def quantile_of(blocks: Sequence[Histogram], share: float) -> Callable[[NDArray[np.int64]], float]:
    """A quantile of blocks that may count several times, int64 [blocks] of them; NaN where nothing is counted."""
    bucket = Histogram.merged(blocks).bucket
    table = np.zeros((len(blocks), len(bucket)), np.int64)
    for row, block in zip(table, blocks, strict=True):
        row[np.searchsorted(bucket, block.bucket)] = block.count

    def quantile_s(times: NDArray[np.int64]) -> float:
        count: NDArray[np.int64] = times @ table
        return Histogram(bucket[count > 0], count[count > 0]).quantile_s(share)

    return quantile_s


def middle_s(bucket: NDArray[np.int64]) -> NDArray[np.float64]:
    """The middle of each bucket in seconds."""
    doubling = np.maximum(bucket // _HALF - 1, 0)
    low = (bucket - doubling * _HALF) << doubling
    middle: NDArray[np.float64] = (low + ((1 << doubling) - 1) / 2.0) * UNIT_S
    return middle


def _bucket(values_s: NDArray[np.float64]) -> NDArray[np.int64]:
    units = np.maximum(np.rint(np.asarray(values_s) / UNIT_S), 0.0).astype(np.int64)
    # The doubling is how far the number must be shifted to have eleven binary digits.
    doubling = np.maximum(np.frexp(units.astype(np.float64))[1] - 11, 0)
    bucket: NDArray[np.int64] = (units >> doubling) + doubling * _HALF
    return bucket
