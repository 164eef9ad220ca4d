"""Measuring how long batches take, and what to believe of few noisy measurements.

1. Batches are taken from cheap to dear. Each is measured once for every variant and then again as often as a budget of
   seconds buys, within bounds; when the whole time is spent, what is left gets a tenth of that.
2. Variants take turns, in random order and with the same rows, so that a noisy neighbour hits all of them alike and
   their order stays right. The stages of a chain share a turn, in their own order: each needs what the last one left.
3. Of a batch on one thread the time counts during which the thread ran: a stored profile says what the machine can do,
   not who else was busy while it was taken. What happens while serving is observed there.
4. The median of a larger batch is at least that of a smaller one: violations are noise and are pooled.
5. A cell with too few samples to know its own 95th percentile takes the spread of all cells of that batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from variants.preparation import Row

TAIL = 0.95
_SAMPLES_FOR_A_TAIL = 20
_SAMPLES_FOR_P99 = 100
"""So that at least one lies beyond it."""

Progress = Callable[[float], None]
"""Told the fraction in [0, 1] that is done."""
Work = Callable[[Any], Any]
"""Runs one batch as serving does: of prepared rows (`Sequence[Row]`), or of what the stage before it gave."""
Path = Mapping[str, Work]
"""What is run one after another, by name: a whole graph alone, or the stages of a chain."""
Stopwatch = Callable[[Work, Any], tuple[float, Any]]
"""Runs a batch and returns how many seconds that took, and what came of it."""

Noting = Callable[[str], AbstractContextManager[None]]
"""Is entered, with the name of a work, while that runs; what it takes itself is not measured."""


class Cell(NamedTuple):
    """One thing to measure; `size_class` is an index, `batch` a number of rows."""

    name: str
    size_class: int
    batch: int


@dataclass(frozen=True, slots=True)
class TimingPlan:
    """How hard to measure: at least `least` and at most `most` samples of a cell, as many as `cell_s` seconds buy.

    Once `total_s` seconds have passed, a tenth of `cell_s` must do.
    """

    batches: tuple[int, ...]
    least: int
    most: int
    cell_s: float
    total_s: float

    def up_to(self, max_batch: int) -> TimingPlan:
        """Return the plan without batches that the family never runs."""
        return replace(self, batches=tuple(batch for batch in self.batches if batch <= max_batch))

    def samples(self, first_s: float, *, in_time: bool) -> int:
        """Return how many samples a cell is worth that took `first_s` seconds the first time."""
        budget_s = self.cell_s if in_time else self.cell_s / 10
        return int(np.clip(budget_s / max(first_s, 1e-9), self.least, self.most))


QUICK = TimingPlan(batches=(1, 4, 16), least=2, most=60, cell_s=0.05, total_s=6.0)
FULL = TimingPlan(batches=(1, 2, 4, 8, 16, 32), least=5, most=500, cell_s=0.4, total_s=180.0)


def elapsed_s(work: Work, given: Any) -> tuple[float, Any]:
    """Run a batch and return the seconds that passed."""
    begun_s = time.perf_counter()
    made = work(given)
    return time.perf_counter() - begun_s, made


def running_s(work: Work, given: Any) -> tuple[float, Any]:
    """Run a batch on this thread alone and return the seconds that the thread was running, not waiting for a core."""
    begun_s = time.thread_time()
    passed_s, made = elapsed_s(work, given)
    # Reading a thread's time takes microseconds, so for a thread that never waited the passed time is nearer.
    return min(passed_s, time.thread_time() - begun_s), made


def unnoted(name: str) -> AbstractContextManager[None]:
    """Note nothing."""
    del name
    return nullcontext()


def measure(
    paths: Sequence[Path],
    rows_by_class: Sequence[Sequence[Row]],
    sizes: Sequence[int],
    plan: TimingPlan,
    progress: Progress,
    stopwatch: Stopwatch = running_s,
    clock: Callable[[], float] = time.monotonic,
    noting: Noting = unnoted,
    prepares: Collection[str] = (),
) -> dict[Cell, list[float]]:
    """Return the seconds measured of each cell. Batches are drawn anew each time from the rows of their size class.

    Works that `prepares` names take longer for the first batch of a shape, of which there are many: they run each batch
    once before all take their turns with it.
    """
    random = np.random.default_rng(0)
    groups = [(size_class, batch) for size_class in range(len(sizes)) for batch in plan.batches]
    groups.sort(key=lambda group: sizes[group[0]] * group[1])
    # Cheap batches take their budget of seconds, dear ones as long as their rows: the root lies between.
    weights = [math.sqrt(sizes[size_class] * batch) for size_class, batch in groups]
    for path in paths:
        # The first run of a session is slower than any later one, and nobody is served by it.
        _run(path, rows_by_class[0][:1], elapsed_s, noting)
    started_s = clock()
    seconds: dict[Cell, list[float]] = {}
    for index, (size_class, batch) in enumerate(groups):
        first_s = [math.inf] * len(paths)
        for turn in range(plan.most):
            in_time = clock() - started_s < plan.total_s
            wanted = [plan.samples(taken_s, in_time=in_time) for taken_s in first_s]
            due = [number for number, count in enumerate(wanted) if turn < count]
            if not due:
                break
            rows = [rows_by_class[size_class][row] for row in random.integers(0, len(rows_by_class[size_class]), batch)]
            for number in due:
                if not paths[number].keys().isdisjoint(prepares):
                    _run(paths[number], rows, elapsed_s, noting)
            for number in random.permutation(due).tolist():
                steps_s = _run(paths[number], rows, stopwatch, noting)
                for name, step_s in steps_s.items():
                    seconds.setdefault(Cell(name, size_class, batch), []).append(step_s)
                if turn == 0:
                    first_s[number] = sum(steps_s.values())
            turns = max(plan.samples(taken_s, in_time=in_time) for taken_s in first_s)
            progress((sum(weights[:index]) + weights[index] * (turn + 1) / turns) / sum(weights))
    progress(1.0)
    return seconds


def _run(path: Path, rows: Sequence[Row], stopwatch: Stopwatch, noting: Noting) -> dict[str, float]:
    """Run a path; return the seconds of each work in it."""
    taken_s: dict[str, float] = {}
    given: Any = rows
    for name, work in path.items():
        with noting(name):
            taken_s[name], given = stopwatch(work, given)
    return taken_s


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


def quantiles(samples: Sequence[Sequence[float]], spreads: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return median and 95th percentile for the samples of ascending batches; neither decreases.

    `spreads` (at least 1) are the family's usual ratios of tail to median, used for batches with few samples.
    """
    # Disturbances only ever add time, so of two middle samples the smaller one is believed.
    middles = [float(np.quantile(cell, 0.5, method="lower")) for cell in samples]
    medians = isotonic(middles, [len(cell) for cell in samples])
    tails: list[float] = []
    for cell, median, spread in zip(samples, medians, spreads, strict=True):
        own = float(np.quantile(cell, TAIL)) if len(cell) >= _SAMPLES_FOR_A_TAIL else 0.0
        tails.append(max(median, own or median * spread, *tails[-1:]))
    return medians, tails


def percentile_99(cell: Sequence[float], tail_s: float) -> float | None:
    """Return the 99th percentile, at least the 95th given as `tail_s`; None for too few samples to know it."""
    return max(tail_s, float(np.quantile(cell, 0.99))) if len(cell) >= _SAMPLES_FOR_P99 else None


def usual_spread(cells: Sequence[Sequence[float]]) -> float:
    """Return the 95th percentile of all samples, each in units of its cell's median; 1 where no cell has three."""
    ratios: list[NDArray[np.float64]] = [np.asarray(cell) / np.median(cell) for cell in cells if len(cell) >= 3]
    return max(1.0, float(np.quantile(np.concatenate(ratios), TAIL))) if ratios else 1.0
