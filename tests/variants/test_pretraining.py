from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.networks import convolutional, digits, encoder, perceptron, sentences
from variants.recipes.artifact import RecipeError
from variants.recipes.contrastive_pretraining import ContrastivePretraining, nt_xent
from variants.recipes.masked_token_pretraining import UNSEEN, MaskedTokenPretraining, hide
from variants.recipes.supervised import Supervised
from variants.training.batch import Compose
from variants.training.image_augmentation import Crop, Shift
from variants.training.label_efficiency import LabelPoint, accuracy_by_labels
from variants.training.recipe import Job, Run
from variants.training.rows import Rows
from variants.training.settings import FitSettings

VIEW = Compose((Crop(0.7), Shift(1)))
CONTRASTIVE = ContrastivePretraining(FitSettings(epochs=2, batch=100), view=VIEW)
MASKED = MaskedTokenPretraining("final", "words", mask_id=1, fit=FitSettings(epochs=2, rate=3e-3))


def test_the_contrastive_loss_is_that_of_its_definition() -> None:
    """Each view's partner competes with all other views by cosine similarity over the temperature."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 3, 4, generator=generator)
    views = [view / view.norm() for view in (*first, *second)]
    losses = []
    for place, view in enumerate(views):
        similar = {other: math.exp(float(view @ views[other]) / 0.5) for other in range(6) if other != place}
        losses.append(-math.log(similar[(place + 3) % 6] / sum(similar.values())))
    assert float(nt_xent(first, second, 0.5)) == pytest.approx(sum(losses) / 6, rel=1e-5)


def test_equal_views_that_differ_from_others_lose_nothing() -> None:
    """The loss is near 0 where partners are equal and others far, and that of a guess where all are alike."""
    corners = torch.eye(4)
    assert float(nt_xent(corners, corners, 0.05)) < 1e-6
    assert float(nt_xent(torch.ones(4, 2), torch.ones(4, 2), 0.5)) == pytest.approx(math.log(7))


def test_contrastive_pretraining_reads_no_label() -> None:
    """Labels that mean nothing change no weight; no labelled row is counted, and the classifier is left alone."""
    spoilt = replace(digits(), train=Rows(digits().train.inputs, torch.zeros(400, dtype=torch.int64)))
    first, second = (CONTRASTIVE(convolutional(), data) for data in (digits(), spoilt))
    untrained = convolutional().module.state_dict()
    for name, values in first.module.state_dict().items():
        assert torch.equal(values, second.module.state_dict()[name])
        assert torch.equal(values, untrained[name]) == name.startswith("10.")
    step = first.lineage[-1]
    assert (0, 400.0) == (step.labelled_rows, step.measures["unlabelled_rows"])
    assert "validation_accuracy" not in step.measures
    assert first.parameters == convolutional().parameters


def test_contrastive_pretraining_lowers_its_loss() -> None:
    """After more epochs views find their partners more often."""
    losses = [
        replace(CONTRASTIVE, fit=FitSettings(epochs=epochs, batch=100))(convolutional(), digits())
        .lineage[-1]
        .measures["training_loss"]
        for epochs in (1, 5)
    ]
    assert losses[1] < losses[0] < math.log(2 * 100 - 1) + 0.5


@given(seed=st.integers(0, 1000), share=st.floats(0.0, 1.0))
def test_only_chosen_tokens_are_to_be_guessed(seed: int, share: float) -> None:
    """Targets are the hidden tokens' ids; all other tokens, and marks and padding always, are as they were."""
    ids, mask = sentences().validation.inputs
    seen, targets = hide(ids, mask, share, 1, 40, torch.Generator().manual_seed(seed))
    is_chosen = targets != UNSEEN
    assert torch.equal(ids[is_chosen], targets[is_chosen])
    assert torch.equal(ids[~is_chosen], seen[~is_chosen])
    assert not bool((is_chosen & (ids <= 3)).any())


def test_hidden_tokens_are_as_in_bert() -> None:
    """Of the chosen tokens about 80 % are masked, 10 % random, 10 % as they were."""
    ids = torch.full((200, 50), 7)
    seen, targets = hide(ids, torch.ones_like(ids), 0.5, 1, 1000, torch.Generator().manual_seed(0))
    chosen = seen[targets != UNSEEN]
    shares = [float((chosen == token).float().mean()) for token in (1, 7)]
    assert shares == pytest.approx([0.8, 0.1], abs=0.02)
    assert len(chosen) == pytest.approx(0.5 * 200 * 48, rel=0.05)


