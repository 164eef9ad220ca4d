"""What all image architectures share: a description that builds a network from pixels to logits, and the first step."""

from __future__ import annotations

from typing import Protocol, Self, runtime_checkable

from torch import Tensor, nn

from variants.architectures.scale import Scale

SIDE = 28
"""Pixels of a side of the images that come in; they have one channel."""


@runtime_checkable
class ImageArchitecture(Protocol):
    """A frozen description; equal descriptions build networks of the same shape."""

    def network(self, classes: int) -> nn.Module:
        """Return an untrained network from float32 [n, 28, 28] to logits float32 [n, classes]."""

    def scaled(self, scale: Scale) -> Self:
        """Return a larger or smaller architecture of the same kind."""


class Pixels(nn.Module):
    """Images float32 [n, 28, 28] as one channel [n, 1, side, side]; a side below 28 averages squares of pixels."""

    def __init__(self, side: int) -> None:
        super().__init__()
        if not 1 <= side <= SIDE or SIDE % side:
            raise ValueError(f"side: {side} does not divide {SIDE}")
        self.pool = nn.Identity() if side == SIDE else nn.AvgPool2d(SIDE // side)

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [n, 28, 28] to [n, 1, side, side]."""
        pooled: Tensor = self.pool(images.unsqueeze(1))
        return pooled
