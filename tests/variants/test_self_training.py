"""A model that learns from its own answers: what it reads, what it keeps, and that it comes to agree with itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.networks import convolutional, digits
from variants.recipes.self_training import SelfTraining
from variants.recipes.supervised import Supervised
from variants.training.image_augmentation import Shift
from variants.training.model import Model, logits_of
from variants.training.rows import TrainingData
from variants.training.settings import FitSettings

SETTINGS = FitSettings(epochs=4, batch=50, rate=3e-3, augmentation=Shift(1))


@pytest.fixture(scope="module")
def few() -> TrainingData:
    return digits().with_labels(100, seed=0)


@pytest.fixture(scope="module")
def begun(few: TrainingData) -> Model:
    return Supervised(FitSettings(epochs=20, batch=20, rate=3e-3))(convolutional(), few)


def test_it_agrees_with_itself_on_changed_images(few: TrainingData, begun: Model) -> None:
    """What it answered to rows unchanged it answers, more often than before, to the same rows moved by a pixel."""
    assert few.unlabelled is not None
    rows = few.unlabelled
    moved = replace(rows, inputs=(torch.roll(rows.inputs[0], 1, dims=-1),))
    wanted = logits_of(begun.module, rows).argmax(dim=1)
    taught = SelfTraining(0.5, SETTINGS)(begun, few)
    before, after = (
        float((logits_of(model.module, moved).argmax(dim=1) == wanted).float().mean()) for model in (begun, taught)
    )
    assert after > before
    assert float((logits_of(taught.module, rows).argmax(dim=1) == wanted).float().mean()) > 0.9


def test_no_label_is_read(few: TrainingData, begun: Model) -> None:
    """Other labels of the unlabelled rows give the very same weights, and the step says that it read none."""
    assert few.unlabelled is not None
    wrong = replace(few, unlabelled=replace(few.unlabelled, labels=torch.zeros_like(few.unlabelled.labels)))
    first, second = (SelfTraining(fit=SETTINGS)(begun, data) for data in (few, wrong))
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))
    step = first.lineage[-1]
    assert (0, float(len(few.unlabelled))) == (step.labelled_rows, step.measures["unlabelled_rows"])
    assert 100.0 == first.facts["labelled_rows"]


def test_a_low_temperature_makes_its_answers_surer(few: TrainingData, begun: Model) -> None:
    """The confidence of what is learnt from grows as the temperature falls; 0 is none."""
    brief = replace(SETTINGS, epochs=1)
    cold, warm = (SelfTraining(t, brief)(begun, few).lineage[-1].measures["mean_confidence"] for t in (0.25, 1.0))
    assert 0.1 <= warm < cold <= 1.0
    with pytest.raises(ValueError, match="temperature 0 must be above 0"):
        SelfTraining(0.0)
