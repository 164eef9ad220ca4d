"""Images made here, in place of data that would have to be downloaded: which quarter of the picture is brighter?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from variants.architectures.trained import Trainer
from variants.families.fashion.data import INPUT
from variants.families.fashion.recipe import PREPARATION, prepared, training_data
from variants.manifest import TensorSpec
from variants.preparation import TensorPreparer
from variants.spec import Dataset, LabelledRows, split
from variants.training.rows import Rows

LABELS = ("upper left", "upper right", "lower left", "lower right")


def bright_quarters(_: Path, seed: int) -> Dataset:
    """Noise of 28x28 bytes with one brighter quarter, whose place is the label: 400 rows, 150 to validate, 150 kept."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, 700)
    images = random.integers(0, 120, (700, 28, 28))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[14 * (label // 2) :, 14 * (label % 2) :][:14, :14] += 80
    return split(LabelledRows({INPUT: images.astype(np.uint8)}, labels), train=400, validation=150, seed=seed)


def preparer_of_quarters() -> TensorPreparer:
    """What the family would prepare its images with."""
    return TensorPreparer(PREPARATION, TensorSpec(name=INPUT, datatype="UINT8", shape=(-1, 28, 28)))


def trainer_of_quarters(folder: Path) -> Trainer:
    """A trainer on the images, which keeps its networks in the folder."""
    data = training_data(bright_quarters(folder, 0), preparer_of_quarters())
    return Trainer.of(data, len(LABELS), INPUT, folder)


def held_out_quarters() -> Rows:
    """The rows that no training sees."""
    return prepared(bright_quarters(Path(), 0).test, preparer_of_quarters())
