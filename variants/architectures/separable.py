"""Depthwise-separable convolutions: Howard et al., "MobileNets", 2017.

A 3x3 convolution on each channel alone and a 1x1 convolution across channels take an eighth to a ninth of the
arithmetic of a full 3x3 convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from variants.architectures.staged import StagedNet


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
class SeparableNet(StagedNet):
    """Stages of separable blocks."""

    widths: tuple[int, ...] = (24, 48, 96)
    blocks: tuple[int, ...] = (1, 2, 2)

    def block(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        """See `StagedNet`."""
        return SeparableBlock(inputs, outputs, stride)
