"""Random changes of image batches [n, channels, height, width] or [n, height, width], each row its own.

All draw from the generator that is given, so that one seed gives one run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from variants.training.batch import Batch


@dataclass(frozen=True, slots=True)
class Shift:
    """Move each image by up to `pixels` in both directions; what comes in is 0.

    The random crop of a padded image, as in He et al., "Deep Residual Learning", CVPR 2016.
    """

    pixels: int = 2

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with its first input moved."""
        images = batch.inputs[0]
        height, width = images.shape[-2:]
        padded = nn.functional.pad(images, [self.pixels] * 4)
        offsets = torch.randint(2 * self.pixels + 1, (2, len(images)), generator=generator)
        down = offsets[0][:, None] + torch.arange(height)
        right = offsets[1][:, None] + torch.arange(width)
        rows = torch.arange(len(images))[:, None, None]
        picked = padded.movedim((-2, -1), (1, 2))[rows, down[:, :, None], right[:, None, :]]
        return _with_images(batch, picked.movedim((1, 2), (-2, -1)))


@dataclass(frozen=True, slots=True)
class Flip:
    """Mirror each image left to right with the probability `share`."""

    share: float = 0.5

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with some images mirrored."""
        images = batch.inputs[0]
        chosen = torch.rand(len(images), generator=generator) < self.share
        return _with_images(batch, torch.where(_per_row(chosen, images), images.flip(-1), images))


@dataclass(frozen=True, slots=True)
class Crop:
    """Enlarge a random square part of each image, `least` to 1 of its side, to the whole: bilinear.

    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    """

    least: float = 0.7

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with each image cropped."""
        images = batch.inputs[0]
        maps = images if images.dim() == 4 else images.unsqueeze(1)
        side = self.least + (1.0 - self.least) * torch.rand(len(maps), generator=generator)
        centre = (torch.rand(2, len(maps), generator=generator) * 2.0 - 1.0) * (1.0 - side)
        zoom = torch.zeros(len(maps), 2, 3)
        zoom[:, 0, 0] = zoom[:, 1, 1] = side
        zoom[:, :, 2] = centre.T
        grid = nn.functional.affine_grid(zoom, list(maps.shape), align_corners=False)
        cropped = nn.functional.grid_sample(maps, grid, padding_mode="border", align_corners=False)
        return _with_images(batch, cropped.view_as(images))


@dataclass(frozen=True, slots=True)
class Cutout:
    """Blank a square of `side` pixels around a random point of each image.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """

    side: int = 8

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with a hole, of zeros, in each image."""
        images = batch.inputs[0]
        is_hole = torch.ones(len(images), *images.shape[-2:], dtype=torch.bool)
        for axis, length in ((1, images.shape[-2]), (2, images.shape[-1])):
            start = torch.randint(length, (len(images),), generator=generator)[:, None] - self.side // 2
            places = torch.arange(length)
            is_inside = (places >= start) & (places < start + self.side)
            is_hole &= is_inside.unsqueeze(3 - axis)
        holes = is_hole if images.dim() == 3 else is_hole.unsqueeze(1)
        return _with_images(batch, images.masked_fill(holes, 0.0))


@dataclass(frozen=True, slots=True)
class Mixup:
    """Blend each image, and its label, with those of another row; `classes` is how many labels there are.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018: shares drawn from Beta(alpha, alpha).
    """

    classes: int
    alpha: float = 0.2

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with blended images and targets float32 [n, classes]."""
        images = batch.inputs[0]
        targets = batch.targets
        if targets.dim() == 1:
            targets = nn.functional.one_hot(targets, self.classes).float()
        # Beta from two gammas: torch's own Beta takes no generator.
        gammas = torch._standard_gamma(torch.full((2, len(images)), self.alpha), generator=generator)  # noqa: SLF001 - see above
        share = gammas[0] / gammas.sum(dim=0).clamp(min=1e-30)
        partner = torch.randperm(len(images), generator=generator)
        kept = _per_row(share, images)
        blended = kept * images + (1.0 - kept) * images[partner]
        return Batch((blended, *batch.inputs[1:]), share[:, None] * targets + (1.0 - share[:, None]) * targets[partner])


def _per_row(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, *[1] * (images.dim() - 1))


def _with_images(batch: Batch, images: Tensor) -> Batch:
    return Batch((images, *batch.inputs[1:]), batch.targets)
