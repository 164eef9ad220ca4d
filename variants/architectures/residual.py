"""Residual networks of basic blocks: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from variants.architectures.image import SIDE, Pixels
from variants.architectures.scale import Scale


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut, 1x1 where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Map float32 [n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        added: Tensor = self.body(features) + self.shortcut(features)
        return nn.functional.relu(added)


@dataclass(frozen=True, slots=True)
class ResidualNet:
    """A stem that halves the image, then stages of residual blocks, each after the first halving it again.

    `widths` are the channels of the stages and `blocks` how many blocks each has; `side` is that of the image.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    blocks: tuple[int, ...] = (1, 1, 1)
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
                layers.append(ResidualBlock(inputs, width, 2 if stage and not block else 1))
                inputs = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))

    def scaled(self, scale: Scale) -> ResidualNet:
        """Return it with more or fewer channels, blocks and pixels."""
        return replace(
            self,
            widths=tuple(map(scale.channels, self.widths)),
            blocks=tuple(map(scale.blocks, self.blocks)),
            side=scale.side(self.side, SIDE),
        )
