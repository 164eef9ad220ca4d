"""Layers that compute in float32 what int8 would give, so that training can make up for the rounding.

PyTorch's `FakeQuantize` rounds to the grid and lets gradients pass straight through: Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018. Exported, each becomes a pair
of QuantizeLinear and DequantizeLinear, from which onnxruntime makes int8 kernels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver

from variants.training.rows import Rows

OBSERVER_MEMORY = 0.05
"""How far a batch's smallest and largest activation move the range."""


class Rounding(FakeQuantize):
    """Rounds to 256 levels of a range that it learns while training, and only then."""

    def forward(self, values: Tensor) -> Tensor:
        """Return the values rounded, float32 of the same shape."""
        rounded: Tensor
        if self.training:
            rounded = super().forward(values)  # type: ignore[no-untyped-call]  # torch.ao has no annotations
        elif self.is_per_channel:
            rounded = torch.fake_quantize_per_channel_affine(
                values, self.scale, self.zero_point, self.ch_axis, self.quant_min, self.quant_max
            )
        else:
            rounded = torch.fake_quantize_per_tensor_affine(
                values, self.scale, self.zero_point, self.quant_min, self.quant_max
            )
        return rounded


def activation_rounding() -> Rounding:
    """Return the rounding of a tensor to uint8, one scale for all of it."""
    return Rounding(  # type: ignore[no-untyped-call]  # torch.ao has no annotations
        observer=MovingAverageMinMaxObserver,
        quant_min=0,
        quant_max=255,
        dtype=torch.quint8,
        averaging_constant=OBSERVER_MEMORY,
    )


def weight_rounding(bits: int) -> Rounding:
    """Return the rounding of weights [outputs, ...] to int8, one scale per output, always that of the weights now.

    With 7 bits they stay within -64 and 63: x86 without VNNI adds pairs of products in 16 bits, where two of 255 x 127
    saturate and two of 255 x 64 do not. With 8 the answers are right on processors with VNNI only.
    """
    rounding = Rounding(  # type: ignore[no-untyped-call]  # torch.ao has no annotations
        observer=MovingAveragePerChannelMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        averaging_constant=1.0,
    )
    # The scale is the observer's affair. ONNX has no grid of 7 bits, so the range of the rounding itself stays 8.
    rounding.activation_post_process.quant_min = -(2 ** (bits - 1))
    rounding.activation_post_process.quant_max = 2 ** (bits - 1) - 1
    return rounding


class RoundedLayer(nn.Module):
    """A linear or convolutional layer with rounded weights and, where asked for, rounded inputs and outputs."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, weight_bits: int, *, inputs: bool, outputs: bool) -> None:
        super().__init__()
        self.layer = layer
        self.weight_rounding = weight_rounding(weight_bits)
        self.input_rounding: nn.Module = activation_rounding() if inputs else nn.Identity()
        self.output_rounding: nn.Module = activation_rounding() if outputs else nn.Identity()

    def forward(self, values: Tensor) -> Tensor:
        """Map the values as the layer does."""
        values = self.input_rounding(values)
        weight = self.weight_rounding(self.layer.weight)
        answer: Tensor
        if isinstance(self.layer, nn.Linear):
            answer = nn.functional.linear(values, weight, self.layer.bias)
        else:
            layer: Any = self.layer
            answer = layer._conv_forward(values, weight, layer.bias)  # noqa: SLF001 - the one place that pads by mode
        rounded: Tensor = self.output_rounding(answer)
        return rounded


def roundings(module: nn.Module) -> list[Rounding]:
    """Return all roundings in the module."""
    return [part for part in module.modules() if isinstance(part, Rounding)]


def learn_ranges(module: nn.Module, rows: Rows, batch: int) -> None:
    """Run the rows through and take their ranges, rounding nothing; what else the module learns meanwhile is undone."""
    parts = roundings(module)
    module.eval()
    for rounding in parts:
        rounding.train()
        rounding.disable_fake_quant()
    with torch.no_grad():
        for chosen in rows.batches(batch):
            module(*rows.take(chosen).inputs)
    for rounding in parts:
        rounding.enable_fake_quant()


def fix_ranges(module: nn.Module) -> None:
    """Let activations keep the ranges that they have; those of weights still follow the weights."""
    for rounding in roundings(module):
        if not rounding.is_per_channel:
            rounding.disable_observer()


def settle(module: nn.Module) -> None:
    """End the training: weights are rounded to the ranges that they have now, and no range moves again."""
    fix_ranges(module)
    for part in module.modules():
        if isinstance(part, RoundedLayer):
            part.weight_rounding.train()(part.layer.weight)
    for rounding in roundings(module):
        rounding.disable_observer()
    module.eval()
