"""Grow, improve and shrink: where the footprint is right and the quality too low.

1. The original is trained as it always was.
2. Grow: a larger network, of the same kind or of one that learns more from pixels.
3. Improve: it is trained with better settings than the original got.
4. Shrink: a network of the original's footprint learns from it. What is served costs what the original cost.

A network like the original that is trained for as long as the last step, on as many changed images, but on labels
alone ("patient"), tells how much of the gain is only patience.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from variants.architectures.image import ImageArchitecture
from variants.architectures.scale import Scale, compound
from variants.architectures.trained import description
from variants.recipes.supervised import Supervised
from variants.strategies.original import Original, Teaching, Workbench
from variants.strategies.report import StrategyReport
from variants.training.batch import Compose
from variants.training.image_augmentation import Flip, Shift
from variants.training.settings import FitSettings


@dataclass(frozen=True, slots=True)
class GrowImproveAndShrink:
    """Reach a better quality at the original's footprint, exactly: what is served is of the original's shape.

    `grow` is how much larger the network in between is, or an architecture, where it is of another kind. With `control`
    the patient network is trained too. With `grown_seed` one grown network teaches the networks of all seeds.
    """

    grow: Scale | ImageArchitecture = field(default_factory=lambda: compound(4.0))
    improve: FitSettings = field(
        default_factory=lambda: FitSettings(
            epochs=12, batch=128, rate=4e-3, weight_decay=0.02, augmentation=Compose((Flip(), Shift(1)))
        )
    )
    teaching: Teaching = field(default_factory=Teaching)
    grown_seed: int | None = None
    control: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.grow, Scale) and self.grow.arithmetic <= 1.0:
            raise ValueError(f"{self.grow} does not grow a network")

    def run(self, original: Original, at: Workbench) -> StrategyReport:
        """Train what is not in the cache, measure all, and report. Points: original, grown, improved, (patient)."""
        architecture = original.architecture.scaled(self.grow) if isinstance(self.grow, Scale) else self.grow
        grown = Original(architecture, Supervised(self.improve), self.grown_seed)
        models = {"original": at.begin("original", original), "grown": at.begin("grown", grown)}
        models["improved"] = at.teach("improved", original.architecture, self.teaching, models["grown"], grown)
        if self.control:
            models["patient"] = at.train("patient", original.architecture, self.teaching.alone())
        return StrategyReport(
            strategy="grow, improve and shrink",
            steps=(
                f"grow {original.architecture} to {architecture}",
                f"improve: {description(grown.recipe)}",
                f"shrink: the original's shape learns from it for {self.teaching.fit.epochs} epochs",
            ),
            points=at.bench.points(models),
            before=("original",),
        )