def test_masked_tokens_are_learnt_without_labels() -> None:
    """The encoder changes, its loss falls, its classifier stays, and no labelled row is counted."""
    short, long = (
        replace(MASKED, fit=replace(MASKED.fit, epochs=epochs))(encoder(), sentences()).lineage[-1] for epochs in (1, 8)
    )
    assert long.measures["training_loss"] < short.measures["training_loss"]
    assert (0, 300.0) == (long.labelled_rows, long.measures["unlabelled_rows"])
    made = MASKED(encoder(), sentences())
    untrained = encoder().module.state_dict()
    changed = {name for name, values in made.module.state_dict().items() if not torch.equal(values, untrained[name])}
    assert "words.weight" in changed
    assert not any(name.startswith("classifier") for name in changed)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (replace(MASKED, embedding="classifier"), "'classifier' is a Linear, not an Embedding"),
        (replace(MASKED, hidden="classifier"), r"'classifier' gives \[2, 2\], not \[rows, tokens, 16\]"),
        (replace(MASKED, hidden="last"), "no part 'last'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(recipe: MaskedTokenPretraining, reason: str) -> None:
    """Wrong paths are one line each."""
    with pytest.raises(RecipeError, match=reason):
        recipe(encoder(), sentences())


def test_accuracy_is_given_for_each_number_of_labels() -> None:
    """One accuracy per seed and number; more labels help, and pre-training is part of a pipeline like any step."""
    quick = Supervised(FitSettings(epochs=6, batch=20, rate=5e-3))
    points = list(
        accuracy_by_labels(
            CONTRASTIVE >> quick,
            convolutional(channels=4),
            digits(),
            digits().validation,
            labels=(10, 200),
            seeds=(0, 1),
        )
    )
    assert [10, 200] == [point.labels for point in points]
    assert all(len(point.accuracies) == 2 for point in points)
    assert points[1].mean > points[0].mean + 0.1


class Counted(ContrastivePretraining):
    """Contrastive pre-training that notes with which seeds it was done."""

    seeds: ClassVar[list[int]] = []

    def apply(self, module: nn.Module, job: Job) -> nn.Module:
        self.seeds.append(job.run.seed)
        return ContrastivePretraining.apply(self, module, job)


def test_pretraining_is_shared_by_all_numbers_of_labels() -> None:
    """It is done once for each seed, and every fine-tuning begins with what it gave."""
    Counted.seeds.clear()
    untouched = Supervised(FitSettings(epochs=0))
    fractions: list[float] = []
    points = list(
        accuracy_by_labels(
            untouched,
            convolutional(channels=4),
            digits(),
            digits().validation,
            labels=(10, 50, 200),
            seeds=(3, 4),
            run=Run(progress=fractions.append),
            pretraining=Counted(CONTRASTIVE.fit, VIEW),
        )
    )
    assert [3, 4] == Counted.seeds
    assert len({point.accuracies for point in points}) == 1
    assert sorted(fractions) == fractions
    assert fractions[-1] == 1.0


def test_pretraining_that_reads_labels_is_refused() -> None:
    """Its accuracy would be credited to fewer labels than were read."""
    quick = Supervised(FitSettings(epochs=1, batch=100))
    curve = accuracy_by_labels(
        quick, perceptron(), digits(), digits().validation, labels=(10,), seeds=(0,), pretraining=quick
    )
    with pytest.raises(ValueError, match="reads labels"):
        next(curve)


def test_the_standard_error_is_over_seeds() -> None:
    """It is that of the mean, and unknown for one seed."""
    point = LabelPoint(10, (0.5, 0.7, 0.6))
    assert point.mean == pytest.approx(0.6)
    assert point.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert math.isnan(LabelPoint(10, (0.5,)).standard_error)


def test_a_network_without_a_classifier_is_refused() -> None:
    """Features are what the layer that gives the logits takes; where there is none, that is said."""
    model = replace(convolutional(), module=nn.Sequential(convolutional().module, nn.Softplus()))
    with pytest.raises(RecipeError, match="gives the network's logits"):
        CONTRASTIVE(model, digits())
