"""What a search found, against the hand-made ladder: both trained on all rows, measured on rows that neither saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from variants.architectures.rung import Rung
from variants.architectures.trained import Trainer
from variants.frontier import ParetoPoint, frontier, hypervolume
from variants.recipes.supervised import Supervised
from variants.search.architectures import Found
from variants.strategies.bench import Bench
from variants.training.model import Model

Advance = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The points of both sets, measured in turns, and their hypervolumes (fraction x seconds) from one worst point."""

    ladder: Mapping[str, ParetoPoint]
    found: Mapping[str, ParetoPoint]

    def hypervolumes(self) -> tuple[float, float, float]:
        """Return those of the ladder, of what was found, and of both together.

        The worst point is a hundredth below the lowest quality of all, at a tenth above the slowest latency of all.
        """
        points = [*self.ladder.values(), *self.found.values()]
        worst = min(point.quality for point in points) - 0.01, 1.1 * max(point.latency_s for point in points)
        return (
            hypervolume(self.ladder.values(), *worst),
            hypervolume(self.found.values(), *worst),
            hypervolume(points, *worst),
        )

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
    points = test.points({**ladder, **searched})
    return Comparison({name: points[name] for name in ladder}, {name: points[name] for name in searched})
