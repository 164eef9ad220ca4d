"""Weights that a graph rounds to int8 each time it runs, stored as int8 instead: a quarter of the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


def fold_int8(path: Path) -> int:
    """Rewrite the model at `path`: constants through QuantizeLinear become int8 or uint8 constants; return how many.

    Matrices that are transposed after DequantizeLinear are stored transposed, which lets onnxruntime see the product
    with a constant int8 matrix.
    """
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    kept: list[onnx.NodeProto] = []
    folded: dict[str, NDArray[Any]] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and all(name in constants for name in node.input):
            values, scale, zero = (constants[name] for name in node.input)
            folded[node.output[0]] = quantized(values, scale, zero, _axis(node, values.ndim))
        elif node.op_type != "Identity" or node.input[0] not in constants:
            kept.append(node)
    constants |= folded
    for node in kept:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            # PyTorch writes one scale as a list of one; onnxruntime's int8 kernels want it without a dimension.
            constants |= {name: constants[name].reshape(()) for name in node.input[1:] if constants[name].size == 1}
    kept = _transposed(kept, constants, folded)
    kept = _with_int32_biases(kept, constants)
    used = {name for node in kept for name in node.input}
    produced = {name for node in kept for name in node.output}
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        for name, values in constants.items()
        if name in used and name not in produced
    )
    onnx.save(model, path)
    return len(folded)


def quantized(values: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return what QuantizeLinear gives: values / scale, to the nearest even, plus zero, within the range of its type.

    `scale` and `zero` have one element, or one for each slice along `axis`.
    """
    shape = [-1 if place == axis and scale.size > 1 else 1 for place in range(values.ndim)]
    limits = np.iinfo(zero.dtype)
    steps = np.rint(values / scale.reshape(shape)) + zero.reshape(shape).astype(np.float64)
    result: NDArray[Any] = steps.clip(limits.min, limits.max).astype(zero.dtype)
    return result


def _transposed(
    nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]], folded: dict[str, NDArray[Any]]
) -> list[onnx.NodeProto]:
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    gone: set[str] = set()
    for node in nodes:
        if node.op_type != "DequantizeLinear" or node.input[0] not in folded or constants[node.input[0]].ndim != 2:
            continue
        after = users.get(node.output[0], [])
        if len(after) == 1 and after[0].op_type == "Transpose" and len(users[node.input[0]]) == 1:
            axis = _axis(node, 2)
            constants[node.input[0]] = constants[node.input[0]].T
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("axis", 1 - axis))
            gone.add(after[0].output[0])
            node.output[0] = after[0].output[0]
    return [node for node in nodes if not (node.op_type == "Transpose" and node.output[0] in gone)]


def _with_int32_biases(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]]) -> list[onnx.NodeProto]:
    """Give Gemm its bias in the scale of the product, int32: with a float one onnxruntime multiplies in float."""
    origin = {node.output[0]: node for node in nodes if node.op_type == "DequantizeLinear"}
    result: list[onnx.NodeProto] = []
    for node in nodes:
        values, weights = (origin.get(name) for name in node.input[:2]) if len(node.input) == 3 else (None, None)
        if node.op_type == "Gemm" and values and weights and node.input[2] in constants:
            bias, name = constants[node.input[2]], f"{node.output[0]}_bias"
            scale = (constants[values.input[1]] * constants[weights.input[1]]).astype(np.float32)
            limits = np.iinfo(np.int32)
            constants[f"{name}_int32"] = np.rint(bias / scale).clip(limits.min, limits.max).astype(np.int32)
            constants[f"{name}_scale"] = scale
            constants[f"{name}_zero"] = np.zeros(scale.shape, np.int32)
            parts = [f"{name}_int32", f"{name}_scale", f"{name}_zero"]
            result.append(helper.make_node("DequantizeLinear", parts, [name], axis=0))
            node.input[2] = name
        result.append(node)
    return result


def _axis(node: onnx.NodeProto, rank: int) -> int:
    axis = next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == "axis"), 1)
    return int(axis) % max(1, rank)
