"""Learning from answers to changed images, and beginning with a larger network's channels."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.networks import IMAGE, digits, perceptron
from variants.recipes.artifact import RecipeError
from variants.recipes.channel_inheritance import ChannelInheritance
from variants.recipes.consistent_distillation import ConsistentDistillation, Views
from variants.recipes.supervised import Supervised
from variants.training.batch import Batch
from variants.training.image_augmentation import Shift
from variants.training.model import Model, accuracy, logits_of
from variants.training.recipe import Run
from variants.training.settings import FitSettings

QUICK = FitSettings(epochs=6, batch=50, rate=1e-2)

pytestmark = pytest.mark.usefixtures("one_thread")


def wide(channels: int) -> Model:
    """An untrained network of two convolutions, whose layers are all wider by the same factor."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * channels, 10),
    )
    return Model(f"wide {channels}", network, {IMAGE: digits().train.inputs[0][:2]})


@cache
def teacher() -> Model:
    return Supervised(replace(QUICK, epochs=12))(wide(16), digits())


class Brightness(nn.Module):
    """Answers with the sums of the quarters of an image, and counts the batches."""

    batches = 0

    def forward(self, images: Tensor) -> Tensor:
        self.batches += 1
        return nn.functional.avg_pool2d(images, 4).flatten(1)


def test_a_student_learns_the_answers_to_changed_images() -> None:
    """Taught so, it agrees with its teacher on moved images more than before, and what that cost is recorded."""
    student = perceptron(32)
    recipe = ConsistentDistillation(teacher(), views=3, augmentation=Shift(1), fit=replace(QUICK, epochs=15))
    taught = recipe(student, digits())
    rows = digits().validation
    moved = replace(rows, inputs=Shift(1)(Batch(rows.inputs, rows.labels), torch.Generator().manual_seed(9)).inputs)
    answers = logits_of(teacher().module, moved).argmax(dim=1)

    def agreement(model: Model) -> float:
        return float((logits_of(model.module, moved).argmax(dim=1) == answers).float().mean())

    assert agreement(taught) > agreement(student) + 0.2
    assert accuracy(taught.module, rows) > 0.5
    step = taught.lineage[-1]
    assert step.labelled_rows == len(digits().train)
    assert step.measures["teacher_parameters"] == teacher().parameters
    assert step.parameters == student.parameters


def test_teacher_and_student_see_the_same_image_and_views_come_round() -> None:
    """What is answered is what the student is shown; the third pass shows the first view again, and asks nobody."""
    rows = digits().train
    looking = Brightness()
    views = Views(looking, rows, Shift(2), 2, seed=0)
    passes: list[Tensor] = []
    for epoch in range(4):
        shown = []
        for chosen in rows.batches(150, torch.Generator().manual_seed(epoch)):
            view = views.shown(Batch(rows.take(chosen).inputs, rows.labels[chosen], chosen))
            torch.testing.assert_close(views.answers(view), nn.functional.avg_pool2d(view.inputs[0], 4).flatten(1))
            assert torch.equal(rows.labels[chosen], view.targets)
            shown.append((chosen, view.inputs[0]))
        order = torch.cat([chosen for chosen, _ in shown]).argsort()
        passes.append(torch.cat([images for _, images in shown])[order])
        assert looking.batches == (-(-len(rows) // 256)) * min(epoch + 1, 2)
    assert torch.equal(passes[0], passes[2])
    assert torch.equal(passes[1], passes[3])
    assert not torch.equal(passes[0], passes[1])
    assert not list(views.parameters())


class _StoppedError(Exception):
    """Stands for Ctrl-C."""


def test_an_interrupted_fit_goes_on_with_the_view_whose_turn_it_is(tmp_path: Path) -> None:
    """Stopped in its fourth epoch of six and begun again, it ends with the weights of an uninterrupted one."""
    recipe = ConsistentDistillation(teacher(), views=2, augmentation=Shift(1), fit=QUICK)
    student = perceptron(8)

    def stop(fraction: float) -> None:
        if fraction > 0.6:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        recipe(student, digits(), Run(progress=stop, checkpoints=tmp_path))
    resumed = recipe(student, digits(), Run(checkpoints=tmp_path))
    whole = recipe(student, digits(), Run())
    for name, weights in whole.module.state_dict().items():
        assert torch.equal(weights, resumed.module.state_dict()[name]), name


@pytest.mark.parametrize("fault", [{"views": 0}, {"temperature": 0.0}, {"alpha": 1.5}], ids=str)
def test_settings_that_cannot_be_are_refused(fault: dict[str, float]) -> None:
    """No views, no temperature, and shares beyond the whole are value errors."""
    with pytest.raises(ValueError, match="1 or more"):
        ConsistentDistillation(teacher(), **fault)  # type: ignore[arg-type]  # that is the fault


def test_a_smaller_network_begins_with_the_parent_s_largest_channels() -> None:
    """The kept kernels of the first layer are the parent's own, those of the largest norm; the parent stays."""
    before = {name: values.clone() for name, values in teacher().module.state_dict().items()}
    heir = ChannelInheritance(teacher())(wide(4), digits())
    kept, given = heir.module[0].weight, teacher().module[0].weight  # type: ignore[index]  # a Sequential
    places = [int((given == kernel).flatten(1).all(dim=1).nonzero()) for kernel in kept]
    assert len(set(places)) == 4
    assert heir.lineage[-1].measures["channels_kept"] == 0.25
    assert heir.parameters == wide(4).parameters
    for name, values in teacher().module.state_dict().items():
        assert torch.equal(before[name], values), name


def test_a_network_of_the_same_shape_inherits_all() -> None:
    """It answers as its parent does."""
    heir = ChannelInheritance(teacher())(wide(16), digits())
    rows = digits().validation
    assert torch.equal(logits_of(heir.module, rows), logits_of(teacher().module, rows))


@pytest.mark.parametrize("child", [lambda: perceptron(16), lambda: wide(32)], ids=["another kind", "wider"])
def test_channels_that_do_not_fit_are_one_clear_line(child: object) -> None:
    """A network of another kind, and one that is wider than its parent, cannot inherit."""
    assert callable(child)
    with pytest.raises(RecipeError, match=r"^'wide 16' with .* of its channels has another shape$"):
        ChannelInheritance(teacher())(child(), digits())
