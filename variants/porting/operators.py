"""What each ONNX operator is in torch: float graphs of networks, opset 17. Pure.

A value is a tensor or, where a graph computes with shapes, a number or a list of numbers, which may be symbols while a
program is exported: so rows and tokens stay of any number. https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from variants.porting.image_operators import average_pool, batch_normalization, convolution, max_pool
from variants.porting.operator import Attributes, Operator, UnsupportedError, Value

_TYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
}
"""By `onnx.TensorProto.DataType`."""


def _is_shape(value: Value) -> bool:
    return value is not None and not isinstance(value, Tensor)


def _elementwise(on_tensors: Callable[..., Tensor], on_numbers: Callable[[Any, Any], Any] | None = None) -> Operator:
    """An operator of two values; on shapes it works number by number."""

    def apply(inputs: Sequence[Value], _: Attributes) -> Value:
        first, second = inputs
        if _is_shape(first) and _is_shape(second) and on_numbers is not None:
            if isinstance(first, list) or isinstance(second, list):
                longest = max(len(side) for side in (first, second) if isinstance(side, list))
                sides = [side if isinstance(side, list) else [side] * longest for side in (first, second)]
                sides = [side * longest if len(side) == 1 else side for side in sides]
                return [on_numbers(a, b) for a, b in zip(*sides, strict=True)]
            return on_numbers(first, second)
        return on_tensors(*_tensors(first, second))

    return apply


def _tensors(*values: Value) -> tuple[Value, ...]:
    """Constants that might have been shapes as tensors; a symbol stays what it is."""
    return tuple(torch.tensor(value) if isinstance(value, (int, list)) else value for value in values)


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, _: function(inputs[0])


def _divide(first: Tensor, second: Value) -> Tensor:
    """Integers are divided towards zero."""
    if first.is_floating_point():
        return torch.div(first, second)
    return torch.div(first, second, rounding_mode="trunc")


def _modulo(inputs: Sequence[Value], attributes: Attributes) -> Value:
    first, second = _tensors(*inputs)
    return torch.fmod(first, second) if attributes.get("fmod", 0) else torch.remainder(first, second)


def _cast(inputs: Sequence[Value], attributes: Attributes) -> Value:
    if _is_shape(inputs[0]):
        return inputs[0]
    kind = _TYPES.get(attributes["to"])
    if kind is None:
        raise UnsupportedError(f"Cast to the element type {attributes['to']}")
    return inputs[0].to(kind)


def _clip(inputs: Sequence[Value], _: Attributes) -> Value:
    low, high = (*inputs[1:], None, None)[:2]
    return torch.clamp(inputs[0], low, high)


def _concat(inputs: Sequence[Value], attributes: Attributes) -> Value:
    if all(map(_is_shape, inputs)):
        return [number for part in inputs for number in (part if isinstance(part, list) else [part])]
    return torch.cat(list(inputs), attributes["axis"])


def _flatten(inputs: Sequence[Value], attributes: Attributes) -> Value:
    tensor, axis = inputs[0], attributes.get("axis", 1)
    if axis == 1:
        return tensor.flatten(1)
    return tensor.reshape(math.prod(tensor.shape[:axis]), -1)


def _gather(inputs: Sequence[Value], attributes: Attributes) -> Value:
    values, index = inputs
    axis = attributes.get("axis", 0)
    if isinstance(values, list):
        return [values[number] for number in index] if isinstance(index, list) else values[index]
    if isinstance(index, int):
        return values.select(axis, index)
    if isinstance(index, list):
        return values.index_select(axis, torch.tensor(index))
    if axis == 0 and values.dim() == 2:
        return functional.embedding(index, values)
    flat = values.index_select(axis, index.reshape(-1))
    return flat.reshape(*values.shape[:axis], *index.shape, *values.shape[axis + 1 :])


def _gemm(inputs: Sequence[Value], attributes: Attributes) -> Value:
    left, right, *rest = inputs
    if attributes.get("transA", 0):
        left = left.t()
    if attributes.get("alpha", 1.0) != 1.0:
        left = left * attributes["alpha"]
    bias = rest[0] if rest else None
    if bias is not None and attributes.get("beta", 1.0) != 1.0:
        bias = bias * attributes["beta"]
    right = right if attributes.get("transB", 0) else right.t()
    if bias is None or bias.dim() == 1:
        return functional.linear(left, right, bias)
    return functional.linear(left, right) + bias


def _layer_normalization(inputs: Sequence[Value], attributes: Attributes) -> Value:
    tensor, scale, *bias = inputs
    axis = attributes.get("axis", -1)
    over = tensor.shape[axis % tensor.dim() :]
    return functional.layer_norm(tensor, over, scale, bias[0] if bias else None, attributes.get("epsilon", 1e-5))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    """Axes are an input or, as in older operator sets, an attribute; without any, all are."""

    def apply(inputs: Sequence[Value], attributes: Attributes) -> Value:
        axes = inputs[1] if len(inputs) > 1 else attributes.get("axes")
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return inputs[0]
        axes = [axes] if isinstance(axes, int) else axes or list(range(inputs[0].dim()))
        return function(inputs[0], list(axes), bool(attributes.get("keepdims", 1)))

    return apply


def _reshape(inputs: Sequence[Value], attributes: Attributes) -> Value:
    tensor, shape = inputs
    if _is_shape(tensor):
        return tensor if shape else tensor[0]
    if not attributes.get("allowzero", 0):
        shape = [tensor.shape[at] if isinstance(size, int) and size == 0 else size for at, size in enumerate(shape)]
    return tensor.reshape(shape)


def _slice(inputs: Sequence[Value], _: Attributes) -> Value:
    tensor, starts, ends, *more = inputs
    steps = more[1] if len(more) > 1 and more[1] is not None else [1] * len(starts)
    if isinstance(tensor, list):
        return tensor[starts[0] : ends[0] : steps[0]]
    axes = more[0] if more and more[0] is not None else list(range(len(starts)))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise UnsupportedError("Slice backwards")
        tensor = tensor[(*[slice(None)] * (axis % tensor.dim()), slice(start, end, step))]
    return tensor


def _squeeze(inputs: Sequence[Value], _: Attributes) -> Value:
    if isinstance(inputs[0], list):
        return inputs[0][0]
    return inputs[0].squeeze(inputs[1] if len(inputs) > 1 else [at for at, n in enumerate(inputs[0].shape) if n == 1])


def _unsqueeze(inputs: Sequence[Value], _: Attributes) -> Value:
    value, axes = inputs
    if _is_shape(value):
        if isinstance(value, list):
            raise UnsupportedError("Unsqueeze of a whole shape")
        return [value]
    rank = value.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return value


def _expand(inputs: Sequence[Value], _: Attributes) -> Value:
    tensor, shape = inputs
    return torch.broadcast_to(tensor, torch.broadcast_shapes(tensor.shape, shape))


OPERATORS: Mapping[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _elementwise(torch.add, lambda a, b: a + b),
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": convolution,
    "Div": _elementwise(_divide, lambda a, b: a // b),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(lambda tensor: tensor.mean(list(range(2, tensor.dim())), keepdim=True)),
    "HardSigmoid": lambda inputs, attributes: torch.clamp(
        inputs[0] * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0.0, 1.0
    ),
    "HardSwish": _unary(functional.hardswish),
    "Identity": lambda inputs, _: inputs[0],
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": lambda inputs, attributes: functional.leaky_relu(inputs[0], attributes.get("alpha", 0.01)),
    "MatMul": _elementwise(torch.matmul),
    "Max": _elementwise(torch.maximum),
    "MaxPool": max_pool,
    "Min": _elementwise(torch.minimum),
    "Mod": _modulo,
    "Mul": _elementwise(torch.mul, lambda a, b: a * b),
    "Neg": _unary(torch.neg),
    "Pow": _elementwise(torch.pow),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Shape": lambda inputs, attributes: list(inputs[0].shape)[attributes.get("start", 0) : attributes.get("end")],
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": _slice,
    "Softmax": lambda inputs, attributes: torch.softmax(inputs[0], attributes.get("axis", -1)),
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(torch.sub, lambda a, b: a - b),
    "Tanh": _unary(torch.tanh),
    "Transpose": lambda inputs, attributes: inputs[0].permute(
        attributes.get("perm", list(reversed(range(inputs[0].dim()))))
    ),
    "Unsqueeze": _unsqueeze,
    "Where": lambda inputs, _: torch.where(*_tensors(*inputs)),
}
