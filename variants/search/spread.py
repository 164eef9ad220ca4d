"""How far hypervolumes may be trusted: test rows are drawn anew (the bootstrap), latencies taken as measured anew.

Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics, 1979. Rows are drawn for all networks
alike, so what they have in common falls out of the difference. What another seed of training would have given is not
in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from variants.frontier import dominated_area

DRAWS = 1000
MIDDLE = (0.025, 0.975)
"""The part of the draws that an interval keeps: 95 %."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The median of the draws, and where the middle 95 % of them begin and end."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Spread:
    """Hypervolumes in fraction x microseconds of the ladder and of ladder and found together; `gain` in percent."""

    ladder: Interval
    both: Interval
    gain: Interval


def spread(
    right: Mapping[str, NDArray[np.bool_]],
    passes: Sequence[Mapping[str, float]],
    ladder: AbstractSet[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Spread:
    """Return the spread over draws of rows and of measured passes.

    `right` has for each network which test rows it answers rightly, bool [n]; `passes` its latency in seconds, each
    time it was measured; `ladder` the names of the hand-made ones. The box of each draw is that of `Comparison`.
    """
    names = list(right)
    table = np.stack([right[name] for name in names]).astype(np.float64)
    rows = table.shape[1]
    random = np.random.default_rng(seed)
    volumes = np.empty((draws, 2))
    for draw in range(draws):
        counts = np.bincount(random.integers(0, rows, rows), minlength=rows)
        latency_s = passes[int(random.integers(len(passes)))]
        points = {
            name: (latency_s[name], quality)
            for name, quality in zip(names, (table @ counts / rows).tolist(), strict=True)
        }
        worst = worst_of(list(points.values()))
        hand_made = [point for name, point in points.items() if name in ladder]
        volumes[draw] = [dominated_area(part, *worst) for part in (hand_made, points.values())]
    hand_made_us, both_us = 1e6 * volumes.T
    return Spread(_interval(hand_made_us), _interval(both_us), _interval(100 * (both_us / hand_made_us - 1)))


def worst_of(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the worst quality and latency that count: a hundredth below the lowest, a tenth above the slowest.

    Points are (seconds, fraction).
    """
    return min(quality for _, quality in points) - 0.01, 1.1 * max(latency_s for latency_s, _ in points)


def _interval(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, MIDDLE)
    return Interval(float(np.median(values)), float(low), float(high))
