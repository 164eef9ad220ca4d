"""How many multiplications with addition one row takes: a cost that no machine and no neighbour changes.

Counted are products of matrices, convolutions and attention, which is where the time goes; a product of int8 counts as
much as one of fp32. Shapes are those that the tensors really have when the graph runs on a row: shape inference stops
at operators outside the ONNX standard, and int8 graphs are full of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, inliner

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_MATRIX_PRODUCTS = frozenset(
    {"MatMul", "MatMulInteger", "MatMulIntegerToFloat", "FusedMatMul", "DynamicQuantizeMatMul"}
)
_UNCOUNTED = frozenset({"DeformConv", "DynamicQuantizeLSTM", "Einsum", "GRU", "If", "LSTM", "Loop", "RNN", "Scan"})
"""Operators whose products are not counted: a graph with one of them has no known count."""


def count_macs(path: Path, feeds: Mapping[str, NDArray[Any]]) -> int | None:
    """Return the multiplications with addition of one run of a model on the feeds of a batch.

    None where the graph has operators, or forms of operators, whose products cannot be counted, and where it does not
    run as it is written, with no node fused.
    """
    model = onnx.load(path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    if any(node.op_type in _UNCOUNTED for node in model.graph.node):
        return None
    counted = [(node, rule) for node in model.graph.node if (rule := _rule(node)) is not None]
    wanted = {name for node, _ in counted for name in (*node.input, *node.output) if name}
    try:
        shapes = _observed_shapes(model, wanted, feeds)
    except Exception:  # noqa: BLE001 - of onnxruntime's dozen unrelated types; a count is not worth a build
        return None
    try:
        return sum(rule(node, shapes) for node, rule in counted)
    except (IndexError, KeyError):  # an operand is left out or packed in a form that no rule here knows
        return None


def _observed_shapes(model: onnx.ModelProto, wanted: set[str], feeds: Mapping[str, NDArray[Any]]) -> dict[str, Shape]:
    """Return the shapes of tensors by name while the graph runs as it is written, nothing fused."""
    graph = model.graph
    shapes: dict[str, Shape] = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    shapes |= {name: value.shape for name, value in feeds.items()}
    made = {name for node in graph.node for name in node.output}
    observed = sorted((wanted & made) - shapes.keys())
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in observed)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    taken = {node.name for node in session.get_inputs()}
    values = session.run(observed, {name: value for name, value in feeds.items() if name in taken}) if observed else []
    return shapes | {name: np.shape(value) for name, value in zip(observed, values, strict=True)}


def _rule(node: onnx.NodeProto) -> Callable[[onnx.NodeProto, Shapes], int] | None:
    if node.op_type in _MATRIX_PRODUCTS:
        return _matrix_product
    return _RULES.get(node.op_type)


def _matrix_product(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Every element of the output is a sum over the last axis of the first operand."""
    transposed = bool(_attribute(node, "transA", 0))
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-2 if transposed else -1]


def _quantized_product(node: onnx.NodeProto, shapes: Shapes) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _product_of_blocks(node: onnx.NodeProto, shapes: Shapes) -> int:
    """`MatMulNBits` stores its weights in blocks and has the summed axis as an attribute."""
    return math.prod(shapes[node.output[0]]) * int(_attribute(node, "K", 0))


def _convolution(weight: int) -> Callable[[onnx.NodeProto, Shapes], int]:
    """Weights are [out, in / groups, kernel...]: each output is a sum over all but the first axis."""

    def rule(node: onnx.NodeProto, shapes: Shapes) -> int:
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[weight]][1:])

    return rule


def _transposed_convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Weights are [in, out / groups, kernel...]: each input is spread over all but the first axis."""
    return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])


def _packed_attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """`Attention` of onnxruntime makes queries, keys and values itself: [b, t, h] times [h, 3 d], then t x t twice."""
    rows, tokens, width = shapes[node.input[0]]
    projected = shapes[node.input[1]][1]
    return rows * tokens * width * projected + 2 * rows * tokens * tokens * (projected // 3)


def _attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Scores of queries [b, (heads,) t, d] and keys, then as many products with the values; d over all heads."""
    queries, keys, values = (shapes[name] for name in node.input[:3])
    per_row = queries[-2] * keys[-2] * (queries[-1] + values[-1])
    return math.prod(queries[:-2]) * per_row


def _standard_or_packed(node: onnx.NodeProto, shapes: Shapes) -> int:
    return (_packed_attention if node.domain else _attention)(node, shapes)


_RULES: Mapping[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Attention": _standard_or_packed,
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed_convolution,
    "FusedConv": _convolution(1),
    "Gemm": _matrix_product,
    "MatMulNBits": _product_of_blocks,
    "MultiHeadAttention": _attention,
    "QAttention": _packed_attention,
    "QGemm": _quantized_product,
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _quantized_product,
}


def _attribute(node: onnx.NodeProto, name: str, default: int) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
