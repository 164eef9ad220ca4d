"""Depthwise-separable convolutions: Howard et al., "MobileNets", 2017.

A 3x3 convolution on each channel alone and a 1x1 convolution across channels take an eighth to a ninth of the
arithmetic of a full 3x3 convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from variants.architectures.image import SIDE, Pixels
from variants.architectures.scale import Scale


class SeparableBlock(nn.Module):
    """Depthwise 3x3, pointwise 1x1, each with BatchNorm and ReLU; a residual where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()
        )
        self.pointwise = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Map float32 [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        answer: Tensor = self.pointwise(self.depthwise(features))
        return nn.functional.relu(features + answer if self.residual else answer)


@dataclass(frozen=True, slots=True)
class SeparableNet:
    """A stem that halves the image, then stages of separable blocks, each after the first halving it again.

    `widths` are the channels of the stages and `blocks` how many blocks each has; `side` is that of the image.
    """

    widths: tuple[int, ...] = (24, 48, 96)
    blocks: tuple[int, ...] = (1, 2, 2)
    side: int = SIDE

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
                layers.append(SeparableBlock(inputs, width, 2 if stage and not block else 1))
                inputs = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))

    def scaled(self, scale: Scale) -> SeparableNet:
        """Return it with more or fewer channels, blocks and pixels."""
        return replace(
            self,
            widths=tuple(map(scale.channels, self.widths)),
            blocks=tuple(map(scale.blocks, self.blocks)),
            side=scale.side(self.side, SIDE),
        )
