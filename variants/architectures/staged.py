"""Convolutional networks in stages: what residual and separable ones have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Self

from torch import nn

from variants.architectures.image import SIDE, Pixels
from variants.architectures.scale import Scale


@dataclass(frozen=True, slots=True)
class StagedNet:
    """A stem that halves the image, then stages of blocks of one kind, each after the first halving it again.

    `widths` are the channels of the stages and `blocks` how many blocks each has; `side` is that of the image.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    side: int = SIDE

    @abstractmethod
    def block(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        """Return an untrained block from float32 [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""

    def network(self, classes: int) -> nn.Module:
        """Return an untrained network from float32 [n, 28, 28] to logits float32 [n, classes]."""
        first = self.widths[0]
        layers: list[nn.Module] = [
            Pixels(self.side),
            nn.Conv2d(1, first, 3, 2, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
        ]
        inputs = first
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for block in range(blocks):
                layers.append(self.block(inputs, width, 2 if stage and not block else 1))
                inputs = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))

    def scaled(self, scale: Scale) -> Self:
        """Return it with more or fewer channels, blocks and pixels."""
        return replace(
            self,
            widths=tuple(map(scale.channels, self.widths)),
            blocks=tuple(map(scale.blocks, self.blocks)),
            side=scale.side(self.side, SIDE),
        )
