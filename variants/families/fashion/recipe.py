"""How a family of image classifiers comes about: every rung of a ladder trained from scratch, in one or two precisions.

Each rung is kept as soon as it is trained, so a build that was interrupted goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

import torch

from variants.architectures import image
from variants.architectures.perceptron import Perceptron
from variants.architectures.rung import Rung
from variants.architectures.trained import Trainer
from variants.architectures.vision_transformer import VisionTransformer
from variants.families.about import About
from variants.families.fashion.data import INPUT
from variants.manifest import TensorPreparation, TensorSpec
from variants.preparation import Feeds, Preparer
from variants.recipes.artifact import Artifact
from variants.recipes.rowwise_int8 import rowwise_int8
from variants.recipes.static_int8 import IMAGE_OPERATORS, static_int8
from variants.spec import BuildContext, Candidate, Dataset, FamilySpec, LabelledRows
from variants.training.export import export_model
from variants.training.model import Model
from variants.training.rows import Rows, TrainingData

PREPARATION = TensorPreparation(mean=72.94, scale=90.02)
"""Mean and standard deviation of the grey values (0 to 255) of Fashion-MNIST's training part."""

CALIBRATION_BATCHES = 8
CALIBRATION_ROWS = 64


@dataclass(frozen=True, slots=True)
class LadderOfImages:
    """One trained network for each rung. `images` returns uint8 images [n, 28, 28] for a cache folder and a seed."""

    rungs: tuple[Rung, ...]
    images: Callable[[Path, int], Dataset]

    def family(self, **about: Unpack[About]) -> FamilySpec:
        """Return the family that is built so."""
        return FamilySpec(
            **about,
            inputs=(TensorSpec(name=INPUT, datatype="UINT8", shape=(-1, image.SIDE, image.SIDE)),),
            preparation=PREPARATION,
            load=self.load,
            build=self.build,
        )

    def load(self, context: BuildContext) -> Dataset:
        """Return the labelled images."""
        return self.images(context.cache, context.spec.seed)

    def build(self, context: BuildContext, dataset: Dataset) -> Iterator[Candidate]:
        """Train every rung, or take the weights kept from the last time; yield each in its precisions."""
        data = training_data(dataset, context.preparer())
        trainer = Trainer.of(data, len(context.spec.labels), INPUT, context.cache / "weights" / context.spec.name)
        trained = self._trained(trainer, context.spec.seed, context.advance)
        for rung, model in trained.items():
            yield Candidate(f"{rung.name}-fp32", partial(export_model, model), reference=model.reference())
        (images,) = data.train.inputs
        # Batches of one shape: what is calibrated on must not depend on which one came last.
        size = min(CALIBRATION_ROWS, len(images))
        whole = images[: len(images) // size * size]
        calibration = [{INPUT: rows.numpy()} for rows in whole.split(size)[:CALIBRATION_BATCHES]]
        for rung, model in trained.items():
            if rung.int8:
                make = partial(to_int8, rung, model, context.scratch, calibration)
                yield Candidate(f"{rung.name}-int8", make, reference=model.reference())

    def _trained(self, trainer: Trainer, seed: int, advance: Callable[[float], None]) -> dict[Rung, Model]:
        total_s = sum(rung.expected_s for rung in self.rungs)
        done_s = 0.0
        trained = {}
        for rung in self.rungs:

            def advance_by(fraction: float, before_s: float = done_s, rung: Rung = rung) -> None:
                advance((before_s + fraction * rung.expected_s) / total_s)

            trained[rung] = trainer.trained(rung.name, rung.architecture, rung.recipe, seed, advance=advance_by)
            done_s += rung.expected_s
        return trained


def training_data(dataset: Dataset, preparer: Preparer) -> TrainingData:
    """Return the parts that training may see, prepared as requests are."""
    return TrainingData(*(prepared(rows, preparer) for rows in (dataset.train, dataset.validation)))


def prepared(rows: LabelledRows, preparer: Preparer) -> Rows:
    """Return the images as a network takes them, float32 [n, 28, 28], with their labels."""
    images = preparer.collate(preparer.prepare(rows.inputs).values)[INPUT]
    return Rows((torch.from_numpy(images),), torch.from_numpy(rows.labels))


def to_int8(rung: Rung, model: Model, scratch: Path, calibration: Sequence[Feeds], path: Path) -> Artifact:
    """Write a rung in eight bits, in the form that suits it.

    Convolutions have no row to scale by, so theirs are scaled by calibration; products with matrices row by row.
    """
    fp32 = export_model(model, scratch / f"{rung.name}.onnx")
    if isinstance(rung.architecture, (Perceptron, VisionTransformer)):
        return rowwise_int8(fp32, path)
    return static_int8(fp32, path, calibration, operators=IMAGE_OPERATORS)
