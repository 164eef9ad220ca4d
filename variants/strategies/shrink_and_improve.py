"""Shrink and improve: where a network is good enough and its footprint too large.

1. The original is trained as it always was.
2. Shrink: the largest network of its kind within the wanted share of the footprint. What shrinking costs is said in
   two ways: by the small network trained in the original's way ("shrunk"), and by the one that keeps the original's
   most important channels and is not trained ("pruned").
3. Improve: the small network learns from the original, for longer. A strategy that works gets most of the difference
   back at the small footprint. The same training on labels alone ("patient") tells how much of that is only patience.
4. Where asked for, what was improved is rounded to eight bits ("int8"): a part of the footprint that costs no training.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from variants.architectures.image import ImageArchitecture
from variants.recipes.artifact import RecipeError
from variants.recipes.quantization_aware import QuantizationAware
from variants.strategies.bench import Footprint
from variants.strategies.fitting import RESOLUTIONS, WIDTHS, largest_within
from variants.strategies.original import Original, Teaching, Workbench
from variants.strategies.report import StrategyReport
from variants.training.recipe import Run


@dataclass(frozen=True, slots=True)
class ShrinkAndImprove:
    """Reach `share` in (0, 1) of the original's `footprint` at, as nearly as may be, the original's quality.

    `shrunk` names the small architecture where it is known already, whatever it costs (the report tells); else it is
    found by measuring, among `widths` and `resolutions`, factors on the original's. With `control` the patient network
    is trained too. `quantize` makes eight bits of the improved network; without epochs, by calibration alone.
    """

    share: float = 0.25
    footprint: Footprint = "latency"
    teaching: Teaching = field(default_factory=Teaching)
    shrunk: ImageArchitecture | None = None
    widths: tuple[float, ...] = WIDTHS
    resolutions: tuple[float, ...] = RESOLUTIONS
    control: bool = True
    quantize: QuantizationAware | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise ValueError(f"share {self.share:g} must lie in (0, 1)")

    def plan(self, original: Original, at: Workbench) -> ShrinkAndImprove:
        """Return the strategy with its small architecture. Raises `RecipeError` where none is small enough."""
        shrunk = self.shrunk or largest_within(
            original.architecture, self.share, self.footprint, at.trainer, at.bench, self.widths, self.resolutions
        )
        return replace(self, shrunk=shrunk)

    def run(self, original: Original, at: Workbench) -> StrategyReport:
        """Train what is not in the cache, measure all, and report.

        Points: original, shrunk, (pruned), improved, (patient), (int8); without "pruned" where the original's channels
        do not fit the small network.
        """
        shrunk = self.plan(original, at).shrunk
        assert shrunk is not None
        large = at.begin("original", original)
        models = {"original": large, "shrunk": at.train("shrunk", shrunk, original.recipe)}
        try:
            models["pruned"] = at.inherit("pruned", shrunk, large, original)
        except RecipeError as error:
            at.log(f"pruned: left out: {error}")
        models["improved"] = at.teach("improved", shrunk, self.teaching, large, original)
        if self.control:
            models["patient"] = at.train("patient", shrunk, self.teaching.alone())
        if self.quantize is not None:
            models["int8"] = self.quantize(models["improved"], at.trainer.data, Run(at.seed))
        return StrategyReport(
            strategy="shrink and improve",
            steps=(
                f"shrink {original.architecture} to {shrunk}",
                f"improve: learn from the original for {self.teaching.fit.epochs} epochs",
                *(() if self.quantize is None else (f"int8: {self.quantize.describe()}",)),
            ),
            points=at.bench.points(models),
            before=("original", "shrunk"),
        )


def recovered(report: StrategyReport, by: str = "improved", lost: str = "shrunk") -> float:
    """Return the share of the accuracy lost by shrinking that one point got back; 1 where nothing was lost.

    `lost` names the small network that what was lost is measured by: "shrunk" or "pruned".
    """
    difference = report.gained("original", over=lost)
    return report.gained(by, over=lost) / difference if difference > 0 else 1.0
