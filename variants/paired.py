"""Is one variant better than another? Asked on the same rows, which is far sharper than two error bars side by side.

Only rows on which two variants differ carry noise. Scores of 0 and 1 are compared by McNemar's test (1947) in its exact
form: of the rows on which just one is right, half should fall to either if there is no difference. Graded scores are
compared by the paired bootstrap (Efron, 1979).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 2000

Scores = NDArray[np.bool_] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much better a first variant is than a second: mean difference of scores, its error, and its 95 % interval.

    `standard_error` is the paired one: that of the mean over rows of the difference of scores. It knows of other rows
    that might have been drawn, not of other networks that training might have given. `p_value` is the chance of a
    difference at least as large where there is none, on `rows` rows.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float
    rows: int

    def __str__(self) -> str:
        """The difference in percentage points with its 95 % interval; a tie is called one."""
        said = f"{self.difference * 100:+.1f} [{self.low * 100:+.1f}, {self.high * 100:+.1f}]"
        return f"{said}, a tie" if self.tied else said

    @property
    def tied(self) -> bool:
        """Whether what was measured is no evidence of a difference. With twenty pairs, expect to miss one by chance."""
        return self.p_value >= 1.0 - CONFIDENCE


def compare(first: Scores, second: Scores, seed: int = 0) -> Comparison:
    """Compare scores [n] of two variants on the same rows. Raises `ValueError` where they are not of the same rows."""
    if first.shape != second.shape or not first.size:
        raise ValueError(f"scores of {first.shape} and {second.shape} rows cannot be compared row by row")
    gained = first.astype(np.float64) - second.astype(np.float64)
    difference, rows = float(gained.mean()), len(gained)
    error = float(gained.std()) / math.sqrt(rows)
    if np.isin(gained, (-1.0, 0.0, 1.0)).all():
        better, worse = int((gained > 0).sum()), int((gained < 0).sum())
        low, high = difference - 1.96 * error, difference + 1.96 * error
        return Comparison(difference, error, low, high, mcnemar(better, worse), rows)
    random = np.random.default_rng(seed)
    means = np.array([gained[random.integers(0, rows, rows)].mean() for _ in range(DRAWS)])
    ends = np.quantile(means, [(1.0 - CONFIDENCE) / 2, (1.0 + CONFIDENCE) / 2])
    # What was measured counts as one more draw (Davison and Hinkley, 1997): 2,000 draws cannot show that p is 0.
    beyond = (1 + min(int((means <= 0.0).sum()), int((means >= 0.0).sum()))) / (1 + DRAWS)
    return Comparison(difference, error, float(ends[0]), float(ends[1]), min(1.0, 2 * beyond), rows)


def mcnemar(better: int, worse: int) -> float:
    """Return the exact two-sided p-value for rows on which just the first, and just the second variant is right."""
    discordant = better + worse
    ways, tail = 1, 0  # whole numbers of any size: floats would lose the tails
    for right in range(min(better, worse) + 1):
        tail += ways
        ways = ways * (discordant - right) // (right + 1)
    return min(1.0, float(2 * tail / 2**discordant))


def paired_difference(better: Scores, worse: Scores) -> tuple[float, float]:
    """Return the mean difference of scores on the same rows, and its standard error were there no difference.

    Of 0 and 1: how much more often one is right than the other, and the error that McNemar's test takes.
    """
    gained = better.astype(np.float64) - worse.astype(np.float64)
    return float(gained.mean()), math.sqrt(float((gained**2).sum())) / len(gained)
