"""What a search found, against the hand-made ladder: both trained on all rows, measured on rows that neither saw."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from variants.architectures.rung import Rung
from variants.architectures.trained import Trainer
from variants.frontier import ParetoPoint, frontier, hypervolume
from variants.paired import compare as compare_rows
from variants.recipes.supervised import Supervised
from variants.search.architectures import Found
from variants.search.spread import Spread, spread, worst_of
from variants.strategies.bench import Bench, Cost
from variants.training.model import Model, rows_right

Advance = Callable[[float], None]


PASSES = 5
"""How often all latencies are measured, each time in turns: what differs between passes is the machine's noise."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The points of both sets, measured in turns, and their hypervolumes (fraction x seconds) from one worst point.

    `right` has by name which test rows a network answers rightly, bool [n]; `passes` the seconds of one row, each time
    they were measured. The latency of a point is the median of them.
    """

    ladder: Mapping[str, ParetoPoint]
    found: Mapping[str, ParetoPoint]
    right: Mapping[str, NDArray[np.bool_]]
    passes: Sequence[Mapping[str, float]]

    def hypervolumes(self) -> tuple[float, float, float]:
        """Return those of the ladder, of what was found, and of both together; the worst point is `worst_of` all."""
        points = [*self.ladder.values(), *self.found.values()]
        worst = worst_of([(point.latency_s, point.quality) for point in points])
        return (
            hypervolume(self.ladder.values(), *worst),
            hypervolume(self.found.values(), *worst),
            hypervolume(points, *worst),
        )

    def spread(self) -> Spread:
        """Return how far the hypervolumes of the ladder, and of both, may be trusted."""
        return spread(self.right, self.passes, self.ladder.keys())

    def dominated(self) -> list[str]:
        """Return a line for each rung that something found is no slower than and better than on the test part.

        The best such one is named, with McNemar's p of the difference.
        """
        lines = []
        for rung in sorted(self.ladder.values(), key=lambda point: point.latency_s):
            better = [p for p in self.found.values() if p.latency_s <= rung.latency_s and p.quality > rung.quality]
            if better:
                best = max(better, key=lambda point: (point.quality, -point.latency_s))
                against = compare_rows(self.right[best.name], self.right[rung.name])
                lines.append(
                    f"{best.name} dominates {rung.name}: {100 * against.difference:+.2f} points"
                    f" (p = {against.p_value:.2g}) at {best.latency_s / rung.latency_s:.2f} of its latency"
                )
        return lines

    def table(self) -> str:
        """Return all points as lines, quickest first, `*` before those that none of either set dominates."""
        points = sorted([*self.ladder.values(), *self.found.values()], key=lambda point: point.latency_s)
        on = frontier(points).on
        return "\n".join(
            f"{'*' if point.name in on else ' '} {point.name:<24} {1e3 * point.latency_s:8.4f} ms"
            f" {100 * point.quality:6.2f} % +- {100 * point.standard_error:.2f} {point.size_bytes / 1e3:9.1f} kB"
            for point in points
        )


def compare(
    rungs: Sequence[Rung],
    found: Sequence[Found],
    trainer: Trainer,
    test: Bench,
    *,
    epochs: int,
    seed: int,
    advance: Advance,
    log: Callable[[str], None],
    passes: int = PASSES,
) -> Comparison:
    """Train what is not in the cache (what was found, for `epochs` on all rows) and measure all on the test bench."""
    ladder: dict[str, Model] = {}
    searched: dict[str, Model] = {}
    total = len(rungs) + len(found)
    for rung in rungs:
        log(f"ladder: {rung.name}")
        ladder[rung.name] = trainer.trained(rung.name, rung.architecture, rung.recipe, seed)
        advance(len(ladder) / total)
    for entry in found:
        name = f"found-{entry.number}"
        log(f"{name}: {entry.architecture}")
        recipe = Supervised(replace(entry.settings, epochs=epochs))
        searched[name] = trainer.trained(name, entry.architecture, recipe, seed)
        advance((len(ladder) + len(searched)) / total)
    models = {**ladder, **searched}
    costs = [test.costs(models) for _ in range(passes)]
    right = {name: rows_right(model.module, test.rows).numpy() for name, model in models.items()}
    points = {name: _point(name, right[name], [cost[name] for cost in costs]) for name in models}
    return Comparison(
        {name: points[name] for name in ladder},
        {name: points[name] for name in searched},
        right,
        [{name: cost[name].latency_s for name in models} for cost in costs],
    )


def _point(name: str, right: NDArray[np.bool_], costs: Sequence[Cost]) -> ParetoPoint:
    quality = float(right.mean())
    error = math.sqrt(quality * (1 - quality) / len(right))
    latency_s = statistics.median(cost.latency_s for cost in costs)
    return ParetoPoint(name, quality, latency_s, costs[0].size_bytes, error)
