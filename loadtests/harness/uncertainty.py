"""How sure shares, quantiles and their differences are, where requests of one moment share their fate.

A burst refuses many requests at once, so single requests are no independent witnesses: a run is cut into blocks of
time, and what blocks differ by says how sure the whole is. Shares: Wilson's interval for as many requests as the blocks
are worth (Kish's design effect). A row that is asked twice is answered alike twice, so of right answers the rows are
the witnesses. Differences: a bootstrap over blocks, and of right answers over rows, paired where both runs sent the
same load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.paired import student_t

RESAMPLES = 1000
_NORMAL = 1.96


class Interval(NamedTuple):
    """An estimate with its 95 % confidence interval."""

    value: float
    low: float
    high: float


def less_sure(one: Interval, other: Interval) -> Interval:
    """The same value, as sure as both intervals of it are."""
    return Interval(one.value, min(one.low, other.low), max(one.high, other.high))


def share_interval(hits: Sequence[float], counts: Sequence[float], most_worth: float = math.inf) -> Interval:
    """The share of hits among all requests; both by block. NaN, from 0 to 1, where there are no requests.

    All of them are worth `most_worth` independent requests at most.
    """
    hit, count = np.asarray(hits, np.float64), np.asarray(counts, np.float64)
    hit, count = hit[count > 0], count[count > 0]
    total = float(count.sum())
    if total == 0.0:
        return Interval(math.nan, 0.0, 1.0)
    share = float(hit.sum()) / total
    worth, score = min(total, most_worth), _NORMAL
    blocks = len(count)
    if blocks >= 2 and 0.0 < share < 1.0:
        rest = hit - share * count
        variance = blocks / (blocks - 1) * float((rest**2).sum()) / total**2
        worth = min(worth, total / max(1.0, variance / (share * (1.0 - share) / total)))
        score = student_t(blocks - 1)
    squared = score**2 / worth
    middle = (share + squared / 2.0) / (1.0 + squared)
    half = score * math.sqrt(share * (1.0 - share) / worth + squared / (4.0 * worth)) / (1.0 + squared)
    # At both ends the bound is exact; rounding would put it a little inside.
    low = 0.0 if share == 0.0 else max(0.0, middle - half)
    high = 1.0 if share == 1.0 else min(1.0, middle + half)
    return Interval(share, low, high)


def share_of_rows(good: NDArray[np.bool_], row: NDArray[np.int64]) -> Interval:
    """The share of requests [n] that are good, where `row` int64 [n] is the row that each asked of.

    As sure as that many distinct rows make it, which is all that is known of other rows.
    """
    _, place, counts = np.unique(row, return_inverse=True, return_counts=True)
    return share_interval(np.bincount(place, good, len(counts)).tolist(), counts.tolist(), len(counts))


Measure = Callable[[NDArray[np.int64]], float]
"""A measure of a run's blocks, or rows, given how often each of them counts (int64 [blocks])."""


def difference(first: Measure, second: Measure, blocks: tuple[int, int], *, paired: bool, seed: int = 0) -> Interval:
    """How much more the second run has of a measure than the first; not-a-number where either has none.

    With `paired` the runs have as many blocks, each of which saw the same arrivals; of rows, the same rows.
    """
    rng = np.random.default_rng(seed)
    value = second(np.ones(blocks[1], np.int64)) - first(np.ones(blocks[0], np.int64))
    drawn = []
    for _ in range(RESAMPLES):
        one = rng.multinomial(blocks[0], np.full(blocks[0], 1.0 / blocks[0]))
        other = one if paired else rng.multinomial(blocks[1], np.full(blocks[1], 1.0 / blocks[1]))
        drawn.append(second(other) - first(one))
    found = np.array(drawn)[np.isfinite(drawn)]
    if not math.isfinite(value) or min(blocks) < 2 or not len(found):
        return Interval(value, -math.inf if math.isfinite(value) else math.nan, math.inf)
    # A percentile interval of few blocks is too short: widened as Student's t is over the normal.
    wider = student_t(min(blocks) - 1) / _NORMAL
    low, high = np.percentile(found, [2.5, 97.5]).tolist()
    return Interval(value, value - wider * max(0.0, value - low), value + wider * max(0.0, high - value))
