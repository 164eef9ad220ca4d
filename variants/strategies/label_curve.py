"""How many labels Fashion-MNIST takes: accuracy against their number, with and without what images alone can teach.

Three ways: labels alone; pre-training on all images before; and, after both, self-training on all images.
`python -m variants.strategies.label_curve --seeds 3`. Measured on the test part; each seed draws its own labels.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence

from variants.recipes.contrastive_pretraining import ContrastivePretraining
from variants.recipes.self_training import SelfTraining
from variants.recipes.supervised import Supervised
from variants.strategies.evidence import original, workbench
from variants.strategies.original import Workbench
from variants.training.batch import Compose
from variants.training.image_augmentation import Crop, Flip, Shift
from variants.training.label_efficiency import LabelPoint, accuracy_by_labels
from variants.training.recipe import Pipeline, Recipe
from variants.training.settings import FitSettings

LABELS = (50, 200, 1000)
RUNG = "residual-s"
FINE_TUNING = Supervised(FitSettings(epochs=160, batch=32, rate=2e-3, augmentation=Compose((Flip(), Shift(1)))))
PRETRAINING = ContrastivePretraining(
    FitSettings(epochs=6, batch=256, rate=4e-3), view=Compose((Crop(0.6), Shift(2), Flip()))
)
SELF_TRAINING = SelfTraining(
    0.5, FitSettings(epochs=3, batch=128, rate=2e-3, weight_decay=0.02, augmentation=Compose((Flip(), Shift(2))))
)
WAYS: Mapping[str, tuple[Recipe | None, Recipe | Pipeline]] = {
    "labels alone": (None, FINE_TUNING),
    "pre-trained": (PRETRAINING, FINE_TUNING),
    "pre-trained, self-trained": (PRETRAINING, FINE_TUNING >> SELF_TRAINING),
}
"""By name: what is done once without labels, and what is done with each number of them. The first is the yardstick."""


def curves(at: Workbench, seeds: Sequence[int], labels: Sequence[int] = LABELS) -> dict[str, list[LabelPoint]]:
    """Return the points of every way, from the same weights and the same labels."""
    model = at.trainer.untrained(RUNG, original(RUNG).architecture, seed=0)
    found: dict[str, list[LabelPoint]] = {}
    for way, (pretraining, recipe) in WAYS.items():
        found[way] = []
        for point in accuracy_by_labels(
            recipe, model, at.trainer.data, at.bench.rows, labels=labels, seeds=seeds, pretraining=pretraining
        ):
            at.log(f"{way}, {point.labels} labels: {100 * point.mean:.2f} % +- {100 * point.standard_error:.2f}")
            found[way].append(point)
    return found


def gains(found: Mapping[str, Sequence[LabelPoint]]) -> str:
    """Return what each other way gained over the first at each number of labels, seed by seed, as lines."""
    (_, yardstick), *others = found.items()
    lines = []
    for way, reached in others:
        for alone, point in zip(yardstick, reached, strict=True):
            points = [100 * (b - a) for a, b in zip(alone.accuracies, point.accuracies, strict=True)]
            lines.append(
                f"{alone.labels} labels, {way}: gained {statistics.fmean(points):.2f} points"
                f" ({min(points):.2f} to {max(points):.2f}, {len(points)} seeds)"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how often, each with labels of its own")
    parser.add_argument("--labels", type=int, nargs="+", default=LABELS, help="how many, ascending")
    given = parser.parse_args(arguments)
    at = workbench()
    at.log(gains(curves(at, range(given.seeds), given.labels)))


if __name__ == "__main__":
    main()
