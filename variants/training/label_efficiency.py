"""How accurate a pipeline is, given so many labels: what pre-training, distillation and augmentation are judged by."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from variants.training.model import Model, accuracy
from variants.training.recipe import Pipeline, Recipe, Run
from variants.training.rows import Rows, TrainingData


@dataclass(frozen=True, slots=True)
class LabelPoint:
    """Accuracies, fractions, of one run per seed with `labels` labelled rows each."""

    labels: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def standard_error(self) -> float:
        """The standard error of the mean over the seeds: draws of labels and training; `nan` for one seed."""
        if len(self.accuracies) < 2:
            return float("nan")
        return float(statistics.stdev(self.accuracies) / len(self.accuracies) ** 0.5)


def accuracy_by_labels(
    recipe: Recipe | Pipeline,
    model: Model,
    data: TrainingData,
    held_out: Rows,
    *,
    labels: Sequence[int],
    seeds: Sequence[int],
    run: Run | None = None,
    pretraining: Recipe | Pipeline | None = None,
) -> Iterator[LabelPoint]:
    """Yield the accuracy on `held_out` after the recipe, for every number of labelled rows.

    Each seed draws its own labelled rows, as even over the classes as can be, and a larger number holds those of a
    smaller one; every row is there without its label. Compare recipes with the same seeds: differences are paired.
    `pretraining`, which reads no label, comes before the recipe and is done once for each seed. Raises `ValueError`
    where there are fewer rows than labels asked for, or where pre-training read labels.
    """
    run = run or Run()
    count = (len(labels) + (pretraining is not None)) * len(seeds)
    parts = (run.part(index, count) for index in range(count))
    begun = dict.fromkeys(seeds, model)
    if pretraining is not None:
        unlabelled = replace(data, unlabelled=data.unlabelled or data.train)
        for seed in seeds:
            begun[seed] = pretraining(model, unlabelled, replace(next(parts), seed=seed))
            if any(step.labelled_rows for step in begun[seed].lineage[len(model.lineage) :]):
                raise ValueError(f"the pre-training {begun[seed]} reads labels: make it a part of the recipe")
    for number in labels:
        accuracies = []
        for seed in seeds:
            trained = recipe(begun[seed], data.with_labels(number, seed), replace(next(parts), seed=seed))
            accuracies.append(accuracy(trained.module, held_out))
        yield LabelPoint(number, tuple(accuracies))
