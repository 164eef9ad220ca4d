"""Paired differences with 95 % confidence intervals: what two policies made of the same arrivals, seed by seed.

The suite is a fixed set of traces, each run with several seeds. Differences on one trace vary from seed to seed alone,
so the mean over traces is a stratified estimate: its variance is the sum of the strata's, its degrees of freedom are
Satterthwaite's (1946). Where no trace has two seeds, the traces themselves are taken for a sample.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t at 97.5 % for 1 to 30 degrees of freedom."""


class Difference(NamedTuple):
    """A mean difference, its 95 % confidence interval (infinite where there is one pair), and the pairs behind it."""

    mean: float
    low: float
    high: float
    pairs: int


def student_t(freedom: float) -> float:
    """Student's t at 97.5 % for at least one degree of freedom; between those of the table, the larger value."""
    whole = max(1, math.floor(freedom))
    # From 31 on, the first term of the expansion in 1/freedom is right to three digits.
    return _T[whole - 1] if whole <= len(_T) else 1.960 + 2.4 / whole


def mean_difference(strata: Sequence[Sequence[float]]) -> Difference:
    """The mean over strata (traces) of their mean differences (over seeds). Raises `ValueError` where one is empty."""
    if not strata or not all(strata):
        raise ValueError("expected at least one difference of every trace")
    pairs = sum(len(stratum) for stratum in strata)
    means = [statistics.fmean(stratum) for stratum in strata]
    mean = statistics.fmean(means)
    if min(len(stratum) for stratum in strata) >= 2:
        parts = [statistics.variance(stratum) / len(stratum) / len(strata) ** 2 for stratum in strata]
        freedoms = [len(stratum) - 1 for stratum in strata]
    elif len(means) >= 2:
        parts, freedoms = [statistics.variance(means) / len(means)], [len(means) - 1]
    else:
        return Difference(mean, -math.inf, math.inf, pairs)
    variance = sum(parts)
    if variance == 0.0:
        return Difference(mean, mean, mean, pairs)
    freedom = variance**2 / sum(part**2 / own for part, own in zip(parts, freedoms, strict=True) if part > 0.0)
    half = student_t(freedom) * math.sqrt(variance)
    return Difference(mean, mean - half, mean + half, pairs)
