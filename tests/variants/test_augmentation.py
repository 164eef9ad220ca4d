from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.networks import digits, perceptron, sentences
from variants.recipes.supervised import Supervised
from variants.training.batch import Augmentation, Batch, Compose
from variants.training.image_augmentation import Crop, Cutout, Flip, Mixup, Shift
from variants.training.recipe import Run
from variants.training.settings import FitSettings
from variants.training.text_augmentation import TokenDropout, TokenSwap

IMAGES = (Shift(2), Flip(0.5), Crop(0.6), Cutout(3), Mixup(10), Compose((Shift(1), Mixup(10))))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(rows: int = 40, channels: int | None = 2) -> Batch:
    shape = (rows, 9, 7) if channels is None else (rows, channels, 9, 7)
    return Batch((1.0 + torch.rand(shape, generator=generator(5)),), torch.arange(rows) % 10, torch.arange(rows))


@pytest.mark.parametrize("channels", [None, 2])
@pytest.mark.parametrize("augmentation", IMAGES, ids=str)
def test_images_change_but_keep_their_shape(augmentation: Augmentation, channels: int | None) -> None:
    """Images with and without channels keep shape and type, the given ones stay; one seed gives one result."""
    batch = images(channels=channels)
    before = batch.inputs[0].clone()
    changed = augmentation(batch, generator(1))
    assert torch.equal(before, batch.inputs[0])
    assert (before.shape, before.dtype) == (changed.inputs[0].shape, changed.inputs[0].dtype)
    assert not torch.equal(before, changed.inputs[0])
    assert changed.rows is None
    assert torch.equal(changed.inputs[0], augmentation(batch, generator(1)).inputs[0])
    assert not torch.equal(changed.inputs[0], augmentation(batch, generator(2)).inputs[0])
    # Rows are changed differently: one image, many times, gives several.
    same = Batch((before[:1].expand_as(before).contiguous(),), torch.zeros(len(before), dtype=torch.int64))
    if not isinstance(augmentation, Mixup):
        assert len(augmentation(same, generator(1)).inputs[0].flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize("augmentation", IMAGES, ids=str)
def test_labels_stay_labels_or_shares(augmentation: Augmentation) -> None:
    """What is not blended keeps its labels; what is blended has shares that add up to 1."""
    targets = augmentation(images(), generator()).targets
    if targets.dim() == 1:
        assert torch.equal(images().targets, targets)
    else:
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(40))


def test_a_shift_moves_every_pixel_alike() -> None:
    """A shifted image is the old one moved by one offset, with zeros coming in; all offsets occur."""
    batch = images(rows=200)
    moved = Shift(1)(batch, generator()).inputs[0]
    seen = set()
    for before, after in zip(batch.inputs[0], moved, strict=True):
        offsets = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if torch.equal(
                after,
                torch.nn.functional.pad(before, (1, 1, 1, 1))[:, 1 + down : 10 + down, 1 + right : 8 + right],
            )
        ]
        assert len(offsets) == 1
        seen.update(offsets)
    assert len(seen) == 9


def test_a_flip_is_a_mirror() -> None:
    """Each image is the old one or its mirror image, and both occur."""
    batch = images()
    flipped = Flip()(batch, generator()).inputs[0]
    is_same = (flipped == batch.inputs[0]).flatten(1).all(dim=1)
    is_mirrored = (flipped == batch.inputs[0].flip(-1)).flatten(1).all(dim=1)
    assert bool((is_same ^ is_mirrored).all())
    assert 0 < int(is_same.sum()) < len(is_same)


def test_a_crop_of_all_is_the_image() -> None:
    """The whole image, enlarged to the whole, is itself; a part of a plain image is plain."""
    torch.testing.assert_close(Crop(1.0)(images(), generator()).inputs[0], images().inputs[0])
    plain = Batch((torch.full((3, 9, 7), 0.25),), torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(Crop(0.5)(plain, generator()).inputs[0], plain.inputs[0])


@pytest.mark.parametrize("side", [1, 3, 20])
def test_a_cutout_is_a_square(side: int) -> None:
    """The hole is a rectangle of at most the side, the same in every channel; all else stays."""
    batch = images()
    cut = Cutout(side)(batch, generator()).inputs[0]
    is_hole = cut == 0.0
    assert torch.equal(is_hole[:, 0], is_hole[:, 1])
    assert torch.equal(cut[~is_hole], batch.inputs[0][~is_hole])
    for hole in is_hole[:, 0]:
        down, right = hole.any(dim=1), hole.any(dim=0)
        assert 0 < int(hole.sum()) == int(down.sum()) * int(right.sum())
        assert int(down.sum()) <= side >= int(right.sum())


def test_mixup_blends_images_and_labels_alike() -> None:
    """Where image and label of a row are one number, they are so afterwards."""
    values = torch.arange(10)
    batch = Batch((values.float().view(10, 1, 1, 1),), values)
    mixed = Mixup(10, alpha=1.0)(batch, generator())
    torch.testing.assert_close(mixed.inputs[0].flatten(), mixed.targets @ values.float(), rtol=1e-4, atol=1e-5)
    twice = Mixup(10)(mixed, generator())
    torch.testing.assert_close(twice.targets.sum(dim=1), torch.ones(10))


@given(seed=st.integers(0, 1000), times=st.integers(1, 5))
def test_swapped_texts_have_the_same_tokens(seed: int, times: int) -> None:
    """Rows keep their tokens, first, last and padding; only the order within changes."""
    rows = sentences().train.take(torch.arange(20))
    swapped = TokenSwap(times)(Batch(rows.inputs, rows.labels), generator(seed)).inputs[0]
    ids, mask = rows.inputs
    assert torch.equal(ids.sort(dim=1).values, swapped.sort(dim=1).values)
    fixed = (mask == 0) | (ids == 2) | (ids == 3)
    assert torch.equal(ids[fixed], swapped[fixed])


def test_texts_too_short_to_swap_stay() -> None:
    """A row of one word between its marks is what it was."""
    ids, mask = torch.tensor([[2, 9, 3, 0], [2, 3, 0, 0]]), torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    swapped = TokenSwap(3)(Batch((ids, mask), torch.zeros(2)), generator())
    assert torch.equal(ids, swapped.inputs[0])


def test_dropped_tokens_are_replaced() -> None:
    """About the share of the inner tokens is replaced; first, last and padding never are."""
    ids, mask = sentences().train.inputs
    dropped = TokenDropout(1, 0.3)(Batch((ids, mask), sentences().train.labels), generator()).inputs[0]
    is_inner = ids > 3
    assert torch.equal(ids[~is_inner], dropped[~is_inner])
    assert float((dropped[is_inner] == 1).float().mean()) == pytest.approx(0.3, abs=0.04)
    assert torch.equal(dropped[is_inner & (dropped != 1)], ids[is_inner & (dropped != 1)])


def test_augmented_training_is_reproducible_and_told() -> None:
    """One seed gives one network with augmentation too, and the lineage names it."""
    recipe = Supervised(FitSettings(epochs=2, batch=50, augmentation=Compose((Shift(1), Mixup(10)))))
    first, second = (recipe(perceptron(), digits(), Run(seed=1)) for _ in range(2))
    pairs = zip(first.module.parameters(), second.module.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert "Mixup(classes=10, alpha=0.2)" in str(first.lineage[-1].settings["fit.augmentation.parts"])
