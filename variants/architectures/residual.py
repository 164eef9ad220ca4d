"""Residual networks of basic blocks: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from variants.architectures.staged import StagedNet


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
class ResidualNet(StagedNet):
    """Stages of residual blocks."""

    widths: tuple[int, ...] = (16, 32, 64)
    blocks: tuple[int, ...] = (1, 1, 1)

    def block(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        """See `StagedNet`."""
        return ResidualBlock(inputs, outputs, stride)
