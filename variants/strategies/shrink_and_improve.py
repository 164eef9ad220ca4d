"""Shrink and improve: where a network is good enough and its footprint too large.

1. The original is trained as it always was.
2. Shrink: the largest network of its kind within the wanted share of the footprint, trained in the same way. The
   difference is what shrinking costs.
3. Improve: the same small network learns from the original, for longer. A strategy that works gets most of the
   difference back at the small footprint.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from variants.architectures.image import ImageArchitecture
from variants.strategies.bench import Footprint
from variants.strategies.fitting import largest_within
from variants.strategies.original import Original, Teaching, Workbench
from variants.strategies.report import StrategyReport


@dataclass(frozen=True, slots=True)
class ShrinkAndImprove:
    """Reach `share` in (0, 1) of the original's `footprint` at, as nearly as may be, the original's quality.

    `shrunk` names the small architecture where it is known already; else it is found by measuring.
    """

    share: float = 0.25
    footprint: Footprint = "latency"
    teaching: Teaching = field(default_factory=Teaching)
    shrunk: ImageArchitecture | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share {self.share:g} must lie in (0, 1)")

    def plan(self, original: Original, at: Workbench) -> ShrinkAndImprove:
        """Return the strategy with its small architecture. Raises `RecipeError` where none is small enough."""
        shrunk = self.shrunk or largest_within(original.architecture, self.share, self.footprint, at.trainer, at.bench)
        return ShrinkAndImprove(self.share, self.footprint, self.teaching, shrunk)

    def run(self, original: Original, at: Workbench) -> StrategyReport:
        """Train what is not in the cache, measure all, and report. Points: original, shrunk, improved."""
        shrunk = self.plan(original, at).shrunk
        assert shrunk is not None
        large = at.train("original", original.architecture, original.recipe)
        small = at.train("shrunk", shrunk, original.recipe)
        improved = at.teach("improved", shrunk, self.teaching, large, original)
        return StrategyReport(
            strategy="shrink and improve",
            steps=(
                f"shrink {original.architecture} to {shrunk}",
                f"improve: learn from the original for {self.teaching.fit.epochs} epochs",
            ),
            points=at.bench.points({"original": large, "shrunk": small, "improved": improved}),
            before=("original", "shrunk"),
        )


def recovered(report: StrategyReport) -> float:
    """Return the share of the accuracy lost by shrinking that improving got back; 1 where nothing was lost."""
    lost = report.gained("original", over="shrunk")
    return report.gained("improved", over="shrunk") / lost if lost > 0 else 1.0
