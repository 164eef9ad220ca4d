"""Measuring how long batches take, and what to believe of few noisy measurements.

1. Every cell (variant, size class, batch) is measured once; then again, in rounds, as often as its budget of seconds
   buys, within bounds; rounds stop when the whole time is spent.
2. A round goes through all variants of a cell in random order before the next cell, so that a noisy neighbour hits all
   variants alike and their order stays right.
3. The median of a larger batch is at least that of a smaller one: violations are noise and are pooled.
4. A cell with too few samples to know its own 95th percentile takes the spread of all cells of the family.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from variants.preparation import Row

TAIL = 0.95
_SAMPLES_FOR_A_TAIL = 20

Progress = Callable[[float], None]
"""Told the fraction in [0, 1] that is done."""
Work = Callable[[Sequence[Row]], object]
"""Runs one batch of prepared rows as serving does."""


class Cell(NamedTuple):
    """One thing to measure; `size_class` is an index, `batch` a number of rows."""

    variant: str
    size_class: int
    batch: int


@dataclass(frozen=True, slots=True)
class TimingPlan:
    """How hard to measure: at least `least` and at most `most` samples of a cell, as many as `cell_s` seconds buy.

    After `total_s` seconds no round begins that would bring a cell above `least`.
    """

    batches: tuple[int, ...]
    least: int
    most: int
    cell_s: float
    total_s: float

    def up_to(self, max_batch: int) -> TimingPlan:
        """Return the plan without batches that the family never runs."""
        return replace(self, batches=tuple(batch for batch in self.batches if batch <= max_batch))

    def samples(self, first_s: float) -> int:
        """Return how many samples a cell is worth that took `first_s` seconds the first time."""
        return int(np.clip(self.cell_s / max(first_s, 1e-9), self.least, self.most))


QUICK = TimingPlan(batches=(1, 4, 16), least=2, most=60, cell_s=0.05, total_s=6.0)
FULL = TimingPlan(batches=(1, 2, 4, 8, 16, 32), least=5, most=500, cell_s=0.4, total_s=180.0)


def measure(
    works: Mapping[str, Work],
    rows_by_class: Sequence[Sequence[Row]],
    sizes: Sequence[int],
    plan: TimingPlan,
    progress: Progress,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Cell, list[float]]:
    """Return the seconds measured of each cell. Batches are drawn anew each time from the rows of their size class."""
    random = np.random.default_rng(0)
    groups = [(size_class, batch) for size_class in range(len(sizes)) for batch in plan.batches]
    seconds: dict[Cell, list[float]] = {Cell(variant, *group): [] for group in groups for variant in works}

    def sample(cell: Cell, rows: Sequence[Row]) -> None:
        begun_s = clock()
        works[cell.variant](rows)
        seconds[cell].append(clock() - begun_s)

    def one_round(wanted: Mapping[Cell, int]) -> Iterator[Cell]:
        for size_class, batch in groups:
            pool = rows_by_class[size_class]
            rows = [pool[index] for index in random.integers(0, len(pool), batch)]
            for variant in random.permutation(list(works)).tolist():
                cell = Cell(variant, size_class, batch)
                if len(seconds[cell]) < wanted[cell]:
                    sample(cell, rows)
                    yield cell

    for work in works.values():
        # The first run of a session is slower than any later one and nobody is served by it.
        work(rows_by_class[0][:1])
    started_s = clock()
    rows_to_run = sum(sizes[cell.size_class] * cell.batch for cell in seconds)
    rows_run = 0
    for cell in one_round(dict.fromkeys(seconds, 1)):
        rows_run += sizes[cell.size_class] * cell.batch
        progress(rows_run / rows_to_run / plan.least)
    wanted = {cell: plan.samples(values[0]) for cell, values in seconds.items()}
    least_s = plan.least * sum(values[0] for values in seconds.values())
    planned_s = max(least_s, min(plan.total_s, sum(wanted[cell] * values[0] for cell, values in seconds.items())))
    done = 1 / plan.least
    for rounds in range(1, plan.most):
        if rounds >= plan.least and clock() - started_s > plan.total_s:
            break
        for _ in one_round(wanted):
            done = max(done, min(1.0, (clock() - started_s) / planned_s))
            progress(done)
    progress(1.0)
    return seconds


def rows_for_class(rows: Sequence[Row], sizes: Sequence[int], size_class: int, least: int = 16) -> list[Row]:
    """Return rows whose length lies in a size class: real ones and, where fewer than `least` are real, fitted ones.

    Rows int64 [t] of token ids; a fitted row is a real one cut, or repeated, keeping its first and last token.
    """
    below = sizes[size_class - 1] if size_class else 0
    longest = sizes[size_class]
    chosen = [row for row in rows if below < len(row) <= longest]
    lengths = np.linspace(longest, below + 1, least).astype(int)
    patterns = [row for row in rows if len(row) > 2] or rows
    missing = range(least - len(chosen))
    return chosen + [_fitted(patterns[index % len(patterns)], int(lengths[index])) for index in missing]


def _fitted(row: Row, length: int) -> Row:
    if length < 3 or len(row) < 3:
        return np.resize(row, length)
    return np.concatenate([row[:1], np.resize(row[1:-1], length - 2), row[-1:]])


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the non-decreasing sequence nearest to the values in weighted least squares.

    Pool adjacent violators: Ayer et al., Annals of Mathematical Statistics, 1955.
    """
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, total, count = value, weight, 1
        while blocks and blocks[-1][0] > mean:
            other_mean, other_total, other_count = blocks.pop()
            mean = (mean * total + other_mean * other_total) / (total + other_total)
            total, count = total + other_total, count + other_count
        blocks.append((mean, total, count))
    return [mean for mean, _, count in blocks for _ in range(count)]


def quantiles(samples: Sequence[Sequence[float]], spread: float) -> tuple[list[float], list[float]]:
    """Return median and 95th percentile for the samples of ascending batches; neither decreases.

    `spread` (at least 1) is the family's usual ratio of tail to median, for batches with few samples.
    """
    medians = isotonic([float(np.median(cell)) for cell in samples], [len(cell) for cell in samples])
    tails: list[float] = []
    for cell, median in zip(samples, medians, strict=True):
        own = float(np.quantile(cell, TAIL)) if len(cell) >= _SAMPLES_FOR_A_TAIL else 0.0
        tails.append(max(median, own or median * spread, *tails[-1:]))
    return medians, tails


def usual_spread(cells: Sequence[Sequence[float]]) -> float:
    """Return the 95th percentile of all samples, each in units of its cell's median; 1 where no cell has three."""
    ratios: list[NDArray[np.float64]] = [np.asarray(cell) / np.median(cell) for cell in cells if len(cell) >= 3]
    return max(1.0, float(np.quantile(np.concatenate(ratios), TAIL))) if ratios else 1.0
