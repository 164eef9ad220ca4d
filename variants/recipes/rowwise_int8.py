"""Row-wise dynamic int8: a graph rewrite that keeps the speed of int8 and makes answers independent of the batch.

Dynamic quantization scales activations by their range over the whole batch, padding included, so a row's answer
depends on its neighbours. Here every row (every token, for text) has its own scale. In front of a product with constant
weights the rewrite puts

    scale = max(|x| over the last axis, 1e-6);  q = QuantizeLinear(x / scale, 1/127, zero point 128)
    y = MatMulIntegerToFloat(q, int8 weights, 1/127, scales per column) * scale

and it stores large constant embedding tables as int8 with one scale per table row. Scales per row of activations are
those of LLM.int8() (Dettmers et al., 2022) and ZeroQuant (Yao et al., 2022). No calibration data is needed.

The integer product is uint8 x int8. On x86 without VNNI its 16-bit sums may saturate, which costs accuracy but not
invariance: measure on the machine that serves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from variants.recipes.artifact import Artifact, RecipeError

RECIPE = "rowwise-int8"
MINIMUM_WEIGHTS = 1024
"""Smaller matrices (heads) stay fp32: they take no time and decide the answer."""

_STEP = "rowwise_step"
_FLOOR = "rowwise_floor"
_ACTIVATION_ZERO = "rowwise_activation_zero"
_CONTRIB_DOMAIN = "com.microsoft"


def rowwise_int8(source: Artifact, path: Path, *, minimum_weights: int = MINIMUM_WEIGHTS) -> Artifact:
    """Write `source` with its constant matrices of at least `minimum_weights` elements in int8.

    Raises `RecipeError` where the graph has no such matrix.
    """
    model = onnx.load(source.path)
    rewrite = _Rewrite(model.graph, minimum_weights)
    nodes = [made for node in model.graph.node for made in rewrite.nodes_for(node)]
    if not rewrite.rewritten:
        raise RecipeError(f"no MatMul, Gemm or Gather with at least {minimum_weights} constant weights")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    constants = [constant for constant in (*model.graph.initializer, *rewrite.constants) if constant.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    if all(entry.domain != _CONTRIB_DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_CONTRIB_DOMAIN, 1))
    onnx.save(model, path)
    return source.next(path, RECIPE, "row-wise int8")


class _Rewrite:
    """The rewrite of one graph. Inputs and weights that several products share are quantized once."""

    def __init__(self, graph: onnx.GraphProto, minimum_weights: int) -> None:
        self.constants: list[onnx.TensorProto] = []
        self.rewritten = 0
        self._graph_constants = {tensor.name: tensor for tensor in graph.initializer}
        self._minimum_weights = minimum_weights
        self._quantized_inputs: set[str] = set()
        self._quantized_weights: set[str] = set()

    def nodes_for(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return the nodes that take the place of `node`; itself where nothing is to be done."""
        if node.op_type == "MatMul" and self._is_large_matrix(node.input[1]):
            return self._product(node.input[0], node.input[1], node.output[0], transposed=False)
        if node.op_type == "Gemm" and self._is_large_matrix(node.input[1]) and _is_plain(node):
            return self._gemm(node)
        if node.op_type == "Gather" and self._is_large_matrix(node.input[0]) and _attribute(node, "axis", 0) == 0:
            return self._gather(node)
        return [node]

    def _is_large_matrix(self, name: str) -> bool:
        tensor = self._graph_constants.get(name)
        return (
            tensor is not None
            and tensor.data_type == onnx.TensorProto.FLOAT
            and len(tensor.dims) == 2
            and tensor.dims[0] * tensor.dims[1] >= self._minimum_weights
        )

    def _gemm(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        transposed = bool(_attribute(node, "transB", 0))
        if len(node.input) < 3 or not node.input[2]:
            return self._product(node.input[0], node.input[1], node.output[0], transposed=transposed)
        product = f"{node.output[0]}_rowwise_product"
        nodes = self._product(node.input[0], node.input[1], product, transposed=transposed)
        return [*nodes, helper.make_node("Add", [product, node.input[2]], [node.output[0]])]

    def _product(self, activations: str, weights: str, output: str, *, transposed: bool) -> list[onnx.NodeProto]:
        self.rewritten += 1
        quantized, scale = f"{activations}_rowwise_quantized", f"{activations}_rowwise_scale"
        nodes = [] if activations in self._quantized_inputs else self._quantize(activations, quantized, scale)
        matrix = f"{weights}_int8{'_transposed' if transposed else ''}"
        self._store_matrix(weights, matrix, transposed=transposed)
        unscaled = f"{output}_rowwise_unscaled"
        operands = [quantized, matrix, _STEP, f"{matrix}_scale", _ACTIVATION_ZERO, f"{matrix}_zero"]
        nodes.append(helper.make_node("MatMulIntegerToFloat", operands, [unscaled], domain=_CONTRIB_DOMAIN))
        nodes.append(helper.make_node("Mul", [unscaled, scale], [output]))
        return nodes

    def _quantize(self, activations: str, quantized: str, scale: str) -> list[onnx.NodeProto]:
        if not self._quantized_inputs:
            self._store(_STEP, np.float32(1 / 127))
            self._store(_FLOOR, np.float32(1e-6))
            self._store(_ACTIVATION_ZERO, np.uint8(128))
        self._quantized_inputs.add(activations)
        absolute, largest, scaled = (f"{activations}_rowwise_{part}" for part in ("absolute", "largest", "scaled"))
        return [
            helper.make_node("Abs", [activations], [absolute]),
            helper.make_node("ReduceMax", [absolute], [largest], axes=[-1], keepdims=1),
            helper.make_node("Max", [largest, _FLOOR], [scale]),
            helper.make_node("Div", [activations, scale], [scaled]),
            helper.make_node("QuantizeLinear", [scaled, _STEP, _ACTIVATION_ZERO], [quantized]),
        ]

    def _gather(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        self.rewritten += 1
        table, rows, (output,) = node.input[0], node.input[1], node.output
        if table not in self._quantized_weights:
            self._quantized_weights.add(table)
            values, scales = _symmetric_int8(self._array(table), axis=1)
            self._store(f"{table}_int8_rows", values)
            self._store(f"{table}_int8_rows_scale", scales)
        chosen, as_float, scale = (f"{output}_rowwise_row_{part}" for part in ("int8", "float", "scale"))
        return [
            helper.make_node("Gather", [f"{table}_int8_rows", rows], [chosen], axis=0),
            helper.make_node("Cast", [chosen], [as_float], to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [f"{table}_int8_rows_scale", rows], [scale], axis=0),
            helper.make_node("Mul", [as_float, scale], [output]),
        ]

    def _store_matrix(self, weights: str, matrix: str, *, transposed: bool) -> None:
        if matrix in self._quantized_weights:
            return
        self._quantized_weights.add(matrix)
        array = self._array(weights)
        values, scales = _symmetric_int8(array.T if transposed else array, axis=0)
        self._store(matrix, values)
        self._store(f"{matrix}_scale", scales.reshape(-1))
        self._store(f"{matrix}_zero", np.zeros(scales.size, dtype=np.int8))

    def _array(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._graph_constants[name])

    def _store(self, name: str, value: NDArray[Any] | np.generic) -> None:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name))


def _symmetric_int8(matrix: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 values in [-127, 127] and float32 scales such that values * scales is about `matrix`.

    There is one scale for each slice along `axis`; the scales keep that axis with length 1.
    """
    scales = np.maximum(np.abs(matrix).max(axis=axis, keepdims=True) / 127, np.finfo(np.float32).tiny)
    return np.rint(matrix / scales).astype(np.int8), scales.astype(np.float32)


def _attribute(node: onnx.NodeProto, name: str, default: float) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _is_plain(gemm: onnx.NodeProto) -> bool:
    return (
        _attribute(gemm, "alpha", 1.0) == 1.0
        and _attribute(gemm, "beta", 1.0) == 1.0
        and not _attribute(gemm, "transA", 0)
    )
