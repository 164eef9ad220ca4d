"""Convolutions and pools of ONNX in torch: what pads. Pure. https://onnx.ai/onnx/operators/"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from variants.porting.operator import Attributes, UnsupportedError, Value


def convolution(inputs: Sequence[Value], attributes: Attributes) -> Value:
    """Conv, in one to three dimensions."""
    tensor, weight, *bias = inputs
    tensor, padding = _padded(tensor, attributes, weight.dim() - 2, 0.0)
    function = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[weight.dim()]
    return function(
        tensor,
        weight,
        bias[0] if bias else None,
        attributes.get("strides", 1),
        padding,
        attributes.get("dilations", 1),
        attributes.get("group", 1),
    )


def max_pool(inputs: Sequence[Value], attributes: Attributes) -> Value:
    """MaxPool of images."""
    kernel = attributes["kernel_shape"]
    tensor, padding = _padded(inputs[0], attributes, len(kernel), -math.inf)
    return functional.max_pool2d(
        tensor,
        kernel,
        attributes.get("strides", [1] * len(kernel)),
        padding,
        attributes.get("dilations", 1),
        bool(attributes.get("ceil_mode", 0)),
    )


def average_pool(inputs: Sequence[Value], attributes: Attributes) -> Value:
    """AveragePool of images; without padding, or with padding that counts."""
    kernel, pads = attributes["kernel_shape"], attributes.get("pads", [])
    if any(pads) and not attributes.get("count_include_pad", 0):
        raise UnsupportedError("AveragePool that does not count its padding")
    tensor, padding = _padded(inputs[0], attributes, len(kernel), 0.0)
    strides = attributes.get("strides", [1] * len(kernel))
    return functional.avg_pool2d(tensor, kernel, strides, padding, bool(attributes.get("ceil_mode", 0)))


def _padded(tensor: Tensor, attributes: Attributes, dimensions: int, value: float) -> tuple[Tensor, list[int]]:
    """Return the tensor and the padding that the operator is to add: what is not the same at both sides is added here.

    Raises `UnsupportedError` where padding depends on the size of the image.
    """
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise UnsupportedError(f"padding by {attributes['auto_pad'].decode()}")
    pads = list(attributes.get("pads", [])) or [0] * (2 * dimensions)
    begins, ends = pads[:dimensions], pads[dimensions:]
    if begins == ends:
        return tensor, begins
    sides = [side for pair in reversed(list(zip(begins, ends, strict=True))) for side in pair]
    return functional.pad(tensor, sides, value=value), [0] * dimensions


def batch_normalization(inputs: Sequence[Value], attributes: Attributes) -> Value:
    """BatchNormalization as it is outside training."""
    tensor, scale, bias, mean, variance = inputs
    return functional.batch_norm(tensor, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))
