from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from tests.networks import convolutional, digits, encoder, perceptron, sentences
from variants.recipes.artifact import RecipeError
from variants.recipes.distillation import Distillation, TeacherAnswers, soft_label_loss
from variants.recipes.hidden_distillation import HiddenDistillation, _difference
from variants.recipes.supervised import Supervised
from variants.training.batch import Batch
from variants.training.image_augmentation import Flip
from variants.training.model import Model, logits_of
from variants.training.recipe import Run
from variants.training.rows import Rows
from variants.training.settings import FitSettings

QUICK = FitSettings(epochs=8, batch=50, rate=1e-2)


@cache
def teacher() -> Model:
    return Supervised(FitSettings(epochs=6, batch=50, rate=3e-3))(convolutional(), digits())


@cache
def text_teacher() -> Model:
    return Supervised(FitSettings(epochs=4, rate=3e-3))(encoder(depth=2), sentences())


def agreement(first: Model, second: Model, rows: Rows) -> float:
    answers = [logits_of(model.module, rows).argmax(dim=1) for model in (first, second)]
    return float((answers[0] == answers[1]).float().mean())


class Fixed(nn.Module):
    """Answers every batch with the same logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
def test_the_loss_is_hintons(temperature: float, alpha: float) -> None:
    """The divergence of softened answers times the temperature squared, mixed with the cross-entropy of the labels."""
    student, original = torch.tensor([[1.0, -1.0, 0.5]]), torch.tensor([[2.0, 0.0, -1.0]])
    batch = Batch((torch.zeros(4, 1),), torch.tensor([0, 1, 2, 0]))
    rows = Rows(batch.inputs, batch.targets)
    answers = TeacherAnswers(Model("fixed", Fixed(original), {}), rows, cached=False)
    loss = soft_label_loss(answers, temperature, alpha, 0.0)(Fixed(student), batch)
    wanted, given = (original / temperature).softmax(1), (student / temperature).softmax(1)
    divergence = float((wanted * (wanted / given).log()).sum()) * temperature**2
    entropy = float(-student.log_softmax(1)[0, batch.targets].mean())
    assert loss.item() == pytest.approx(alpha * divergence + (1.0 - alpha) * entropy, rel=1e-5)


def test_answers_are_looked_up_only_where_rows_are_unchanged() -> None:
    """Kept answers are those of the rows; an augmented batch is answered anew."""
    answers = TeacherAnswers(teacher(), digits().train, cached=True)
    chosen = torch.tensor([5, 2, 9])
    part = digits().train.take(chosen)
    batch = Batch(part.inputs, part.labels, chosen)
    torch.testing.assert_close(answers(batch), teacher().module(*part.inputs), rtol=1e-4, atol=1e-4)
    flipped = Flip(1.0)(batch, torch.Generator())
    assert flipped.rows is None
    torch.testing.assert_close(answers(flipped), teacher().module(part.inputs[0].flip(-1)), rtol=1e-4, atol=1e-4)


def test_a_student_learns_its_teachers_answers_without_labels() -> None:
    """From 20 labels a student learns less than from the teacher's answers to all rows; what that cost is recorded."""
    few = digits().with_labels(20, seed=0)
    alone = Supervised(QUICK)(perceptron(), few, Run(seed=1))
    distilled = Distillation(teacher(), on_unlabelled=True, fit=QUICK)(perceptron(), few, Run(seed=1))
    rows = digits().validation
    assert agreement(distilled, teacher(), rows) > agreement(alone, teacher(), rows) + 0.1
    step = distilled.lineage[-1]
    assert step.labelled_rows == 400
    assert step.settings["teacher"] == "residual"
    assert step.measures["teacher_parameters"] == teacher().parameters
    assert step.measures["teacher_training_s"] > 0.0


def test_distillation_leaves_the_teacher_alone() -> None:
    """The teacher's weights and running statistics are what they were, also where batches are augmented."""
    before = {name: values.clone() for name, values in teacher().module.state_dict().items()}
    augmented = FitSettings(epochs=1, batch=50, augmentation=Flip())
    Distillation(teacher(), fit=augmented)(perceptron(), digits())
    HiddenDistillation(teacher(), (("0", "7"),), fit=augmented)(perceptron(), digits())
    assert all(torch.equal(before[name], values) for name, values in teacher().module.state_dict().items())
    assert all(weight.grad is None for weight in teacher().module.parameters())


def unexplained(student: Model, path: str) -> float:
    """The share of the variance of the teacher's features that no linear map of the student's state gives."""
    features: list[Tensor] = []
    for model, part in ((student, path), (teacher(), "7")):
        handle = model.module.get_submodule(part).register_forward_hook(lambda _, __, out: features.append(out))
        model.module(*digits().train.inputs)
        handle.remove()
    given, wanted = (feature.detach() for feature in features)
    given = torch.cat([given, torch.ones(len(given), 1)], dim=1)
    left = given @ (torch.linalg.pinv(given) @ wanted) - wanted
    return float(left.square().sum() / (wanted - wanted.mean(dim=0)).square().sum())


def test_hidden_states_are_learnt_from_the_teacher() -> None:
    """With labels that say nothing, the student's states come near the teacher's by the hidden loss alone."""
    blank = replace(digits(), train=Rows(digits().train.inputs, torch.zeros(400, dtype=torch.int64)))
    with_it, without = (
        HiddenDistillation(teacher(), (("2", "7"),), weight, alpha=0.0, fit=replace(QUICK, epochs=20, rate=5e-3))(
            perceptron(hidden=8), blank
        )
        for weight in (20.0, 0.0)
    )
    assert unexplained(with_it, "2") < 0.8 * unexplained(without, "2")
    assert with_it.parameters == perceptron(hidden=8).parameters


def test_hidden_states_of_tokens_are_learnt() -> None:
    """For a transformer with padding the loss falls, and only the student is left of what was trained."""
    short, long = (
        HiddenDistillation(text_teacher(), (("final", "final"),), 5.0, fit=FitSettings(epochs=epochs, rate=3e-3))(
            encoder(depth=1), sentences()
        )
        for epochs in (1, 6)
    )
    assert long.lineage[-1].measures["training_loss"] < short.lineage[-1].measures["training_loss"]
    assert long.parameters == encoder(depth=1).parameters


def test_padding_and_map_sizes_count_for_nothing() -> None:
    """States under the mask change no difference; maps of different size are compared at the smaller one."""
    states, original = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    spoilt = states + 100.0 * (1 - mask).unsqueeze(2)
    same = nn.Identity()
    assert _difference(same, states, original, mask) == _difference(same, spoilt, original, mask)
    assert _difference(same, states, original, None) != _difference(same, spoilt, original, None)
    maps = torch.randn(2, 5, 4, 4)
    assert float(_difference(same, maps.repeat_interleave(2, 2).repeat_interleave(2, 3), maps, None)) < 1e-10


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ((("9", "0"),), "no part '9'"),
        ((("1", "0"),), r"'1' gives \[2, 16\] and the teacher's '0' \[2, 8, 8, 8\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(pairs: tuple[tuple[str, str], ...], reason: str) -> None:
    """A path that leads nowhere and states of different rank are each one line."""
    with pytest.raises(RecipeError, match=reason):
        HiddenDistillation(teacher(), pairs)(perceptron(), digits())
